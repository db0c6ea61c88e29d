"""VBench's arithmetic on features and frames, independent of the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Frames = NDArray[np.uint8]

RECOMMENDED_FRAMES = 16
"""Number of sampled frames for which VBench requires four moving pairs."""
DRIFT_S = 5.0
"""Seconds at either end of a video that drift compares."""


def consistency(features: Vectors) -> float:
    """VBench's subject and background consistency, 0..1, of unit features [T, D] in the order of the frames.

    Frame i > 0 scores the mean of its cosines with the frame before and with the first frame, negative ones as 0; the
    result is the mean over frames 1..T-1. Raises ValueError for fewer than two frames.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} frame(s): consistency compares frames, so at least 2 are needed")
    before = np.clip(np.einsum("td,td->t", features[1:], features[:-1]), 0, None)
    first = np.clip(features[1:] @ features[0], 0, None)
    return float(((before + first) / 2).mean())


def pair_consistency(reference: Vectors, recalled: Vectors) -> float:
    """Mean cosine over all frame pairs across two segments, unit features [T, D] and [U, D].

    The paper only says that the pair is compared; its numbers fit this reading better.
    """
    return float(reference.mean(0) @ recalled.mean(0))


def pair_joined(reference: Vectors, recalled: Vectors) -> float:
    """VBench's unchanged formula over both segments end to end, as if they were one video."""
    return consistency(np.concatenate([reference, recalled]))


def ends(frames: int, fps: float) -> tuple[slice, slice] | None:
    """Frames of the first and of the last 5 s of a video; None below 10 s."""
    length = round(DRIFT_S * fps)
    return (slice(0, length), slice(frames - length, frames)) if 2 * length <= frames else None


def temporal_flickering(frames: Frames) -> float:
    """VBench's temporal flickering, 0..1: one minus the mean absolute difference of neighbouring frames, over 255.

    frames uint8 [T, H, W, 3]. Raises ValueError for fewer than two frames.
    """
    return float(1 - differences(frames).mean() / 255)


def differences(frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference of each frame of uint8 [T, H, W, 3] and the next, [T - 1]. Raises ValueError for fewer than two frames."""
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frame(s): flickering compares neighbours, so at least 2 are needed")
    apart = np.maximum(frames[1:], frames[:-1]) - np.minimum(frames[1:], frames[:-1])
    return np.asarray(apart.reshape(len(apart), -1).mean(1))


def sampling_step(fps: float) -> int:
    """Step in frames at which VBench measures motion: about eight frames a second."""
    return max(1, round(fps / 8))


def fastest(flow: NDArray[np.float32]) -> float:
    """Mean length in pixels of the fastest 5 % of `flow` [H, W, 2]."""
    length = np.sort(np.hypot(flow[..., 0], flow[..., 1]), axis=None)
    return float(length[-max(1, int(length.size * 0.05)) :].mean())


def is_dynamic(fastest_px: NDArray[np.float64], sampled_frames: int, height: int, width: int) -> bool:
    """VBench's rule: enough pairs of sampled frames move, each by more than 6/256 of the shorter side.

    fastest_px: `fastest` of each pair. The count is rounded as in VBench (halves to even).
    """
    moving = int((fastest_px > 6.0 * min(height, width) / 256.0).sum())
    return moving >= round(4 * sampled_frames / RECOMMENDED_FRAMES)


def is_still(neighbours_px: NDArray[np.float64], ends_px: NDArray[np.float64], frames: int, height: int, width: int) -> bool:
    """VBench's static filter: few neighbouring frames differ much, and the last frame is near the first.

    Args:
        neighbours_px: mean length of the fastest 2 % of flow between frames that follow each other.
        ends_px: the same from the first frame to the last and back.
        frames: of the video, or of the clip that stands for one.
        height: of a frame.
        width: of a frame.
    """
    limit_px = 3.0 * min(height, width) / 256.0
    allowed = round(2 * frames / RECOMMENDED_FRAMES)
    return int((neighbours_px > limit_px).sum()) <= allowed and bool((ends_px <= 2 * allowed * limit_px).all())


def dynamic_share(fastest_px: NDArray[np.float64], height: int, width: int) -> float:
    """Share of a video's stretches of sixteen sampled pairs (2 s) that are dynamic by VBench's rule, 0..1.

    VBench applies its rule to clips of sixteen sampled frames; a minute has so many pairs that nearly every video would be
    dynamic, so it is applied to each stretch. The last stretch counts if it is half as long or the only one.
    """
    starts = range(0, len(fastest_px), RECOMMENDED_FRAMES)
    stretches = [fastest_px[start : start + RECOMMENDED_FRAMES] for start in starts]
    whole = [pairs for pairs in stretches if 2 * len(pairs) >= RECOMMENDED_FRAMES] or stretches
    return float(np.mean([is_dynamic(pairs, len(pairs), height, width) for pairs in whole]))
