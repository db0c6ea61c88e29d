"""Freeze, loop and coherence: known answers, and the loops of their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from eval.measures.repeats import LAGS_S, coherence, freeze, likeness, loop, mean_loop

FPS = 16


def circle(turns: np.ndarray) -> np.ndarray:
    """Unit features of a point that has gone so many turns."""
    return np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)


SECONDS = np.arange(40 * FPS) / FPS
VIDEOS = {
    "frozen": circle(np.zeros_like(SECONDS)),
    "looped": circle(SECONDS / 4),
    "drifting": circle(SECONDS / 40 / 4),
    "perfect": circle(0.01 * np.sin(SECONDS)),
}


@pytest.mark.parametrize(
    ("name", "expected", "far"),
    [("frozen", 0.0, 1.0), ("looped", 1.0, 1.0), ("drifting", 0.0, np.cos(np.pi / 4)), ("perfect", 0.0, 1.0)],
)
def test_known_answers(name: str, expected: float, far: float) -> None:
    """A turn in 4 s is back after 4, 8, 12 ... s; a quarter of a turn in 40 s never is. 20 s is five turns, and an eighth of one."""
    assert loop(VIDEOS[name], FPS) == pytest.approx(expected, abs=0.005)
    found = coherence(VIDEOS[name], FPS)
    assert list(found) == [1, 2, 5, 10, 20] and found[20] == pytest.approx(far, abs=0.005)
    steps = list(found.values())
    assert (steps == sorted(steps, reverse=True)) is (name != "looped") or name == "perfect"


def test_coherence_is_the_loop() -> None:
    features = np.random.default_rng(0).standard_normal((60 * FPS, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = coherence(features, FPS)
    assert tuple(found) == LAGS_S
    for seconds, value in found.items():
        total, count = 0.0, 0
        for frame in range(len(features) - seconds * FPS):
            total += max(0.0, sum(a * b for a, b in zip(features[frame], features[frame + seconds * FPS])))
            count += 1
        assert value == pytest.approx(total / count, abs=1e-9), f"{seconds} s: apart by {abs(value - total / count)}"


def test_a_loop_is_the_loop() -> None:
    """By hand over all periods of 1 s to half the stretch, four frames a second."""
    features = np.random.default_rng(1).standard_normal((12 * FPS, 4)).cumsum(0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sampled, best = features[::4], 0.0
    for lag in range(4, 25):
        best = max(best, likeness(sampled, lag) - min(likeness(sampled, nearer) for nearer in range(1, lag + 1)))
    assert loop(features, FPS) == pytest.approx(best, abs=1e-12) and best > 0


def test_short_stretches_have_no_loop() -> None:
    assert loop(VIDEOS["looped"][: 2 * FPS - 8], FPS) is None and loop(VIDEOS["looped"][: 2 * FPS], FPS) is not None
    assert mean_loop([VIDEOS["looped"], VIDEOS["frozen"], VIDEOS["frozen"][:9]], FPS) == pytest.approx(0.5, abs=0.005)
    assert mean_loop([VIDEOS["frozen"][:9]], FPS) is None


def test_freeze_counts_neighbours_that_are_nearly_the_same() -> None:
    assert freeze(np.array([0.0, 0.49, 0.5, 3.0])) == 0.5 and freeze(np.zeros(5)) == 1.0
