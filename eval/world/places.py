"""Recall fidelity and leakage from readings. No torch, no frames.

Prompts state a place's colour and pattern. Its three landmarks, hue and shift of the pattern are its identity: showing them
again is memory, and showing them in another place is leakage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.render import LANDMARK, PERIOD, SIZE
from data.world.words import KINDS
from echo.files import ROOT
from eval.world.readings import BLOCK, Floats, Readings, blocks_of, wrapped

SHIPPED = ROOT / "data" / "weights" / "scorer" / "provenance.json"
FIDELITY, LEAKAGE, HALF_LIFE = "recall_fidelity", "leakage", "half_life_blocks"
"""Metrics that are computed here, without the definition's prefix."""
COVERED_PX = 12.0
"""The subject may cover a landmark whose centre is nearer than this to its own."""
SETTLE_BLOCKS = 3
"""Blocks at the beginning of a scene that may still be in transition; left out in scenes of more than twice as many."""
BEFORE_BLOCKS = 4
"""Blocks before a switch that define the old place."""
LEAK_BLOCKS = 6
"""Blocks after a switch over which leakage is averaged: 4.5 s."""
STANDING = 0.5
"""Smallest number of landmarks (sum of their probabilities) from which agreement is computed."""
BY_CHANCE = 3 / 16 / 4
"""Share of an old place's landmarks that a new one repeats by chance: three of sixteen cells, one of four colours."""
HUE_REACH = 0.5
"""Difference in hue (of a range of 2) at which agreement is 0."""

SHOWN = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]], dtype=np.float64)
"""Which of the angles down, right, sum and difference a pattern shows: plain, striped, checked, dotted."""


@dataclass(frozen=True)
class Appearance:
    """A place over some frames.

    cells [16, 4]: probability of a landmark of each colour. seen [16]: share of the frames in which the cell is not
    covered. hue -1..1. turns [4]: mean shifts, complex. words: kind -> mean probability of each word, place and pattern.
    """

    cells: Floats
    seen: Floats
    hue: float
    turns: NDArray[np.complex128]
    words: dict[str, Floats]


def look(readings: Readings) -> Appearance:
    """The place in `readings`: hue by the median, the rest by means.

    A cell counts in frames in which the subject is away from its landmark and light falls on it, or in all frames if there are none.
    """
    free = unhidden(readings)
    seen = free.mean(0)
    weight = np.where(seen > 0, free, 1.0)[..., None]
    cells = (weight * readings.cells[..., 1:]).sum(0) / weight.sum(0)
    words = {kind: readings.words[kind].mean(0) for kind in ("place", "pattern")}
    return Appearance(cells, seen, float(np.median(readings.hue)), readings.turns.mean(0), words)


def unhidden(readings: Readings) -> Floats:
    """How well a cell's landmark can be seen, 0..1, [T, 16]: 0 where the subject may cover it, else the light on it, 1 by day."""
    free = _free(readings.centres)
    return free if readings.lit is None else free * readings.lit


