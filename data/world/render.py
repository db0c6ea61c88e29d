"""Clips of the world from integer seeds: 48x48 RGB at 16 frames a second, with the truth of each clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.world.words import BEAM, DAY, KINDS, Words

VERSION = 2
"""Increases with every change that alters a pixel or a truth for the same seed."""
SIZE = 48
FPS = 16
SPEED = 1.0
"""Pixels per frame: 12 px in a block of 12 frames."""
PERIOD = 12
"""Pixels after which a pattern repeats, and the width of a cell of the landmarks' 4x4 grid."""

SUBJECT_RGB = {
    "red": (225, 25, 30), "green": (30, 200, 50), "blue": (35, 70, 235), "yellow": (245, 220, 30),
    "white": (252, 252, 252),
}  # fmt: skip
PLACE_RGB = {
    "meadow": (92, 128, 78), "desert": (186, 158, 112), "ocean": (52, 100, 128), "midnight": (34, 36, 56),
    "dusk": (128, 84, 106), "snowfield": (164, 182, 204),
}  # fmt: skip
LANDMARK_RGB = {"magenta": (240, 20, 200), "cyan": (20, 225, 235), "orange": (255, 140, 0), "violet": (140, 50, 245)}
LANDMARK = 6
"""Pixels on a side of a landmark."""
WINDOW = 24
"""Pixels on a side of the square in which a subject is painted."""
OUTLINE_RGB = (12, 12, 14)
NIGHT_RGB = (10, 10, 16)
"""Of a place where no light falls; nothing of it shines through."""
BEAM_S = (10.0, 20.0)
"""Seconds in which a beam goes once round the frame, at least and at most."""
BEAM_REACH, BEAM_EDGE = 12.0, 4.0
"""Pixels from a beam to the middle of the farthest column of cells that it lights, and over how many its light falls from 1 to 0."""
LAMP_RGB, LAMP_ROWS, LAMP_REACH = (255, 246, 214), 6, 8.0
"""The lamp of a beam, which moves along a dark rail above every landmark: rows of both, pixels from its middle to its ends."""
ALL, NONE = np.inf, -np.inf
"""Instead of where a beam stands: all is lit, or nothing is."""

_ORIGIN = {"circling": (24.0, 15.0), "bouncing": (24.0, 32.0)}


@dataclass(frozen=True)
class Landmark:
    """A square of 6x6 px: `row`, `column` of its upper left pixel, and the name of its colour."""

    row: int
    column: int
    colour: str


@dataclass(frozen=True)
class Place:
    """Identity of a place, which distinguishes it from others of the same words; prompts never mention it.

    hue: -1 (cold) to 1 (warm). phase: (down, right) shift of the pattern in pixels, 0 to 9.
    """

    landmarks: tuple[Landmark, ...]
    hue: float
    phase: tuple[int, int]


@dataclass(frozen=True)
class Truth:
    """Everything that determines a clip: its words, its place, and the subject's positions.

    centres: (x, y) of the subject in pixels for each frame, float64 [T, 2], wrapped into 0..48.
    beam: where the light stands in pixels from the left, float64 [T], ALL or NONE; None by day. The subject shines by itself.
    """

    words: Words
    place: Place
    radius: float
    centres: NDArray[np.float64]
    beam: NDArray[np.float64] | None = None

    @property
    def shade(self) -> NDArray[np.float64] | None:
        """Light on each column of the place, 0..1, [T, 48]; None by day."""
        return None if self.beam is None else shade_of(self.beam)

    def part(self, start: int, end: int) -> Truth:
        """Frames [start, end) of the clip."""
        return replace(self, centres=self.centres[start:end], beam=None if self.beam is None else self.beam[start:end])


