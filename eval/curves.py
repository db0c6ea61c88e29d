"""Curves over time from the blocks of videos, with intervals whose clusters are the prompts; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eval.selection import Unit
from eval.statistics import LEVEL

RESAMPLES = 2000
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
    mean = _ratio(sums.sum(axis=0), counts.sum(axis=0))
    return Curve(mean, _half_width(sums, counts), len(series), len(prompts), len({seed for _, seed in series}))


def _moving(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Sum over a centred window, which is cut off at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index, half = np.arange(len(values)), window // 2
    summed: NDArray[np.float64] = total[np.minimum(index + half + 1, len(values))] - total[np.maximum(index - half, 0)]
    return summed


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.where(counts > 0, sums / counts, np.nan)
    return found


def _half_width(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `eval.statistics` has it, for all blocks at once: half the percentile interval of drawn prompts, widened for few of them."""
    clusters, length = sums.shape
    if clusters < 2:
        return np.full(length, np.nan)
    drawn = np.random.default_rng(0).multinomial(clusters, [1 / clusters] * clusters, size=RESAMPLES).astype(float)
    tail = (1 + LEVEL) / 2
    found, there = np.full(length, np.nan), counts.sum(axis=0) > 0
    low, high = np.nanquantile(_ratio(drawn @ sums[:, there], drawn @ counts[:, there]), [1 - tail, tail], axis=0)
    few = math.sqrt(clusters / (clusters - 1)) * stats.t.ppf(tail, clusters - 1) / stats.norm.ppf(tail)
    found[there] = (high - low) / 2 * few
    return found