def _free(centres: Floats) -> Floats:
    """1 where no subject at `centres` [T, 2] can cover a cell's landmark, else 0: [T, 16]."""
    middle = PERIOD * np.arange(SIZE // PERIOD) + PERIOD / 2 + (LANDMARK - 1) / 2
    away = [wrapped(middle - centres[:, axis, None]) for axis in (0, 1)]
    distance = np.hypot(away[1][:, :, None], away[0][:, None, :])
    free: Floats = (distance >= COVERED_PX).astype(np.float64).reshape(len(centres), -1)
    return free


def landmark_agreement(first: Floats, again: Floats, left: Floats) -> float:
    """Common landmarks over all landmarks, 0..1, of cells [16, 4]: sum of smaller over sum of larger probabilities.

    Landmarks of `first` that the scene just left, `left`, also showed do not count, since a video that never removed them has not
    brought them back. 0 if no landmark remains.
    """
    own = 1.0 - np.minimum(first, left)
    if (own * first).sum() < STANDING:
        return 0.0
    return float((own * np.minimum(first, again)).sum() / (own * np.maximum(first, again)).sum())


def hue_agreement(first: float, again: float) -> float:
    """1 for the same hue, falling linearly to 0 at a difference of 0.5."""
    return max(0.0, 1.0 - abs(first - again) / HUE_REACH)


def shift_agreement(first: Appearance, again: Appearance) -> float:
    """Mean cosine (negative ones as 0) between the shifts that the first place's pattern shows; 1 for the same shift."""
    shown = first.words["pattern"] @ SHOWN
    cosine = np.cos(np.angle(first.turns) - np.angle(again.turns))
    return float((shown * np.clip(cosine, 0, None)).sum() / max(shown.sum(), 1e-9))


def fidelity(first: Appearance, again: Appearance, left: Appearance) -> dict[str, float]:
    """How much of what distinguishes the place `first` from the scene just left came back in `again`, 0..1.

    The total as "fidelity", and its parts. Landmarks have weight one half; hue and shift a quarter each, reduced by their agreement
    with the scene just left. Parts that the first showing lacks (landmarks of a place without any, the shift of a plain pattern)
    are left out and the other weights are scaled up; 0 if no part remains.
    """
    patterned = 1.0 - float(first.words["pattern"][KINDS["pattern"].index("plain")])
    parts = {"hue": hue_agreement(first.hue, again.hue), "shift": shift_agreement(first, again)}
    weights = {"hue": 0.25 * (1 - hue_agreement(first.hue, left.hue)), "shift": 0.25 * patterned * (1 - _shift_left(first, left))}
    if first.cells.sum() >= STANDING:
        parts["landmarks"], weights["landmarks"] = landmark_agreement(first.cells, again.cells, left.cells), 0.5
    whole = sum(weights[part] * parts[part] for part in parts) / max(sum(weights.values()), 1e-9)
    if patterned < 0.5:
        del parts["shift"]
    return {"fidelity": whole, **parts}


def _shift_left(first: Appearance, left: Appearance) -> float:
    """Agreement of shifts with the scene just left, as far as its pattern shows the same angles."""
    shown = first.words["pattern"] @ SHOWN
    both = shown * (left.words["pattern"] @ SHOWN)
    return shift_agreement(first, left) * float(both.sum() / max(shown.sum(), 1e-9))


def settled(start: int, end: int) -> tuple[int, int]:
    """Frames [start, end) of a scene without its first three blocks; all of a scene of six blocks or less."""
    skip = SETTLE_BLOCKS * BLOCK
    return (start + skip, end) if end - start > 2 * skip else (start, end)


def switches(words: Sequence[Mapping[str, str]]) -> list[int]:
    """Indices of the scenes whose prompt names another place than the scene before."""

    def place(scene: Mapping[str, str]) -> tuple[str | None, str | None]:
        return scene.get("place"), scene.get("pattern")

    return [scene for scene in range(1, len(words)) if None not in place(words[scene]) and place(words[scene]) != place(words[scene - 1])]


def leakage(old: Appearance, new: Mapping[str, str], known: Appearance | None, block: Readings) -> float | None:
    """Share of the place `old` that is left in a block after the switch, 0..1; None if it cannot be measured.

    new: words of the present sentence. known: the new place as shown before, if it was. The mean of up to three shares:
    of the old colour's and of the old pattern's probability, relative to before the switch (without the word of the present
    sentence), and of the old landmarks that are still there, without those expected by chance or belonging to the new place.
    """
    shares = []
    now = look(block)
    for kind, before in old.words.items():
        others = np.array([word != new.get(kind) for word in KINDS[kind]])
        there = before * others
        if there.sum() >= 0.5:
            shares.append(float(there @ now.words[kind] / (there @ before)))
    wrong = old.cells * (now.seen > 0)[:, None] * (1.0 if known is None else 1.0 - known.cells)
    if wrong.sum() >= STANDING:
        chance = BY_CHANCE if known is None else 0.0
        shares.append((float((wrong * now.cells).sum() / (wrong * old.cells).sum()) - chance) / (1 - chance))
    return float(np.clip(np.mean(np.clip(shares, 0, 1)), 0, 1)) if shares else None


def leak_curve(
    readings: Readings, old: tuple[int, int], new: tuple[int, int], words: Mapping[str, str], known: tuple[int, int] | None = None
) -> list[float | None]:
    """`leakage` of each block of the scene `new`, frames [start, end), after the scene `old`; `known` was the same place."""
    before = look(readings.span(max(old[0], old[1] - BEFORE_BLOCKS * BLOCK), old[1]))
    shown = None if known is None else look(readings.span(*settled(*known)))
    return [leakage(before, words, shown, readings.span(*block)) for block in blocks_of(*new)]


def mean_leak(curves: Sequence[Sequence[float | None]]) -> float | None:
    """Mean over the switches of the mean over their first six blocks; None without any."""
    means = [np.mean(shares) for curve in curves if (shares := [share for share in curve[:LEAK_BLOCKS] if share is not None])]
    return float(np.mean(means)) if means else None


def half_life(curves: Sequence[Sequence[float | None]]) -> float | None:
    """Blocks after which half of the old place is gone, from the mean curve; None without any.

    A curve begins at 1 at the switch, has its values in the middles of blocks, and is linear between them. If it never
    falls to a half, the result is its length, a lower bound.
    """
    length = min((len(curve) for curve in curves), default=0)
    mean = []
    for block in range(length):
        shares = [share for curve in curves if (share := curve[block]) is not None]
        if shares:
            mean.append((block + 0.5, float(np.mean(shares))))
    before = (0.0, 1.0)
    for at, share in mean:
        if share <= 0.5:
            return before[0] + (at - before[0]) * (before[1] - 0.5) / (before[1] - share)
        before = (at, share)
    return float(length) if mean else None


SceneScores = dict[str, float | None | dict[str, float] | list[float | None]]
"""Components of one scene's scores, by name."""


@dataclass(frozen=True)
class PlaceScores:
    """Scores of a video's places: metrics by their names in the store, and for each scene their components."""

    metrics: dict[str, float]
    per_segment: list[SceneScores]


def place_scores(
    readings: Readings, words: Sequence[Mapping[str, str]], spans: Sequence[tuple[int, int]], pairs: Sequence[tuple[int, int]]
) -> PlaceScores:
    """Recall fidelity and leakage of a video, 0..100, and the half-life of leakage in blocks.

    words: attributes of each scene's sentence. spans: frames [start, end) of each scene. pairs: (recalled, first showing) of
    scenes; recall fidelity is the mean over them and absent without any. Leakage is absent unless a scene's prompt names
    another place than the one before it.
    """
    per_segment: list[SceneScores] = [{} for _ in spans]
    fidelities = []
    for late, early in pairs:
        first_look, again, left = (look(readings.span(*settled(*spans[scene]))) for scene in (early, late, late - 1))
        parts = fidelity(first_look, again, left)
        per_segment[late]["recall"] = {part: round(100 * value, 2) for part, value in parts.items()}
        fidelities.append(parts["fidelity"])
    first = dict(pairs)
    curves = []
    for scene in switches(words):
        known = spans[first[scene]] if scene in first else None
        curve = leak_curve(readings, spans[scene - 1], spans[scene], words[scene], known)
        per_segment[scene]["leakage"] = [None if share is None else round(share, 4) for share in curve]
        curves.append(curve)
    metrics = {f"world.{FIDELITY}": 100 * float(np.mean(fidelities))} if fidelities else {}
    leak, half = mean_leak(curves), half_life(curves)
    if leak is not None and half is not None:
        metrics |= {f"world.{LEAKAGE}": 100 * leak, f"world.{HALF_LIFE}": half}
    return PlaceScores(metrics, per_segment)


def scene_scores(scene: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a scene's entry in a scores file, by their names in the store.

    scene: as written by `place_scores` and the scorer. A scene that returns to a place has its recall fidelity, one that leaves a place
    its mean leakage, 0..100, so that the scores of a video are the means over its scenes; other numbers are unchanged.
    """
    numbers = {name: float(value) for name, value in scene.items() if isinstance(value, (int, float))}
    recall, leak = scene.get("recall"), mean_leak([scene.get("leakage") or []])
    if isinstance(recall, Mapping) and "fidelity" in recall:
        numbers[f"world.{FIDELITY}"] = float(recall["fidelity"])
    return numbers if leak is None else numbers | {f"world.{LEAKAGE}": round(100 * leak, 2)}


def anchors(path: Path = SHIPPED) -> dict[str, tuple[float, float]]:
    """Score -> (chance, ceiling) of the shipped scorer, 0..100, as measured on renders when it was trained.

    chance: other places of the same words (for leakage: no switch at all). ceiling: the same places again (for
    leakage: clean cuts). Raises ValueError if the file lacks them.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    if "anchors" not in record:
        raise ValueError(f"{path}: no anchors; `echo-harness train scorer --output {path.parent}` measures them")
    return {name: (float(chance), float(ceiling)) for name, (chance, ceiling) in record["anchors"].items()}
