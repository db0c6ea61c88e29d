"""Rating pages: what is shown and what is hidden, the lot, the order, and which answers count."""

from __future__ import annotations

import copy
import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import msgspec
import pytest

from data.outgoing import harmless
from echo.files import ROOT
from eval.study import choice
from eval.study.answers import RaterAnswers, _manners
from eval.study.files import AnswersFile, GroupAnswers, StudyKey
from eval.study.form import read_form
from eval.study.order import order_of, shuffled, stirred
from eval.study.page import strip
from eval.tables import opinions
from jobs import cli
from tests.helpers import studies

CRITERIA = list(opinions.CRITERIA)
RATERS = [f"{number:016x}" for number in (0xA1, 0xB2, 0xC3, 0xD4)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tasks with four prompts; one of recall lacks a video, one of smooth was edited since."""
    folder = tmp_path_factory.mktemp("study")
    made = studies.store(folder, lacking=(("recall", "longlive", "recall-001"),))
    (asked,) = made.glob("runs/tiny/smooth/echo/*/*/asked/*.json")
    asked.write_text(asked.read_text(encoding="utf-8").replace("d-smooth-002", "d-edited"), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def page(store: Path) -> tuple[Path, dict]:
    """A study of three groups each, and its key."""
    folder = store.parent / "page"
    assert cli.main(["study", "build", "--store", str(store), "groups=3", "--output", str(folder)]) == 0
    return folder, json.loads(folder.with_name("page.key.json").read_text(encoding="utf-8"))


def test_key_says_which_video_is_whose(page, store):
    """By the pictures: brightness is that of the method and the prompt."""
    folder, key = page
    assert {path.name for path in folder.iterdir()} == {"index.html", "videos"}
    assert Counter(group["task"] for group in key["groups"].values()) == dict.fromkeys(studies.METHODS, 3)
    names = set()
    for group in key["groups"].values():
        expected = set(studies.METHODS[group["task"]]) - {"render_truth"}
        assert {shown["method"] for shown in group["videos"].values()} == expected
        for name, shown in group["videos"].items():
            level = studies.COLOURS[shown["method"]] + 4 * int(group["prompt"][-3:])
            assert abs(studies.level_of(folder / "videos" / f"{name}.mp4") - level) <= 1
            assert shown["backbone"] == ("tiny_long" if shown["method"] == "longlive" else "tiny")
            names.add(f"{name}.mp4")
    assert names == {path.name for path in (folder / "videos").iterdir()} and len(names) == 33


def test_folder_names_no_method(page):
    """Neither in the page nor in the bytes of a video, nor by a file's time or an order."""
    folder, key = page
    words = [*studies.COLOURS, "echo", "forcing", "longlive", "tiny", "Self Forcing", "x264", "Lavc", "smooth-0", "recall-0", "long60-0"]
    for path in [folder / "index.html", *(folder / "videos").iterdir()]:
        content = path.read_bytes().lower()
        if path.suffix == ".html":  # texts of scenes are shown as they are, and here they name their prompt
            for group in key["groups"].values():
                content = content.replace(f"of {group['prompt']}:".encode(), b"")
        for word in words:
            assert word.lower().encode() not in content, (path.name, word)
    assert len({path.stat().st_mtime for path in folder.rglob("*.*")}) == 1
    data = data_of(folder)
    for task in data["tasks"]:
        assert [g["id"] for g in task["groups"]] == sorted(g["id"] for g in task["groups"])
        assert all(g["videos"] == sorted(g["videos"]) for g in task["groups"])


def data_of(folder: Path) -> dict:
    """What the page's script is given."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    return json.JSONDecoder().raw_decode(text, text.index("const STUDY = ") + len("const STUDY = "))[0]


def test_page_has_texts_criteria_and_ends(page):
    folder, key = page
    data = data_of(folder)
    assert (data["study"], data["page"]) == (key["study"], key["page"])
    assert [one["id"] for one in data["criteria"]] == CRITERIA and data["points"] == [1, 2, 3, 4, 5] and data["ends"] == ["worst", "best"]
    for task in data["tasks"]:
        for group in task["groups"]:
            prompt = key["groups"][group["id"]]["prompt"]
            starts = [0.0] if task["id"] == "long60" else [0.0, 0.75]
            assert [scene["at"] for scene in group["scenes"]] == starts
            assert [scene["text"] for scene in group["scenes"]] == [
                f"scene {n} of {prompt}: a </script> & <b>ball</b>" for n in range(len(starts))
            ]
            assert (group["frames"], group["fps"], group["width"]) == (24, 16, 48)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<b>ball" not in text and "http" not in text.replace('startsWith("http")', "")


def drawn(key: dict) -> dict[str, list[str]]:
    """Prompts by task."""
    return {task: [g["prompt"] for g in key["groups"].values() if g["task"] == task] for task in studies.METHODS}


def test_lot_is_the_draws_and_names_are_nobodys(page, store, tmp_path):
    _, key = page
    others = {}
    for draw in (0, 1):
        assert cli.main(["study", "build", "--store", str(store), "groups=3", f"draw={draw}", "--output", str(tmp_path / f"s{draw}")]) == 0
        others[draw] = json.loads((tmp_path / f"s{draw}.key.json").read_text(encoding="utf-8"))
    assert drawn(others[0]) == drawn(key) != drawn(others[1]) and key["draw"] == 0 and key["seeds"] == [0]
    assert "recall-001" not in drawn(key)["recall"] and "smooth-002" not in drawn(key)["smooth"], "not all methods have it of the same text"
    assert key["tasks"]["recall"]["prompts drawn from"] == 3 and key["tasks"]["long60"]["not in the store"][0] == "infinity_rope"
    assert not set(others[0]["groups"]) & set(key["groups"]) and others[0]["study"] != key["study"]


def test_copies_show_the_same_pixels_and_say_nothing(tmp_path):
    source = studies.film(tmp_path / "echo.mp4", 90, title="echo by tiny")
    assert b"echo by tiny" in source.read_bytes() and b"x264" in source.read_bytes()
    strip(source, tmp_path / "copy.mp4")
    content = (tmp_path / "copy.mp4").read_bytes()
    assert b"echo" not in content and b"tiny" not in content and b"x264" not in content
    frames = []
    for path in (source, tmp_path / "copy.mp4"):
        with av.open(str(path)) as container:
            frames.append([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)])
    assert len(frames[0]) == 24 and all((one == other).all() for one, other in zip(*frames, strict=True))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["groups=5"], ["task long60: 4 prompts have videos of all of", "groups=5", "python run.py method=", "task=long60", "prompts=5"]),
        (["groups=4", "task=recall"], ["3 prompts", "python run.py method=longlive task=recall seed=0 prompts=4 eval=none store="]),
        (["method=echo,memrope"], ["task long60: no videos of method=memrope", "python run.py method=memrope task=long60"]),
        (["seed=7"], ["task long60: no videos, at seed=7", "python run.py method=self_forcing,"]),
        (["method=echo"], ["videos of tiny/echo alone, raters compare two"]),
        (["method=echo,echo"], ["method=echo is named twice"]),
        (["task=long6"], ["task=long6: people rate", "nearest is long60"]),
        (["task="], ["no task; nearest is"]),
        (["task=hard", "method.smooth=echo"], ["method.smooth=echo: smooth is not in task=hard"]),
        (["groups=0"], ["groups=0: a whole number of 1 or more"]),
        (["sed=0"], ["sed=0: not understood; nearest is "]),
        (["--store", "nowhere"], ["--store nowhere: no run store"]),
        (["groups=1", "--key", "{out}/k.json"], ["lies in the folder that raters get", "out.key.json"]),
    ],
)
def test_build_refuses_before_any_work(store, tmp_path, capsys, words, parts):
    out = tmp_path / "out"
    assert cli.main(["study", "build", "--store", str(store), *(word.format(out=out) for word in words), "--output", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and all(part in told for part in parts), told
    assert not list(tmp_path.iterdir())


def test_too_few_prompts_names_every_method_that_lacks_some_and_who_is_left_out(tmp_path, capsys):
    lacking = (("hard", "echo", "hard-001"), ("hard", "longlive", "hard-002"), ("hard", "longlive", "hard-003"))
    made = studies.store(tmp_path, 4, lacking, {"hard": ("self_forcing_recache", "echo", "longlive")})
    assert cli.main(["study", "build", "--store", str(made), "task=hard", "groups=3", "--output", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "1 prompts have videos of all of " in line, line
    assert (
        "(echo has 3, longlive has 2 of 4), groups=3 are asked for; make them with python run.py method=echo,longlive task=hard" in line
    ), line
    assert line.endswith("left out are infinity_rope, of which the store has no videos at these seeds\n"), line


def test_a_key_is_never_written_over(store, tmp_path, capsys):
    key = tmp_path / "out.key.json"
    key.write_text("precious", encoding="utf-8")
    assert cli.main(["study", "build", "--store", str(store), "groups=1", "--output", str(tmp_path / "out")]) == 2
    assert "cannot be read without it" in capsys.readouterr().err and key.read_text(encoding="utf-8") == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out.key.json"]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    assert cli.main(["study", "build", "--store", str(store), "groups=1", "--output", str(tmp_path / "there")]) == 2
    assert "there is something already" in capsys.readouterr().err


def test_videos_of_other_form_or_lost_texts_are_refused(tmp_path, capsys):
    made = studies.store(tmp_path, 2, methods={"hard": ("echo", "longlive")})
    words = ["build", "--store", str(made), "task=hard", "--output", str(tmp_path / "out")]
    (run,) = made.glob("runs/tiny/hard/echo/*/*")
    studies.film(run / "units" / "hard-001.mp4", 9, size=96)
    assert cli.main(["study", *words, "groups=1"]) == 0
    assert drawn(json.loads((tmp_path / "out.key.json").read_text(encoding="utf-8")))["hard"] == ["hard-000"]
    words[-1] = str(tmp_path / "out2")
    assert cli.main(["study", *words, "groups=2"]) == 2
    assert "hard-001 is h264 96x96, 24 frames" in capsys.readouterr().err
    (tmp_path / "prompts" / "hard.jsonl").unlink()
    assert cli.main(["study", *words, "groups=1"]) == 2
    assert "raters must see the text of hard-000, but its prompt set" in capsys.readouterr().err
    (run / "units" / "hard-000.mp4").unlink()
    assert cli.main(["study", *words, "groups=1"]) == 2
    assert "hard-000.mp4: the store's record names this video and it is not there" in capsys.readouterr().err


def test_a_prompt_is_shown_once_whatever_the_seeds(tmp_path, capsys):
    for seed in (0, 1):
        made = studies.store(tmp_path, 3, methods={"hard": ("echo", "longlive")}, seed=seed)
    words = ["build", "--store", str(made), "task=hard", "seed=0,1", "--output", str(tmp_path / "out")]
    assert cli.main(["study", *words, "groups=4"]) == 2 and "3 prompts have videos of all of" in capsys.readouterr().err
    assert cli.main(["study", *words, "groups=3"]) == 0
    key = json.loads((tmp_path / "out.key.json").read_text(encoding="utf-8"))
    assert sorted(drawn(key)["hard"]) == studies.prompts_of("hard", 3)
    assert {group["seed"] for group in key["groups"].values()} == {0, 1}


def test_the_very_same_video_of_two_methods_is_told(tmp_path, capsys):
    made = studies.store(tmp_path, 1, methods={"hard": ("echo", "longlive")})
    (one,), (other,) = made.glob("runs/tiny/hard/echo/*/*/units/*.mp4"), made.glob("runs/tiny_long/hard/longlive/*/*/units/*.mp4")
    one.write_bytes(other.read_bytes())
    assert cli.main(["study", "build", "--store", str(made), "task=hard", "groups=1", "--output", str(tmp_path / "out")]) == 0
    assert "hard: tiny/echo and tiny_long/longlive show the very same video in 1 group:" in capsys.readouterr().out


FORM = """
title: Which <film> is better?
text: |
  We compare films.

  It takes ten minutes.
consent: I am of age & take part of my own will.
thanks: You have helped us.
finish: https://app.prolific.com/submissions/complete?cc=C0FFEE
rater: PROLIFIC_PID
criteria: {camera: Is the camera steady?, text_alignment: Does it show the text?}
practice: This group is for practice.
checks: 3
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> tuple[Path, dict]:
    """A study of a group of two tasks each by a form of its own, and its key."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "study.yaml").write_text(FORM, encoding="utf-8")
    made = studies.store(folder, 4)
    words = ["task=hard,long60", "groups=1", "--form", str(folder / "study.yaml"), "--output", str(folder / "page")]
    assert cli.main(["study", "build", "--store", str(made), *words]) == 0
    return folder / "page", json.loads((folder / "page.key.json").read_text(encoding="utf-8"))


def test_a_form_gives_a_study_its_words_practice_and_checks(own):
    folder, key = own
    text = (folder / "index.html").read_text(encoding="utf-8")
    said = ["Which &lt;film&gt; is better?", "<p>We compare films.</p>", "<p>It takes ten minutes.</p>", "I am of age &amp; take part"]
    for part in [*said, "You have helped us.", 'href="https://app.prolific.com/submissions/complete?cc=C0FFEE"', "Is the camera steady?"]:
        assert part in text, part
    kinds = Counter((group["task"], group.get("check", 0)) for group in key["groups"].values())
    assert kinds == {("hard", 0): 1, ("long60", 0): 1, ("practice", 0): 1, ("hard", 2): 2, ("long60", 4): 1}
    assert len({group["prompt"] for group in key["groups"].values() if group["task"] != "long60"}) == 4, "none is shown twice"
    assert key["criteria"] == ["camera", "text_alignment"] and key["consent"]
    tasks = studies.tasks_of(key)
    assert all(order_of(str(rater), tasks)[0]["task"] == "practice" for rater in range(40))


def test_the_form_of_the_documents_is_one(tmp_path):
    (tmp_path / "study.yaml").write_text(
        (ROOT / "docs" / "study.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0], encoding="utf-8"
    )
    form = read_form(tmp_path / "study.yaml")
    assert all(msgspec.structs.asdict(form).values()), "it shows every key"


def test_practice_and_checks_never_count_and_a_failed_check_does(own, tmp_path, capsys):
    _, key = own
    (tmp_path / "own.key.json").write_text(json.dumps(key), encoding="utf-8")
    sent = tmp_path / "sent"
    sent.mkdir()
    check = next(name for name, group in key["groups"].items() if group.get("check") == 4)

    def answer(name: str, rater: int, **changes: object) -> dict:
        made = studies.answers(key, f"{rater:016x}", lambda *_: 1 + rater % 5, consented="2026-01-01", participant=f"P{rater}", **changes)
        for index, group in enumerate(made["groups"].values()):  # no two groups alike
            for video, ratings in group["ratings"].items():
                if not key["groups"][list(made["groups"])[index]].get("check"):
                    ratings["camera"] = [1 + (index + len(video + video[0]) + int(video, 16)) % 5, 1.0]
        put(sent / f"{name}.json", made)
        return made

    answer("good", 1)
    failed = answer("failed", 2)
    next(iter(failed["groups"][check]["ratings"].values()))["camera"] = [5, 1.0]
    put(sent / "failed.json", failed)
    silent = answer("silent", 3)
    put(sent / "silent.json", silent | {"consented": ""})
    put(sent / "twice.json", answer("twice", 4) | {"participant": "P1", "saved": "2020-01-01"})
    put(sent / "odd.json", answer("odd", 5) | {"participant": "<b> x"})
    assert collected(sent) == 0
    said = capsys.readouterr().out
    for part in (
        "failed.json: attention: 1 of 3 checks",
        "silent.json: consent: ",
        "twice.json: rater: rater P1 again",
        "odd.json: damaged: ",
    ):
        assert part in said, said
    assert "1 rater counted, 4 files left out, 10 ratings" in said, said  # 2 + 3 videos of the groups that count, two criteria
    ratings = opinions.read(tmp_path / "ratings.csv")
    assert set(ratings["task"]) == {"hard", "long60"} and set(ratings["criterion"]) == {"camera", "text_alignment"}
    assert set(ratings["rater"]) == {f"{1:016x}"}, "a participant's name is not published"
    assert collected(sent, "keep=attention") == 0 and "2 raters counted" in capsys.readouterr().out
    assert cli.main(["tables", "table5", f"ratings={tmp_path / 'ratings.csv'}", "--store", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("titel: x", "titel: no such key; nearest is title"),
        ("title: ''", "title: it is empty"),
        ("finish: http://x.org", "finish: 'http://x.org' is no https address"),
        ("rater: a b", "rater: 'a b' is no key of an address"),
        ("criteria: {Camera: x}", "criteria: 'Camera': a name in small letters"),
        ("criteria: {camera: ' '}", "criteria: 'camera': a name in small letters"),
        ("checks: 13", "checks: 13: 0 to 12"),
        ("checks: two", "Expected `int`, got `str` - at `$.checks`"),
        ("[a, b", "study.yaml: "),
        ("just words", "Expected `object`"),
        (None, "No such file"),
    ],
)
def test_a_form_that_is_none_is_refused(store, tmp_path, capsys, text, part):
    if text is not None:
        (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    words = ["--store", str(store), "--form", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out")]
    assert cli.main(["study", "build", *words]) == 2
    line = capsys.readouterr().err
    assert part in line and line.count("\n") == 1, line
    assert not (tmp_path / "out").exists()


def test_orders_are_fair_and_a_raters_own():
    assert len({stirred(f"{number}") for number in range(10_000)}) > 9_990
    names = [f"{number:x}" for number in range(5)]
    places = Counter((name, place) for rater in range(4000) for place, name in enumerate(shuffled(f"{rater:016x}", names)))
    assert all(abs(places[name, place] - 800) < 120 for name in names for place in range(5)), "each is as often in each place"
    pairs = Counter(tuple(shuffled(f"{rater:016x}", names)[:2]) for rater in range(4000))
    assert len(pairs) == 20 and max(pairs.values()) < 290, "whoever is first says nothing of who is second"
    tasks = {"t1": {"g1": ["a", "b"], "g2": ["c", "d"]}, "t2": {"g3": ["e", "f"]}}
    assert order_of("1", tasks) == order_of("1", tasks) and len({str(order_of(str(n), tasks)) for n in range(40)}) > 10


def points(rater: int):
    """Ratings that differ between methods, prompts, criteria and raters."""
    shift = {"echo": 2, "longlive": 1}

    def given(group, shown, criterion):
        return 1 + (shift.get(shown["method"], 0) + CRITERIA.index(criterion) + int(group["prompt"][-1]) + rater) % 5

    return given


@pytest.fixture
def sent(page, tmp_path):
    """A folder of four raters' answers, the key beside it."""
    _, key = page
    folder = tmp_path / "sent"
    folder.mkdir()
    (tmp_path / "own.key.json").write_text(json.dumps(key), encoding="utf-8")
    for index, rater in enumerate(RATERS):
        put(folder / f"{index}.json", studies.answers(key, rater, points(index)))
    return folder


def put(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def collected(sent: Path, *words: str) -> int:
    return cli.main(["study", "collect", str(sent), *words, "--output", str(sent.parent / "ratings.csv")])


def test_answers_fill_both_tables(page, sent, tmp_path, capsys):
    """Means of the tables against means of what the raters gave."""
    _, key = page
    assert collected(sent) == 0
    told = capsys.readouterr().out
    assert "4 raters counted, 0 files left out, 528 ratings" in told and "echo-harness tables table5 ratings=" in told
    ratings = tmp_path / "ratings.csv"
    assert len(opinions.read(ratings)) == 528
    for table in opinions.TABLES:
        assert cli.main(["tables", table, f"ratings={ratings}", "--store", str(tmp_path)]) == 0
        rows = list(csv.DictReader((tmp_path / "tables" / f"{table}.csv").open(encoding="utf-8")))
        own = [g for g in key["groups"].values() if g["task"] in opinions.TASKS[table]]
        for row in rows:
            for criterion in CRITERIA:
                given = [
                    points(rater)(group, shown, criterion)
                    for group in own
                    for shown in group["videos"].values()
                    if shown["method"] == row["preset"]
                    for rater in range(4)
                ]
                assert given and float(row[criterion]) == pytest.approx(sum(given) / len(given), abs=1e-4)
        names = ["self_forcing", "echo"] if table == "table4" else ["self_forcing_recache", "echo", "longlive"]
        assert [row["preset"] for row in rows] == names


def broken(key: dict, sent: Path) -> dict[str, str]:
    """Files that break rules, by name, and what must be told of each."""
    good = json.loads((sent / "0.json").read_text(encoding="utf-8"))
    first = next(iter(good["groups"]))
    video = next(iter(good["groups"][first]["ratings"]))

    def other(rater: str, change) -> dict:
        made = studies.answers(key, rater, points(3))
        change(made)
        return copy.deepcopy(made)

    def straight(count: int):
        def change(made):
            for group in list(made["groups"].values())[:count]:
                group["ratings"] = {name: {c: [3, 1.0] for c in own} for name, own in group["ratings"].items()}

        return change

    def hasty(count: int):
        return lambda made: [group.update(spent_s=0.7) for group in list(made["groups"].values())[:count]]

    changes = {
        "short": lambda made: made["groups"][first]["ratings"][video].pop(CRITERIA[0]),
        "study": lambda made: made.update(study="0" * 16),
        "order": lambda made: made["order"].reverse(),
        "seven": lambda made: made["groups"][first]["ratings"][video].update({CRITERIA[0]: [7, 1.0]}),
        "true": lambda made: made["groups"][first]["ratings"][video].update({CRITERIA[0]: [True, 1.0]}),
        "video": lambda made: made["groups"][first]["ratings"].update({"x": {}, "y": {CRITERIA[0]: [3, 1.0]}}),
        "lost": lambda made: made.pop("order"),
        "alike": straight(7),
        "nearly": straight(6),
        "hasty": hasty(7),
        "quick": hasty(6),
    }
    for index, (name, change) in enumerate(changes.items()):
        put(sent / f"{name}.json", other(f"{index + 1:016x}", change))
    (sent / "again.json").write_bytes((sent / "0.json").read_bytes())
    put(sent / "older.json", studies.answers(key, RATERS[1], points(2), saved="2025-01-01T00:00:00.000Z"))
    (sent / "torn.json").write_text(json.dumps(good)[:500], encoding="utf-8")
    put(sent / "else.json", {"hello": 1})
    return {
        "short": "missing: 1 of 132 answers are missing, in 1 of 12 groups",
        "study": "study: answers to study 0000000000000000, the key is of",
        "order": "damaged: the order is not the one",
        "seven": "damaged: text_alignment of",
        "true": "got True; a whole number from 1 to 5",
        "video": "damaged: video y is not in group",
        "lost": "damaged: something lacks",
        "alike": "straight: all the same points in 7 of 12 groups",
        "hasty": "fast: 7 of 12 groups were left in under half",
        "again": "copy: the same bytes as 0.json",
        "older": f"rater: rater {RATERS[1]} again (132 answers, 1.json has 132 and is newer)",
        "torn": "damaged: not whole JSON",
        "else": "damaged: no answers of a rating page",
    }


@pytest.mark.parametrize(("keep", "raters"), [("", 6), ("missing", 7), ("all", 9)])
def test_each_rule_is_named_in_a_line(page, sent, capsys, keep, raters):
    expected = broken(page[1], sent)
    assert collected(sent, *([f"keep={keep}"] if keep else [])) == 0
    told = capsys.readouterr().out
    for name, part in expected.items():
        (line,) = [line for line in told.splitlines() if line.startswith(f"{name}.json:")]
        assert part in line.replace(" (kept)", ""), line
        assert (" (kept)" in line) == (name in {"missing": ["short"], "all": ["short", "alike", "hasty"]}.get(keep, [])), line
    assert f"{raters} raters counted, {19 - raters} files left out" in told and "rule straight (1" in told
    counted = set(opinions.read(sent.parent / "ratings.csv")["rater"])
    assert len(counted) == raters and {*RATERS, f"{9:016x}", f"{11:016x}"} <= counted, "nearly alike and quick ones count"


def test_no_file_stops_the_collection(page, sent, tmp_path, capsys):
    """What people and attackers send: each costs itself, is named on a line of its own, and moves no cursor."""
    good = studies.answers(page[1], f"{1:016x}", points(3))
    group = next(iter(good["groups"]))

    def changed(text: str, *path: object) -> bytes:
        made = copy.deepcopy(good)
        place = made
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "HERE"
        return json.dumps(made).replace('"HERE"', text).encode()

    video = next(iter(good["groups"][group]["ratings"]))
    bad = {
        "deep": changed("[" * 200_000 + "]" * 200_000, "extra"), "nested": b"[" * 300_000, "digits": changed("9" * 5000, "v"),
        "points": changed("9" * 5000, "groups", group, "ratings", video, CRITERIA[0]), "nan": changed("NaN", "groups", group, "spent_s"),
        "infinite": changed("1e999", "groups", group, "spent_s"), "endless": changed("1e300", "groups", group, "spent_s"),
        "backwards": changed("-1", "groups", group, "played_s"), "utf16": json.dumps(good).encode("utf-16"), "empty": b"",
        "emoji": changed('"\\ud83d"', "saved"), "colour": changed('"\\u001b[2Jclear"', "study"), "zeros": bytes(100),
        "long": changed('"' + "y" * 100_000 + '"', "rater"),
    }  # fmt: skip
    for name, content in bad.items():
        (sent / f"{name}.json").write_bytes(content)
    (sent / "folder.json").mkdir()
    os.mkfifo(sent / "pipe.json")
    (sent / "circle.json").symlink_to("circle.json")
    (sent / "large.json").write_bytes(b" " * (2**24 + 1))
    (sent / "x\x1b[2J\nall is well.json").write_bytes(b"{}")
    (sent / "._0.json").write_bytes(b"\0\5\26\7")
    assert collected(sent) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and "4 raters counted" in told and max(map(len, told.splitlines())) < 500, told
    for name in (*bad, "folder", "pipe", "circle", "large", "x\\x1b[2J all is well"):
        lines = [line for line in told.splitlines() if line.startswith(f"{name}.json: ")]
        assert lines and (": damaged: " in lines[0] or ": study: " in lines[0]), (name, lines)
    assert not any(line.startswith("all is well") for line in told.splitlines()) and "._0" not in told
    assert len(opinions.read(tmp_path / "ratings.csv")) == 528


def test_no_time_is_no_slow_answer():
    """A time that is NaN would count as hasty if a reader accepted it."""
    group = {"task": "hard", "prompt": "p", "seed": 0, "seconds": 9.0, "videos": {"v": {"backbone": "b", "method": "m", "label": "l"}}}
    key = msgspec.convert({"v": 1, "criteria": ["a"], "study": "s", "page": "p", "groups": {"g": group}}, StudyKey)
    for spent, hasty in ((float("nan"), True), (1.0, True), (9.0, False)):
        file = AnswersFile(1, "s", "r", "", "p", [], {"g": GroupAnswers(spent, 1.0, {"v": {"a": (3, 1.0)}})})
        one = RaterAnswers(Path("a.json"), "d", file)
        _manners(one, key)
        assert ("fast" in one.broken) is hasty, spent


def test_a_cell_of_a_csv_carries_nothing_out():
    bad = ("=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1")
    assert [harmless(cell) for cell in bad] == [f"'{cell}" for cell in bad]
    kept = ("echo", "-3.5", "+1e-3", "-", "a=b", "", 3, -0.5, None)
    assert [harmless(cell) for cell in kept] == ["echo", "-3.5", "+1e-3", "'-", "a=b", "", 3, -0.5, None]


def test_the_fullest_file_of_a_rater_counts(page, sent, capsys):
    early = studies.answers(page[1], RATERS[2], points(2), saved="2027-01-01T00:00:00.000Z")
    early["groups"].popitem()
    put(sent / "a.json", early)
    assert collected(sent) == 0
    told = capsys.readouterr().out
    assert f"a.json: rater: rater {RATERS[2]} again" in told and "2.json has 132)" in told and "4 raters counted" in told


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["collect"], "FOLDER: it is missing"),
        (["collect", "{sent}", "kee=all"], "kee=all: not understood; nearest is keep="),
        (["collect", "{sent}", "keep=straigt"], "keep=straigt: nearest is straight"),
        (["collect", "{sent}", "keep=copy"], "keep=copy: what breaks it cannot be counted (the same file again)"),
        (["collect", "{sent}", "key=x"], "key=x: No such file"),
        (["collect", "{sent}", "key={sent}/0.json"], "no key of a study"),
        (["collect", "{sent}/nothing", "key={sent}/../own.key.json"], "no answers; put the *.json files"),
        (["colect"], "colect: no such command; nearest is collect of build, collect"),
    ],
)
def test_collect_refuses_in_one_line(sent, capsys, words, part):
    assert cli.main(["study", *(word.format(sent=sent) for word in words)]) == 2
    told = capsys.readouterr().err
    assert part in told and told.count("\n") == 1


