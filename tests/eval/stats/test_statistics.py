"""Means, intervals and ranks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from eval.stats.statistics import Estimate, by_unit, chance, detectable, estimate, estimates, holm, less, ranks
from tests.load.coverage import coverage, normal, opinion_coverage


def values_of(array_PS: np.ndarray) -> dict[tuple[str, int], float]:
    return {(f"p{p}", s): float(array_PS[p, s]) for p in range(array_PS.shape[0]) for s in range(array_PS.shape[1])}


def difference(values: dict[tuple[str, int], float], reference: dict[tuple[str, int], float]) -> Estimate | None:
    """The paired difference of two rows."""
    return estimate(less(by_unit(values), by_unit(reference)))


def test_counts_and_mean():
    found = estimate({("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 8.0})
    assert (found.mean, found.videos, found.prompts, found.seeds) == (4.0, 3, 2, 2)


def test_nothing_measured():
    assert estimate({}) is None


def test_one_prompt_leaves_the_interval_unknown():
    assert estimate({("a", seed): float(seed) for seed in range(4)}).half_width is None


def test_equal_values_have_no_width():
    assert estimate(values_of(np.full((8, 4), 5.0))).half_width == 0


def test_order_of_records_does_not_matter():
    values = values_of(np.random.default_rng(0).normal(size=(8, 4)))
    assert estimate(dict(reversed(values.items()))) == estimate(values)


def test_agrees_with_the_t_interval_over_prompt_means():
    """A second path: with as many seeds in each prompt, the t interval of the prompts' means."""
    array = np.random.default_rng(1).normal(50, 3, size=(8, 1)) + np.random.default_rng(2).normal(0, 1, size=(8, 4))
    means = array.mean(1)
    expected = stats.t.ppf(0.975, 7) * means.std(ddof=1) / np.sqrt(8)
    assert estimate(values_of(array)).half_width == pytest.approx(expected, rel=0.1)


def test_seeds_of_a_prompt_are_not_independent():
    """The same scores for every seed tell no more than one seed does."""
    array = np.random.default_rng(3).normal(size=(8, 1))
    one, four = estimate(values_of(array)), estimate(values_of(np.repeat(array, 4, axis=1)))
    assert four.half_width == pytest.approx(one.half_width)


def test_ranks_follow_what_is_printed():
    assert ranks([1.004, 1.001, 0.5, None, 2.0], 2) == [2, 2, 3, None, 1]
    assert ranks([1.006, 1.001], 2) == [1, 2]


def test_difference_agrees_with_the_paired_t_test():
    """A second path: SciPy's t test of the prompts' mean differences; a large spread between prompts does not hide a small effect."""
    generator = np.random.default_rng(5)
    base = generator.normal(50, 20, size=(32, 1)) + generator.normal(0, 1, size=(32, 4))
    other = base + 0.4 + generator.normal(0, 1, size=(32, 4))
    found = difference(values_of(other), values_of(base))
    expected = stats.ttest_rel(other.mean(1), base.mean(1))
    assert found.mean == pytest.approx((other - base).mean())
    assert found.half_width == pytest.approx(np.diff(expected.confidence_interval())[0] / 2, rel=0.1)
    assert chance(found) == pytest.approx(expected.pvalue, rel=0.5) and estimate(values_of(base)).half_width > 10 * found.half_width


def test_difference_is_of_shared_videos_alone():
    assert difference({("a", 0): 5.0, ("b", 0): 100.0}, {("a", 0): 3.0, ("c", 0): 0.0}).mean == 2
    assert difference({("a", 0): 5.0}, {("b", 0): 3.0}) is None
    same = difference({("a", 0): 5.0, ("b", 0): 1.0}, {("a", 0): 5.0, ("b", 0): 1.0})
    assert (same.half_width, chance(same)) == (0, 1)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03]) == [0.03, None, 0.06, 0.06]
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [8, 32])
def test_intervals_hold_the_truth_95_times_in_a_hundred(prompts):
    """As many resamples as tables take; four thousand tables leave an error of 0.35 %."""
    share = coverage(normal, prompts, 4, 4000)
    assert abs(share - 0.95) <= 0.01, f"{100 * share:.2f} % of intervals over {prompts} prompts hold the truth"
    lacking = coverage(normal, prompts, 4, 4000, ragged=True)
    assert abs(lacking - 0.95) <= 0.01, f"{100 * lacking:.2f} % where half the prompts have one seed of four"
    assert coverage(lambda generator, size: normal(generator, size) + 0.3, prompts, 4, 500) < 0.9, "a wrong mean is seen"


@pytest.mark.slow
@pytest.mark.parametrize(("raters", "videos"), [(18, 6), (18, 18)])
def test_intervals_of_opinions_hold_the_truth(raters, videos):
    share = opinion_coverage(raters, videos, 2000)
    assert abs(share - 0.95) <= 0.015, f"{100 * share:.2f} % of intervals over {raters} raters and {videos} videos hold the truth"


@pytest.mark.parametrize(("prompts", "rows"), [(4, 1), (8, 5), (32, 5)])
def test_detectable_difference_is_told_apart_four_times_of_five(prompts, rows):
    """A second path: SciPy's t test at Holm's first step on drawn differences whose true mean is what is said to be detectable."""
    known = Estimate(0.0, stats.t.ppf(0.975, prompts - 1) / np.sqrt(prompts), prompts, prompts, 1)  # of prompts with spread 1
    drawn = np.random.default_rng(7).normal(detectable(known, rows), 1, size=(20000, prompts))
    found = float(np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05 / rows))
    assert abs(found - 0.8) < 0.01, f"{found:.4f} of differences are told apart, 0.8 are meant"


def test_detectable_difference_needs_a_spread():
    assert detectable(Estimate(1.0, None, 4, 1, 4), 3) is None and detectable(Estimate(1.0, 0.0, 4, 2, 2), 3) == 0
    few, many = (detectable(Estimate(0.0, 1.0, 8, 8, 1), rows) for rows in (1, 10))
    assert 1.0 < few < many


def drawn(seed: int, prompts: int = 7, seeds: int = 4, holes: float = 0.2) -> dict[tuple[str, int], float]:
    """Scores by prompt and seed, some of which are not there."""
    rng = np.random.default_rng(seed)
    units = [(f"p{index}", number) for index in range(prompts) for number in range(seeds)]
    return {unit: float(rng.normal(50, 10)) for unit in units if rng.random() > holes}


def test_estimates_together_are_those_one_by_one():
    many = [drawn(seed, prompts=5 + seed % 3) for seed in range(40)] + [{}]
    assert estimates([by_unit(values) for values in many]) == [estimate(values) for values in many]


def test_differences_are_over_what_both_have():
    some, other = drawn(1), drawn(2)
    shared = {unit: some[unit] - other[unit] for unit in some if unit in other}
    assert shared and difference(some, other) == estimate(shared) and difference(some, some).mean == 0
    assert less(by_unit(some), by_unit(other)).to_dict() == shared and difference({}, {}) is None
    assert difference({("a", 0): 1.0}, {("b", 0): 1.0}) is None
