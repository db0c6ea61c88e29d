"""Readings of frames of the world: words, landmarks, hue, shift of the pattern, and the subject's motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.world.render import LANDMARK_RGB, SIZE, displacement
from data.world.words import DAY, LIGHT, LIT, MOTIONS, SAYABLE
from eval.measures.formulas import Frames
from eval.metrics import READING_FRAMES

if TYPE_CHECKING:
    from eval.world.encoder import FrameEncoder, Seen

Floats = NDArray[np.float64]

BLOCK = READING_FRAMES
"""Pixel frames that are read together: three latent frames, whatever a backbone's own blocks are."""
CLASSES = 1 + len(LANDMARK_RGB)
"""Contents of a lit cell: nothing, or a landmark of one of the colours."""
LOOPS = {"circling": 48, "bouncing": 24}
"""Frames after which a motion repeats; a straight motion has no phase, only a start position."""
PLACE = ("place", "pattern")
"""What a sentence says of a place, which nobody can see without light."""
LEAST = 24
"""Fewest frames that distinguish motions: a whole bounce, half a circle."""
MOTION_WINDOW = 36
"""Frames over which motion is read: three blocks, 2.25 s."""
MOVES = 0.5
"""Share of a motion's path that must be explained for the motion to count."""


@dataclass(frozen=True)
class Readings:
    """Readings of T frames.

    words: kind -> probability of each of its words, in the order of KINDS, [T, K]. cells [T, 16, 5]: probability that a
    cell of the 4x4 grid holds nothing, or a landmark of each colour. hue [T], -1 to 1. turns [T, 4]: the pattern's shifts
    as complex numbers of length about 1, in the order of `eval.world.encoder.ANGLES`. centres [T, 2]: (x, y) of the subject in
    pixels, 0..48. lit: whether light falls on what a cell may hold, 0..1, [T, 16]; None where all is read as by day.
    """

    words: dict[str, Floats]
    cells: Floats
    hue: Floats
    turns: NDArray[np.complex128]
    centres: Floats
    lit: Floats | None = None

    def span(self, start: int, end: int) -> Readings:
        """The readings of frames [start, end)."""
        part = slice(start, end)
        words = {kind: values[part] for kind, values in self.words.items()}
        return Readings(
            words, self.cells[part], self.hue[part], self.turns[part], self.centres[part], None if self.lit is None else self.lit[part]
        )


def readings_of(seen: Seen) -> Readings:
    """Readings of what the encoder saw."""
    words = {kind: scores.double().softmax(1).numpy() for kind, scores in seen.words.items()}
    surface, centre = seen.surface.double().numpy(), seen.centre.double().numpy()
    half = (surface.shape[1] - 1) // 2
    turns = surface[:, 1 : 1 + half] + 1j * surface[:, 1 + half :]
    around = np.arctan2(centre[:, 2:], centre[:, :2]) * (SIZE / (2 * np.pi))
    cells = seen.cells.double()
    held = cells[..., :CLASSES].softmax(2).numpy()
    lit = 1 - cells.softmax(2)[..., CLASSES].numpy() if LIGHT in words else None
    return Readings(words, held, surface[:, 0], turns, np.mod(around, SIZE), lit)


def read(encoder: FrameEncoder, frames: Frames) -> Readings:
    """Readings of video frames uint8 [T, 48, 48, 3]."""
    import torch

    return readings_of(encoder.frames(torch.from_numpy(np.ascontiguousarray(frames))))


def said(text: str) -> dict[str, str]:
    """Kind -> word, for each kind with exactly one word in `text`; the light is day if none is stated.

    Raises ValueError for a word that the world does not know.
    """
    concepts = LIT.concepts_of(text)
    words_of = {kind: [word for word in concepts if word in known] for kind, known in SAYABLE.items()}
    words_of[LIGHT] = words_of[LIGHT] or [DAY]
    return {kind: words[0] for kind, words in words_of.items() if len(words) == 1}


def wrapped(distance: Floats) -> Floats:
    """Distances in pixels by the shorter way around the world, -24 to 24."""
    return np.mod(distance + SIZE / 2, SIZE) - SIZE / 2


def motion_fits(centres: Floats) -> dict[str, float]:
    """How well the path `centres` [T, 2] follows each motion: 1 exactly, 0 like standing still, below 0 worse than that.

    The best fit over all phases and places of the motion; distances are taken around the world, so that one misread frame costs one
    frame. Raises ValueError for fewer than 24 frames.
    """
    if len(centres) < LEAST:
        raise ValueError(f"{len(centres)} frame(s): motions are told apart from {LEAST} frames on")
    fits = {}
    for motion in MOTIONS:
        paths, still = _paths(motion, len(centres))
        fits[motion] = float((1 - _scatter(centres - paths) / still).max())
    return fits


def motion_of(centres: Floats) -> str | None:
    """The motion that the path `centres` [T, 2] follows best; None if it follows none by half."""
    fits = motion_fits(centres)
    best = max(fits, key=lambda motion: fits[motion])
    return best if fits[best] >= MOVES else None


@lru_cache(maxsize=64)
def _paths(motion: str, frames: int) -> tuple[Floats, Floats]:
    """A motion's paths from every phase of its loop, [N, T, 2], and the scatter of each about its centre, [N]."""
    time = np.arange(frames, dtype=np.float64)
    paths = np.stack([displacement(motion, time + begin) for begin in range(LOOPS.get(motion, 1))])
    return paths, _scatter(paths)


def _scatter(points: Floats) -> Floats:
    """Mean square distance in px^2 of `points` [..., T, 2] from their own centre, taken around the world."""
    middle = np.angle(np.exp(2j * np.pi / SIZE * points).mean(-2, keepdims=True)) * (SIZE / (2 * np.pi))
    return (wrapped(points - middle) ** 2).sum(-1).mean(-1)


def blocks_of(start: int, end: int) -> list[tuple[int, int]]:
    """Frames [first, last) of the blocks of a segment; the last block may be shorter."""
    return [(first, min(first + BLOCK, end)) for first in range(start, end, BLOCK)]


def probabilities(readings: Readings, words: Mapping[str, str]) -> dict[str, float]:
    """Mean probability over frames of a sentence's words, for the kinds that a frame shows."""
    mean = {kind: values.mean(0) for kind, values in readings.words.items()}
    return {kind: float(mean[kind][SAYABLE[kind].index(words[kind])]) for kind in mean if kind in words}


def right(readings: Readings, words: Mapping[str, str]) -> dict[str, bool]:
    """Whether the likeliest word over these frames is the sentence's, for each visible kind in the sentence."""
    likeliest = {kind: SAYABLE[kind][int(values.mean(0).argmax())] for kind, values in readings.words.items()}
    return {kind: word == words[kind] for kind, word in likeliest.items() if kind in words}


def right_pairs(readings: Readings, words: Mapping[str, str]) -> dict[str, int | None]:
    """Whether place (colour and pattern) and subject (shape and colour) agree with the sentence: 1, 0, or None if it does not say."""
    rights = right(readings, words)
    pairs = {"place_right": PLACE, "subject_right": ("shape", "colour")}
    return {
        name: int(all(rights[kind] for kind in kinds)) if all(kind in rights for kind in kinds) else None for name, kinds in pairs.items()
    }
