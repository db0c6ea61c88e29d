"""Calibration rows: videos of a prompt's script by the renderer itself, in place of a backbone.

truth: a recalled scene shows the same place again, so no memory can do better. other: every scene is a new place of its
words, as if only the text were left of the past. shuffled: the frames of truth in random order. The subject keeps its
size and the properties in the prompt; after a smooth transition it continues from its last position.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from data.world.render import SIZE, VERSION, Truth, draw, lit, render
from data.world.words import Words, parse
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.scene import PIXEL_FRAMES_PER_LATENT, Prompt, Transition, scene_blocks


class Way(StrEnum):
    """The three kinds of rendered videos."""

    truth = "truth"
    other = "other"
    shuffled = "shuffled"


@dataclass(frozen=True, kw_only=True)
class Render(Policy):
    """Takes the place of a cache policy, so that a calibration row is a run like any other (`Job.rendered` is true).

    world: version of the renderer.
    """

    way: Way = Way.truth
    world: int = VERSION

    def __post_init__(self) -> None:
        if self.world != VERSION:
            raise ValueError(f"world {self.world}: this code renders version {VERSION} alone; nearest is {VERSION}")

    def plan(self, step: Step) -> Plan:
        raise ValueError(f"{self.label or self.way}: rendered, so no block attends to anything and there is no plan")

    def capacity(self, geometry: Geometry) -> int:
        return 0

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises ValueError for a prompt that the renderer cannot show: unknown words, or a recall of a place not yet shown."""
        try:
            _shown_before(prompt, [parse(text) for text in prompt.scenes], self)
        except ValueError as error:
            raise ValueError(f"prompt {prompt.id!r}: {error}") from None

    def lengths(self, prompt: Prompt, frames_per_block: int) -> tuple[int, ...]:
        """Blocks of each scene."""
        return scene_blocks(prompt.durations_s, self.durations, frames_per_block)

    def film(self, prompt: Prompt, seed: int, frames_per_block: int) -> NDArray[np.uint8]:
        """The whole video, uint8 [T, 48, 48, 3], with four frames for each latent frame; raises like `check_prompt`."""
        frames = np.concatenate([render([truth])[0] for truth in truths(prompt, seed, self, frames_per_block)])
        if self.way is Way.shuffled:
            frames = frames[np.random.default_rng(_key(seed, prompt)).permutation(len(frames))]
        return frames


def truths(prompt: Prompt, seed: int, policy: Render, frames_per_block: int) -> list[Truth]:
    """The truth of each scene in order."""
    said = [parse(text) for text in prompt.scenes]
    sources = _shown_before(prompt, said, policy)
    entered = prompt.transitions(policy.tags)
    made: list[Truth] = []
    light: tuple[int, ...] = ()
    shown = 0
    for scene, (words, blocks) in enumerate(zip(said, policy.lengths(prompt, frames_per_block), strict=True)):
        frames = blocks * frames_per_block * PIXEL_FRAMES_PER_LATENT
        key = (*_key(seed, prompt), scene, int(policy.way is Way.other))
        drawn = draw(key, frames + 1, words=words)
        place, centres, source = drawn.place, drawn.centres[1:], sources[scene]
        if source is not None and policy.way is not Way.other:
            place = made[source].place
        if entered[scene] is not Transition.smooth or said[scene - 1].light != words.light:
            light, shown = key, 0
        if entered[scene] is Transition.smooth:
            centres = np.mod(drawn.centres + (made[-1].centres[-1] - drawn.centres[0]), SIZE)[1:]
        at = lit(words.light, light, np.arange(shown, shown + frames, dtype=np.float64))
        shown += frames
        radius = made[0].radius if made else drawn.radius
        made.append(dataclasses.replace(drawn, place=place, centres=centres, radius=radius, beam=at))
    return made


def _shown_before(prompt: Prompt, said: Sequence[Words], policy: Render) -> list[int | None]:
    """The earlier scene whose place each scene shows again: the previous one if smooth, the first with the same place if recalled."""
    sources: list[int | None] = []
    for scene, (words, transition) in enumerate(zip(said, prompt.transitions(policy.tags), strict=True)):
        if scene and transition is None:
            raise ValueError(f"scene {scene + 1} has no tag, and a rendered row shows what tags say; nearest is '', '#' or '@'")
        source = scene - 1 if transition is Transition.smooth else None
        if transition is Transition.recall:
            alike = (early for early in range(scene) if (said[early].place, said[early].pattern) == (words.place, words.pattern))
            source = next(alike, None)
            if source is None:
                shown = ", ".join(f"{early.pattern} {early.place}" for early in said[:scene])
                raise ValueError(f"scene {scene + 1} recalls a {words.pattern} {words.place}, but only {shown} came before")
        sources.append(source)
    return sources


def _key(seed: int, prompt: Prompt) -> tuple[int, int]:
    """Random seed of a video, independent of the order in which videos are made."""
    return seed, int.from_bytes(hashlib.blake2b(prompt.id.encode(), digest_size=8).digest(), "big") >> 1
