"""Power of paired differences: the textbook's numbers, a simulation of whole experiments, and variances that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.stats.power import Spread, spread


def drawn(rng: np.random.Generator, prompts: int, seeds: int, mean: float, between: float, within: float) -> pd.Series:
    """Differences by prompt and seed."""
    values = mean + between * rng.standard_normal((prompts, 1)) + within * rng.standard_normal((prompts, seeds))
    index = pd.MultiIndex.from_product([[f"p{n:04d}" for n in range(prompts)], range(seeds)], names=["prompt", "seed"])
    return pd.Series(values.ravel(), index)


@pytest.mark.parametrize(("effect", "prompts"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_prompts_needed_are_the_textbooks(effect: float, prompts: int) -> None:
    """Cohen's small, medium and large effects of a paired t test, two-sided at 5 % with a power of 80 %."""
    assert Spread(0.0, 1.0, None, 10, 1).needed(effect, 1) == prompts


@pytest.mark.parametrize(("between", "within", "seeds", "difference"), [(1.0, 2.0, 1, 1.5), (1.0, 2.0, 4, 0.8), (0.5, 0.5, 2, 0.3)])
def test_simulated_experiments_find_it_in_80_of_100(between: float, within: float, seeds: int, difference: float) -> None:
    """Path 2: thousands of whole experiments of as many prompts as are said to be needed, each with its own t test over prompts."""
    prompts = Spread(0.0, between**2, within**2, 2, 2).needed(difference, seeds)
    assert prompts is not None
    rng = np.random.default_rng(0)
    trials = 4000
    means = difference + between * rng.standard_normal((trials, prompts)) + within * rng.standard_normal((trials, prompts, seeds)).mean(2)
    found = float((stats.ttest_1samp(means, 0, axis=1).pvalue < 0.05).mean())
    assert 0.78 < found < 0.84, f"{prompts} prompts find it in {found:.3f}"
    fewer = means[:, : max(2, prompts * 2 // 3)]
    assert (stats.ttest_1samp(fewer, 0, axis=1).pvalue < 0.05).mean() < 0.74, "with a third fewer it is missed more often"


def test_variances_are_found_again() -> None:
    seen = spread(drawn(np.random.default_rng(1), 4000, 3, 0.7, 2.0, 1.0))
    assert (seen.prompts, seen.seeds) == (4000, 3) and seen.mean == pytest.approx(0.7, abs=0.1)
    assert seen.between == pytest.approx(4, rel=0.08) and seen.within == pytest.approx(1, rel=0.05)


def test_variances_by_hand_with_unequal_seeds() -> None:
    """Prompts a: 1, 3; b: 4, 4, 7; c: 2. Path 2: sums written out."""
    index = pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)], names=["prompt", "seed"])
    seen = spread(pd.Series([1.0, 3, 4, 4, 7, 2], index))
    grand, means, counts = 21 / 6, [2.0, 5.0, 2.0], [2, 3, 1]
    among = sum(n * (m - grand) ** 2 for n, m in zip(counts, means)) / 2
    inside = (1 + 1 + 1 + 1 + 4) / 3
    assert seen.within == pytest.approx(inside) and seen.between == pytest.approx((among - inside) / ((6 - 14 / 6) / 2))


def test_one_seed_tells_nothing_of_seeds() -> None:
    seen = spread(drawn(np.random.default_rng(2), 50, 1, 0.0, 1.0, 1.0))
    assert seen.within is None and seen.detects(64, 4) == seen.detects(64, 1)
    assert seen.needed(1e-9, 1) is None
    with pytest.raises(ValueError, match="two at least"):
        spread(drawn(np.random.default_rng(2), 1, 2, 0.0, 1.0, 1.0))


def test_the_spreads_of_the_field_are_found() -> None:
    """Paired Quality differences of 1.1 to 4.1 points: 64 prompts find 0.4 to 1.4 points, 128 find 0.3 to 1.0."""
    for deviation, small, large in ((1.1, 0.4, 0.3), (4.1, 1.4, 1.0)):
        seen = Spread(0.0, deviation**2, None, 200, 1)
        assert [seen.detects(64, 1), seen.detects(128, 1)] == pytest.approx([small, large], abs=0.07)
