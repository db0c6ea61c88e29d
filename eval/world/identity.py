"""How much of what a place first showed is still there, whenever light falls on it: identity over time, from readings.

A place's landmarks, hue and shift are said by no prompt. In one scene a cache that forgets shows others when the light comes back.
Beside it stand the other scores under lights: how well the stated motion is followed, and how soon a change of light is obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.world.render import BEAM_S, FPS, PERIOD, SIZE
from data.world.words import BEAM, DAY, KINDS, LIGHT, SAYABLE
from eval.world.places import SHOWN, STANDING, half_life, hue_agreement, switches, unhidden
from eval.world.readings import BLOCK, LEAST, MOTION_WINDOW, Readings, blocks_of, motion_fits

IDENTITY_KEPT, MOTION_FOLLOWED, LIGHT_FOLLOWED, RESPONSE_BLOCKS = "identity_kept", "motion_followed", "light_followed", "response_blocks"
"""Metrics that are computed here, without the definition that the store puts before them."""
FIRST = 24
"""Frames in the light that say what a cell, or a place's hue and shift, first was."""
AFTER = 13 * BLOCK
"""Frames behind them from which on it counts whether they are still so: ten seconds, when no beam stands where it stood."""
ROUND = 6 * BLOCK
"""Frames before the end of a block over which the way of a beam is taken: 4.5 s, a quarter to a half of a round."""
LIT = 0.5
"""Light from which on a cell counts."""

GRID = SIZE // PERIOD
"""Columns of cells."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Kept:
    """What a block says of identity: landmarks in common and in all, agreement of hue and of shift 0..1, and what the latter weighs."""

    common: float
    all: float
    hue: float
    shift: float
    patterned: float


@dataclass(frozen=True)
class Identity:
    """Of a video. whole: 0..1, None where nothing comes late enough; parts: of it. blocks: 0..1 of each block of its scenes, or None."""

    whole: float | None
    parts: dict[str, float] = field(default_factory=dict)
    blocks: list[float | None] = field(default_factory=list)


def identity(readings: Readings, chains: Sequence[Sequence[Span]]) -> Identity:
    """How much of what each chain of scenes in one place, frames [start, end) each, first showed is there later, when light falls on it.

    Landmarks count half, hue and shift of the pattern a quarter each, as they do at a recall; of what a place does not have (the shift
    of a plain one) or a block does not show (a cell in the dark or behind the subject) nothing is asked.
    """
    every = [kept for chain in chains for kept in _kept(readings, chain)]
    whole, parts = _weighed([kept for kept in every if kept is not None])
    return Identity(whole, parts, [None if kept is None else _weighed([kept])[0] for kept in every])


def chains_of(words: Sequence[Mapping[str, str]], spans: Sequence[Span]) -> list[Sequence[Span]]:
    """The spans of scenes, those together that are said to be in one place."""
    starts = [0, *switches(words)]
    return [spans[first:last] for first, last in zip(starts, [*starts[1:], len(spans)], strict=True)]


def _kept(video: Readings, scenes: Sequence[Span]) -> list[Kept | None]:
    """Of each block of a chain of scenes, None where nothing can be compared yet."""
    readings = video.span(scenes[0][0], scenes[-1][1])
    seen = unhidden(readings) > LIT
    shown_first, since = _first(seen)
    cells = _mean(readings.cells[..., 1:], shown_first)
    somewhere: NDArray[np.bool_] = np.any(seen if readings.lit is None else readings.lit > LIT, axis=1)
    begin, lit_since = _first(somewhere[:, None])
    hue, turns = float(np.median(readings.hue[begin[:, 0]])) if begin.any() else 0.0, _mean(readings.turns[:, None], begin)[0]
    pattern = _mean(readings.words["pattern"][:, None], begin)[0]
    rows: list[Kept | None] = []
    for start, end in (block for first, last in scenes for block in blocks_of(first - scenes[0][0], last - scenes[0][0])):
        part = slice(start, end)
        now = seen[part] & (np.arange(start, end)[:, None] >= since)
        lit = somewhere[part] & (np.arange(start, end) >= lit_since[0])
        if not lit.any():
            rows.append(None)
            continue
        share, shown = now.mean(0)[:, None], _mean(readings.cells[part][..., 1:], now)
        common, largest = (float((share * rule(cells, shown)).sum()) for rule in (np.minimum, np.maximum))
        turned = np.cos(np.angle(turns) - np.angle(readings.turns[part][lit].mean(0)))
        weight = pattern @ SHOWN
        shift = float((weight * np.clip(turned, 0, None)).sum() / max(weight.sum(), 1e-9))
        agreed = hue_agreement(hue, float(np.median(readings.hue[part][lit])))
        rows.append(Kept(common, largest, agreed, shift, 1 - float(pattern[KINDS["pattern"].index("plain")])))
    return rows


def _first(seen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The first frames in which each column of [T, N] is seen, and the frame from which on it counts again; past the end if never."""
    count = seen.cumsum(0)
    first = seen & (count <= FIRST)
    whole = count[-1] >= FIRST
    since = np.where(whole, (count >= FIRST).argmax(0) + AFTER, len(seen))
    return first, since


