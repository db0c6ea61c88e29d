"""Means, differences, intervals and ranks of scores; pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from eval.store.units import Unit, Values

LEVEL = 0.95
RESAMPLES = 9999
ALPHA = 0.05
POWER = 0.8
TOGETHER = 16
"""Scores whose intervals are computed in one product."""
HALF = "half_width"


@dataclass(frozen=True)
class Estimate:
    """A mean over videos.

    half_width: of the interval, same unit as the mean; None where one prompt alone leaves it unknown.
    videos, prompts, seeds: how many the mean is made of.
    freedom: degrees of freedom of the t distribution that the interval is made with; one less than prompts by default.
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


def estimate(values: Mapping[Unit, float] | Values) -> Estimate | None:
    """Mean and 95 % interval of one score, prompts being the clusters.

    Args:
        values: score by prompt id and seed.

    Returns:
        None if there is no value.
    """
    scores = values if isinstance(values, Values) else Values.of(values)
    if not len(scores):
        return None
    half, freedom = _half(scores), float(effective(scores.frame.counts)) - 1
    mean = math.fsum(scores.sums) / len(scores)
    return Estimate(mean, None if math.isnan(half) else half, len(scores), len(scores.sums), scores.frame.seeds, freedom)


def effective(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many clusters of one size tell as much as clusters of these sizes, [clusters, ...] -> [...] (Kish); all, if they are alike."""
    return np.asarray(counts.sum(axis=0) ** 2 / (counts**2).sum(axis=0), dtype=np.float64)


def _half(values: Values) -> float:
    """Half the interval's width, computed before or now."""
    if HALF not in values.known:
        prime([values])
    return values.known[HALF]


def prime(many: Iterable[Values]) -> None:
    """Compute the intervals of many scores at once, which is faster than one by one; `estimate` finds them.

    Scores are put together in products of one size, whatever their number, so that a sum's last bit does not depend on it.
    """
    groups: dict[int, list[Values]] = {}
    for values in many:
        if len(values) and HALF not in values.known:
            groups.setdefault(len(values.sums), []).append(values)
    for clusters, members in groups.items():
        for start in range(0, len(members), TOGETHER):
            some = members[start : start + TOGETHER]
            sums, counts = np.zeros((clusters, TOGETHER)), np.ones((clusters, TOGETHER))
            for column, values in enumerate(some):
                sums[:, column], counts[:, column] = values.sums, values.frame.counts
            for values, half in zip(some, half_width(sums, counts, RESAMPLES)):
                values.known[HALF] = float(half)


def half_width(sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Half the percentile interval of the clustered bootstrap, corrected for few clusters.

    Args:
        sums: [clusters, ...], of a cluster's values.
        counts: likewise, how many they are; not zero in all clusters.
        resamples: how many are drawn.

    Returns:
        [...], NaN where one cluster alone leaves it unknown.

    Prompts are drawn with all their seeds, because seeds of a prompt are alike. The bootstrap's variance is (k-1)/k of the
    unbiased one and its quantiles are a normal's; with 8 prompts it covers 0.88 where 0.95 is meant. The factor below
    undoes both, as the t interval does (Hesterberg 2015, "What teachers should know about the bootstrap", section 3.4); where
    some clusters are larger than others it counts those that tell as much (`effective`).
    """
    clusters = len(sums)
    if clusters < 2:
        return np.full(sums.shape[1:], np.nan)
    known = np.where(effective(counts) > 1, effective(counts), np.nan)
    drawn = _drawn(clusters, resamples)
    tail = (1 + LEVEL) / 2
    even = bool((counts == counts[:1]).all())  # then every resample has as many values
    with np.errstate(invalid="ignore"):  # a resample may draw none of the clusters that have values
        means = (drawn @ sums) / (counts.sum(axis=0) if even else drawn @ counts)
    quantile = np.nanquantile if np.isnan(means).any() else np.quantile
    low, high = quantile(means, [1 - tail, tail], axis=0)
    few = np.sqrt(known / (known - 1)) * stats.t.ppf(tail, known - 1) / stats.norm.ppf(tail)
    return np.asarray((high - low) / 2 * few, dtype=np.float64)


@lru_cache(maxsize=16)
def _drawn(clusters: int, resamples: int) -> NDArray[np.float64]:
    """How often each cluster is drawn in each resample, [resamples, clusters]; the same for every score, so that rows are alike."""
    return np.random.default_rng(0).multinomial(clusters, [1 / clusters] * clusters, size=resamples).astype(np.float64)


@dataclass(frozen=True)
class Difference:
    """What a row has more than its reference on the videos that both have; p: that there is none, None where unknown."""

    estimate: Estimate
    p: float | None


def difference(values: Mapping[Unit, float] | Values, reference: Mapping[Unit, float] | Values) -> Difference | None:
    """Paired by prompt and seed, the interval over prompts as in `estimate`; p is of the t statistic that this interval has.

    Returns:
        None if no video is in both.
    """
    own, other = (scores if isinstance(scores, Values) else Values.of(scores) for scores in (values, reference))
    mean = estimate(own.less(other))
    return None if mean is None else tested(mean)


def tested(mean: Estimate) -> Difference:
    """A mean of differences with the p value of the t statistic that its interval has."""
    if mean.half_width is None:
        return Difference(mean, None)
    if mean.half_width == 0:
        return Difference(mean, 1.0 if mean.mean == 0 else 0.0)
    statistic = abs(mean.mean) / mean.half_width * stats.t.ppf((1 + LEVEL) / 2, mean.freedom)
    return Difference(mean, float(2 * stats.t.sf(statistic, mean.freedom)))


def detectable(mean: Estimate, rows: int) -> float | None:
    """The true difference that would be distinguished from none with `POWER`, by the test of `difference` at Holm's first step.

    Args:
        mean: of paired differences; its own spread over prompts is taken for the true one.
        rows: differences that the correction is over; the first step asks for p < ALPHA / rows, so it is the strictest.

    Returns:
        In the unit of the mean; None where the spread is unknown.

    The statistic of a true difference d follows a noncentral t with noncentrality d over its standard error.
    """
    if mean.half_width is None:
        return None
    return _noncentrality(mean.freedom, max(1, rows)) * mean.half_width / float(stats.t.ppf((1 + LEVEL) / 2, mean.freedom))


@lru_cache(maxsize=256)
def _noncentrality(freedom: float, rows: int) -> float:
    """Standard errors that a true difference must have for `POWER`."""
    limit = float(stats.t.isf(ALPHA / (2 * rows), freedom))

    def lack(shift: float) -> float:
        return float(stats.nct.sf(limit, freedom, shift)) - POWER  # in the right direction; the other tail is no finding

    highest = 2.0
    while lack(highest) < 0:
        highest *= 2
    return float(optimize.brentq(lack, 0.0, highest, xtol=1e-9))


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """p values corrected for being several (Holm 1979): the chance that any of them is a false alarm stays what it says."""
    known = sorted((p, index) for index, p in enumerate(chances) if p is not None)
    result: list[float | None] = [None] * len(chances)
    highest = 0.0
    for place, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * p))
        result[index] = highest
    return result


def ranks(values: Sequence[float | None], decimals: int) -> list[int | None]:
    """Places (1 is highest) of the values as they are printed; equal prints share a place, the next place follows on.

    Args:
        values: None takes no part.
        decimals: digits after the point that are printed.
    """
    shown = [None if value is None else round(value, decimals) for value in values]
    order = sorted({value for value in shown if value is not None}, reverse=True)
    return [None if value is None else order.index(value) + 1 for value in shown]