def draw_place(rng: np.random.Generator, easy: bool = False) -> Place:
    """A place drawn from `rng`; an easy one has no landmarks (the other draws stay the same)."""
    cells = rng.choice(16, size=3, replace=False)
    names = rng.choice(sorted(LANDMARK_RGB), size=3)
    hue = float(rng.uniform(-1, 1))
    down, right = (int(step) for step in rng.integers(0, 4, size=2) * 3)
    marks = tuple(
        Landmark(int(cell) // 4 * PERIOD + 6, int(cell) % 4 * PERIOD + 6, str(name)) for cell, name in zip(cells, names, strict=True)
    )
    return Place(() if easy else marks, hue, (down, right))


def draw_words(rng: np.random.Generator) -> Words:
    """Five independent uniform words."""
    return Words(*(str(rng.choice(known)) for known in KINDS.values()))


def displacement(motion: str, frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y) in pixels from where a motion starts, `frames` frames later; zero at 0, float64 [T, 2]."""
    zero = np.zeros_like(frames)
    if motion == "circling":
        angle = frames * (2 * np.pi / 48)
        x, y = 9 * np.sin(angle), 9 * (1 - np.cos(angle))
    elif motion == "bouncing":
        x, y = zero, -15 * np.abs(np.sin(frames * (np.pi / 24)))
    else:
        across, along = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[motion]
        x, y = across * SPEED * frames + zero, along * SPEED * frames + zero
    return np.stack([x, y], axis=-1)


def draw(seed: int | Sequence[int], frames: int, easy: bool = False, words: Words | None = None, before: int = 0) -> Truth:
    """The truth of the clip of `seed`, `frames` long.

    words: what the clip shows; drawn if None. before: number of frames in which the subject first moves in another, random way
    from a random position, before the motion of its words (0: it starts near the middle).
    """
    rng = np.random.default_rng([VERSION, *([seed] if isinstance(seed, int) else seed)])
    drawn = draw_words(rng)
    words = words or drawn
    place = draw_place(rng, easy)
    radius = float(rng.uniform(9.0, 9.8))
    jitter = rng.uniform(-3.75, 3.75, size=2)
    anywhere = rng.uniform(0, SIZE, size=2)
    earlier = str(rng.choice(KINDS["motion"]))
    time = np.arange(frames, dtype=np.float64)
    if before == 0:
        start = np.array(_ORIGIN.get(words.motion, (24.0, 24.0))) + jitter
        centres = start + displacement(words.motion, time)
    else:
        first = anywhere + displacement(earlier, time[: before + 1])
        centres = np.concatenate([first[:-1], first[-1] + displacement(words.motion, time[: frames - before])])
    return Truth(words, place, radius, np.mod(centres, SIZE), lit(words.light, seed, time))


def lit(light: str, seed: int | Sequence[int], frames: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Where the light stands at `frames` of a scene, [T]; None by day. `seed` draws when and which way a beam comes by, and how fast."""
    if light == DAY:
        return None
    if light != BEAM:
        return np.full(len(frames), NONE)
    rng = np.random.default_rng([VERSION, *([seed] if isinstance(seed, int) else seed), len(BEAM)])
    start, period_s, way = rng.uniform(0, SIZE), rng.uniform(*BEAM_S), rng.choice((-1, 1))
    return np.mod(start + way * SIZE / (period_s * FPS) * frames, SIZE)


def shade_of(beam: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light on each column, 0..1, [T, 48], of where it stands, [T]. A beam lights whole columns of cells, each for half of its round."""
    column = np.arange(SIZE) // PERIOD * PERIOD + PERIOD / 2
    light: NDArray[np.float64] = np.clip((BEAM_REACH - _away(column, beam)) / BEAM_EDGE, 0, 1)
    light[beam == ALL], light[beam == NONE] = 1, 0
    return light


def _away(columns: NDArray[np.floating], beam: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels from each column to the beam, round the frame, [T, 48]."""
    middle = np.where(np.isfinite(beam), beam, 0)[:, None]
    away: NDArray[np.float64] = np.abs(np.mod(columns - middle + SIZE / 2, SIZE) - SIZE / 2)
    return away


def under(truth: Truth, light: str, seed: int | Sequence[int]) -> Truth:
    """The same clip in another light."""
    time = np.arange(len(truth.centres), dtype=np.float64)
    return replace(truth, words=replace(truth.words, light=light), beam=lit(light, seed, time))


def render(truths: Sequence[Truth]) -> NDArray[np.uint8]:
    """Frames uint8 [B,T,48,48,3] of clips of the same length."""
    scenes = np.stack([background(truth.words.place, truth.words.pattern, truth.place) for truth in truths])
    length = len(truths[0].centres)
    frames = np.repeat(scenes[:, None], length, axis=1)
    for shown, truth in zip(frames, truths, strict=True):
        shown[:] = shaded(shown, truth)
    alphas: NDArray[np.float32] = np.empty((len(truths), length, 2, WINDOW, WINDOW), dtype=np.float32)
    for index, truth in enumerate(truths):
        alphas[index] = _subject(truth)
    centres = np.stack([truth.centres for truth in truths])
    corner = np.floor(centres).astype(np.int64) - (WINDOW // 2 - 1)
    span = np.arange(WINDOW)
    columns = np.mod(corner[..., 0, None] + span, SIZE)[:, :, None, :]
    rows = np.mod(corner[..., 1, None] + span, SIZE)[:, :, :, None]
    clip = np.arange(len(truths))[:, None, None, None]
    time = np.arange(length)[None, :, None, None]
    window = frames[clip, time, rows, columns]
    fill = np.array([SUBJECT_RGB[truth.words.colour] for truth in truths], dtype=np.float32)[:, None, None, None]
    body, ink = alphas[:, :, 0, :, :, None], alphas[:, :, 1, :, :, None]
    paint = fill * body + np.array(OUTLINE_RGB, dtype=np.float32) * (1 - body)
    frames[clip, time, rows, columns] = window + ink * (paint - window)
    return np.rint(frames).astype(np.uint8)


def shaded(scenes: NDArray[np.float32], truth: Truth) -> NDArray[np.float32]:
    """Scenes [T, 48, 48, 3] in the light of each frame of `truth`, with the lamp of its beam: what moves says where the light goes."""
    if truth.beam is None:
        return scenes
    night = np.array(NIGHT_RGB, dtype=np.float32)
    dark: NDArray[np.float32] = night + (scenes - night) * shade_of(truth.beam)[:, None, :, None].astype(np.float32)
    passing = np.isfinite(truth.beam)
    lamp = np.clip((LAMP_REACH + 1 - _away(np.arange(SIZE) + 0.5, truth.beam[passing])) / 2, 0, 1)
    dark[passing, :LAMP_ROWS] = night + (np.array(LAMP_RGB, dtype=np.float32) - night) * lamp[:, None, :, None].astype(np.float32)
    return dark


def clip(seed: int | Sequence[int], frames: int, easy: bool = False, words: Words | None = None) -> tuple[NDArray[np.uint8], Truth]:
    """One clip, uint8 [T,48,48,3], and its truth; the arguments are those of `draw`."""
    truth = draw(seed, frames, easy, words)
    return render([truth])[0], truth


def background(place: str, pattern: str, identity: Place) -> NDArray[np.float32]:
    """A place without its subject, float32 [48,48,3] in 0..255."""
    base = np.array(PLACE_RGB[place], dtype=np.float32) + identity.hue * np.array([12, 0, -12], dtype=np.float32)
    turn = 2 * np.pi / PERIOD
    steps = np.arange(SIZE, dtype=np.float32)
    down = np.cos(turn * (steps - identity.phase[0]))[:, None]
    right = np.cos(turn * (steps - identity.phase[1]))[None, :]
    contrast = 0.34 * base.mean() + 20
    shade = {
        "plain": np.zeros((SIZE, SIZE)),
        "striped": np.clip(1.6 * right, -1, 1) * np.ones((SIZE, 1)),
        "checked": np.clip(1.8 * down * right, -1, 1),
        "dotted": 1.6 * np.clip(down + right - 0.9, 0, 1),
    }[pattern]
    scene: NDArray[np.float32] = np.clip(base + contrast * shade[..., None].astype(np.float32), 0, 255)
    for mark in identity.landmarks:
        scene[mark.row : mark.row + LANDMARK, mark.column : mark.column + LANDMARK] = LANDMARK_RGB[mark.colour]
    return scene


def _subject(truth: Truth) -> NDArray[np.float32]:
    """Share of fill and share of ink (fill and outline) of each pixel near the subject, [T, 2, WINDOW, WINDOW]."""
    fraction = truth.centres - np.floor(truth.centres)
    span = np.arange(WINDOW) - (WINDOW // 2 - 1)
    x = span[None, None, :] - fraction[:, 0, None, None]
    y = span[None, :, None] - fraction[:, 1, None, None]
    radius, shape = truth.radius, truth.words.shape
    if shape == "ball":
        depth = radius - np.hypot(x, y)
    elif shape == "ring":
        # Thick enough that its fill still shows its colour between two outlines.
        depth = 2.9 - np.abs(np.hypot(x, y) - (radius - 2.6))
    elif shape == "box":
        depth = (radius - 0.9) - np.maximum(np.abs(x), np.abs(y))
    else:
        # Apex up; the slanted sides fall 1.8 px for each pixel outwards.
        depth = np.minimum((radius - 1.0) - y, (y + radius + 1.2 - 1.8 * np.abs(x)) / np.sqrt(4.24))
    outline = 1.4 if shape != "ring" else 1.1
    # Edges 2 px soft: sharper ones cost the codec more than the eye gains.
    layers = [np.clip((depth - outline) / 2 + 0.5, 0, 1), np.clip(depth / 2 + 0.5, 0, 1)]
    return np.stack(layers, axis=1).astype(np.float32)