def _mean(values: NDArray[np.generic], chosen: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Mean of [T, N, K] over the frames of `chosen` [T, N]; 0 where there is none."""
    weight = chosen[..., None]
    mean: NDArray[np.generic] = (values * weight).sum(0) / np.maximum(weight.sum(0), 1)
    return mean


def _weighed(rows: Sequence[Kept]) -> tuple[float | None, dict[str, float]]:
    """Identity of some blocks together and its parts, 0..1."""
    if not rows:
        return None, {}
    parts = {"hue": float(np.mean([row.hue for row in rows]))}
    weights = {"hue": 0.25, "shift": 0.25 * float(np.mean([row.patterned for row in rows]))}
    if weights["shift"] > 0:
        parts["shift"] = float(np.average([row.shift for row in rows], weights=[row.patterned for row in rows]))
    if (every := sum(row.all for row in rows)) >= STANDING:
        parts["landmarks"], weights["landmarks"] = sum(row.common for row in rows) / every, 0.5
    return sum(weights[part] * parts[part] for part in parts) / sum(weights[part] for part in parts), parts


@dataclass(frozen=True)
class LitScores:
    """Scores of a video under lights: metrics by their names in the store, and what identity is made of."""

    metrics: dict[str, float]
    identity: Identity


def lit_scores(readings: Readings, words: Sequence[Mapping[str, str]], spans: Sequence[Span]) -> LitScores:
    """Identity, motion and light, 0..100, and response in blocks, each where there is something to compare.

    words: what each scene's sentence says. spans: frames [start, end) of each scene.
    """
    kept, late = identity(readings, chains_of(words, spans)), response(readings, words, spans)
    shares = {IDENTITY_KEPT: kept.whole, MOTION_FOLLOWED: motion(readings, words, spans), LIGHT_FOLLOWED: light(readings, words, spans)}
    metrics = {f"world.{name}": 100 * value for name, value in shares.items() if value is not None}
    return LitScores(metrics | ({} if late is None else {f"world.{RESPONSE_BLOCKS}": late}), kept)


def motion(readings: Readings, words: Sequence[Mapping[str, str]], spans: Sequence[Span]) -> float | None:
    """How well the subject follows the motion that its scene says, 0..1: the share of its way that the motion explains, in 2.25 s before
    the end of each block, on the mean. Slower and faster than said is less. None where no scene says one or lasts so long."""
    fits = [
        max(0.0, motion_fits(readings.centres[max(start, end - MOTION_WINDOW) : end])[scene["motion"]])
        for scene, (start, finish) in zip(words, spans, strict=True)
        for _, end in blocks_of(start, finish)
        if "motion" in scene and end - start >= LEAST
    ]
    return float(np.mean(fits)) if fits else None


def light(readings: Readings, words: Sequence[Mapping[str, str]], spans: Sequence[Span]) -> float | None:
    """How well the light does what is said, 0..1: by day the share of cells that is lit, without light that which is dark, and of a beam
    how nearly it goes round within its seconds, over 4.5 s before the end of each block; one that stands still has 0."""
    lit = readings.lit
    if lit is None:
        return None
    columns = lit.reshape(len(lit), GRID, GRID).mean(1)
    turn = np.unwrap(np.angle(columns @ np.exp(2j * np.pi / GRID * np.arange(GRID))))
    least, most = (1 / seconds for seconds in reversed(BEAM_S))
    shares = []
    for scene, (start, finish) in zip(words, spans, strict=True):
        for first, end in blocks_of(start, finish):
            begin = max(start, end - ROUND)
            if scene[LIGHT] != BEAM:
                whole = float(lit[first:end].mean())
                shares.append(whole if scene[LIGHT] == DAY else 1 - whole)
            elif end - begin == ROUND:
                pace = abs(float(turn[end - 1] - turn[begin])) / (2 * np.pi) * FPS / (ROUND - 1)
                shares.append(min(1.0, pace / least, most / max(pace, 1e-9)))
    return float(np.mean(shares)) if shares else None


def response(readings: Readings, words: Sequence[Mapping[str, str]], spans: Sequence[Span]) -> float | None:
    """Blocks until a change of light is obeyed: until the light that is said has half of the probability; None without such a change."""
    shown = readings.words[LIGHT]
    curves = [
        [1 - float(shown[first:last, SAYABLE[LIGHT].index(now[LIGHT])].mean()) for first, last in blocks_of(*span)]
        for before, now, span in zip(words, words[1:], spans[1:], strict=False)
        if now[LIGHT] != before[LIGHT]
    ]
    return half_life(curves)
