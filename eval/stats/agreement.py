"""Ratings by people: intervals clustered by raters and videos, and agreement of raters; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from eval.stats.statistics import LEVEL, Estimate

RESAMPLES = 2000


def two_way(values: pd.Series) -> Estimate | None:
    """Mean of ratings and its 95 % interval, clustered by rater and by video.

    Raters differ in strictness and videos in quality, so that neither the ratings of a rater nor those of a video are independent.
    Variance: clustered by rater plus clustered by video minus that of single ratings (Cameron, Gelbach, Miller 2011), and at
    least either of the first two; quantile: t with Satterthwaite's degrees of freedom of that sum, and at least those of the smaller
    number of clusters.

    Args:
        values: ratings; index rater and video.

    Returns:
        `prompts` counts videos and `seeds` raters; the interval is unknown with only one of either. None if there is no value.
    """
    if not len(values):
        return None
    codes = [values.index.get_level_values(side).factorize()[0] for side in (0, 1)]
    mean, size, apart = float(values.mean()), len(values), values.to_numpy() - values.mean()
    raters, videos = clusters = [int(code.max()) + 1 for code in codes]
    if min(clusters) < 2:
        return Estimate(mean, None, size, videos, raters)
    by_rater, by_video = (n / (n - 1) * float((np.bincount(c, apart) ** 2).sum()) / size**2 for c, n in zip(codes, clusters))
    variance = max(by_rater + by_video - float(values.var()) / size, by_rater, by_video)
    fewest, parts = float(min(clusters) - 1), by_rater**2 / (raters - 1) + by_video**2 / (videos - 1)
    freedom = max(fewest, variance**2 / parts) if parts else fewest
    half = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return Estimate(mean, half, size, videos, raters, freedom)


def paired(values: pd.Series, reference: pd.Series) -> Estimate | None:
    """Mean difference of a rater's points for two methods' videos, over raters and videos that have both; None if there is none."""
    return two_way((values - reference).dropna())


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha and its 95 % interval; NaN if all ratings are the same. units: videos with two or more ratings."""

    alpha: float
    low: float
    high: float
    units: int


def krippendorff(units: Mapping[tuple[str, str], Sequence[int]], points: Sequence[int]) -> Agreement | None:
    """Agreement of raters on an ordinal scale: 1 is perfect, 0 is chance (Krippendorff, "Content Analysis", chapter 12).

    Args:
        units: all ratings of a unit, by (cluster that the interval resamples, name); raters need not rate all units.
        points: of the scale, lowest first.

    Returns:
        None if nothing was rated twice.
    """
    clusters: dict[str, NDArray[np.float64]] = {}
    rated = {key: ratings for key, ratings in sorted(units.items()) if len(ratings) > 1}
    for (cluster, _), ratings in rated.items():
        counts = np.array([ratings.count(point) for point in points], dtype=float)
        pairs = (np.outer(counts, counts) - np.diag(counts)) / (len(ratings) - 1)
        clusters[cluster] = clusters.get(cluster, np.zeros_like(pairs)) + pairs
    if not rated:
        return None
    each = np.stack([clusters[name] for name in sorted(clusters)])
    drawn = np.random.default_rng(0).multinomial(len(each), [1 / len(each)] * len(each), size=RESAMPLES)
    alpha, many = float(_alpha(each.sum(axis=0)[None])[0]), _alpha(np.einsum("bv,vck->bck", drawn.astype(float), each))
    known = many[~np.isnan(many)]
    low, high = (float(end) for end in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])) if len(known) else (math.nan, math.nan)
    return Agreement(alpha, low, high, len(rated))


def _alpha(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Alpha of coincidence matrices, [..., points, points]; the distance of two points is the share of ratings between them."""
    totals = pairs.sum(axis=-1)
    below = np.cumsum(totals, axis=-1) - totals / 2
    distance = (below[..., :, None] - below[..., None, :]) ** 2
    seen = (pairs * distance).sum(axis=(-2, -1))
    chance = (totals[..., :, None] * totals[..., None, :] * distance).sum(axis=(-2, -1)) / (totals.sum(axis=-1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance > 0, 1 - seen / chance, np.nan))
