"""Starts and ends of a video's scenes: from a run's files beside the video, otherwise from the durations in its prompt.

A run's scenes end with blocks, and Wan makes one pixel frame of its first latent frame, so durations alone would cut elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from echo.geometry import scene_spans
from echo.scene import FRAMES_PER_BLOCK, PIXEL_FRAMES_PER_LATENT
from eval.protocol import cover
from eval.store.reading import content_of
from eval.store.records import UNREADABLE, DamagedFile
from eval.store.runs import traced
from eval.vbench.measure import Span
from eval.vbench.scorer import spans_of
from eval.vbench.video import Facts

TRACE, SCORES, DURATIONS, WHOLE = "trace", "scores file", "durations", "whole video"
LATER: Final = PIXEL_FRAMES_PER_LATENT - 1
"""Number of frames that a video lacks if its codec makes one frame of the first latent frame."""


def borders(facts: Facts, durations_s: Sequence[float] | None) -> tuple[list[Span], str]:
    """Pixel frames [start, end) of a video's scenes, and their source: `TRACE`, `SCORES`, `DURATIONS`, or `WHOLE` if there is none.

    Args:
        facts: the video; `<name>.trace.jsonl` beside it comes first, then a scores file `<name>.<scorer>-<id>.json` with segments.
        durations_s: seconds of its prompt's scenes, None if there is no prompt.

    Raises ValueError, in one line that names the file, if that belongs to another video or has another number of scenes.
    """
    stem = facts.path.stem
    trace = facts.path.with_name(f"{stem}.trace.jsonl")
    if os.path.lexists(trace):  # even a broken link: an unreadable file is not absent
        return _agreed(trace, _of_trace(trace, facts), durations_s), TRACE
    for path in sorted(facts.path.parent.iterdir()):
        middle = path.name.removeprefix(f"{stem}.").removesuffix(".json")
        if path.name != f"{stem}.{middle}.json" or "." in middle or f"{stem}.{middle}" == facts.path.name:
            continue  # of another video, or written by `eval.vbench.folder`, possibly from durations
        segments = _segments(path)
        if segments is not None:
            return _agreed(path, _fitting(path, segments, facts), durations_s), SCORES
    return ([(0, facts.frames)], WHOLE) if durations_s is None else (spans_of(facts, durations_s), DURATIONS)


def _agreed(path: Path, spans: list[Span], durations_s: Sequence[float] | None) -> list[Span]:
    if durations_s is not None and len(durations_s) != len(spans):
        raise ValueError(f"{path}: {len(spans)} scenes, its prompt has {len(durations_s)}; without this file durations say where they are")
    return spans


def _of_trace(path: Path, facts: Facts) -> list[Span]:
    try:
        lines = traced(path)
    except (OSError, ValueError):
        raise ValueError(f"{path}: no trace, a line of which is a block with its scene; without this file durations are taken") from None
    scenes = [line.scene for line in lines]
    runs = [(scene, len(list(blocks))) for scene, blocks in groupby(scenes)]
    size = lines[0].frames_per_block if lines else FRAMES_PER_BLOCK
    whole = len(scenes) * size * PIXEL_FRAMES_PER_LATENT
    short = whole - facts.frames
    if [scene for scene, _ in runs] != list(range(len(runs))) or not runs or short not in (0, LATER):
        expected = f"{len(scenes)} blocks are {whole} or {whole - LATER} frames, scene after scene"
        raise ValueError(f"{path}: of another video; {expected}, the video has {facts.frames}; without this file durations are taken")
    return scene_spans([blocks for _, blocks in runs], PIXEL_FRAMES_PER_LATENT - short, size)


class _ScoredSegments(msgspec.Struct):
    """The fields that identify a scores file."""

    metrics: dict[str, float | None]
    segments: list[Any]


def _segments(path: Path) -> list[Any] | None:
    """The segments in a scores file; None for any other file."""
    try:
        return msgspec.json.decode(content_of(path), type=_ScoredSegments).segments
    except (*UNREADABLE, DamagedFile):
        return None


def _fitting(path: Path, segments: Sequence[Any], facts: Facts) -> list[Span]:
    try:
        spans = [(int(start), int(end)) for start, end in segments]
        cover(spans, facts.frames)
    except (ValueError, TypeError):
        whole = f"its segments do not cover the {facts.frames} frames"
        raise ValueError(f"{path}: of another video; {whole}; without this file durations are taken") from None
    return spans
