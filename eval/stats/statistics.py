"""Means, differences, intervals and ranks of scores; pure functions.

Quantiles of t and normal distributions are scipy.special's: scipy.stats takes longer to import than a table takes to be made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from eval.store.rows import Unit

LEVEL = 0.95
RESAMPLES = 9999
ALPHA = 0.05
POWER = 0.8
TOGETHER = 16
"""Number of scores whose intervals are computed in one matrix product."""


@dataclass(frozen=True)
class Estimate:
    """A mean over videos.

    half_width: of the interval, in the unit of the mean; None for a single prompt.
    videos, prompts, seeds: their numbers.
    freedom: degrees of freedom of the interval's t distribution; number of prompts minus one by default.
    """

    mean: float
    half_width: float | None
    videos: int
    prompts: int
    seeds: int
    freedom: float = 0.0

    def __post_init__(self) -> None:
        if not self.freedom:
            object.__setattr__(self, "freedom", float(self.prompts - 1))


def by_unit(values: Mapping[Unit, float] | pd.Series) -> pd.Series:
    """Scores by prompt id and seed as a series with that index, ascending."""
    if isinstance(values, pd.Series):
        return values
    index = pd.MultiIndex.from_tuples(sorted(values)) if values else pd.MultiIndex.from_arrays([[], []])
    return pd.Series([values[unit] for unit in index], index, dtype="float64")


def estimate(values: Mapping[Unit, float] | pd.Series) -> Estimate | None:
    """Mean and 95 % interval of one score by prompt id and seed, clustered by prompt; None if there is no value."""
    return estimates([by_unit(values)])[0]


def estimates(many: Sequence[pd.Series]) -> list[Estimate | None]:
    """`estimate` of many scores at once, which is faster. Their index is prompt and seed, ascending.

    Scores are combined in products of a fixed size, so that a sum's last bit does not depend on their number.
    """
    clusters = [_Clusters.of(values) if len(values) else None for values in many]
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(clusters):
        if one is not None:
            groups.setdefault(len(one.sums), []).append(place)
    halves = np.full(len(many), np.nan)
    for size, members in groups.items():
        for start in range(0, len(members), TOGETHER):
            sums, counts = np.zeros((size, TOGETHER)), np.ones((size, TOGETHER))
            some = members[start : start + TOGETHER]
            for column, place in enumerate(some):
                one = clusters[place]
                assert one is not None
                sums[:, column], counts[:, column] = one.sums, one.counts
            halves[some] = half_width(sums, counts, RESAMPLES)[: len(some)]
    return [None if one is None else one.estimate(float(half)) for one, half in zip(clusters, halves)]


@dataclass(frozen=True)
class _Clusters:
    """Sum and number of values of each prompt of a score, [prompts]."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]
    seeds: int

    @classmethod
    def of(cls, values: pd.Series) -> _Clusters:
        prompt, seed = (np.asarray(codes, np.int64) for codes in values.index.codes)
        starts = np.flatnonzero(np.diff(prompt, prepend=-1))
        counts = np.diff(starts, append=len(prompt)).astype(np.float64)
        return cls(np.add.reduceat(values.to_numpy(), starts), counts, int(np.count_nonzero(np.bincount(seed))))

    def estimate(self, half: float) -> Estimate:
        """The mean, with half its interval (NaN if unknown)."""
        videos, freedom = int(self.counts.sum()), float(effective(self.counts)) - 1
        known = None if math.isnan(half) else half
        return Estimate(math.fsum(self.sums) / videos, known, videos, len(self.sums), self.seeds, freedom)


