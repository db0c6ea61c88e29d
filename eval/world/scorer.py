"""The embedded scorer: VBench's formulas on an encoder of the small world, and scores that need the world's known truth.

Names of VBench's dimensions, except flickering, begin with `proxy.`; those of the world's own scores with `world.`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data.world.words import LIGHT, UNLIT
from echo.backbone.finite import broken
from echo.scene import FPS
from eval.measures import flow, memory, repeats
from eval.measures.formulas import (
    Frames,
    Vectors,
    consistency,
    differences,
    dynamic_share,
    ends,
    pair_consistency,
    pair_joined,
    sampling_step,
    temporal_flickering,
)
from eval.measures.quality import Quality, statistics
from eval.metrics import by_scene
from eval.protocol import Scope, cover, pairs_of, scopes
from eval.world.encoder import SIZE, FrameEncoder
from eval.world.identity import IDENTITY_KEPT, lit_scores
from eval.world.places import SceneScores, place_scores
from eval.world.readings import LEAST, MOTION_WINDOW, PLACE, Readings, blocks_of, motion_of, probabilities, readings_of, right_pairs, said

Span = tuple[int, int]
Row = dict[str, float | None]

DISTANCE = "image_distance"
"""The metric of image quality that never saturates, without the definition that the store puts before it."""
SAMPLED = 3
"""Image quality is measured on every third frame."""


@dataclass(frozen=True)
class EmbeddedScores:
    """Scores of one video, 0..100.

    metrics: name in the store -> score. per_segment: the parts of the scores for each scene. per_block: for each block of 12 frames the
    probabilities (0..1) of the words in its scene's sentence, whether place (colour and pattern), subject (shape and colour) and motion
    (over the last three blocks of the scene so far) are right (1, 0, or None if the sentence does not say or the frames are too few),
    and the quality of its frames.
    """

    metrics: dict[str, float]
    per_segment: list[SceneScores]
    per_block: list[dict[str, float | None]]


@dataclass(frozen=True)
class _Measured:
    """Measurements of a video; every score is arithmetic on them."""

    frames: Frames
    subject: Vectors
    place: Vectors
    to_text: list[float]
    """Mean cosine of each segment's frames with its own sentence."""
    fastest_px: NDArray[np.float64]
    smoothness: float
    spans: Sequence[Span]
    pairs: Sequence[tuple[int, int]]
    step: int
    readings: Readings
    quality: NDArray[np.float64]
    """Image quality of each frame, 0..100, measured on every third."""
    far: NDArray[np.float64]
    """Distance of each frame's statistics from the world's, in units of the distance within which 95 % of renders lie."""


