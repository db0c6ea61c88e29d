"""Durations to blocks, tags to transitions, bad records to one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo.scene import DurationRule, Prompt, TagMeaning, Transition, load_prompts, parse_prompt, scene_blocks


def test_cumulative_rounding_does_not_drift() -> None:
    assert scene_blocks([10] * 6) == (13, 14, 13, 13, 14, 13)
    assert sum(scene_blocks([10] * 12)) == 160
    assert scene_blocks([60]) == (80,) and scene_blocks([120]) == (160,)


def test_released_rounding() -> None:
    rule = DurationRule.floor_each
    assert scene_blocks([10] * 6, rule) == (13, 13, 13, 13, 13, 15)
    assert scene_blocks([2, 2, 2, 5, 3], rule) == (2, 2, 2, 6, 7)
    assert [sum(scene_blocks([s], rule)) * 3 for s in (10, 20, 40, 60, 120)] == [42, 81, 162, 240, 480]


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
