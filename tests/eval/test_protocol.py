"""The segmented protocol as data."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data.sets.known import SETS
from eval import metrics
from eval.protocol import RECALL_PAIRS, TASKS, Scope, exact, pairs_of, recalled, scopes


def test_tasks_and_dimensions() -> None:
    assert set(metrics.TASKS) == {"long60", "long120", "smooth", "hard", "recall"} and set(metrics.LIKE) == set(SETS)
    assert set(TASKS) == {*metrics.TASKS, *SETS}
    assert all(len(dimensions) == 8 for dimensions in TASKS.values())


@pytest.mark.parametrize(
    ("task", "subject", "background"),
    [
        ("long60", Scope.whole, Scope.whole),
        ("long120", Scope.whole, Scope.whole),
        ("smooth", Scope.whole, Scope.whole),
        ("hard", Scope.whole, Scope.segments),
        ("recall", Scope.pairs, Scope.pairs),
        ("memflow", Scope.whole, Scope.whole),
        ("helios", Scope.whole, Scope.whole),
        ("rollf200", Scope.whole, Scope.whole),
        ("vmem", Scope.pairs, Scope.pairs),
        ("layerrecall", Scope.pairs, Scope.pairs),
    ],
)
def test_scopes_of_consistency(task: str, subject: Scope, background: Scope) -> None:
    assert scopes(task)["subject_consistency"] is subject
    assert scopes(task)["background_consistency"] is background


def test_text_is_scored_by_scene_and_quality_over_the_whole() -> None:
    for task in TASKS:
        assert scopes(task)["text_alignment"] is Scope.segments
        for dimension in ("temporal_flickering", "motion_smoothness", "dynamic_degree", "imaging_quality", "aesthetic_quality"):
            assert scopes(task)[dimension] is Scope.whole


def test_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'recal'.*nearest: recall"):
        scopes("recal")


def test_pairs_are_four_one_five_two_six_three() -> None:
    assert RECALL_PAIRS == ((4, 1), (5, 2), (6, 3))
    assert recalled(6) == [(3, 0), (4, 1), (5, 2)]
    with pytest.raises(ValueError, match="needs 6 scenes"):
        recalled(5)


def test_pairs_of_other_sets_are_those_that_prompts_name():
    assert pairs_of("layerrecall", 3, (None, None, 0)) == [(2, 0)]
    assert pairs_of("vmem", 4, (None, None, 0, 1)) == [(2, 0), (3, 1)]
    assert pairs_of("recall", 6, (None, None, 0, 1, 2, 3)) == recalled(6) and pairs_of("memflow", 6, (None, 0)) == []
    for recalls in ((), (None, None, None), (None, 0)):
        with pytest.raises(ValueError, match="none of 3 scenes says which one it recalls .* task=vmem .* nearest is task=smooth"):
            pairs_of("vmem", 3, recalls)
    assert [metrics.kind_of(task) for task in metrics.LIKE] == ["interactive"] * 3 + ["long"] * 2


def test_exact_seconds() -> None:
    """960 frames of a minute, and the 957 that Wan makes of it; the last scene takes what is left."""
    assert exact(960, 16.0, [10.0] * 6) == [(160 * n, 160 * n + 160) for n in range(6)]
    assert exact(957, 16.0, [10.0] * 6)[-1] == (800, 957) and exact(100, 29.97, [1.0, 2.3]) == [(0, 30), (30, 100)]
    with pytest.raises(ValueError, match="lasts 58.00 s, its prompt 60.00 s; within 1 s of it is taken"):
        exact(928, 16.0, [10.0] * 6)


def test_no_torch_is_imported() -> None:
    code = "import sys, eval.protocol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