class EmbeddedScorer:
    """Scores videos of the small world."""

    def __init__(self, encoder: FrameEncoder, quality: Quality) -> None:
        self.encoder = encoder
        self.quality = quality

    def save(self, path: Path) -> None:
        """Write the weights for `load`."""
        fitted = {f"quality.{name}": torch.from_numpy(value) for name, value in self.quality.save().items()}
        save_file(self.encoder.save() | fitted, path)

    @classmethod
    def load(cls, path: str | Path) -> EmbeddedScorer:
        """The scorer with the weights at `path` (safetensors).

        Raises ValueError with the path and the command that makes the file, if it is missing or is no scorer's.
        """
        if not Path(path).is_file():
            raise ValueError(f"no scorer weights at {path}; `echo-harness train scorer` makes them")
        try:
            tensors = load_file(path)
            fitted = {name.removeprefix("quality."): tensors.pop(name).numpy() for name in list(tensors) if name.startswith("quality.")}
            if wrong := broken(tensors):
                raise KeyError(" ".join(wrong))
            return cls(FrameEncoder.load(tensors), Quality.load(fitted))
        except (SafetensorError, KeyError, RuntimeError, ValueError, IndexError, TypeError, OSError) as error:
            why = str(error).partition("\n")[0]
            raise ValueError(f"{path} holds no embedded scorer of this version ({why}); `echo-harness train scorer` makes one") from error

    def score(
        self,
        frames: Frames,
        scene_texts: Sequence[str],
        segments: Sequence[Span],
        task: str,
        *,
        stretches: Sequence[Span] = (),
        joined: bool = False,
        recalls: Sequence[int | None] = (),
    ) -> EmbeddedScores:
        """Scores of one video.

        Args:
            frames: uint8 [T, 48, 48, 3] at 16 fps.
            scene_texts: a sentence for each scene.
            segments: [start, end) of each scene in frames, with borders of blocks.
            task: a key of `eval.protocol.TASKS`.
            stretches: [start, end) of each scene for VBench's dimensions; the segments by default.
            joined: whether recalled pairs are also scored joined end to end, as `proxy_joined`.
            recalls: the prompt's recalls, see `eval.protocol.pairs_of`.

        Raises ValueError for frames of another type or size, for segments that do not cover them, for a score that is not finite, and
        whatever `scopes`, `pairs_of` and the text encoder raise.
        """
        dimensions, stretches = scopes(task), stretches or segments
        pairs = pairs_of(task, len(segments), recalls)
        for spans in (segments, stretches):
            _check(frames, scene_texts, spans)
        measured = self._measure(frames, scene_texts, stretches, pairs)
        produced: dict[str, float] = {}
        for dimension, scope in dimensions.items():
            value = _score(measured, dimension, scope)
            if value is not None:
                produced[dimension if dimension == "temporal_flickering" else f"proxy.{dimension}"] = 100.0 * value
        for dimension in [name for name, scope in dimensions.items() if joined and scope is Scope.pairs]:
            produced[f"proxy_joined.{dimension}"] = 100.0 * _pairs(measured, dimension, pair_joined)
        produced |= {f"proxy.{name}": 100.0 * value for name, value in _more(measured).items()}
        both = ends(len(frames), FPS)
        if both is not None:
            produced["proxy.quality_drift"] = abs(float(measured.quality[both[0]].mean() - measured.quality[both[1]].mean()))
        words = [said(text) for text in scene_texts]
        places = place_scores(measured.readings, words, segments, pairs)
        metrics, blocks = produced | places.metrics, _per_block(measured, words, segments)
        if measured.readings.lit is not None:
            metrics |= _under_lights(measured, words, segments, places.per_segment, blocks)
        if odd := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise ValueError(f"{', '.join(odd)} of this video: no number (NaN or infinity), so it is not scored")
        per_segment = [vbench | world for vbench, world in zip(_per_segment(measured), places.per_segment, strict=True)]
        return EmbeddedScores(metrics, per_segment, blocks)

    def _measure(self, frames: Frames, scene_texts: Sequence[str], segments: Sequence[Span], pairs: Sequence[tuple[int, int]]) -> _Measured:
        seen = self.encoder.frames(torch.from_numpy(np.ascontiguousarray(frames)))
        features = seen.features
        said: Vectors = self.encoder.sentences(scene_texts).numpy()
        shown: Vectors = features.joint.numpy()
        to_text = [float((shown[start:end] @ text).mean()) for (start, end), text in zip(segments, said, strict=True)]
        step = sampling_step(FPS)
        fastest_px, smoothness = flow.motion(frames, step)
        distances = self.quality.distances(statistics(frames[::SAMPLED])).repeat(SAMPLED)[: len(frames)]
        return _Measured(
            frames, features.subject.numpy(), features.place.numpy(), to_text, fastest_px, smoothness, segments, pairs, step,
            readings_of(seen), self.quality.scored(distances), distances / self.quality.d95,
        )  # fmt: skip


def _under_lights(
    measured: _Measured, words: Sequence[Mapping[str, str]], segments: Sequence[Span], scenes: list[SceneScores], blocks: list[Row]
) -> dict[str, float]:
    """Scores that only a scorer of all lights tells; what they are made of goes to the last scene and to the blocks."""
    lit = lit_scores(measured.readings, words, segments)
    scenes[-1][IDENTITY_KEPT] = {part: round(100 * value, 2) for part, value in lit.identity.parts.items()}
    spans = [block for segment in segments for block in blocks_of(*segment)]
    for row, value, (start, end) in zip(blocks, lit.identity.blocks, spans, strict=True):
        row |= {IDENTITY_KEPT: None if value is None else round(value, 4), DISTANCE: round(float(measured.far[start:end].mean()), 4)}
    return lit.metrics | {f"world.{DISTANCE}": float(measured.far.mean())}