def effective(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effective number of clusters of unequal sizes, [clusters, ...] -> [...] (Kish); their number if all sizes are equal."""
    return np.asarray(counts.sum(axis=0) ** 2 / (counts**2).sum(axis=0), dtype=np.float64)


def half_width(sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Half the percentile interval of the clustered bootstrap, corrected for few clusters.

    Args:
        sums: [clusters, ...], of a cluster's values.
        counts: [clusters, ...], their numbers; not zero in all clusters.
        resamples: number of resamples.

    Returns:
        [...], NaN for a single cluster.

    Prompts are drawn with all their seeds, because seeds of a prompt are correlated. The bootstrap's variance is (k-1)/k of the
    unbiased one and its quantiles are a normal's; with 8 prompts it covers 0.88 instead of 0.95. The factor below
    corrects both, as the t interval does (Hesterberg 2015, "What teachers should know about the bootstrap", section 3.4); for
    clusters of unequal sizes it uses their effective number (`effective`).
    """
    clusters = len(sums)
    if clusters < 2:
        return np.full(sums.shape[1:], np.nan)
    known = np.where(effective(counts) > 1, effective(counts), np.nan)
    drawn = _drawn(clusters, resamples)
    tail = (1 + LEVEL) / 2
    even = bool((counts == counts[:1]).all())  # then every resample has the same number of values
    with np.errstate(invalid="ignore"):  # a resample may draw none of the clusters that have values
        means = (drawn @ sums) / (counts.sum(axis=0) if even else drawn @ counts)
    quantile = np.nanquantile if np.isnan(means).any() else np.quantile
    low, high = quantile(means, [1 - tail, tail], axis=0)
    few = np.sqrt(known / (known - 1)) * special.stdtrit(known - 1, tail) / special.ndtri(tail)
    return np.asarray((high - low) / 2 * few, dtype=np.float64)


@lru_cache(maxsize=16)
def _drawn(clusters: int, resamples: int) -> NDArray[np.float64]:
    """How often each cluster is drawn in each resample, [resamples, clusters]; the same for every score."""
    return np.random.default_rng(0).multinomial(clusters, [1 / clusters] * clusters, size=resamples).astype(np.float64)


def less(values: pd.Series, reference: pd.Series) -> pd.Series:
    """The paired difference over the prompts and seeds that both have."""
    some, other = values.index, reference.index
    if all(map(np.array_equal, some.codes, other.codes)) and all(one.equals(two) for one, two in zip(some.levels, other.levels)):
        return pd.Series(values.to_numpy() - reference.to_numpy(), some)
    return (values - reference).dropna()


def chance(mean: Estimate) -> float | None:
    """The p value of a mean of differences, by the t statistic of its interval; None if the interval is unknown."""
    if mean.half_width is None:
        return None
    if mean.half_width == 0:
        return 1.0 if mean.mean == 0 else 0.0
    statistic = abs(mean.mean) / mean.half_width * float(special.stdtrit(mean.freedom, (1 + LEVEL) / 2))
    return float(2 * special.stdtr(mean.freedom, -statistic))


def detectable(mean: Estimate, rows: int) -> float | None:
    """The true difference that would be distinguished from none with `POWER`, by the test of `chance` at Holm's first step.

    Args:
        mean: of paired differences; its spread over prompts is taken as the true one.
        rows: number of differences in the correction; its first and strictest step requires p < ALPHA / rows.

    Returns:
        In the unit of the mean; None if the spread is unknown.

    The statistic of a true difference d follows a noncentral t with noncentrality d over its standard error.
    """
    if mean.half_width is None:
        return None
    return noncentrality(mean.freedom, max(1, rows)) * mean.half_width / float(special.stdtrit(mean.freedom, (1 + LEVEL) / 2))


@lru_cache(maxsize=256)
def noncentrality(freedom: float, rows: int) -> float:
    """The true difference for `POWER`, in standard errors."""
    from scipy import optimize

    limit = -float(special.stdtrit(freedom, ALPHA / (2 * rows)))

    def lack(shift: float) -> float:
        return 1 - float(special.nctdtr(freedom, shift, limit)) - POWER  # in the right direction; the other tail is no finding

    highest = 2.0
    while lack(highest) < 0:
        highest *= 2
    return float(optimize.brentq(lack, 0.0, highest, xtol=1e-9))


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """p values corrected for multiple comparisons (Holm 1979), which controls the family-wise error rate."""
    known = sorted((p, index) for index, p in enumerate(chances) if p is not None)
    result: list[float | None] = [None] * len(chances)
    highest = 0.0
    for place, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * p))
        result[index] = highest
    return result


def ranks(values: Sequence[float | None], decimals: int) -> list[int | None]:
    """Ranks (1 is highest) of the values as printed; equal prints share a rank, and the next rank follows without a gap.

    Args:
        values: None is not ranked.
        decimals: printed digits after the point.
    """
    shown = [None if value is None else round(value, decimals) for value in values]
    order = sorted({value for value in shown if value is not None}, reverse=True)
    return [None if value is None else order.index(value) + 1 for value in shown]
