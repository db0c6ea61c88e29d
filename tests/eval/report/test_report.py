"""The report's folder: every cell that was asked for, the tables' numbers, what is missing, and nothing from outside."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from echo.files import ROOT
from eval.store.runs import UNSCORED
from jobs import cli
from tests.helpers import reports
from tests.helpers.stores import put, write

NASTY = """a "red" ball's </script><script>alert(1)</script><!-- & \u2028 {{ x }}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store whose prompts are as nasty as texts can be, with failures, and its report."""
    root = reports.store(tmp_path_factory.mktemp("store"), text=NASTY)
    echo, other = (next(root.glob(f"runs/tiny/smooth/{name}/seed=0/*")) for name in ("echo", "self_forcing"))
    reports.ask_more(echo, ["p07", "p08", "p09"])
    reports.film_only(echo, "p09", "p00")
    reports.fail(echo, "p07", f"RuntimeError: {NASTY}")
    (other / "units" / "p01.mp4").unlink()
    out = root / "out"
    words = ["report", "--store", str(root), "--output", str(out)]
    code = f"import sys; from jobs import cli; assert cli.main({words}) == 0; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0, "made without torch"
    return root, out


def data(out):
    return json.loads(re.search(r"const DATA = (.*);</script>", (out / "index.html").read_text(encoding="utf-8"))[1])


def taken(path):
    """The name and the value that a data file hands over."""
    name, _, value = path.read_text(encoding="utf-8").removeprefix("report.take(").removesuffix(")\n").partition(",")
    return json.loads(name), json.loads(value)


