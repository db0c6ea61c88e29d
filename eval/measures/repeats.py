"""Frozen time, looping, and coherence over distance: whether a video moves, repeats itself, and stays similar to itself.

Consistency does not measure these: it is best for a frozen video. The formulas are independent of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

FROZEN_GREY: Final = 0.5
"""Mean absolute difference of neighbouring frames, in steps of 255, below which they count as the same."""
LAGS_S: Final = (1, 2, 5, 10, 20, 40)
"""Distances of coherence, in seconds."""
LOOPS_S: Final = (1.0, 30.0)
"""Range of periods in seconds; a period is at most half the stretch, so that it occurs twice."""
SAMPLES: Final = 4
"""Frames per second that are compared for loops."""


def freeze(differences: NDArray[np.float64]) -> float:
    """Share of time, 0..1, in which a frame and the next count as the same.

    differences: mean absolute difference of each frame and the next, [T - 1], in steps of 255; at least one.
    """
    return float((differences < FROZEN_GREY).mean())


def likeness(features: NDArray[np.floating], lag: int) -> float:
    """Mean cosine, negative ones as 0, of unit features [T, D] of frames that are `lag` < T apart."""
    return float(np.clip(np.einsum("td,td->t", features[lag:], features[: len(features) - lag]), 0, None).mean())


def loop(features: NDArray[np.floating], fps: float) -> float | None:
    """How much similarity returns at a distance, 0..1; None below 2 s.

    The maximum over periods of 1 s to 30 s of the similarity of frames one period apart, beyond that of the least similar nearer frames.
    Similarity only falls in a video that develops, is 1 everywhere in a frozen one, and rises again where a video repeats itself.
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
    """Mean of `loop` over stretches of a video that are long enough; None if none is."""
    known = [value for stretch in stretches if (value := loop(stretch, fps)) is not None]
    return float(np.mean(known)) if known else None


def coherence(features: NDArray[np.floating], fps: float) -> dict[int, float]:
    """Mean cosine, 0..1, of unit features [T, D] of frames each of LAGS_S apart, for lags shorter than the video."""
    lags = {seconds: round(seconds * fps) for seconds in LAGS_S}
    return {seconds: likeness(features, lag) for seconds, lag in lags.items() if lag < len(features)}
