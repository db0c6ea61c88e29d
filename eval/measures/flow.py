"""Optical flow by Farneback, in place of VBench's RAFT and AMT, which need frames of 128 px and more."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.measures.formulas import Frames, fastest

Flow = NDArray[np.float32]

LEVELS = 2
WINDOW_PX = 9
ITERATIONS = 2


def flow_between(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Flow:
    """Displacement (x, y) in pixels of each pixel of grey frame `before` [H, W] in `after`, float32 [H, W, 2]."""
    start = np.zeros((*before.shape, 2), dtype=np.float32)
    flow = cv2.calcOpticalFlowFarneback(before, after, start, 0.5, LEVELS, WINDOW_PX, ITERATIONS, 5, 1.1, 0)
    return np.asarray(flow, dtype=np.float32)


def middle_frame(before: NDArray[np.uint8], after: NDArray[np.uint8], flow: Flow) -> NDArray[np.float32]:
    """The frame halfway between two colour frames [H, W, 3]: both warped by half of the flow, and averaged."""
    columns, rows = _places(*flow.shape[:2])
    x, y = 0.5 * flow[..., 0], 0.5 * flow[..., 1]

    def warp(frame: NDArray[np.uint8], sign: float) -> NDArray[np.float32]:
        warped = cv2.remap(frame, columns + sign * x, rows + sign * y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, dtype=np.float32)

    return ((warp(before, -1.0) + warp(after, 1.0)) / 2).astype(np.float32)


@lru_cache(maxsize=4)
def _places(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row of each pixel."""
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return columns, rows


def motion(frames: Frames, step: int) -> tuple[NDArray[np.float64], float]:
    """Flow over a video, once: `fastest` of each pair of sampled frames, and motion smoothness, 0..1.

    frames uint8 [T, H, W, 3]; frames 0, step, 2 step, ... are sampled. Smoothness follows VBench: even frames are kept,
    the odd ones between them are predicted, and it is one minus the mean absolute error over 255. Raises ValueError for
    fewer than three frames.
    """
    if len(frames) < 3:
        raise ValueError(f"{len(frames)} frame(s): smoothness predicts a frame between two others, so at least 3 are needed")
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    errors: list[float] = []
    over_two: list[Flow] = []
    for middle in range(1, len(frames) - 1, 2):
        flow = flow_between(grey[middle - 1], grey[middle + 1])
        over_two.append(flow)
        predicted = middle_frame(frames[middle - 1], frames[middle + 1], flow)
        # Truncated to bytes, as VBench does with its prediction.
        errors.append(float(np.abs(np.trunc(predicted) - frames[middle]).mean()))
    if step == 2:
        pairs = over_two
    else:
        pairs = [flow_between(grey[start], grey[start + step]) for start in range(0, len(frames) - step, step)]
    return np.array([fastest(flow) for flow in pairs]), 1 - sum(errors) / len(errors) / 255