class Page(HTMLParser):
    """Scripts, addresses and the cells of all tables."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.addresses, self.tables, self.words, self.inside = 0, [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.addresses += [value for key, value in attributes if key in ("src", "href") and not value.startswith("data:")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th") and self.tables:
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, text):
        self.words.append(text)
        if self.inside:
            self.tables[-1][-1][-1] += text


def test_every_cell_is_there(folder):
    root, out = folder
    (part,) = data(out)["parts"]
    assert [m["id"] for m in part["methods"]] == ["tiny/echo", "tiny/self_forcing", "tiny/render_truth"] and part["seeds"] == [0, 1]
    assert [p["id"] for p in part["prompts"]] == ["p00", "p01", "p02", "p07", "p08", "p09"]
    for method, row in zip(part["methods"], part["cells"]):
        for prompt, cells in zip(part["prompts"], row):
            for seed, entry in zip(part["seeds"], cells):
                where = (method["id"], prompt["id"], seed)
                if where == ("tiny/self_forcing", "p01", 0):
                    assert entry["status"] == "video file gone"
                elif prompt["id"] in ("p07", "p08", "p09"):
                    told = {"p07": "failed", "p08": "not made", "p09": "made, not scored"}[prompt["id"]]
                    assert (entry and entry["status"]) == (told if where[0] == "tiny/echo" and seed == 0 else None), where
                    assert ("data" in (entry or {})) == (where == ("tiny/echo", "p09", 0)), "a video without scores is shown"
                else:
                    name, value = taken(out / f"{entry}.js")
                    assert name == entry and (out / value["video"]).samefile(root / "film.mp4") and value["frames"] == 216
                    assert value["metrics"] == {
                        "proxy.imaging_quality": 90.0 - part["methods"].index(method) + int(where[1][1:]) + seed / 4
                    }


def test_a_cell_has_scores_drift_borders_and_what_was_kept(folder):
    _, out = folder
    (part,) = data(out)["parts"]
    kinds = {letter: kind["name"] for letter, kind in data(out)["kinds"].items()}
    assert part["prompts"][0]["borders"] == [0, 9] and part["frames"] == 216
    _, value = taken(out / f"{part['cells'][0][0][0]}.js")
    assert value["borders"] == [0, 9] and value["segments"] == [[0, 108], [108, 216]] and value["lead"] == 0
    assert [row["proxy.imaging_quality"] for row in value["per_segment"]] == [91.25, 92.25]
    first, second = value["per_segment"]
    assert (second["world.recall_fidelity"], second["world.leakage"]) == (75.5, 25.0) and "world.leakage" not in first
    assert (
        data(out)["metrics"]["world.leakage"]["label"] == "leakage (world)" and data(out)["metrics"]["world.leakage"]["better"] == "lower"
    )
    assert value["drift"]["quality"] == [80.0 + b for b in range(18)] and value["drift"]["place_right"][5:7] == [0.0, 100.0]
    _, trace = taken(out / f"{value['trace']}.js")
    assert trace["certain"] and [list(map(list, zip(*pair))) for pair in zip(trace["sources"], trace["positions"])] == [
        line["keys"] for line in reports.trace("echo")
    ]
    names = [kinds[letter] for letter in trace["kinds"][10]]
    assert names == ["recalled", "old scene", "old scene", *["anchors"] * 3, *["this block"] * 3] and trace["faded"][10] == 3
    assert "compressed" in [kinds[letter] for letter in trace["kinds"][8]]
    rendered = taken(out / f"{part['cells'][2][0][0]}.js")[1]
    assert rendered["trace"] is None and rendered["borders"] == [0, 9]


def test_numbers_are_the_tables(folder, capsys):
    root, out = folder
    assert cli.main(["tables", "--store", str(root)]) == 0
    capsys.readouterr()
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    rows = {row[0]: [cell.strip() for cell in row[2:]] for row in page.tables[0] if len(row) > 2}
    for line in csv.DictReader((root / "tables" / "smooth.csv").open(encoding="utf-8")):
        shown = re.fullmatch(r"(-?[\d.]+) ± ([\d.]+)(†?)", rows[line["method"]][0])
        assert float(shown[1]) == pytest.approx(float(line["imaging_quality"]), abs=0.0051)
        assert float(shown[2]) == pytest.approx(float(line["imaging_quality_ci95"]), abs=0.0051)
        assert bool(shown[3]) == (line["videos"] != line["videos_asked"])
    assert page.tables[1][1] == ["Self Forcing", "6", "-1.00 ± 0.00*"]
    for ending in ("csv", "md", "tex", "meta.json"):
        assert (out / "tables" / f"smooth.{ending}").read_bytes() == (root / "tables" / f"smooth.{ending}").read_bytes()


def test_failed_and_missing_are_listed(folder):
    _, out = folder
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    lacks = next(table for table in page.tables if table[0][:3] == ["Task", "Method", "Prompts"])[1:]
    told = {(row[1], row[2], row[3], row[4]) for row in lacks}
    assert told == {
        ("Echo, tiny", "p07", "0", "failed"),
        ("Echo, tiny", "p08", "0", "not made"),
        ("Echo, tiny", "p09", "0", "made, not scored"),
        ("Self Forcing, tiny", "p01", "0", "video file gone"),
    }
    why = next(row[5] for row in lacks if row[4] == "failed")
    assert why.startswith(f"RuntimeError: {NASTY}")
    (traceback,) = [name for name in page.addresses if name.startswith("errors/")]
    assert (out / traceback).read_text(encoding="utf-8").startswith("Traceback")


def test_texts_cannot_leave_their_place(folder):
    _, out = folder
    text = (out / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.scripts == 3 and "alert(1)</script>" not in text and "<!--" not in text
    assert data(out)["parts"][0]["prompts"][1]["texts"] == [f"{NASTY} 1", f"then {NASTY} 1"]
    for path in out.rglob("*.js"):
        assert "<" not in path.read_text(encoding="utf-8")


def test_the_folder_needs_nothing_else(folder):
    _, out = folder
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "tables/smooth.csv" in page.addresses and any(name.startswith("runs/") for name in page.addresses)
    for name in page.addresses:
        assert name.startswith("#") or (out / name).is_file(), name
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", (out / "index.html").read_text(encoding="utf-8"))


def test_provenance_of_every_run(folder):
    root, out = folder
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    lines = next(table for table in page.tables if table[0][:2] == ["Run", "Method, task"])[1:]
    assert len(lines) == 6
    text = " ".join(lines[0])
    for words in (
        "01795389471214966212-735a2d6b",
        "2026-11-22 23:17:51",
        "c0ffeec0ffee",
        "vm",
        "a processor",
        "run.py task=smooth",
        "torch 2.13.0",
    ):
        assert words in text, words
    for path in root.glob("runs/*/*/*/*/*/run.json"):
        kept = json.loads((out / "runs" / f"{path.parent.name}.json").read_text(encoding="utf-8"))
        assert kept["run"] == json.loads(path.read_text(encoding="utf-8")) and len(kept["attempts"]) == 1


def test_drift_is_that_of_the_figure(folder):
    from eval.figures.drift import drifts
    from eval.store.rows import newest

    root, out = folder
    _, lines = taken(out / "drift" / "smooth.js")
    found = {drift.row.preset: drift for drift in drifts(newest(root, "smooth"), 9)[0]}
    (part,) = data(out)["parts"]
    for line in lines:
        curve = found[part["methods"][line["method"]]["id"].removeprefix("tiny/")].curves["quality"]
        assert line["curves"]["quality"]["mean"] == [round(float(value), 2) for value in curve.mean] and line["videos"] == curve.videos


def test_an_edited_prompt_set_tells_no_texts(tmp_path):
    root = reports.store(tmp_path, 1, (0,), methods=("echo",))
    reports.prompts(root / "prompts.jsonl", 1, "another ball")
    assert cli.main(["report", "--store", str(root), "--output", str(root / "out")]) == 0
    prompt = data(root / "out")["parts"][0]["prompts"][0]
    assert prompt["texts"] == [] and prompt["borders"] == [0, 9]


def test_videos_are_linked_copied_or_left(tmp_path):
    root = reports.store(tmp_path, 1, (0,), methods=("echo",))
    found = {}
    for ways in ("link", "copy", "relative"):
        out = tmp_path / "reports" / ways
        assert cli.main(["report", "--store", str(root), "--videos", ways, "--output", str(out)]) == 0
        entry = data(out)["parts"][0]["cells"][0][0][0]
        found[ways] = out / unquote(taken(out / f"{entry}.js")[1]["video"])
    assert all(path.read_bytes() == (root / "film.mp4").read_bytes() for path in found.values())
    assert found["link"].samefile(root / "film.mp4") and found["relative"].samefile(root / "film.mp4")
    assert not found["copy"].samefile(root / "film.mp4") and not list((tmp_path / "reports" / "relative").rglob("*.mp4"))


def test_a_report_is_replaced_and_nothing_else(tmp_path, capsys):
    root = reports.store(tmp_path, 1, (0,), methods=("echo",))
    out = tmp_path / "out"
    assert cli.main(["report", "--store", str(root), "--output", str(out)]) == 0
    (out / "cells" / "left.js").write_text("")
    assert cli.main(["report", "--store", str(root), "--output", str(out)]) == 0 and not (out / "cells" / "left.js").exists()
    (out / "report.json").unlink()
    capsys.readouterr()
    assert cli.main(["report", "--store", str(root), "--output", str(out)]) == 2
    error = capsys.readouterr().err
    assert "something else than a report" in error and error.count("\n") == 1
    assert (out / "index.html").is_file() and not list(tmp_path.glob(".out.*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=tabel2"], r"experiment=tabel2: .*nearest is table2 of table1, table2"),
        (["task=smoth"], r"task=smoth: .*nearest is smooth of"),
        (["experiment=table1", "task=smooth"], "experiment=table1 has no runs of task=smooth"),
        (["--videos", "lnik"], "--videos lnik: nearest is link of link, copy, relative"),
        (["experimnet=table2"], "nearest is experiment="),
    ],
)
def test_other_words_are_refused(words, message, tmp_path, capsys):
    for task, experiment in (("smooth", "table2"), ("long60", "table1")):
        run = put(tmp_path, task, "echo", {"p": {"proxy.imaging_quality": 1.0}})
        wish = json.loads(next((run / "asked").glob("*.json")).read_text(encoding="utf-8"))
        wishes = [{"path": run.relative_to(tmp_path / "runs").as_posix(), **wish}]
        (tmp_path / "sweeps").mkdir(exist_ok=True)
        content = {"v": 1, "experiment": experiment, "task": task, "runs": wishes}
        (tmp_path / "sweeps" / f"{experiment}-{task}.json").write_text(json.dumps(content), encoding="utf-8")
    assert cli.main(["report", "--store", str(tmp_path), "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_folder_that_is_no_store_is_refused(tmp_path, capsys):
    assert cli.main(["report", "--store", str(tmp_path / "none")]) == 2
    assert "no run store" in capsys.readouterr().err


def test_runs_that_were_asked_for_and_never_began_are_listed(tmp_path):
    root = reports.store(tmp_path, 1, (0,), methods=("echo",))
    run = next(root.glob("runs/*/*/*/*/*"))
    wish = json.loads(next((run / "asked").glob("*.json")).read_text(encoding="utf-8"))
    paths = [run.relative_to(root / "runs").as_posix(), "tiny/smooth/memrope/seed=3/0123"]
    content = {"v": 1, "experiment": "table2", "task": "smooth", "runs": [{"path": path, **wish} for path in paths]}
    (root / "sweeps").mkdir()
    (root / "sweeps" / "table2-smooth.json").write_text(json.dumps(content), encoding="utf-8")
    assert cli.main(["report", "--store", str(root), "experiment=table2"]) == 0
    page = Page((root / "report" / "table2" / "index.html").read_text(encoding="utf-8"))
    lacks = next(table for table in page.tables if table[0][:3] == ["Task", "Method", "Prompts"])[1:]
    assert [row[:5] for row in lacks] == [["table2-smooth", "tiny/memrope", "p00", "3", "run not begun"]]


def test_videos_that_nobody_scored_are_shown(tmp_path):
    root = reports.store(tmp_path, 2, (0,), methods=("echo",))
    (asked,) = root.glob("runs/*/*/*/*/*/asked/*.json")
    (records,) = root.glob("runs/*/*/*/*/*/records/*.jsonl")
    wish = json.loads(asked.read_text(encoding="utf-8"))
    asked.write_text(json.dumps(wish | {"scores": None, "scorer": {"name": "none", "label": "not scored", "key": None}}), encoding="utf-8")
    records.write_text(records.read_text(encoding="utf-8").replace('"scores": "s0"', '"scores": null'), encoding="utf-8")
    assert cli.main(["report", "--store", str(root), "--output", str(root / "out")]) == 0
    (part,) = data(root / "out")["parts"]
    assert part["methods"][0]["id"] == "tiny/echo" and all(isinstance(cells[0], str) for cells in part["cells"][0])
    sweep = {"v": 1, "experiment": "bounds", "task": "smooth", "runs": []}
    sweep["runs"] = [{"path": asked.parents[1].relative_to(root / "runs").as_posix(), **json.loads(asked.read_text(encoding="utf-8"))}]
    write(root / "sweeps" / f"bounds-smooth{UNSCORED}.json", sweep)
    assert cli.main(["report", "--store", str(root), "experiment=bounds"]) == 0, "known by the experiment that asked for it"
    (known,) = data(root / "report" / "bounds")["parts"]
    assert known["cells"] == part["cells"] and known["id"] == f"bounds-smooth{UNSCORED}"
    page = Page((root / "out" / "index.html").read_text(encoding="utf-8"))
    assert not (root / "out" / "tables").exists() and "Nothing: every video that was asked for is here." in "".join(page.words)
