"""Prompt sets of other people: counts, durations and tags of files of their true forms, and what is refused with file, line and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo.scene import Prompt, TagMeaning, load_prompts
from jobs import cli
from tests.helpers import foreign


def imported(folder: Path, file: Path, *words: str) -> tuple[Prompt, ...]:
    """The prompts that the command makes of a file or folder."""
    output = folder / "out.jsonl"
    assert cli.main(["data", "import", str(file), *words, "--output", str(output)]) == 0
    return load_prompts(output)


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, file: Path, *words: str) -> str:
    """The one line with which it is refused; nothing is written."""
    assert cli.main(["data", "import", str(file), *words, "--output", str(folder / "bad.jsonl")]) == 2
    assert not (folder / "bad.jsonl").exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_memflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = imported(tmp_path, foreign.memflow(tmp_path), "format=memflow")
    texts = tuple(f"A wizard, story 0, does thing {scene}." for scene in range(6))
    assert first == Prompt("memflow-000", texts, (10.0,) * 6, ("",) * 6, TagMeaning.enter) and second.id == "memflow-001"
    said = capsys.readouterr().out
    assert "without a cut" in said and "10 scenes entered smoothly" in said and "memflow has 100 prompts, here are 2" in said
    hard = imported(tmp_path, foreign.memflow(tmp_path), "format=memflow", "tags=hard", "duration=5")
    assert hard[0].tags == ("", *"#####") and hard[0].durations_s == (5.0,) * 6


def test_helios(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prompts = imported(tmp_path, foreign.helios(tmp_path), "format=helios")
    assert [(prompt.id, prompt.durations_s) for prompt in prompts] == [("helios-1", (5.0,)), ("helios-2", (10.0,)), ("helios-3", (60.0,))]
    assert prompts[0].scenes == ('A "red" fox, number 1, runs.',)
    assert "seconds 5 (x1), 10 (x1), 60 (x1)" in capsys.readouterr().out
    slow = imported(tmp_path, foreign.helios(tmp_path), "format=helios", "per_second=16")
    assert [prompt.durations_s[0] for prompt in slow] == [7.5, 15.0, 90.0]


def test_stories_recall_what_their_ground_truth_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """At a cut a returning place recalls its last showing, however long a person was away; a continuing place is no recall."""
    root = foreign.vmem(tmp_path)
    (story,) = imported(tmp_path, root, "format=vmem")
    assert (story.id, len(story.scenes), set(story.durations_s)) == ("vmem-0001_quay", 6, {5.0})
    assert story.tags == ("", "", "#", "@", "", "@") and story.recalls == (None, None, None, 1, None, 2)
    for path in (root / "sut_prompts", root / "sut_prompts" / "0001_quay_name_anchored.json"):
        assert imported(tmp_path, path, "format=vmem") == (story,)
    capsys.readouterr()
    (root / "gt" / "0001_quay.json").unlink()
    (alone,) = imported(tmp_path, root, "format=vmem")
    assert alone.tags == ("", "", "#", "#", "", "#") and not alone.recalls
    assert "1 stories without a ground truth beside them" in capsys.readouterr().out


def test_cases_return_to_their_first_shot(tmp_path: Path):
    """Blocks of eight latent frames at 24 pixel frames a second are 4/3 s each."""
    first, second = imported(tmp_path, foreign.layerrecall(tmp_path), "format=layerrecall")
    assert (first.id, first.tags, first.recalls) == ("layerrecall-case_0001", ("", "", "@"), (None, None, 0))
    assert first.durations_s == pytest.approx((32, 16, 16)) and second.durations_s == pytest.approx((16, 8, 8))
    hard = imported(tmp_path, foreign.layerrecall(tmp_path), "format=layerrecall", "tags=hard,recall:1")
    assert hard[0].tags == ("", "#", "@") and hard[0].recalls == (None, None, 0)


def test_line_numbers_choose_and_order(tmp_path: Path):
    prompts, numbers = foreign.rollf200(tmp_path)
    chosen = imported(tmp_path, prompts, "format=rollf200", f"lines={numbers}")
    assert [(prompt.id, prompt.scenes[0]) for prompt in chosen] == [
        ("rollf200-000", "A fox, line 7, runs."), ("rollf200-001", "A fox, line 0, runs."), ("rollf200-002", "A fox, line 3, runs."),
    ]  # fmt: skip
    assert {prompt.durations_s for prompt in chosen} == {(60.0,)}
    listed = tmp_path / "listed.txt"
    listed.write_text("".join(f"{prompt.scenes[0]}\n" for prompt in chosen))
    assert imported(tmp_path, listed, "format=rollf200") == chosen


TABLE = [
    {"name": "a", "shots": [{"text": "A fox sits", "s": 4, "how": ""}, {"text": "It runs", "s": 6, "how": "cut"}]},
    {"name": "b", "shots": [{"text": "A cat sits", "s": 8, "how": "x"}, {"text": "It naps", "s": 8, "how": "recall:1"}]},
]
NAMED = ("format=json", "scenes_column=shots", "id_column=name", "duration_column=s", "transition_column=how")


def test_any_json_by_named_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "stories.json"
    file.write_text(json.dumps(TABLE[:1]))
    expected = Prompt("a", ("A fox sits", "It runs"), (4.0, 6.0), ("", "#"), TagMeaning.enter)
    assert imported(tmp_path, file, *NAMED) == (expected,)
    file.write_text(json.dumps(TABLE[0], indent=1))
    assert imported(tmp_path, file, *NAMED) == (expected,)
    file.write_text(json.dumps(TABLE))
    assert f"{file}:2, scene 1: 'x' is no way into a scene; nearest is " in refusal(capsys, tmp_path, file, *NAMED)
    file.write_text(json.dumps({"prompts": ["A fox sits", "It runs"], "s": [4, 6], "how": ["", "recall:1"]}))
    (recalled,) = imported(tmp_path, file, "format=json", "duration_column=s", "transition_column=how", "name=x")
    assert (recalled.id, recalled.tags, recalled.recalls) == ("x-000", ("", "@"), (None, 0))


def test_tags_are_never_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "two.json"
    file.write_text(json.dumps([["A fox"]]))
    assert "is no text" in refusal(capsys, tmp_path, file, "format=json")
    file.write_text(json.dumps({"prompts": ["A fox sits", "It runs", "It naps"]}))
    assert f"{file}:1: 3 scenes, nothing says how they are entered; nearest is tags=smooth" in refusal(
        capsys, tmp_path, file, "format=json", "duration=4"
    )
    assert "3 scenes, tags=hard,smooth,hard are 3; nearest is" in refusal(
        capsys, tmp_path, file, "format=json", "duration=4", "tags=hard,smooth,hard"
    )
    assert "3 scenes without a duration; nearest is duration=10" in refusal(capsys, tmp_path, file, "format=json", "tags=smooth")
    assert "scene 2: recall:2 is no scene before it; nearest is recall:1" in refusal(
        capsys, tmp_path, file, "format=json", "duration=4", "tags=recall:2,hard"
    )
    assert imported(tmp_path, file, "format=json", "duration=4", "tags=automatic")[0].tags == ("", None, None)
    assert "says how its scenes are entered; nearest is to leave out tags=hard" in refusal(
        capsys, tmp_path, foreign.vmem(tmp_path), "format=vmem", "tags=hard"
    )


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("id,prompt,duration\n1,A fox,240\n2,A cat,many\n", "format=helios", ":3: duration 'many' is no number above 0; nearest is 10"),
        ("id,prompt,duration\n1,A fox,4\n", "format=helios", ":2: prompt 'helios-1': duration 0.1"),
        ("id,prompt,duration\n1,A fox,-240\n", "format=helios", ":2: duration '-240' is no number above 0"),
        ("id,prompt,duration\n1,A fox\n", "format=helios", ":2: 2 cells, the header has 3"),
        ("id,prompt,seconds\n1,A fox,240\n", "format=helios", ":2: duration_column=duration: one of its columns is meant; nearest is"),
        ("id,prompt,duration\n1,A fox,240\n1,A cat,240\n", "format=helios", "prompt id 'helios-1' stands twice"),
        ("id,prompt,prompt\n1,A fox,A cat\n", "format=csv", ":1: the column 'prompt' stands twice"),
        ("id,prompt,duration\n1, ,240\n", "format=helios", ":2: holds nothing but signs"),
        ("id,prompt,duration\n1,A fox [10s],240\n", "format=helios", ":2: holds the tag '[10s]'"),
        ('{"prompts": ["A", "B"]}\n{"prompts": ["A", 3]}\n', "format=memflow", ":2: 3 is no text"),
        ('{"prompts": ["A", "B"]}\n{"prompts": [" ", "B"]}\n', "format=memflow", ":2, scene 1: holds nothing but signs"),
        ('{"prompts": ["A"]}\n{"prompt": ["A"]}\n', "format=memflow", ":2: column=prompts: one of its columns is meant; nearest is prompt"),
        ('{"prompts": ["A"]}\n{"prompts": ["A"\n', "format=memflow", ":2: not JSON"),
        ('{"story_id": "s", "segments": []}', "format=vmem", ":1: segments is a list of objects, a scene each, not []"),
        ('{"story_id": "s", "segments": [{"prompt": "A"}]}', "format=vmem", ":1, scene 1: duration_column=duration_sec"),
        ('"A fox"', "format=json column=prompt", ":1: 'A fox' is a text alone, without prompt; nearest is to leave column= out"),
        ("A fox", "format=lines tags=hard", "tags=hard: is of format=csv and format=json"),
        ("A fox", "format=lines id_column=x", "id_column=x: is of format=csv"),
        ("A fox", "format=helios per_second=-1", "per_second=-1: a number above 0; nearest is 24"),
        ("A fox", "format=helios lines=x.txt", "lines=x.txt: is of format=lines and format=rollf200"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_by_line_and_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str, said: str):
    file = tmp_path / "given.txt"
    file.write_text(content)
    assert said in refusal(capsys, tmp_path, file, *words.split())


def test_bad_numbers_of_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prompts, numbers = foreign.rollf200(tmp_path)
    for content, said in (
        ("3\n9\n", f"{numbers}:2: line 9 of {prompts}, counted from 0, holds no prompt; nearest is 8"),
        ("3\n-1\n", f"{numbers}:2: '-1' is no line number, counted from 0"),
        ("3\nfox\n", f"{numbers}:2: 'fox' is no line number"),
    ):
        numbers.write_text(content)
        assert said in refusal(capsys, tmp_path, prompts, "format=rollf200", f"lines={numbers}")


def test_bad_stories_and_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root, gone = foreign.vmem(tmp_path), {"eid": "E2", "op": "recall", "gap": 1, "last_seen": "seg_004"}
    gt = root / "gt" / "0001_quay.json"
    for content, said in (
        (foreign.truth([gone]), f"{gt}: seg_004 shows E2 again, last seen in 'seg_004', not before"),
        (foreign.truth([gone | {"op": "remember"}]), "Invalid enum value 'remember' - at `$.segments[3].cast[0].op`"),
        (foreign.truth([{"eid": "E2"}]), f"{gt}: Object missing required field `op`"),
        ({"segments": foreign.truth()["segments"][:5]}, f"{gt}: 5 segments, the story in "),
    ):
        foreign.written(gt, content)
        assert said in refusal(capsys, tmp_path, root, "format=vmem")
    cases = foreign.layerrecall(tmp_path)
    case = cases / "caption" / "case_0002"
    foreign.written(case / "global.json", {"shot_design": [{"duration_blocks": 12}]})
    assert f"{case / 'global.json'}: shot_design of 1 shots; a case has 3" in refusal(capsys, tmp_path, cases, "format=layerrecall")
    (case / "2.json").write_text(
        '{"caption": "A',
    )
    assert f"{case / '2.json'}: not JSON" in refusal(capsys, tmp_path, cases, "format=layerrecall")
    (case / "2.json").unlink()
    assert f"{case}: shots 0.json, 1.json; a case is visible, absent, return" in refusal(capsys, tmp_path, cases, "format=layerrecall")
    for form in ("vmem", "layerrecall"):
        (tmp_path / form).mkdir(exist_ok=True)
    assert "a folder is expected with a story of segments" in refusal(capsys, tmp_path, tmp_path / "vmem", "format=vmem")
    (tmp_path / "none").mkdir()
    assert "a folder is expected with 0.json, 1.json and 2.json" in refusal(capsys, tmp_path, tmp_path / "none", "format=layerrecall")
