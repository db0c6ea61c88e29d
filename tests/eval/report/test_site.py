"""The leaderboard of three labs: its numbers are those of their stores, and each leads to its records."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from eval.stats.statistics import estimate
from eval.store import frame
from eval.store.records import UnitRecord, encoded
from eval.store.runs import runs
from jobs import cli
from tests.helpers.labs import METRICS, lab_store

OTHER = ("recall", "echo", "recall-001", 1)
LEFT = ("hard", "infinity_rope", "hard-002", 0)
HOSTILE = "cara <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two labs hand in, and the store of a third."""
    folder = tmp_path_factory.mktemp("labs")
    lab_store(folder / "ann", ["echo", "infinity_rope"], ["recall", "hard"], leave=[LEFT])
    lab_store(folder / "bob", ["echo", "longlive"], otherwise={OTHER: {"world.leakage": 50.125}})
    lab_store(folder / HOSTILE, ["echo"], seeds=[0])
    for name in ("ann", "bob"):
        assert (
            cli.main(["export", *(["--videos"] * (name == "bob")), "--store", f"{folder / name}", "--output", f"{folder / name}.zip"]) == 0
        )
    return folder


@pytest.fixture(scope="module")
def site(labs: Path) -> Path:
    """Their leaderboard."""
    words = [str(labs / name) for name in ("ann.zip", "bob.zip", HOSTILE)]
    assert cli.main(["report", "--site", *words, "--output", str(labs / "site")]) == 0
    return labs / "site"


