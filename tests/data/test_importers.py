"""Prompt files of others: what each format means, what is kept, and what is refused with its line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from data.sets.texts import nearest_tag
from echo.scene import Prompt, TagMeaning, Transition, load_prompts
from jobs import cli

SMOOTH, HARD, RECALL = Transition.smooth, Transition.hard, Transition.recall
SIX = " | ".join(f"Place {place}, a fox waits{tag}" for place, tag in zip("ABCABC", ("[10s#]",) * 2 + ("[10s@]",) * 3 + ("[10s]",)))


def imported(folder: Path, content: str | bytes, *words: str, form: str = "released") -> tuple[Prompt, ...]:
    """The prompts that the command makes of a file's content."""
    file, output = folder / "given.txt", folder / "out" / "set.jsonl"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    assert cli.main(["data", "import", str(file), f"format={form}", "--output", str(output), *words]) == 0
    return load_prompts(output)


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, content: str | bytes, *words: str, form: str = "released") -> str:
    """The one line with which the command refuses a file's content; nothing is written."""
    file, output = folder / "given.txt", folder / "set.jsonl"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    assert cli.main(["data", "import", str(file), f"format={form}", "--output", str(output), *words]) == 2
    assert not output.exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_released_line_by_hand(tmp_path: Path):
    prompt = imported(tmp_path, "A red fox sits [10s#] |  It [7.5 s] runs |It sleeps[12s@] ; Wait | Run | Sleep")[0]
    assert prompt == Prompt("given-000", ("A red fox sits", "It runs", "It sleeps"), (10.0, 7.5, 12.0), ("#", "", "@"), TagMeaning.to_next)
    record = json.loads((tmp_path / "out" / "set.jsonl").read_text())
    assert record["subtitles"] == ["Wait", "Run", "Sleep"]


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [("to_next", (None, HARD, HARD, RECALL, RECALL, RECALL)), ("enter", (None, HARD, RECALL, RECALL, RECALL, SMOOTH))],
)
def test_both_meanings_of_a_tag(tmp_path: Path, meaning: str, expected: tuple[Transition | None, ...]):
    """The released recall file is A-B-C-A-B-C only if a tag names the transition to the next scene."""
    prompt = imported(tmp_path, SIX, f"tag_meaning={meaning}")[0]
    assert prompt.tag_meaning == meaning
    assert prompt.transitions(TagMeaning.enter) == prompt.transitions(TagMeaning.to_next) == expected


def test_quirks_of_the_released_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = "One[10s#][20s] | | two [5s];\r\n\r\nOne[10s] | two[10s]; a | b; c | d\rThe last[40s]"
    first, second, third = imported(tmp_path, content)
    assert (first.scenes, first.durations_s, first.tags) == (("One", "two"), (10.0, 5.0), ("#", ""))
    assert second.scenes == ("One", "two") and third.scenes == ("The last",) and third.durations_s == (40.0,)
    said = capsys.readouterr().out
    for note in ("1 scenes with several tags", "1 empty scenes dropped", "1 lines whose subtitles are not one a scene", "3 subtitles kept"):
        assert note in said, said


def test_untagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A line of one scene is a long prompt; an untagged scene among several needs a duration."""
    assert imported(tmp_path, "A fox sits")[0].durations_s == (60.0,)
    assert imported(tmp_path, "A fox sits", "duration=120")[0].durations_s == (120.0,)
    assert imported(tmp_path, "A fox[10s] | runs", "duration=20")[0].durations_s == (10.0, 20.0)
    assert ":1, scene 2: no tag; nearest is '[10s]'" in refusal(capsys, tmp_path, "A fox[10s] | runs")


def test_untagged_scenes_may_be_left_to_the_texts(tmp_path: Path):
    """The released code takes a scene without a tag for smooth, the paper's appendix B asks the texts."""
    content = "A fox[10s#] | runs | sleeps[10s]"
    assert imported(tmp_path, content, "duration=10")[0].tags == ("#", "", "")
    assert imported(tmp_path, content, "duration=10", "untagged=automatic")[0].tags == ("#", None, "")


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("[10S]", "[10s]"), ("[10 sec]", "[10s]"), ("[10s #]", "[10s#]"), ("[ 10s@ ]", "[10s@]"), ("[10s@#]", "[10s@]"),
        ("[10,5s]", "[10.5s]"),
        ("[1 min #]", "[60s#]"), ("[10s", "[10s]"), ("10s#]", "[10s]"), ("(10s)", "[10s]"), ("{10s#}", "[10s#]"), ("10s#", "[10s#]"),
        ("［10s＃］", "[10s#]"), ("[#]", "[10s#]"), ("[10]", "[10s]"), ("[s]", "'[10s]'"), ("[-5s]", "[5s]"),
    ],
)  # fmt: skip
def test_a_wrong_tag_is_refused_with_its_line_and_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, nearest: str):
    said = refusal(capsys, tmp_path, f"Good[10s]\n\nA fox[10s] | runs{wrong}")
    assert said.startswith(f"{tmp_path / 'given.txt'}:3, scene 2: ") and nearest in said, said


