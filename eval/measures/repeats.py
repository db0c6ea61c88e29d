"""Freeze, loop, and coherence over distance: whether a video moves, whether it comes back to itself, how long it stays like itself.

Consistency alone cannot tell these: a frozen video has the best there is. Nothing here knows where features come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

FROZEN_GREY: Final = 0.5
"""Mean absolute difference of neighbouring frames, in steps of 255, under which they are nearly the same."""
LAGS_S: Final = (1, 2, 5, 10, 20, 40)
"""Distances of coherence, in seconds."""
LOOPS_S: Final = (1.0, 30.0)
"""Periods that are looked for, in seconds; none is longer than half the stretch, so that a period is seen twice."""
SAMPLES: Final = 4
"""Frames a second that are compared for loops."""


def freeze(differences: NDArray[np.float64]) -> float:
    """Share of time, 0..1, in which a frame and the next are nearly the same.

    differences: mean absolute difference of each frame and the next, [T - 1], in steps of 255; at least one.
    """
    return float((differences < FROZEN_GREY).mean())


def likeness(features: NDArray[np.floating], lag: int) -> float:
    """Mean cosine, negative ones as 0, of unit features [T, D] of frames that are `lag` < T apart."""
    return float(np.clip(np.einsum("td,td->t", features[lag:], features[: len(features) - lag]), 0, None).mean())


def loop(features: NDArray[np.floating], fps: float) -> float | None:
    """How much likeness comes back at a distance, 0..1; None where the stretch is under 2 s.

    Over all periods of 1 s to 30 s: likeness of frames that far apart, beyond that of the least alike frames that are nearer. It only falls
    in a video that goes on, is 1 everywhere in a frozen one, and rises again where a video repeats itself.
    features: unit, [T, D]. fps: of the frames.
    """
    step = max(1, round(fps / SAMPLES))
    sampled, rate = features[::step], fps / step
    longest = int(min(LOOPS_S[1] * rate, len(sampled) / 2))
    shortest = round(LOOPS_S[0] * rate)
    if longest < shortest:
        return None
    at = np.array([likeness(sampled, lag) for lag in range(1, longest + 1)])
    nearer = np.minimum.accumulate(at)
    return float(np.max(at[shortest - 1 :] - nearer[shortest - 1 :]))


def mean_loop(stretches: Sequence[NDArray[np.floating]], fps: float) -> float | None:
    """Mean of `loop` over stretches of a video, those left out that are too short; None where all are."""
    known = [value for stretch in stretches if (value := loop(stretch, fps)) is not None]
    return float(np.mean(known)) if known else None


def coherence(features: NDArray[np.floating], fps: float) -> dict[int, float]:
    """Mean cosine, 0..1, of unit features [T, D] of frames each of LAGS_S apart, but those that the video is too short for."""
    lags = {seconds: round(seconds * fps) for seconds in LAGS_S}
    return {seconds: likeness(features, lag) for seconds, lag in lags.items() if lag < len(features)}
