"""The prompt sets of the embedded world, five by day and three under other lights; the same code makes the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.prompt_sets import PromptLine, entered, write_set
from data.world.words import BEAM, COLOURS, DAY, MOTIONS, PATTERNS, PLACES, RETURNS, SHAPES, TEMPLATES, UNLIT, Words, sentence
from echo.scene import Prompt

VERSION = 1
"""Increases with every change that alters a prompt."""
COUNT = 64
FOLDER = Path(__file__).resolve().parent / "prompts"
SCENE_S = 10.0

Drawn = tuple[list[Words], list[tuple[str, ...]]]
"""Attributes of each scene, and the templates for its sentence."""


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return str(rng.choice(words))


def _motions(rng: np.random.Generator, scenes: int) -> list[str]:
    """Motions in random order; there are six, so that six scenes all move differently."""
    return [str(motion) for motion in rng.permutation(MOTIONS)[:scenes]]


def _one(rng: np.random.Generator) -> Drawn:
    words = Words(_pick(rng, COLOURS), _pick(rng, SHAPES), _pick(rng, MOTIONS), _pick(rng, PLACES), _pick(rng, PATTERNS))
    return [words], [TEMPLATES]


def _smooth(rng: np.random.Generator) -> Drawn:
    """Same subject, same place, six motions."""
    one = _one(rng)[0][0]
    return [replace(one, motion=motion) for motion in _motions(rng, 6)], [TEMPLATES] * 6


def _hard(rng: np.random.Generator) -> Drawn:
    """Same subject, six places."""
    one = _one(rng)[0][0]
    places = [str(place) for place in rng.permutation(PLACES)]
    moves = zip(_motions(rng, 6), places, strict=True)
    return [replace(one, motion=motion, place=place, pattern=_pick(rng, PATTERNS)) for motion, place in moves], [TEMPLATES] * 6


def _recall(rng: np.random.Generator) -> Drawn:
    """A-B-C-A-B-C: same subject, three places of different name and pattern, shown twice, the second time with another motion."""
    scenes = _hard(rng)[0]
    patterns = [str(pattern) for pattern in rng.permutation(PATTERNS)[:3]] * 2
    again = zip(scenes, scenes[:3] * 2, patterns, strict=True)
    return [replace(words, place=first.place, pattern=pattern) for words, first, pattern in again], [TEMPLATES] * 3 + [RETURNS] * 3


SETS: dict[str, tuple[Callable[[np.random.Generator], Drawn], float, tuple[str, ...]]] = {
    "long60": (_one, 60.0, ("",)),
    "long120": (_one, 120.0, ("",)),
    "smooth": (_smooth, SCENE_S, ("",) * 6),
    "hard": (_hard, SCENE_S, ("", *("#",) * 5)),
    "recall": (_recall, SCENE_S, ("", "#", "#", "@", "@", "@")),
}
"""Set -> generator of its prompts, seconds per scene, tags."""
LIGHTS: dict[str, tuple[str, ...]] = {
    "long60": (DAY, UNLIT, DAY, UNLIT, DAY), "long120": (DAY, UNLIT) * 5, "smooth": (DAY, UNLIT, DAY, BEAM, UNLIT, DAY),
}  # fmt: skip
"""Set that exists under other lights too -> the light of each of its scenes, which divide the time of the set by day."""


def build(name: str, lit: bool = False) -> list[Prompt]:
    """The prompts of one set, by day or under other lights, all different."""
    draw, duration_s, tags = SETS[name]
    lights = LIGHTS[name] if lit else (DAY,) * len(tags)
    scenes = len(lights) // len(tags)  # of each that is drawn
    rng = np.random.default_rng([VERSION, sorted(SETS).index(name), *[1] * lit])
    prompts: list[Prompt] = []
    seen: set[tuple[Words, ...]] = set()
    while len(prompts) < COUNT:
        drawn, templates = draw(rng)
        words = [replace(one, light=light) for one, light in zip([one for one in drawn for _ in range(scenes)], lights, strict=True)]
        choices = [int(choice) for choice in rng.integers(0, 1 << 30, size=len(words))]
        if tuple(words) in seen:
            continue
        seen.add(tuple(words))
        texts = (sentence(*scene) for scene in zip(words, choices, templates * scenes, strict=True))
        prompts.append(entered(f"{name}-{'lit-' * lit}{len(prompts):03d}", texts, duration_s / scenes, tags * scenes))
    return prompts


def prompts(*, output: Path = FOLDER) -> None:
    """Write the prompt sets of the embedded world as JSONL, those under other lights in a folder `lit`. Same code, same bytes.

        echo-harness data prompts

    Args:
        output: the folder to write to.
    """
    for name in SETS:
        write_set(output / f"{name}.jsonl", (PromptLine(prompt, VERSION) for prompt in build(name)))
    for name in LIGHTS:
        write_set(output / "lit" / f"{name}.jsonl", (PromptLine(prompt, VERSION) for prompt in build(name, lit=True)))
