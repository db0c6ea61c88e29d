"""Memory fidelity and leakage: known answers, and the loops of their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from eval.measures.memory import returns, similarity

FPS, SCENE = 4, 40
SPANS = [(SCENE * scene, SCENE * (scene + 1)) for scene in range(6)]
PAIRS = [(3, 0), (4, 1), (5, 2)]


def film(places: list[int], shared: float = 0.0) -> np.ndarray:
    """Unit features of scenes; two different places have `shared` in common."""
    axes = np.sqrt(1 - shared) * np.eye(8)[np.repeat(places, SCENE)]
    axes[:, 7] = np.sqrt(shared)
    return axes


@pytest.mark.parametrize(
    ("places", "fidelity", "leakage"),
    [([0, 1, 2, 0, 1, 2], 1, 0), ([0, 1, 2, 2, 2, 2], 0, 1), ([0] * 6, 0, 1), ([0, 1, 2, 3, 4, 5], 0, 0)],
    ids=["perfect", "stays in C", "never leaves", "a third place"],
)
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_known_answers(places: list[int], fidelity: float, leakage: float, shared: float) -> None:
    """What places have in common takes away from fidelity and adds to leakage; where C never went, its return brings nothing back."""
    found = returns(film(places, shared), SPANS, PAIRS, FPS)
    assert found.memory_fidelity == pytest.approx(fidelity * (1 - shared)), places
    assert found.memory_leakage == pytest.approx(leakage + (1 - leakage) * shared), places


def test_early_frames_leak_and_late_ones_return() -> None:
    """A return that lingers for 4.5 s and is whole then: all of the leakage, and the fidelity of the settled frames alone."""
    features = film([0, 1, 2, 0, 1, 2])
    for late, _ in PAIRS:
        features[SCENE * late : SCENE * late + 9] = features[SCENE * late - 1]
    found = returns(features, SPANS, PAIRS, FPS)
    assert found == pytest.approx((1.0, 0.5))


def test_scores_are_the_loops() -> None:
    rng = np.random.default_rng(0)
    features = film([0, 1, 2, 0, 3, 2], 0.3) + 0.2 * rng.standard_normal((6 * SCENE, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)

    def s(some: range, other: range) -> float:
        return sum(float(features[a] @ features[b]) for a in some for b in other) / (len(some) * len(other))

    def alike(shown: range, scene: range) -> float:
        half = len(scene) // 2
        return s(shown, scene) / s(scene[:half], scene[half:])

    settled = [range(start + 9, end) for start, end in SPANS]
    fidelity = sum(alike(settled[late], settled[early]) - alike(settled[late - 1], settled[early]) for late, early in PAIRS) / 3
    leakage = sum(alike(range(SPANS[late][0], SPANS[late][0] + 18), settled[late - 1]) for late, _ in PAIRS) / 3
    found = returns(features, SPANS, PAIRS, FPS)
    apart = [abs(found.memory_fidelity - fidelity), abs(found.memory_leakage - leakage)]
    assert max(apart) < 1e-12, f"max {max(apart)}, mean {sum(apart) / 2}"


def test_what_cannot_be_told_is_left_out() -> None:
    features = film([0, 1, 2, 0, 1, 2])
    assert returns(features, SPANS, [], FPS) is returns(features, SPANS, [(1, 0)], FPS) is None, "of the scene just left"
    assert similarity(features[:4], features[:1]) is None and similarity(features[:4], np.eye(8)) is None, "a scene unlike itself"
    assert returns(features, SPANS, [(1, 0), (3, 0)], FPS).memory_fidelity == 1
