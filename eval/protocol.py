"""The segmented protocol: the stretch of video over which each dimension of each task is scored. No torch, no frames.

Source: appendix A.2 of the Echo-Forcing paper for the three interactive tasks. Long videos of one scene have a single
segment. Each metric's entry in `eval.metrics` has its stretches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Final

from echo.refusals import nearest
from eval import metrics
from eval.metrics import METRICS, Scope

TASKS: Final = MappingProxyType(
    {
        task: {metric.name: metric.scopes[like] for metric in METRICS if (like := metrics.protocol_of(task)) in metric.scopes}
        for task in (*metrics.TASKS, *metrics.LIKE)
    }
)
"""Task -> dimension -> scope."""
PAIRED: Final = tuple(task for task, dimensions in TASKS.items() if Scope.pairs in dimensions.values())
"""Tasks whose recalled scenes are compared with those that they recall."""

RECALL_PAIRS: Final = ((4, 1), (5, 2), (6, 3))
"""Scenes, counted from 1: the recalled one and the one that it recalls."""


def scopes(task: str) -> dict[str, Scope]:
    """Scopes of `task`. Raises ValueError with the nearest task for an unknown one."""
    if task not in TASKS:
        raise ValueError(f"task {task!r} has no protocol; one of {', '.join(TASKS)}; nearest: {nearest(task, TASKS)}")
    return dict(TASKS[task])


def recalled(count: int) -> list[tuple[int, int]]:
    """Pairs (recalled, recalling from) of segment indices counted from 0.

    Raises ValueError unless there are six segments.
    """
    if count != 2 * len(RECALL_PAIRS):
        raise ValueError(f"{count} segments cannot be paired 4-1, 5-2, 6-3; the recall protocol needs 6 scenes")
    return [(late - 1, early - 1) for late, early in RECALL_PAIRS]


def pairs_of(task: str, count: int, recalls: Sequence[int | None]) -> list[tuple[int, int]]:
    """Pairs (recalled, recalling from) of segments that a task compares, counted from 0; empty if its protocol has none.

    Args:
        task: one of TASKS.
        count: number of segments.
        recalls: of the prompt: for each scene the one that it recalls; the paper's recall task ignores it and pairs 4-1, 5-2, 6-3.

    Raises ValueError for a count that cannot be paired, or recalls that name no pair.
    """
    if task not in PAIRED:
        return []
    if task == "recall":
        return recalled(count)
    pairs = [(late, early) for late, early in enumerate(recalls) if early is not None]
    if not pairs or len(recalls) != count:
        rule = "compares scenes that return with those that they recall"
        raise ValueError(f"none of {count} scenes says which one it recalls (recalls), and task={task} {rule}; nearest is task=smooth")
    return pairs


TOLERANCE_S = 1.0
"""Largest difference between a video's length and its prompt's, since codecs and blocks round."""


def exact(frames: int, fps: float, durations_s: Sequence[float]) -> list[tuple[int, int]]:
    """Frames [start, end) of segments with these durations, independent of blocks; the last one ends with the video.

    Raises ValueError if the video is more than a second shorter or longer than all of them together.
    """
    total, there = sum(durations_s), frames / fps
    if abs(there - total) > TOLERANCE_S:
        raise ValueError(f"lasts {there:.2f} s, its prompt {total:.2f} s; within {TOLERANCE_S:g} s of it is taken")
    borders = [0, *(round(end * fps) for end in accumulate(durations_s[:-1])), frames]
    return list(pairwise(borders))


def cover(segments: Sequence[tuple[int, int]], frames: int) -> None:
    """Raises ValueError unless segments [start, end) are the whole video, one after the other."""
    ends = [0, *(end for _, end in segments)]
    if [start for start, _ in segments] != ends[:-1] or ends[-1] != frames or any(start >= end for start, end in segments):
        raise ValueError(f"segments {list(segments)} do not cover the {frames} frames one after the other")
