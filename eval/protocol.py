"""The segmented protocol: over which stretch of a video each dimension of each task is scored. No torch, no frames.

Source: appendix A.2 of the Echo-Forcing paper for the three interactive tasks. Long videos of one scene have a single
segment, so that there is nothing to choose.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from echo.refusals import nearest


class Scope(StrEnum):
    """The stretch of video that one score is made of."""

    whole = "whole"
    """All frames at once."""
    segments = "segments"
    """Each scene by itself, then the mean over scenes."""
    pairs = "pairs"
    """Each recalled scene against the scene that it recalls, then the mean over pairs."""


WHOLE_QUALITY: Final = {
    "temporal_flickering": Scope.whole,
    "motion_smoothness": Scope.whole,
    "imaging_quality": Scope.whole,
    "aesthetic_quality": Scope.whole,
    "dynamic_degree": Scope.whole,
    "text_alignment": Scope.segments,
}
_CONTINUOUS: Final = WHOLE_QUALITY | {"subject_consistency": Scope.whole, "background_consistency": Scope.whole}

TASKS: Final = MappingProxyType(
    {
        "long60": _CONTINUOUS,
        "long120": _CONTINUOUS,
        "smooth": _CONTINUOUS,
        "hard": WHOLE_QUALITY | {"subject_consistency": Scope.whole, "background_consistency": Scope.segments},
        "recall": WHOLE_QUALITY | {"subject_consistency": Scope.pairs, "background_consistency": Scope.pairs},
    }
)
"""Task -> dimension -> scope."""

RECALL_PAIRS: Final = ((4, 1), (5, 2), (6, 3))
"""Scenes, counted from 1: the recalled one and the one that it recalls."""


def scopes(task: str) -> dict[str, Scope]:
    """Scopes of `task`; ValueError naming the nearest task if there is none of that name."""
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
