"""The paper's numbers as facts: whole, named, and in accord with what its text says of them."""

from __future__ import annotations

import pytest

from baselines.presets import choices
from data import published
from data.published import Side, claims, numbers, ours, unmapped
from eval.protocol import TASKS


def value(table: str, task: str, method: str, metric: str) -> float:
    (found,) = [n.value for n in numbers() if (n.table, n.task, n.method, n.metric) == (table, task, method, metric)]
    return found


def test_all_numbers_are_there_once_and_sourced():
    assert len(numbers()) == 224 and all(number.source for number in numbers())
    keys = [(n.table, n.task, n.backbone, n.method, n.metric) for n in numbers()]
    assert len(set(keys)) == len(keys)
    assert sum(n.table == "1" for n in numbers()) == 2 * 6 * 8 and sum(n.table == "2" for n in numbers()) == 3 * 6 * 5


@pytest.mark.parametrize(
    ("task", "metric", "high", "low", "gain"),
    [
        ("smooth", "text_alignment", "LongLive+Echo", "LongLive", 2.39),
        ("hard", "text_alignment", "LongLive+Echo", "LongLive", 3.68),
        ("recall", "text_alignment", "LongLive+Echo", "LongLive", 4.02),
        ("recall", "text_alignment", "Echo-Forcing", "infinity-RoPE", 32.58 - 29.47),
    ],
)
def test_gains_that_the_text_tells_are_those_of_the_numbers(task, metric, high, low, gain):
    assert value("2", task, high, metric) - value("2", task, low, metric) == pytest.approx(gain)


@pytest.mark.parametrize("task", ["60s", "120s"])
@pytest.mark.parametrize("metric", ["aesthetic_quality", "imaging_quality", "temporal_flickering"])
def test_echo_is_best_where_the_text_says_so(task, metric):
    column = {n.method: n.value for n in numbers() if (n.table, n.task, n.metric) == ("1", task, metric)}
    assert max(column, key=column.__getitem__) == "Echo-Forcing"


def test_every_name_is_mapped_or_listed_with_a_reason():
    for number in numbers():
        for kind, name in (
            ("backbone", number.backbone),
            ("task", number.task),
            ("metric", number.metric),
            ("method", number.method),
        ):
            if name:
                ours(kind, name, number.table)
    assert {paper for kind, _, paper, _ in unmapped() if kind == "metric"} == {"aesthetic_quality", "fps", "video_quality"}
    assert all(why for *_, why in unmapped())
    with pytest.raises(KeyError, match="method 'Echo' of Table 1"):
        ours("method", "Echo", "1")


def test_our_names_exist():
    presets = choices("method")
    for claim in claims():
        for side in (claim.first, claim.second):
            preset = ours("method", side.method, claim.table)
            assert preset is None or preset in presets
        assert ours("task", claim.task, claim.table) in {*TASKS, None}


def test_claims_of_numbers():
    found = [c for c in claims() if (c.table, c.task, c.metric) == ("1", "60s", "imaging_quality")]
    assert len(found) == 15
    (pair,) = [c for c in found if {c.first.method, c.second.method} == {"Echo-Forcing", "Rolling-Sink"}]
    assert pair.first.method == "Echo-Forcing" and pair.difference == pytest.approx(0.20) and pair.sign == 1
    (worse,) = [
        c
        for c in claims()
        if (c.table, c.task, c.metric) == ("1", "60s", "subject_consistency")
        and c.first == Side("Self-Forcing", "Echo-Forcing")
        and c.second.method == "Rolling-Sink"
    ]
    assert worse.sign == -1 and worse.difference == pytest.approx(-0.67)


def test_halves_of_table_2_are_ranked_apart():
    found = [c for c in claims() if (c.table, c.task, c.metric) == ("2", "hard", "text_alignment")]
    assert len(found) == 6 and all(c.first.backbone == c.second.backbone for c in found)


def test_equal_numbers_rank_nothing():
    pairs = {frozenset((c.first.method, c.second.method)) for c in claims() if (c.table, c.task, c.metric) == ("1", "60s", "fps")}
    assert frozenset(("Self-Forcing", "infinity-RoPE")) not in pairs and len(pairs) == 14


def test_claims_in_words():
    told = [c for c in claims() if c.difference is None]
    assert len(told) == len(published._rows("published_claims.csv")) and {c.table for c in told} == {"3", "6", "7", "8", "9a", "9b"}
    (turned,) = [c for c in told if c.metric == "imaging_quality"]
    assert turned.first.method.startswith("12 anchors") and turned.sign == -1
    counted = {(c.table, c.task, c.metric, frozenset((c.first, c.second))) for c in claims()}
    assert len(counted) == len(claims()), "no pair is ranked twice by one metric"
