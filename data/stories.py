"""Our own prompt sets for the real backbones, from the stories written for this project.

`data/stories/{recall,hard,smooth,long}.yaml` hold the parts, from which this command makes `data/prompts/wan/*.jsonl`;
the same code makes the same bytes. Every rule of the sets is checked before a line is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from data.build_prompts import SETS as WORLD_SETS
from data.prompt_sets import PromptLine, write_set
from data.story import TOKENS, Story, bare, faults_of, moves, overlap, parse_story, prompt_of
from echo.scene import Prompt

VERSION = 1
"""Increases with every change that alters a prompt."""
FOLDER = Path(__file__).resolve().parent
SETS: dict[str, tuple[str, int]] = {
    "recall": ("recall", 64), "hard": ("hard", 64), "smooth": ("smooth", 64), "long60": ("long", 128), "long120": ("long", 64),
}  # fmt: skip
"""Set -> its stories, and how many of them from the first on."""
SUBJECTS_ALIKE = 0.5
"""Share of common content words above which two subjects of a set count as the same."""
PLACES_ALIKE = 0.5
"""The same for two places of the recall set, all of which are of different kinds."""


def load_stories(task: str, path: Path) -> list[Story]:
    """The stories of a YAML list. Raises ValueError that names the file and the story's number from 0."""
    plain = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(plain, list):
        raise ValueError(f"{path}: a list of stories, not {type(plain).__name__}")
    stories = []
    for number, raw in enumerate(plain):
        try:
            stories.append(parse_story(task, raw))
        except ValueError as error:
            raise ValueError(f"{path}, story {number}: {error}") from None
    return stories


def build(name: str, stories: Sequence[Story]) -> list[Prompt]:
    """The prompts of one set."""
    task, count = SETS[name]
    duration_s = WORLD_SETS[name][1]
    return [prompt_of(name, task, story, index, duration_s) for index, story in enumerate(stories[:count])]


def faults_of_set(name: str, stories: Sequence[Story], prompts: Sequence[Prompt]) -> list[str]:
    """The rules that a set breaks, one sentence each.

    Args:
        name: one of SETS.
        stories: the parts.
        prompts: the prompts made from them.
    """
    task, count = SETS[name]
    faults = [] if len(prompts) == count else [f"{name} has {len(prompts)} prompts; {count} are promised"]
    for index, story in enumerate(stories[:count]):
        faults += [f"{name} story {index}: {fault}" for fault in faults_of(task, story, index)]
    faults += _doubled(name, prompts)
    moving = [all(moves(scene) for scene in prompt.scenes) for prompt in prompts]
    still = [not any(moves(scene) for scene in prompt.scenes) for prompt in prompts]
    if sum(moving) != len(prompts) // 2 or sum(still) != len(prompts) - len(prompts) // 2:
        faults.append(f"{name}: the camera moves in {sum(moving)} and stands still in {sum(still)} of {len(prompts)} prompts; half each")
    for prompt in prompts:
        # A token is at least one byte, and start and end are two tokens: this is an upper bound for any tokenizer.
        longest = max(len(scene.encode()) for scene in prompt.scenes) + 2
        if longest > TOKENS:
            faults.append(
                f"{prompt.id}: {longest - 2} bytes in a scene; {TOKENS - 2} at most, so that every tokenizer stays below {TOKENS}"
            )
    if task != "long":
        faults += _alike(name, "subjects", [bare(story.subject) for story in stories[:count]], SUBJECTS_ALIKE)
    if task == "recall":
        faults += _alike(name, "places", [place.what for story in stories[:count] for place in story.places], PLACES_ALIKE)
    return faults


def _doubled(name: str, prompts: Sequence[Prompt]) -> Iterator[str]:
    """Duplicate ids and stories; another camera does not make another story."""
    for kind in ("id", "story"):
        first: dict[tuple[str, ...], str] = {}
        for prompt in prompts:
            key = (prompt.id,) if kind == "id" else tuple(scene.partition(". ")[2] for scene in prompt.scenes)
            if key in first:
                yield f"{name}: {kind} of {prompt.id} stands twice, first in {first[key]}"
            first.setdefault(key, prompt.id)


def _alike(name: str, kind: str, texts: Sequence[str], limit: float) -> Iterator[str]:
    """Pairs of texts with too many content words in common."""
    for (one, first), (other, second) in itertools.combinations(enumerate(texts), 2):
        if overlap(first, second) > limit:
            yield f"{name}: {kind} {one} and {other} are too much alike: {first!r} and {second!r}"


def make(folder: Path) -> dict[str, list[Prompt]]:
    """The prompts of all sets from the YAML files of a folder, checked.

    Raises:
        ValueError: with every fault, one per line.
    """
    stories = {task: load_stories(task, folder / f"{task}.yaml") for task in ("recall", "hard", "smooth", "long")}
    sets = {name: build(name, stories[task]) for name, (task, _) in SETS.items()}
    faults = [fault for name, (task, _) in SETS.items() for fault in faults_of_set(name, stories[task], sets[name])]
    if faults:
        raise ValueError("\n".join(faults))
    return sets


def stories(*, output: Path = FOLDER / "prompts" / "wan") -> list[str]:
    """Assemble and check the prompt sets of the real backbones, and write them as JSONL. Same code, same bytes.

        echo-harness data stories

    Args:
        output: the folder to write to.
    """
    lines = []
    for name, prompts in make(FOLDER / "stories").items():
        write_set(output / f"{name}.jsonl", (PromptLine(prompt, VERSION) for prompt in prompts))
        scenes = [scene for prompt in prompts for scene in prompt.scenes]
        words = [len(scene.split()) for scene in scenes]
        longest = max(len(scene.encode()) for scene in scenes)
        mean = sum(words) / len(words)
        lines.append(
            f"{name}: {len(prompts)} prompts, {len(scenes)} scenes of {min(words)} to {max(words)} words "
            f"(mean {mean:.1f}), {longest} bytes at most"
        )
    return lines
