"""The committed prompt sets: what the generator writes, every sentence understood, each set as its task says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.build_prompts import FOLDER, LIGHTS, SETS, prompts
from data.world.words import Words, parse
from echo.scene import DurationRule, Transition, load_prompts, scene_blocks

SUBJECT, PLACE = ("colour", "shape"), ("place", "pattern")


def said(name: str) -> list[list[Words]]:
    """The words of each scene of each prompt."""
    return [[parse(scene) for scene in prompt.scenes] for prompt in load_prompts(FOLDER / f"{name}.jsonl")]


def values(scenes: list[Words], kinds: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(getattr(words, kind) for kind in kinds) for words in scenes]


def test_committed_sets_are_what_the_generator_writes(tmp_path: Path) -> None:
    prompts(output=tmp_path)
    for name in SETS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()
    for name in LIGHTS:
        assert (tmp_path / "lit" / f"{name}.jsonl").read_bytes() == (FOLDER / "lit" / f"{name}.jsonl").read_bytes()


def test_under_lights_a_set_is_as_by_day_and_says_its_lights() -> None:
    for name, lights in LIGHTS.items():
        scenes, by_day = said(f"lit/{name}"), load_prompts(FOLDER / f"{name}.jsonl")
        assert len({tuple(prompt) for prompt in scenes}) == 64 and {tuple(w.light for w in prompt) for prompt in scenes} == {lights}
        for prompt, day in zip(load_prompts(FOLDER / "lit" / f"{name}.jsonl"), by_day, strict=True):
            assert sum(prompt.durations_s) == sum(day.durations_s) and set(prompt.tags) == set(day.tags) and prompt.id != day.id
        assert all(len(set(values(prompt, SUBJECT + PLACE))) == 1 for prompt in scenes), "in one place"


@pytest.mark.parametrize("name", SETS)
def test_sixty_four_different_prompts_that_parse(name: str) -> None:
    scenes = said(name)
    assert len(scenes) == 64
    assert len({tuple(prompt) for prompt in scenes}) == 64


@pytest.mark.parametrize("name", SETS)
def test_records_carry_version_and_meaning(name: str) -> None:
    for line in (FOLDER / f"{name}.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["version"] == 1 and record["tag_meaning"] == "enter" and record["tags"][0] == ""


def test_lengths() -> None:
    blocks = {name: scene_blocks(load_prompts(FOLDER / f"{name}.jsonl")[0].durations_s, DurationRule.cumulative, 3) for name in SETS}
    assert blocks == {
        "long60": (80,), "long120": (160,),
        **dict.fromkeys(("smooth", "hard", "recall"), (13, 14, 13, 13, 14, 13)),
    }  # fmt: skip


def test_smooth_keeps_subject_and_place_and_changes_motion() -> None:
    for scenes in said("smooth"):
        assert len(set(values(scenes, SUBJECT + PLACE))) == 1
        assert len(set(values(scenes, ("motion",)))) == 6


def test_hard_keeps_subject_and_changes_place() -> None:
    for scenes in said("hard"):
        assert len(set(values(scenes, SUBJECT))) == 1
        assert len(set(values(scenes, ("place",)))) == 6


def test_recall_returns_to_the_same_place_with_another_motion() -> None:
    for scenes in said("recall"):
        assert len(set(values(scenes, SUBJECT))) == 1
        places = values(scenes, PLACE)
        assert places[:3] == places[3:] and len({place for place, _ in places}) == 3
        assert all(first.motion != again.motion for first, again in zip(scenes[:3], scenes[3:], strict=True))


def test_recalled_scenes_say_so() -> None:
    for prompt in load_prompts(FOLDER / "recall.jsonl"):
        assert all("same" in scene for scene in prompt.scenes[3:]) and not any("same" in scene for scene in prompt.scenes[:3])
        assert prompt.transitions(prompt.tag_meaning)[1:] == (Transition.hard,) * 2 + (Transition.recall,) * 3
