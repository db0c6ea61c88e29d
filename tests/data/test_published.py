"""The paper's numbers as facts: whole, named, and in accord with what its text says of them."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from baselines.ours import BASES, TUNED, rebased
from baselines.presets import choices
from data import published
from data.published import Side, backbones, claims, numbers, ours, own, unmapped
from echo.files import ROOT
from eval.protocol import TASKS


def value(table: str, task: str, method: str, metric: str) -> float:
    (found,) = [n.value for n in numbers() if (n.table, n.task, n.method, n.metric) == (table, task, method, metric)]
    return found


def test_all_numbers_are_there_once_and_sourced():
    assert len(numbers()) == 227 and all(number.source for number in numbers())
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


def test_what_no_text_prints_says_that_it_is_inferred():
    """Eight cells of the ablations that are Table 1's, and what is second best in Table 5, by the gains."""
    guessed = {(n.table, n.metric): n for n in numbers() if n.source.startswith("inference")}
    four = ("background_consistency", "motion_smoothness", "temporal_flickering", "dynamic_degree")
    same = {("3", name) for name in four[:3]} | {("6", "motion_smoothness")} | {("7", name) for name in four}
    assert set(guessed) == same | {("5", name) for name in ("text_alignment", "motion_smoothness", "video_quality")}
    assert all(guessed[key].value == value("1", "60s", "Echo-Forcing", key[1]) for key in same)
    for metric, gain in {"text_alignment": 0.19, "motion_smoothness": 0.22, "video_quality": 0.05}.items():
        assert value("5", "interactive", "Echo-Forcing", metric) - guessed["5", metric].value == pytest.approx(gain)


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
    assert {paper for kind, _, paper, _ in unmapped(True) if kind == "metric"} == {"aesthetic_quality", "fps", "video_quality"}
    assert {paper for kind, _, paper, _ in unmapped(False) if kind == "metric"} == {"fps", "video_quality"}
    assert all(why for *_, why in unmapped(True))
    with pytest.raises(KeyError, match="method 'Echo' of Table 1"):
        ours("method", "Echo", "1")


def test_our_names_exist():
    presets = set(choices("method"))
    for claim in claims():
        for side in (claim.first, claim.second):
            assert set(ours("method", side.method, claim.table)) <= presets
        assert set(ours("task", claim.task, claim.table)) <= set(TASKS)
    for embedded in (False, True):
        assert backbones(embedded) <= set(choices("backbone"))


def test_ours_may_stand_upon_each_base():
    """Bases of the ablations are those that may stand for the paper's own method, on either backbone."""
    bases = {base.removeprefix(TUNED) for base in OmegaConf.load(ROOT / "conf" / "ablations.yaml").bases}
    assert bases <= set(BASES)
    names = {"echo": "echo_paper", "longlive_echo": "longlive_echo_paper", "echo_lambda_2": "echo_paper"}
    names |= {"longlive_echo_decay_80": "longlive_echo_paper_decay_80", "longlive": "longlive", "rolling_sink": "rolling_sink"}
    assert {name: rebased(name, "echo_paper") for name in names} == names
    assert own("Echo-Forcing", "1") and own("lambda=2", "8") and not own("LongLive", "1")


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
    assert len(told) == len(published._rows("published_claims.csv"))
    assert {c.table for c in told} == {"3", "4", "5", "6", "7", "8", "9a", "9b"}
    (turned,) = [c for c in told if c.metric == "imaging_quality" and "15" not in c.second.method]
    assert turned.first.method.startswith("12 anchors") and turned.sign == -1
    counted = {(c.table, c.task, c.metric, frozenset((c.first, c.second))) for c in claims()}
    assert len(counted) == len(claims()), "no pair is ranked twice by one metric"