def _check(frames: Frames, scene_texts: Sequence[str], segments: Sequence[Span]) -> None:
    """Raise ValueError before any work if the video cannot be scored."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(
            f"frames {frames.dtype} {list(frames.shape)}: the embedded scorer reads uint8 [T, {SIZE}, {SIZE}, 3]; "
            "other sizes need another scorer"
        )
    if len(scene_texts) != len(segments):
        raise ValueError(f"{len(scene_texts)} sentences for {len(segments)} segments; each scene needs one of both")
    cover(segments, len(frames))


def _features(measured: _Measured, dimension: str) -> Vectors:
    """The features that a consistency compares."""
    return measured.subject if dimension == "subject_consistency" else measured.place


def _consistency(measured: _Measured, dimension: str, scope: Scope) -> float:
    features = _features(measured, dimension)
    if scope is Scope.whole:
        return consistency(features)
    if scope is Scope.segments:
        return float(np.mean([consistency(features[start:end]) for start, end in measured.spans]))
    return _pairs(measured, dimension, pair_consistency)


def _pairs(measured: _Measured, dimension: str, rule: Callable[[Vectors, Vectors], float]) -> float:
    """The mean of a rule over recalled scenes, each with the scene that it recalls."""
    features, spans = _features(measured, dimension), measured.spans
    pairs = [(features[slice(*spans[early])], features[slice(*spans[late])]) for late, early in measured.pairs]
    return float(np.mean([rule(reference, again) for reference, again in pairs]))


_ELSE: dict[str, tuple[Scope, Callable[[_Measured], float]]] = {
    "text_alignment": (Scope.segments, lambda measured: float(np.mean(measured.to_text))),
    "temporal_flickering": (Scope.whole, lambda measured: temporal_flickering(measured.frames)),
    "motion_smoothness": (Scope.whole, lambda measured: measured.smoothness),
    "dynamic_degree": (Scope.whole, lambda measured: dynamic_share(measured.fastest_px, *measured.frames.shape[1:3])),
    "imaging_quality": (Scope.whole, lambda measured: float(measured.quality.mean()) / 100),
}
"""Dimension -> the only scope over which it is defined here, and its rule."""


def _score(measured: _Measured, dimension: str, scope: Scope) -> float | None:
    """A dimension's score, 0..1; None for one that this scorer lacks. Raises ValueError for a scope over which it is not defined."""
    if dimension in ("subject_consistency", "background_consistency"):
        return _consistency(measured, dimension, scope)
    if dimension not in _ELSE:
        return None
    only, rule = _ELSE[dimension]
    if scope is not only:
        raise ValueError(f"{dimension} over {scope}: it is only defined here over {only}")
    return rule(measured)


def _more(measured: _Measured) -> dict[str, float]:
    """Text alignment per scene and frozen time; coherence and memory of subject and place together; no looping, because all motion in this
    world repeats."""
    shown = np.concatenate([measured.subject, measured.place], axis=1) / math.sqrt(2)
    remembered = memory.returns(shown, measured.spans, measured.pairs, FPS)
    return {
        **by_scene("text_alignment", measured.to_text),
        "frozen_time": repeats.freeze(differences(measured.frames)),
        **{f"coherence_{lag}": value for lag, value in repeats.coherence(shown, FPS).items()},
        **(remembered._asdict() if remembered else {}),
    }


def _per_segment(measured: _Measured) -> list[SceneScores]:
    """The parts of the scores per scene; cosines and shares x100, motion in pixels."""
    rows: list[SceneScores] = []
    for (start, end), cosine in zip(measured.spans, measured.to_text, strict=True):
        pairs = measured.fastest_px[-(-start // measured.step) : (end - 1) // measured.step]
        rows.append(
            {
                "start": start,
                "end": end,
                "proxy.text_alignment": round(100 * cosine, 4),
                "proxy.subject_consistency": round(100 * consistency(measured.subject[start:end]), 4),
                "proxy.background_consistency": round(100 * consistency(measured.place[start:end]), 4),
                "temporal_flickering": round(100 * temporal_flickering(measured.frames[start:end]), 4),
                "proxy.imaging_quality": round(float(measured.quality[start:end].mean()), 4),
                "fastest_px": round(float(pairs.mean()), 4) if len(pairs) else None,
            }
        )
    return rows


def _per_block(measured: _Measured, words: Sequence[Mapping[str, str]], segments: Sequence[Span]) -> list[dict[str, float | None]]:
    """Readings of each block of 12 frames against its scene's sentence; see `EmbeddedScores`."""
    rows: list[dict[str, float | None]] = []
    for (begin, finish), scene in zip(segments, words, strict=True):
        dark = measured.readings.lit is not None and scene.get(LIGHT) == UNLIT
        seen = {kind: word for kind, word in scene.items() if not (dark and kind in PLACE)}
        for start, end in blocks_of(begin, finish):
            here = measured.readings.span(start, end)
            shown = probabilities(here, seen)
            path = measured.readings.centres[max(begin, end - MOTION_WINDOW) : end]
            moves = int(motion_of(path) == scene["motion"]) if "motion" in scene and len(path) >= LEAST else None
            rows.append(
                {kind: round(value, 4) for kind, value in shown.items()}
                | right_pairs(here, seen)
                | {"motion_right": moves, "quality": round(float(measured.quality[start:end].mean()), 2)}
            )
    return rows
