"""Intervals of ratings and the agreement of raters, against second paths: the t interval, published examples, the package krippendorff."""

from __future__ import annotations

import krippendorff
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.stats import agreement

POINTS = (1, 2, 3, 4, 5)


def test_interval_is_that_of_the_wider_side():
    """Where videos alone differ it is the t interval of their means, where raters alone differ it is that of theirs."""
    effects = np.random.default_rng(1).normal(3, 0.7, 12)
    for side in (0, 1):
        values = {(f"r{r}", f"v{v}"): float(effects[(r, v)[side]]) for r in range(12) for v in range(12)}
        found = agreement.two_way(pd.Series(values))
        expected = stats.t.ppf(0.975, 11) * effects.std(ddof=1) / np.sqrt(12)
        assert found.half_width == pytest.approx(expected, rel=0.02) and found.mean == pytest.approx(effects.mean())
    one_video = pd.Series({("a", "v"): 1.0, ("b", "v"): 2.0})
    assert agreement.two_way(one_video[:0]) is None and agreement.two_way(one_video).half_width is None


def test_agreement_on_the_example_of_its_author():
    """Krippendorff's "Computing Krippendorff's Alpha-Reliability" (2011): four observers, twelve units, ratings missing; 0.815."""
    observers = ("12332141 2...", "12332241 25.3", ".3332342 251.", "12332441 251.")
    columns = zip(*(line.replace(" ", "") for line in observers))
    units = {(f"u{index}", "x"): [int(sign) for sign in column if sign != "."] for index, column in enumerate(columns)}
    found = agreement.krippendorff(units, POINTS)
    assert found.alpha == pytest.approx(0.815, abs=5e-4) and found.units == 11
    assert found.low < found.alpha < found.high <= 1


def test_agreement_at_its_ends():
    perfect = agreement.krippendorff({(f"u{i}", "x"): [i % 5 + 1] * 3 for i in range(10)}, POINTS)
    assert (perfect.alpha, perfect.low, perfect.high) == (1, 1, 1)
    chance = agreement.krippendorff(
        {(f"u{i}", "x"): [int(x) for x in np.random.default_rng(i).integers(1, 6, 4)] for i in range(300)}, POINTS
    )
    assert abs(chance.alpha) < 0.06 and chance.low < 0 < chance.high
    assert agreement.krippendorff({("u", "x"): [3]}, POINTS) is None
    assert np.isnan(agreement.krippendorff({("u", "x"): [3, 3]}, POINTS).alpha)


@pytest.mark.parametrize("seed", range(6))
def test_agreement_is_that_of_the_package(seed):
    """Raters who follow the video, each with noise, and who lack a third of the ratings."""
    generator = np.random.default_rng(seed)
    quality = generator.normal(3, 1.2, size=20)
    ratings = np.clip(np.rint(quality + generator.normal(0, 0.2 + 0.3 * seed, size=(7, 20))), 1, 5)
    ratings[generator.random(ratings.shape) < 1 / 3] = np.nan
    units = {(f"u{unit}", "x"): [int(point) for point in column if not np.isnan(point)] for unit, column in enumerate(ratings.T)}
    expected = krippendorff.alpha(reliability_data=ratings, level_of_measurement="ordinal", value_domain=POINTS)
    found = agreement.krippendorff(units, POINTS)
    assert found.alpha == pytest.approx(expected, abs=1e-12) and found.low <= found.alpha <= found.high
