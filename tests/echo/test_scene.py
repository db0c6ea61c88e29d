"""Durations to blocks, tags to transitions, bad records to one clear line."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from echo.scene import DurationRule, Prompt, TagMeaning, Transition, load_prompts, parse_prompt, scene_blocks


def test_cumulative_rounding_does_not_drift() -> None:
    rule = DurationRule.cumulative
    assert scene_blocks([10] * 6, rule, 3) == (13, 14, 13, 13, 14, 13) and scene_blocks([10] * 6, rule, 1) == (40,) * 6
    assert sum(scene_blocks([10] * 12, rule, 3)) == 160
    assert scene_blocks([60], rule, 3) == (80,) and scene_blocks([120], rule, 3) == (160,)
    with pytest.raises(ValueError, match=re.escape("a scene of 0.3 s is under half a block; nearest is 0.75 s")):
        scene_blocks([10, 0.3], rule, 3)
    assert scene_blocks([10, 0.3], rule, 1) == (40, 1)


def test_released_rounding() -> None:
    rule = DurationRule.floor_each
    assert scene_blocks([10] * 6, rule, 3) == (13, 13, 13, 13, 13, 15)
    assert scene_blocks([2, 2, 2, 5, 3], rule, 3) == (2, 2, 2, 6, 7)
    assert [sum(scene_blocks([s], rule, 3)) * 3 for s in (10, 20, 40, 60, 120)] == [42, 81, 162, 240, 480]


def test_tags_read_both_ways() -> None:
    prompt = Prompt("p", ("a", "b", "c"), (10, 10, 10), ("#", "@", ""))
    assert prompt.transitions(TagMeaning.to_next) == (None, Transition.hard, Transition.recall)
    assert prompt.transitions(TagMeaning.enter) == (None, Transition.recall, Transition.smooth)
    explicit = Prompt("p", ("a", "b", "c"), (10, 10, 10), ("#", "@", ""), TagMeaning.enter)
    assert explicit.transitions(TagMeaning.to_next) == (None, Transition.recall, Transition.smooth)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ({"id": 1, "scenes": ["a"]}, "'durations' is missing"),
        ({"id": 1, "scenes": ["a"], "durations": [10], "tag": [""]}, "nearest is 'tags'"),
        ({"id": 1, "scenes": ["a"], "durations": [10, 10]}, "equally many"),
        ({"id": 1, "scenes": ["a"], "durations": [0.1]}, "nearest is 0.75 s"),
        ({"id": 1, "scenes": ["a"], "durations": [10], "tags": ["!"]}, "unknown tag '!'"),
        ({"id": 1, "scenes": ["a"], "durations": [10], "tag_meaning": "out"}, "to_next"),
    ],
)
def test_bad_records(record: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_prompt(record if isinstance(record, str) else json.dumps(record), "file:1")


def test_doubled_ids_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(2 * (json.dumps({"id": "x", "scenes": ["a"], "durations": [10]}) + "\n"))
    with pytest.raises(ValueError, match="'x' stands twice"):
        load_prompts(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no prompts"):
        load_prompts(path)


FIXTURES = Path(__file__).parents[1] / "fixtures" / "prompts"
X = '{"id": "x", "scenes": ["a"], "durations": [%s]}'


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dur_scalar", ":1: durations is a list of seconds, one number a scene, not 10; nearest is [10.0, 10.0]"),
        ("dur_null", ":1: durations is a list of seconds, one number a scene, not null; nearest is [10.0, 10.0]"),
        ("dur_inf", ":1: prompt 'a': durations [inf]: a video is 36000 s at most; nearest is 36000 s a scene"),
        ("dur_strings", ":1: durations is a list of seconds, one number a scene, not '10s'; nearest is [10.0, 10.0]"),
        ("tags_null", ":1: tags is a list of texts, one a scene, null for a scene without a tag, not null; nearest is to leave tags out"),
        ("gbk", ":1: byte 0xd4 is not UTF-8, it looks like GBK or another encoding of two bytes a letter; save the file as UTF-8"),
        ("latin1", ":1: byte 0xe9 is not UTF-8, it looks like Latin-1 or another of one byte; save the file as UTF-8"),
        ("invisible", ":1: scenes is a list of texts, none of them empty, not '\\u200b\\u200b'; nearest is [\"A red fox sits on a hill\"]"),
    ],
)
def test_what_people_bring_is_refused_with_file_line_key_rule_and_nearest(name: str, said: str) -> None:
    path = FIXTURES / f"{name}.jsonl"
    with pytest.raises(ValueError) as refused:
        load_prompts(path)
    assert str(refused.value) == f"{path}{said}"


def test_long_and_chinese_ids_are_ids() -> None:
    assert [load_prompts(FIXTURES / f"{name}.jsonl")[0].durations_s for name in ("id_long", "id_chinese")] == [(3.0, 3.0)] * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a":' * 100_000, "lists or objects within each other without end"),
        (X % ("9" * 400), "a video is 36000 s at most"),
        (X % ("9" * 5000), "a number of thousands of digits"),
        (X % "1e400", "a video is 36000 s at most"),
        (X % "1e12", "durations [1000000000000.0]: a video is 36000 s at most"),
        (X % "NaN", "duration nan s is under half a block"),
        (X % "true", "seconds, one number a scene, not True; nearest is [10.0]"),
        ('{"id": "x", "scenes": ["a \\ud83d"], "durations": [3]}', "half a character, \\ud83d without its other half"),
        ('{"id": "x", "id": "y", "scenes": ["a"], "durations": [3]}', "key 'id' stands twice"),
        ('{"id": null, "scenes": ["a"], "durations": [3]}', "id is a text or a whole number, not None"),
        ('{"id": "x", "scenes": ["a"], "durations": [3], "tags": [[]]}', "tags is a list of texts"),
        ('{"id": "x", "scenes": ["a"], "durations": [3], "tag_meaning": []}', "tag_meaning []; one of"),
        ('{"id": "x", "scenes": ["a"], "durations": [3], "recalls": [1e21]}', "not 1e+21; nearest is [None]"),
        ('{"id": "x", "scenes": ["a", "b"], "durations": [3, 3], "recalls": [null, 1000000000000000000000]}', "nearest is 0"),
        ('{"id": "x", "scenes": ["a"], "durations": [3], "subtitles": null}', "nearest is to leave subtitles out"),
        (json.dumps({"id": "x", "scenes": ["a"] * 1001, "durations": [3] * 1001}), "1001 scenes; 1000 at most"),
    ],
)
def test_what_cannot_be_meant_is_one_short_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(ValueError) as refused:
        load_prompts(path)
    words = str(refused.value)
    assert words.startswith(f"{path}:2: ") and said in words and "\n" not in words and len(words) < len(str(path)) + 220, words


def test_what_is_no_text_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "wide").write_bytes('{"id": "x"}'.encode("utf-16-le"))
    said = {
        "pipe": "is a pipe",
        "loop": "Too many levels of symbolic links",
        "nothing": "No such file",
        ".": "is a folder",
        "wide": "UTF-16",
    }
    said |= {"x" * 300: "File name too long", "x\0y": "null byte"}
    for name, words in said.items():
        with pytest.raises(ValueError, match=words) as refused:
            load_prompts(tmp_path / name)
        assert str(tmp_path) in str(refused.value)


def test_a_json_list_and_other_tables_are_told_the_importer(tmp_path: Path) -> None:
    path = tmp_path / "VBench_full_info.json"
    path.write_text(json.dumps([{"prompt_en": "A fox", "dimension": ["color"]}], indent=4))
    with pytest.raises(
        ValueError, match=r"a JSON list; .* nearest is what echo-harness data import \S+ format=json --output \S+\.jsonl makes"
    ):
        load_prompts(path)
    with pytest.raises(ValueError, match=r"format=csv --output \S+\.jsonl makes"):
        load_prompts(tmp_path / "prompts.csv")


def test_fifty_thousand_prompts_are_read_in_seconds(tmp_path: Path) -> None:
    """Once each was counted among all others: 55 s."""
    path = tmp_path / "set.jsonl"
    path.write_text("".join(X.replace('"x"', f'"{number}"') % 3 + "\n" for number in range(50_000)))
    begun = time.process_time()
    assert len(load_prompts(path)) == 50_000
    assert time.process_time() - begun < 10