def test_nearest_tags_are_tags():
    assert [nearest_tag(text) for text in ("[10 sec]", "2m", "?", "0.75 S @")] == ["[10s]", "[120s]", "[10s]", "[0.75s@]"]


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("A fox; alert, sits[10s] | runs[10s]", (), ":1: a tag after ';'"),
        ("A fox[10s]；subtitle", (), ":1: '；' does not separate; nearest is ';'"),
        ("A fox[10s] ｜ runs[10s]", (), "nearest is '|'"),
        ("ok[10s]\n[10s]|a", (), ":2, scene 1: a tag without a text"),
        (" ; only subtitles", (), ":1: no scene before ';'"),
        ("A fox[0.2s]", (), "duration 0.2 s is under half a block"),
        ("A fox", ("duration=0",), "duration=0: seconds, half a block or more; nearest is duration=0.75"),
        ("A fox[10s]", ("duration=-3",), "duration=-3: seconds, half a block or more"),
        ("A fox", ("duration=nan",), "duration=nan: seconds"),
        ("A fox", ("duration=inf",), "duration=inf: seconds"),
        ("A\x07fox[10s]", (), "U+0007"),
        ("", (), "no prompts"),
        ("A fox[10s]", ("first=2",), "first=2: "),
        ("A fox[10s]", ("sample=2",), "has 1 prompts; nearest is 1"),
        ("A fox[10s]", ("first=1", "sample=1"), "first=1 sample=1: the top or a draw; nearest is sample=1"),
        ("A fox[10s]", ("name=a b/c",), "nearest is a-b-c"),
        (b"caf\xe9[10s]", (), ":1: byte 0xe9 is not UTF-8"),
        ("A fox[10s]".encode("utf-16"), (), "UTF-16"),
    ],
)
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, words: tuple[str, ...], said: str):
    assert said in refusal(capsys, tmp_path, content, *words)


def test_signs_that_people_cannot_see_or_type(tmp_path: Path):
    """A byte-order mark, no-break and zero-width spaces go; typographic signs stay, the text encoder's cleaning reads them."""
    prompt = imported(tmp_path, "\ufeffA caf\u00e9\u2019s \u201cfox\u201d\u00a0\u2014\u200b waits\u2028here[10s]\r\n".encode())[0]
    assert prompt.scenes == ("A café’s “fox” — waits here",)


def test_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A prompt file of MovieGenBench's kind: 128 lines, or its first 64; `;` and `|` are text there."""
    content = "\n".join(f"A fox; number {number} | waits" for number in range(128))
    whole, half = imported(tmp_path, content, form="lines"), imported(tmp_path, content, "first=64", "duration=120", form="lines")
    assert len(whole) == 128 and whole[127].id == "given-127" and whole[127].scenes == ("A fox; number 127 | waits",)
    assert (
        half[0].scenes == whole[0].scenes
        and len(half) == 64
        and {prompt.durations_s for prompt in half} == {(120.0,)}
        and {p.durations_s for p in whole} == {(60.0,)}
    )
    assert imported(tmp_path, "In the (1980s) [sic] a fox", form="lines")[0].scenes == ("In the (1980s) [sic] a fox",)
    assert "nearest is format=released" in refusal(capsys, tmp_path, "A fox\nB[10s]", form="lines")
    assert "'[10 sec]' is no tag; nearest is '[10s]'" in refusal(capsys, tmp_path, "B [10 sec]", form="lines")


FIXTURES = Path(__file__).parents[1] / "fixtures" / "prompts"


