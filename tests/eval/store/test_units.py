"""Scores by column against the same scores as dictionaries, and intervals computed together against one by one."""

from __future__ import annotations

import numpy as np
import pytest

from eval.stats import statistics
from eval.stats.statistics import difference, estimate, prime
from eval.store.units import Scores, Values


def drawn(seed, prompts=7, seeds=4, holes=0.2):
    """Runs as (prompts, seed, metrics): some prompts are not there, some numbers neither."""
    rng = np.random.default_rng(seed)
    for number in range(seeds):
        names = [f"p{index}" for index in rng.permutation(prompts) if rng.random() > holes]
        metrics = {name: rng.normal(50, 10, len(names)) for name in ("a", "b")}
        metrics["b"][rng.random(len(names)) < holes] = np.nan
        yield names, number, metrics


def both(seed):
    scores, plain = Scores(), {}
    for names, number, metrics in drawn(seed):
        scores.add(names, number, metrics)
        plain |= {(name, number): {key: float(array[row]) for key, array in metrics.items()} for row, name in enumerate(names)}
    return scores, {unit: {key: None if np.isnan(value) else value for key, value in metrics.items()} for unit, metrics in plain.items()}


def column(plain, metric):
    return {unit: metrics[metric] for unit, metrics in plain.items() if metrics[metric] is not None}


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_a_mapping_of_units(seed):
    scores, plain = both(seed)
    assert dict(scores.items()) == plain and len(scores) == len(plain) and list(scores) == sorted(plain)
    assert ("p0", 9) not in scores and all(unit in scores for unit in plain) and scores.names == {"a", "b"}


@pytest.mark.parametrize("metric", ["a", "b"])
def test_estimates_and_differences_are_those_of_dictionaries(metric):
    (some, first), (other, second) = both(1), both(2)
    values, reference = column(first, metric), column(second, metric)
    assert estimate(some.column(metric)) == estimate(values)
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(list(values.values()))) and found.videos == len(values)
    assert found.prompts == len({prompt for prompt, _ in values}) and found.seeds == len({seed for _, seed in values})
    shared = {unit: values[unit] - reference[unit] for unit in values if unit in reference}
    assert shared and difference(some.column(metric), other.column(metric)).estimate == estimate(shared)
    assert difference(values, reference) == difference(some.column(metric), other.column(metric))


def test_intervals_together_are_those_one_by_one():
    together = [Values.of(column(both(seed)[1], metric)) for seed in range(20) for metric in ("a", "b")]
    prime(together)
    alone = [estimate(Values.of(dict(zip(values.frame.units(), values.array)))) for values in together]
    assert [estimate(values) for values in together] == alone


def test_interval_is_computed_once(monkeypatch):
    values = Values.of(column(both(3)[1], "a"))
    prime([values])
    monkeypatch.setattr(statistics, "half_width", None)
    assert estimate(values).half_width > 0


def test_the_last_of_a_unit_that_comes_again_counts():
    scores = Scores()
    scores.add(["p1", "p0"], 0, {"a": np.array([1.0, 2.0])})
    assert len(scores) == 2
    scores.add(["p1"], 0, {"b": np.array([5.0])}, names=("b", "c"))
    assert len(scores) == 2 and scores.names == {"a", "b", "c"} and scores["p1", 0] == {"b": 5.0}
    assert dict(zip(scores.column("a").frame.units(), scores.column("a").array)) == {("p0", 0): 2.0}


def test_nothing_is_nothing():
    assert estimate(Scores().column("a")) is None and difference({}, {}) is None and len(Scores()) == 0
    assert difference(Values.of({("a", 0): 1.0}), Values.of({("b", 0): 1.0})) is None
