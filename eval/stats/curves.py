"""Curves over time from the blocks of videos, with intervals clustered by prompt; pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.stats.statistics import half_width

RESAMPLES = 2000
"""Fewer than for tables, since a video has a hundred blocks and more."""


@dataclass(frozen=True)
class Curve:
    """mean: [T], one value per block, NaN if no video has one. half_width: [T] of the 95 % interval; NaN if unknown."""

    mean: NDArray[np.float64]
    half_width: NDArray[np.float64]
    videos: int
    prompts: int
    seeds: int


def curve(values: pd.DataFrame, window: int) -> Curve:
    """Mean over videos of each video's centred moving mean, whose window is shortened at both ends.

    Args:
        values: [videos, T], a column for each block; index prompt id and seed, ascending. NaN for missing values; videos may
            differ in length.
        window: blocks, an odd number.

    Raises:
        ValueError: if there is no video or the window is even.
    """
    if values.empty:
        raise ValueError("a curve needs a video")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window}: an odd number of blocks, nearest is {max(1, window + 1)}")
    prompts = values.T.rolling(window, center=True, min_periods=1).mean().T.groupby(level=0)
    sums, counts = prompts.sum().to_numpy(), prompts.count().to_numpy().astype(float)
    known = counts.sum(axis=0) > 0
    mean, half = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    mean[known] = sums.sum(axis=0)[known] / counts.sum(axis=0)[known]
    half[known] = half_width(sums[:, known], counts[:, known], RESAMPLES)
    return Curve(mean, half, len(values), len(sums), values.index.get_level_values(1).nunique())