@pytest.mark.parametrize(
    ("name", "scenes"),
    [
        ("lines_bracket_year", ["A poster of the [1980s] hangs on a wall"]),
        ("lines_neon_sign", ["A neon sign reads [42] above a door"]),
        ("lines_timeline", ["[0-2s] the camera pans left, [2-5s] the fox jumps"]),
        ("lines_quoted", ["A fox sits", "'A cat sits'"]),
    ],
)
def test_signs_of_a_prompt_are_no_tags(tmp_path: Path, name: str, scenes: list[str]):
    content = (FIXTURES / f"{name}.txt").read_bytes()
    assert [prompt.scenes[0] for prompt in imported(tmp_path, content, form="lines")] == scenes
    records = "\n".join(json.dumps({"id": text, "scenes": [text], "durations": [6]}) for text in scenes)
    assert [prompt.scenes[0] for prompt in imported(tmp_path, records, form="jsonl")] == scenes


def test_quotes_of_a_csv_field_go_and_those_of_speech_stay(tmp_path: Path):
    said = ['"Stop!" says the fox, "now"', '"He said ""hi"" to me"', "“Stop!”"]
    kept = ['"Stop!" says the fox, "now"', 'He said "hi" to me', "“Stop!”"]
    assert [prompt.scenes[0] for prompt in imported(tmp_path, "\n".join(said), form="lines")] == kept


CSV = (FIXTURES / "lines_csv.txt").read_text()
LIST = json.dumps([{"prompt_en": "A fox", "dimension": ["color"]}, {"prompt_en": 'A sign: "hi"', "dimension": []}], indent=1)
"""VBench's own file is of this form."""


@pytest.mark.parametrize(
    ("content", "form", "words", "scenes"),
    [
        (CSV, "csv", (), ["A fox sits, then runs"]),
        (CSV, "csv", ("column=prompt",), ["A fox sits, then runs"]),
        ('id;text\n1;"A ""big"" fox"\n2;\'A cat\'\n', "csv", (), ['A "big" fox', "'A cat'"]),
        ('title\tother\n"A fox\nsits"\tB\n', "csv", ("column=title",), ["A fox sits"]),
        (LIST, "json", (), ["A fox", 'A sign: "hi"']),
        (LIST, "json", ("column=prompt_en",), ["A fox", 'A sign: "hi"']),
        ('{"caption": "A fox"}\n{"caption": "B"}', "json", (), ["A fox", "B"]),
        ('["A fox", "B"]', "json", (), ["A fox", "B"]),
        ("A fox, red\nA cat, grey", "lines", (), ["A fox, red", "A cat, grey"]),
    ],
)
def test_tables(tmp_path: Path, content: str, form: str, words: tuple[str, ...], scenes: list[str]):
    assert [prompt.scenes[0] for prompt in imported(tmp_path, content, *words, form=form)] == scenes


@pytest.mark.parametrize(
    ("content", "form", "said"),
    [
        (CSV, "lines", ":1: format=lines, but it looks like a table with the columns 'prompt', 'seed'; nearest is format=csv"),
        (CSV, "released", "nearest is format=csv"),
        (CSV, "jsonl", "nearest is format=csv"),
        ('prompt\n"A fox sits, then runs"', "lines", "nearest is format=csv"),
        ("A fox\ttag\nB\ttag", "lines", "nearest is format=csv"),
        (LIST, "lines", "a JSON list; nearest is format=json"),
        (LIST, "jsonl", "a JSON list; nearest is format=json"),
        ('{"prompt": "A fox"}', "lines", "nearest is format=json"),
        ('{"id": "a", "scenes": ["A fox"], "durations": [6]}', "released", "nearest is format=jsonl"),
        ("1. A fox\n2. A cat", "lines", "each line with a number and a point first; nearest is the file without them"),
        ("- A fox\n- A cat", "lines", "a bullet"),
        ("A cat\n# mine\nA fox", "lines", ":2: '# mine' looks like a comment; nearest is to remove it"),
        ("prompt,seed\nA fox sits, then runs,3", "csv", ":2: 3 cells, the header has 2; put texts with ',' into quotes"),
        ("a,b\nA fox,3", "csv", "column=...: one of its columns is meant; nearest is"),
        ('prompt\n"A fox', "csv", "not CSV (unexpected end of data)"),
        ("[3]", "json", ":1: 3 is no text"),
        ("[", "json", "not JSON (Expecting value at column 2)"),
        ("A fox hangs a [1980s] poster[10s]", "released", "'[1980s]' in a text would make a scene of 1980 s; nearest is '1980s'"),
        (f"A fox[{'9' * 100_000}s]", "released", "a video is 36000 s at most"),
        (f"A {'9' * 100_000} fox[10s] {'(' * 100_000}", "released", "a scene of 200007 letters; 20000 at most"),
        ("A fox " * 10_000, "lines", "a scene of 59999 letters; 20000 at most"),
    ],
)
def test_another_format_than_it_is_said_to_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, form: str, said: str
):
    line = refusal(capsys, tmp_path, content, form=form)
    assert line.startswith(f"{tmp_path / 'given.txt'}") and said in line and len(line) < 400, line