class Page(HTMLParser):
    """Tables of a page: of each row its cells, texts and the first link of each; all links and names of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows, self.links, self.names = list[list[tuple[str, str]]](), list[str](), set[str]()
        self._cell: list[str] | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.links += [said[name] for name in ("href", "src") if name in said]
        self.names.add(said.get("id", ""))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._cell = ["", ""]
        elif tag == "a" and self._cell is not None:
            self._cell[1] = self._cell[1] or said["href"]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append((" ".join(self._cell[0].split()), self._cell[1]))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell[0] += data


def test_every_number_is_that_of_its_store_and_leads_to_its_records(labs: Path, site: Path) -> None:
    head, *lines = [row for row in Page(site / "index.html").rows if len(row) > 5]
    columns = [(text.split(" ")[0], text) for text, _ in head]
    seen = 0
    stores = {name: frame.videos(labs / name) for name in ("ann", "bob", HOSTILE)}
    records = {(record.unit, name): record for name in stores for run in runs(labs / name) for record in run.records()}
    for row in lines:
        preset, videos = row[0][0].split()[-1].lower(), stores[row[2][0].removesuffix(" ‡")]
        for (task, title), (text, link) in zip(columns[3:], row[3:]):
            metric = next(name for name in METRICS if name.partition(".")[2].replace("_", " ") in title)
            own = videos[(videos.task == {"Hard": "hard", "Scene": "recall"}[task]) & (videos.preset == preset) & (videos.status == "done")]
            values = {(one.prompt, one.seed): float(one[metric]) for _, one in own.iterrows()}
            if not values:
                assert text == "-"
                continue
            mean, expected = sum(values.values()) / len(values), estimate(values)
            assert expected is not None and expected.half_width is not None
            printed = [float(number) for number in re.findall(r"\d+\.\d+", text)]
            assert abs(printed[0] - mean) <= 0.00501 and abs(printed[1] - expected.half_width) <= 0.00501, (row[0], title, text, mean)
            page, _, anchor = link.partition("#")
            below = Page(site / unquote(page))
            assert anchor == metric and anchor in below.names
            label = metric.partition(".")[2].replace("_", " ")
            place = next(number for number, (words, _) in enumerate(below.rows[0]) if words.startswith(label))
            videos_shown = [line for line in below.rows[2:] if len(line) == len(below.rows[0]) and line[place][0] not in ("", "-")]
            shown = {(line[0][0], int(line[1][0])): float(line[place][0]) for line in videos_shown if line[1][0].isdecimal()}
            assert shown == values, "every video's"
            seen += 1
    assert seen == 3 * (2 + 2 + 2 + 1)
    told = re.findall(r"<pre>(.*?)</pre>", unescape("".join(all_pages(site / "labs" / "bob"))), re.S)
    kept = {json.loads(text)["unit"]: text for text in told}
    assert len(kept) == 12
    for unit, text in kept.items():
        assert json.loads(text) == json.loads(encoded(records[unit, "bob"])) and isinstance(records[unit, "bob"], UnitRecord)


def all_pages(folder: Path) -> Iterator[str]:
    """The texts of all pages below a folder."""
    return (path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.html")))


def test_labs_that_differ_are_shown_and_what_is_not_there_says_so(site: Path) -> None:
    page = Page(site / "index.html")
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "Labs disagree in 1 unit." in text and "alert(1)>" not in text and "&lt;img src=x" in text
    (line,) = [row for row in page.rows if row and row[0][0] == "ann and bob"]
    assert line[2][0] == "recall-001" and line[3][0] == "1" and "world.leakage" in line[4][0]
    target, _, anchor = line[0][1].partition("#")
    assert anchor == "u-recall-001-1" and anchor in Page(site / target).names
    marked = {(row[0][0].split()[-1], row[2][0].removesuffix(" ‡")) for row in page.rows if any("‡" in text for text, _ in row)}
    assert marked == {("echo", "ann"), ("echo", "bob")}
    fewer = {(row[0][0].split()[-1], row[2][0]) for row in page.rows if any("†" in text for text, _ in row)}
    assert fewer == {("infinity_rope", "ann"), ("echo", HOSTILE)}
    assert "hard-002" in next(one for one in all_pages(site / "labs" / "ann") if "not made" in one)


def test_all_of_it_lies_in_the_folder(site: Path, tmp_path: Path) -> None:
    """From disk or from any host: every link is relative and leads to what is there; videos that were handed in are."""
    moved, videos = shutil.copytree(site, tmp_path / "elsewhere"), 0
    for path in moved.rglob("*.html"):
        page = Page(path)
        for link in page.links:
            name, _, anchor = link.partition("#")
            assert not re.match(r"[a-z]+:(?!,)|/", name) or name == "data:,", link
            target = path.parent / unquote(name) if name and name != "data:," else path
            assert target.exists() and target.resolve().is_relative_to(moved), link
            assert not anchor or target.suffix != ".html" or unquote(anchor) in (page if target == path else Page(target)).names, link
            videos += target.suffix == ".mp4"
        assert not re.search(r"https?://|fetch\(|XMLHttpRequest", path.read_text(encoding="utf-8"))
    assert videos == 12 + 3
    lines = list(csv.DictReader((moved / "leaderboard.csv").open(encoding="utf-8")))
    assert len(lines) == 21 and {line["lab"] for line in lines} == {"ann", "bob", HOSTILE}
    assert all((moved / line["page"]).exists() for line in lines)


def test_scores_that_do_not_compare_stand_on_boards_of_their_own(labs: Path, tmp_path: Path) -> None:
    """Another text of a prompt, and another scorer: three boards, in each only the labs whose numbers compare."""
    edited, scored = (shutil.copytree(labs / "bob", tmp_path / name) for name in ("edited", "scored"))
    changes = (edited, rb'"prompts":\{"recall-000":"\w', b'"prompts":{"recall-000":"_'), (scored, rb'"scores":"\w', b'"scores":"_')
    for store, pattern, after in changes:
        for path in [*store.rglob("asked/*.json"), *store.rglob("records/*.jsonl")]:
            content = re.sub(pattern, after, path.read_bytes())
            if path.suffix == ".jsonl":
                content = re.sub(rb',"crc32":"\w+"', b"", re.sub(rb'"v":3', b'"v":2', content))
            path.write_bytes(content)
    out = tmp_path / "site"
    next(edited.rglob("*.mp4")).write_bytes(b"another film")
    words = [str(one) for one in (labs / "ann.zip", edited, scored)]
    assert cli.main(["report", "--site", "task=recall", *words, "--output", str(out)]) == 0
    lines = list(csv.DictReader((out / "leaderboard.csv").open(encoding="utf-8")))
    boards = [{line["lab"] for line in lines if line["board"] == board} for board in ("recall", "recall-2", "recall-3")]
    assert sorted(map(sorted, boards)) == [["ann"], ["edited"], ["scored"]]
    verified = {row[0][0]: row[3][0] for row in Page(out / "index.html").rows if len(row) == 4}
    assert verified["ann"] == "as it was written" and verified["edited"].startswith("1 fault") and "has 12 bytes" in verified["edited"]


def test_mistakes_are_told(labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    (tmp_path / "broken.zip").write_bytes((labs / "ann.zip").read_bytes()[:-100])
    for words, line in (
        (["report", str(labs / "ann.zip")], "--site"),
        (["report", "--site", "experiment=table2", str(labs / "ann.zip")], "task=NAME"),
        (["report", "--site", "task=smooth", str(labs / "ann.zip")], "no lab has runs of it"),
        (["report", "--site", "--videos", "relative", str(labs / "ann.zip")], "--videos link"),
        (["report", "--site", str(tmp_path / "broken.zip"), "--output", str(tmp_path / "out")], "broken.zip"),
        (["report", "--site", str(labs / "ann.zip"), "--output", str(tmp_path / "own")], "something else than a report"),
    ):
        assert cli.main(words) == 2
        told = capsys.readouterr().err
        assert line in told and told.count("\n") == 1, told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.zip", "own"]
