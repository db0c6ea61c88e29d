"""Prompts and seeds that a difference needs: power of the paired t test over prompts, from the spread of measured differences.

Seeds of a prompt are correlated, so mainly prompts count: with n prompts of s seeds each, the mean difference has the variance
(between prompts + between seeds / s) / n, and a true difference's statistic follows a noncentral t with n - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eval.stats.statistics import noncentrality

MOST_PROMPTS = 1_000_000
"""Largest number of prompts; a difference that needs more counts as undetectable."""


@dataclass(frozen=True)
class Spread:
    """Paired differences: their mean, and variances between prompts and between seeds of a prompt.

    If no prompt has two seeds, between contains both and within is None, and more seeds count as no help.
    """

    mean: float
    between: float
    within: float | None
    prompts: int
    seeds: int

    def error(self, prompts: int, seeds: int) -> float:
        """Standard error of the mean difference with these numbers of prompts and seeds."""
        return math.sqrt((self.between + (self.within or 0.0) / seeds) / prompts)

    def detects(self, prompts: int, seeds: int) -> float:
        """The true difference that these numbers of prompts and seeds detect in 80 of 100 trials, two-sided at 5 %."""
        return noncentrality(prompts - 1, 1) * self.error(prompts, seeds)

    def needed(self, difference: float, seeds: int) -> int | None:
        """The fewest prompts, 2 or more, that detect a true difference above 0 with `seeds`; None if that is over `MOST_PROMPTS`."""
        few, many = 1, 2
        while self.detects(many, seeds) > difference:
            few, many = many, 2 * many
            if many > MOST_PROMPTS:
                return None
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if self.detects(middle, seeds) > difference else (few, middle)
        return many


def spread(differences: pd.Series) -> Spread:
    """Variances of paired differences with index prompt and seed: analysis of variance with a random effect of the prompt.

    Raises ValueError for fewer than two prompts.
    """
    by_prompt = differences.groupby(level=0)
    counts, means = by_prompt.count().to_numpy(float), by_prompt.mean().to_numpy(float)
    prompts, every = len(counts), counts.sum()
    if prompts < 2:
        raise ValueError(f"{prompts} prompt(s) with both: a spread needs two at least")
    grand = float(differences.mean())
    among = float((counts * (means - grand) ** 2).sum()) / (prompts - 1)
    if every == prompts:
        return Spread(grand, among, None, prompts, 1)
    inside = float(((differences - by_prompt.transform("mean")) ** 2).sum()) / (every - prompts)
    size = (every - (counts**2).sum() / every) / (prompts - 1)
    return Spread(grand, max(0.0, (among - inside) / size), inside, prompts, int(np.max(counts)))
