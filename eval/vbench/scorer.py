"""Scores of video files: inspect the file, measure what no record has yet, and do the arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from eval.protocol import exact, pairs_of, scopes
from eval.vbench.kit import Kit
from eval.vbench.measure import FrameLayout, Span, measure, middles
from eval.vbench.records import RecordStore
from eval.vbench.rules import Measured, score
from eval.vbench.video import Facts, inspect


class ScoredVideo(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a video's scores and their inputs; sizes like `Facts`, scores like `VideoScores`.

    video: its digest. segments: pixel frames. texts_blake2b: digest of its texts. tokens_cut: network -> number of cut tokens per text.
    """

    v: int = 1
    video: str
    frames: int
    fps: float
    height: int
    width: int
    segments: list[Span]
    texts_blake2b: list[str]
    tokens_cut: dict[str, list[int]]
    metrics: dict[str, float | None]
    per_segment: list[dict[str, float]]
    per_clip: list[dict[str, float]]
    drift: dict[str, float]


@dataclass(frozen=True)
class VideoScorer:
    """Networks and a store of their records."""

    kit: Kit
    store: RecordStore

    def inspect(self, path: Path) -> Facts:
        """Facts of a video that can be scored. Raises ValueError that names it otherwise."""
        return inspect(path, least_side=self.kit.wish.least_side)

    def score(
        self,
        facts: Facts,
        task: str,
        spans: Sequence[Span],
        texts: Sequence[str] = (),
        progress: Callable[[int], object] = lambda frames: None,
        recalls: Sequence[int | None] = (),
    ) -> ScoredVideo:
        """Scores of one video.

        Args:
            facts: from `inspect`.
            task: a key of `eval.protocol.TASKS`.
            spans: pixel frames of the segments, covering the video.
            texts: a sentence per segment, or none at all, which leaves text alignment out.
            progress: called with numbers of finished frames.
            recalls: the prompt's recalls, see `eval.protocol.pairs_of`.

        Raises ValueError, naming the video, if it cannot be scored.
        """
        check(facts, task, spans, texts if "text_alignment" in self.kit.wish.dimensions else (), recalls)
        long = self.kit.wish.long(task)
        compared = tuple(spans) if texts and self.kit.wish.metrics_of_text else ()
        layout = FrameLayout(facts.frames, facts.fps, long, compared, tuple(spans) if len(spans) > 1 else ())
        records = measure(facts, self.kit.queries(layout), self.store, progress)
        records |= self.kit.derived(facts, records, self.store)
        features, cut = self.kit.texts(texts, self.store) if compared else ({}, {})
        measured = Measured(facts.frames, facts.fps, facts.height, facts.width, records)
        try:
            scores = score(measured, task, spans, features, self.kit.wish.kinds if compared else (), long=long, recalls=recalls)
        except ValueError as error:
            raise ValueError(f"{facts.name}: {error}") from None
        wrong = [name for name, value in scores.metrics.items() if value is not None and not np.isfinite(value)]
        if wrong:
            raise ValueError(f"{facts.name}: {', '.join(wrong)} would be no number")
        return ScoredVideo(
            video=facts.digest, frames=facts.frames, fps=facts.fps, height=facts.height, width=facts.width, segments=list(spans),
            texts_blake2b=[hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in (texts if compared else ())],
            tokens_cut=cut, metrics=scores.metrics, per_segment=scores.per_segment, per_clip=scores.per_clip, drift=scores.drift,
        )  # fmt: skip


def check(facts: Facts, task: str, spans: Sequence[Span], texts: Sequence[str], recalls: Sequence[int | None] = ()) -> None:
    """Raise ValueError, naming the video, before any work if the protocol cannot score it."""
    try:
        scopes(task)
        pairs_of(task, len(spans), recalls)
        if texts and len(texts) != len(spans):
            raise ValueError(f"{len(texts)} texts for {len(spans)} segments")
        for span in spans if texts else ():
            middles(span)
    except ValueError as error:
        raise ValueError(f"{facts.name}: {error}") from None


def spans_of(facts: Facts, durations_s: Sequence[float]) -> list[Span]:
    """Pixel frames of segments with these durations; the last one ends with the video.

    Raises ValueError that names the video if its length differs from their sum by more than a second.
    """
    try:
        return exact(facts.frames, facts.fps, durations_s)
    except ValueError as error:
        raise ValueError(f"{facts.name}: {error}") from None