def test_two_keys_or_nothing_that_counts(sent, tmp_path, capsys):
    (tmp_path / "b.key.json").write_text("{}", encoding="utf-8")
    assert collected(sent) == 2 and "2 keys are there (b.key.json, own.key.json); say which with key=FILE" in capsys.readouterr().err
    for path in sent.iterdir():
        path.write_text("{", encoding="utf-8")
    assert collected(sent, f"key={tmp_path / 'own.key.json'}") == 1
    told = capsys.readouterr()
    assert "nothing counts of 4 files" in told.err and "0.json" in told.out and not (tmp_path / "ratings.csv").exists()


def test_a_key_that_is_a_pipe_is_not_waited_for(sent, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.key.json")
    assert collected(sent, f"key={tmp_path / 'pipe.key.json'}") == 2
    assert "pipe.key.json: a pipe or a device stands where" in capsys.readouterr().err


def test_no_torch():
    code = "import sys, eval.study.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_stands_for_the_papers_method_is_what_the_store_has():
    """If there are several bases, all existing ones in the experiment's order; the default one if there is none."""
    assert choice._usual("long60", {"rolling_sink"})[-1] == "echo" and choice._usual("hard", ())[-1] == "longlive"
    assert choice._usual("long60", {"echo_official", "echo_paper"})[-2:] == ["echo_official", "echo_paper"]
    four = ["self_forcing_recache", "infinity_rope", "echo_official", "longlive"]
    assert choice._usual("hard", {"echo_official"}) == four, "the paper's Table 5; LongLive's variants are shown where they are named"