def test_a_column_is_of_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "nearest is format=csv" in refusal(capsys, tmp_path, "A fox", "column=prompt", form="lines")
    assert "column=promt: one of its columns is meant; nearest is prompt of prompt, seed" in refusal(
        capsys, tmp_path, CSV, "column=promt", form="csv"
    )
    assert "duration=1e+12: a video is 36000 s at most; nearest is duration=36000" in refusal(capsys, tmp_path, "A", "duration=1e12")


def test_a_draw(tmp_path: Path):
    """As the paper's A.1 draws: by the seed alone, a smaller draw is the first part of a larger one, ids tell the file's lines."""
    content = "\n".join(f"A fox, number {number}" for number in range(128))
    draws = [
        imported(tmp_path, content, *words.split(), form="lines") for words in ("sample=64", "sample=20", "sample=64 seed=1", "sample=128")
    ]
    lines = [[int(prompt.id.rpartition("-")[2]) for prompt in draw] for draw in draws]
    assert [prompt.scenes[0] for prompt in draws[0]] == [f"A fox, number {line}" for line in lines[0]]
    assert lines[1] == lines[0][:20] and lines[0] == lines[3][:64] and sorted(lines[3]) == list(range(128))
    assert lines[2] != lines[0] and len({*lines[0]}) == 64 and lines[0] != sorted(lines[0])
    weights = random.Random(0)
    keys = [weights.random() for _ in range(128)]
    assert lines[0] == [keys.index(key) for key in sorted(keys)[:64]]


def test_jsonl(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = {"id": "x", "scenes": ["A  fox", "runs"], "durations": [10, 5], "tags": ["", "@"], "subtitles": ["a", "b"]}
    assert imported(tmp_path, json.dumps(record), form="jsonl")[0] == Prompt("x", ("A fox", "runs"), (10.0, 5.0), ("", "@"))
    assert imported(tmp_path, f"\ufeff{json.dumps(record)}\r\n", form="jsonl")[0].id == "x"
    named = imported(tmp_path, json.dumps(record), "name=mine", "tag_meaning=enter", form="jsonl")[0]
    assert (named.id, named.tag_meaning) == ("mine-000", TagMeaning.enter)
    assert json.loads((tmp_path / "out" / "set.jsonl").read_text())["subtitles"] == ["a", "b"]
    assert "nearest is '[10s]'" in refusal(capsys, tmp_path, json.dumps(record | {"scenes": ["A", "B [10 sec]"]}), form="jsonl")
    assert "unknown key 'scene'" in refusal(capsys, tmp_path, json.dumps({"scene": []}), form="jsonl")
    assert "list of texts" in refusal(capsys, tmp_path, json.dumps(record | {"scenes": "A fox"}), form="jsonl")
    assert "name=PREFIX" in refusal(capsys, tmp_path, f"{json.dumps(record)}\n{json.dumps(record)}", form="jsonl")


def test_subtitles_change_no_prompt(tmp_path: Path):
    """A unit's name is made of the fields of `Prompt`, and subtitles are none."""
    assert imported(tmp_path, "A fox[10s]; Wait") == imported(tmp_path, "A fox[10s]")


def test_a_text_file_as_prompt_set_is_told_the_importer(tmp_path: Path):
    file = tmp_path / "prompts_hard.txt"
    file.write_text("A fox[10s]")
    with pytest.raises(ValueError, match=r"echo-harness data import \S+prompts_hard\.txt format=released\|lines --output \S+\.jsonl"):
        load_prompts(file)


def test_output_is_jsonl_and_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("given.txt", "set.json"):
        assert cli.main(["data", "import", str(tmp_path / "given.txt"), "format=lines", "--output", str(tmp_path / name)]) == 2
        assert "--output" in capsys.readouterr().err


def test_a_loop_of_links_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    assert cli.main(["data", "import", str(loop), "format=lines", "--output", str(tmp_path / "set.jsonl")]) == 2
    assert f"{loop}: Too many levels of symbolic links" in capsys.readouterr().err
