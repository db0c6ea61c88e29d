"""VBench's formulas against loops written by hand from their descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from eval.measures.flow import flow_between, middle_frame, motion
from eval.measures.formulas import (
    consistency,
    dynamic_share,
    ends,
    fastest,
    is_dynamic,
    is_still,
    pair_consistency,
    pair_joined,
    sampling_step,
    temporal_flickering,
)


def unit(count: int, size: int, seed: int) -> np.ndarray:
    """Unit vectors with cosines of both signs."""
    vectors = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def moving(speed: float, frames: int = 33, size: int = 64, jerk: float = 0.0) -> np.ndarray:
    """A smooth texture that slides to the right, with a shake of `jerk` px in every other frame."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    clip = []
    for time in range(frames):
        at = x - speed * time - jerk * (time % 2)
        value = np.sin(at / 3) + np.cos(y / 4 + at / 7) + np.sin((at + y) / 5)
        clip.append(np.repeat((127 + 40 * value)[..., None], 3, axis=2))
    return np.clip(np.stack(clip), 0, 255).astype(np.uint8)


def test_a_joined_pair_is_one_video() -> None:
    first, second = unit(4, 5, 1), unit(3, 5, 2)
    every, total = [*first, *second], 0.0
    for index in range(1, 7):
        total += (max(0.0, float(every[index] @ every[index - 1])) + max(0.0, float(every[index] @ first[0]))) / 2
    assert pair_joined(first, second) == pytest.approx(total / 6, abs=1e-6) != pytest.approx(pair_consistency(first, second), abs=1e-3)


def test_the_static_filter_is_the_loop() -> None:
    """Random radii around the limit, both ends near it too: as one counts and stops by hand."""
    random, answers = np.random.default_rng(0), []
    for frames in (9, 32, 33, 48):
        for _ in range(200):
            side = int(random.choice([128, 480]))
            limit, most = 3.0 * side / 256, int(round(frames / 8))
            neighbours = random.uniform(0, limit * 1.15, frames - 1) + limit * (random.random(frames - 1) < 0.03)
            tips = random.uniform(0, limit * most * 2.3, 2)
            moving = 0
            for radius in neighbours:
                moving += radius > limit
            expected = moving <= most and all(radius <= limit * most * 2 for radius in tips)
            assert is_still(neighbours, tips, frames, side, 832) == expected
            answers.append(expected)
    assert 0.1 < np.mean(answers) < 0.9, "both answers are common here"


def test_ends_are_five_seconds() -> None:
    assert ends(160, 16.0) == (slice(0, 80), slice(80, 160)) and ends(159, 16.0) is None
    assert ends(957, 16.0) == (slice(0, 80), slice(877, 957)) and ends(240, 24.0) == (slice(0, 120), slice(120, 240))


def test_consistency_is_the_loop() -> None:
    features = unit(9, 5, 0)
    total = 0.0
    for index in range(1, 9):
        before = max(0.0, sum(float(a) * float(b) for a, b in zip(features[index], features[index - 1])))
        first = max(0.0, sum(float(a) * float(b) for a, b in zip(features[index], features[0])))
        total += (before + first) / 2
    assert consistency(features) == pytest.approx(total / 8, abs=1e-6)
    assert consistency(np.repeat(features[:1], 4, 0)) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        consistency(features[:1])


def test_pair_consistency_is_the_mean_over_all_pairs() -> None:
    reference, again = unit(7, 5, 1), unit(4, 5, 2)
    loop = [float(a @ b) for a in reference for b in again]
    assert pair_consistency(reference, again) == pytest.approx(sum(loop) / 28, abs=1e-6)


def test_flickering_is_the_loop() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    loop = []
    for index in range(4):
        loop.append(np.mean([abs(int(a) - int(b)) for a, b in zip(frames[index].flat, frames[index + 1].flat)]))
    assert temporal_flickering(frames) == pytest.approx((255 - np.mean(loop)) / 255, abs=1e-9)
    assert temporal_flickering(np.repeat(frames[:1], 3, 0)) == 1


def test_fastest_is_the_mean_of_the_top_twentieth() -> None:
    flow = np.zeros((20, 10, 2), dtype=np.float32)
    flow[3, :5, 0], flow[3, :5, 1] = 3, 4
    flow[4, :5, 0] = 1
    assert fastest(flow) == pytest.approx(3.0)


def test_dynamic_rule() -> None:
    assert sampling_step(16) == 2 and sampling_step(8) == 1 and sampling_step(3) == 1
    limit = 6 * 32 / 256
    # 10 sampled frames ask for round(2.5) = 2 pairs: halves go to the even number.
    pairs = np.array([limit + 0.01] * 2 + [limit] * 7)
    assert is_dynamic(pairs, 10, 32, 48) and not is_dynamic(pairs[1:], 10, 32, 48)
    assert not is_dynamic(pairs, 16, 32, 48)


def test_flow_finds_a_shift() -> None:
    frames = moving(1.5, 2)[..., 0]
    flow = flow_between(frames[0], frames[1])
    assert np.median(flow[10:-10, 10:-10, 0]) == pytest.approx(1.5, abs=0.25)
    assert abs(np.median(flow[10:-10, 10:-10, 1])) < 0.2


def test_middle_frame_of_a_slide_is_the_true_one() -> None:
    frames = moving(1.0, 3)
    flow = flow_between(frames[0, ..., 0], frames[2, ..., 0])
    guess = middle_frame(frames[0], frames[2], flow)
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(guess - frames[1].astype(float))[inner].mean() < 3
    # A plain mean of the neighbours is worse.
    assert np.abs(guess - frames[1])[inner].mean() < np.abs((frames[0] / 2 + frames[2] / 2) - frames[1])[inner].mean()


def test_smoothness_and_motion_order_the_cases() -> None:
    still, slow, fast, jerky = (motion(moving(*case), 2) for case in ((0.0,), (0.3,), (2.0,), (0.3, 33, 64, 2.0)))
    assert still[1] > 0.995 and jerky[1] < slow[1] - 0.01
    assert still[0].max() < 0.1 < slow[0].mean() < fast[0].mean()
    assert len(still[0]) == 16


def test_other_steps_sample_other_pairs() -> None:
    assert len(motion(moving(0.5, 13), 3)[0]) == 4
    with pytest.raises(ValueError, match="at least 3"):
        motion(moving(0.5, 2), 2)


def test_dynamic_share_is_vbenchs_rule_for_each_two_seconds() -> None:
    limit = 6 * 48 / 256
    moves, still = [limit + 0.01] * 4 + [0.0] * 12, [limit + 0.01] * 3 + [0.0] * 13
    assert dynamic_share(np.array(moves + still), 48, 48) == 0.5
    assert dynamic_share(np.array(still * 5), 48, 48) == 0 and dynamic_share(np.array(moves * 5), 48, 48) == 1
    # A rest of half a stretch counts, a shorter one does not, unless it is all there is.
    assert dynamic_share(np.array(still + moves[:8]), 48, 48) == 0.5
    assert dynamic_share(np.array(still + moves[:7]), 48, 48) == 0
    assert dynamic_share(np.array(moves[:5]), 48, 48) == 1
