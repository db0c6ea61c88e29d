"""Curves over time from the blocks of videos, with intervals whose clusters are the prompts; pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.stats.statistics import half_width
from eval.store.selection import Unit

RESAMPLES = 2000
"""Fewer than of the tables, since there are a hundred blocks and more."""
Series = Mapping[Unit, Sequence[float | None]]
"""One value a block by video; None where there is none."""


@dataclass(frozen=True)
class Curve:
    """mean: [T], one value a block, NaN where no video has one. half_width: [T] of the 95 % interval; NaN where it is unknown."""

    mean: NDArray[np.float64]
    half_width: NDArray[np.float64]
    videos: int
    prompts: int
    seeds: int


def curve(series: Series, window: int) -> Curve:
    """Mean over videos of each video's centred moving mean, which is cut off at both ends.

    Args:
        series: values by (prompt id, seed); videos may differ in length.
        window: blocks, an odd number.

    Raises:
        ValueError: if there is no video or the window is even.
    """
    if not series:
        raise ValueError("a curve needs a video")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window}: an odd number of blocks, nearest is {max(1, window + 1)}")
    length = max(len(values) for values in series.values())
    prompts = sorted({prompt for prompt, _ in series})
    sums, counts = np.zeros((len(prompts), length)), np.zeros((len(prompts), length))
    for (prompt, _), values in sorted(series.items()):
        known = np.array([value is not None for value in values] + [False] * (length - len(values)))
        filled = np.array([value or 0.0 for value in values] + [0.0] * (length - len(values)))
        here = _moving(known.astype(float), window)
        with np.errstate(invalid="ignore"):
            smooth = np.where(here > 0, _moving(filled, window) / here, 0.0)
        sums[prompts.index(prompt)] += smooth
        counts[prompts.index(prompt)] += here > 0
    there = counts.sum(axis=0) > 0
    mean, half = np.full(length, np.nan), np.full(length, np.nan)
    mean[there] = sums.sum(axis=0)[there] / counts.sum(axis=0)[there]
    half[there] = half_width(sums[:, there], counts[:, there], RESAMPLES)
    return Curve(mean, half, len(series), len(prompts), len({seed for _, seed in series}))


def _moving(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Sum over a centred window, which is cut off at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index, half = np.arange(len(values)), window // 2
    summed: NDArray[np.float64] = total[np.minimum(index + half + 1, len(values))] - total[np.maximum(index - half, 0)]
    return summed
