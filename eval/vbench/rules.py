"""Scores from records: VBench's formulas over the scopes of appendix A.2, and VBench-Long's fusion. Pure arithmetic without torch.

Two definitions have two names and are never mixed. `<dimension>.vbench` is VBench's formula over the scope of the task's protocol;
recalled pairs have two readings, `.pair_mean` and `.pair_joined`, since the paper only says "paired segments".
`<dimension>.vbench_long` is the mean over clips of 2 s, with half of each consistency from clip to clip. Videos of one scene have it;
on request all others have it too, together with `.vbench_long_scenes`, the same for each scene by itself. All scores are 0..100; dynamic
degree is 0 or 100 for a video, or the share of its clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from echo.files import ROOT
from eval.measures import memory, repeats
from eval.measures.formulas import consistency, ends, is_dynamic, is_still, pair_consistency, pair_joined, sampling_step
from eval.metrics import by_scene
from eval.protocol import Scope, cover, pairs_of, scopes
from eval.vbench.measure import Span, clips, clips_within, middles
from eval.vbench.records import Record

PLAIN: Final = "vbench"
DATA = ROOT / "data" / "vbench_long"
STILLS: Final = ("raft_still", "raft_back")
"""Records of the static filter: flow to the next frame and from a clip's first frame to its last, and flow from the last to the first."""
RECORD: Final = MappingProxyType(
    {
        "subject_consistency": "dino",
        "background_consistency": "clip_b32",
        "temporal_flickering": "difference",
        "motion_smoothness": "amt",
        "imaging_quality": "musiq",
        "aesthetic_quality": "aesthetic",
        "dynamic_degree": "raft",
    }
)
"""Dimension -> its record; text alignment has one record per kind."""
TEXTS: Final = MappingProxyType(
    {
        "clip_b32": ("clip_b32_bytes",),
        "clip_l14": ("clip_l14",),
        "viclip": ("viclip",),
        "vbench_text_alignment": ("viclip", "clip_b32_bytes"),
    }
)
"""Kind of text alignment -> the records over whose cosines it is the mean."""
FIRSTS: Final = MappingProxyType({"subject_consistency": "subject_firsts", "background_consistency": "background_firsts"})
"""Dimension -> the record of features of the clips' first frames."""
ROUNDING: Final = 1e-9
"""How far outside 0..1 a score of unit features may be."""


@dataclass(frozen=True)
class Measured:
    """A video's sizes and its records by metric; height and width in pixels."""

    frames: int
    fps: float
    height: int
    width: int
    records: Mapping[str, Record]
    _unit: dict[str, NDArray[np.float64]] = field(default_factory=dict, compare=False, repr=False)

    def features(self, metric: str) -> NDArray[np.float64]:
        """Unit features [T, D] of a metric of all frames."""
        if metric not in self._unit:
            values = self.records[metric].values.astype(np.float64)
            self._unit[metric] = values / np.linalg.norm(values, axis=1, keepdims=True)
        return self._unit[metric]

    def within(self, metric: str, span: Span, step: int) -> NDArray[np.float64]:
        """Values of the pairs or triples of frames `first` .. `first + step` within a span, one every `step` frames from its start.

        Raises ValueError if one of them was not measured, or if there is none.
        """
        record = self.records[metric]
        ends = record.units[:, [0, -1]].tolist()
        there = {(first, last): float(value) for (first, last), value in zip(ends, record.values)}
        wanted = [(first, first + step) for first in range(span[0], span[1] - step, step)]
        if not wanted:
            raise ValueError(f"{metric} over frames {span[0]}..{span[1]}: so few frames have nothing to compare")
        lacking = next((unit for unit in wanted if unit not in there), None)
        if lacking is not None:
            where = f"span {span[0]}..{span[1]} begins on no grid of the video or its clips"
            raise ValueError(f"{metric} was not measured between frames {lacking[0]} and {lacking[1]}: {where}")
        return np.array([there[unit] for unit in wanted])


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video, 0..100; None if a rule has no value, for example VBench-Long's for a single clip.

    metrics: `<dimension>.<rule>` -> score. per_segment, per_clip: the same per segment and clip, with first and last frame.
    drift: dimension -> first 5 s minus last 5 s.
    """

    metrics: dict[str, float | None]
    per_segment: list[dict[str, float]] = field(default_factory=list)
    per_clip: list[dict[str, float]] = field(default_factory=list)
    drift: dict[str, float] = field(default_factory=dict)


def score(
    measured: Measured,
    task: str,
    spans: Sequence[Span],
    texts: Mapping[str, NDArray[Any]],
    kinds: Sequence[str] = (),
    *,
    long: bool = False,
    recalls: Sequence[int | None] = (),
) -> VideoScores:
    """All scores that the records allow.

    Args:
        measured: the video.
        task: a key of `eval.protocol.TASKS`.
        spans: pixel frames of the segments, one after the other, covering the video.
        texts: features [segments, D] of the segments' texts, by record of the frames with which they are compared.
        kinds: kinds of text alignment, keys of `TEXTS`.
        long: whether to add VBench-Long's scores, for which clips were measured; with several segments also for each by itself.
        recalls: the prompt's recalls, see `eval.protocol.pairs_of`.

    Raises ValueError for segments that leave frames out, and whatever `eval.protocol.scopes` and `pairs_of` raise.
    """
    cover(spans, measured.frames)
    metrics: dict[str, float | None] = {}
    protocol = scopes(task)
    dimensions = [dimension for dimension in protocol if RECORD.get(dimension) in measured.records]
    pairs = pairs_of(task, len(spans), recalls)
    for dimension in dimensions:
        metrics |= _scoped(measured, dimension, protocol[dimension], spans, pairs)
    cosines = {kind: _cosines(measured, kind, spans, texts) for kind in kinds}
    for kind, values in cosines.items():
        metrics[f"text_alignment.{kind}"] = 100 * float(np.mean(values))
        metrics |= {f"{name}.{kind}": 100 * float(value) for name, value in by_scene("text_alignment", values).items()}
    metrics |= _over_time(measured, spans, pairs)
    per_clip = [_row(measured, dimensions, clip) for clip in clips(measured.frames, measured.fps)]
    if long:
        metrics |= {f"{dimension}.vbench_long": _long(measured, dimension, per_clip) for dimension in dimensions}
    if long and len(spans) > 1:
        scenes = [[_row(measured, dimensions, clip) for clip in clips_within(span, measured.fps)] for span in spans]
        metrics |= {f"{name}.vbench_long_scenes": _mean([_long(measured, name, rows) for rows in scenes]) for name in dimensions}
    if STILLS[0] in measured.records:
        metrics["temporal_flickering.vbench_static"] = _still(measured, per_clip)
    per_segment = [_row(measured, dimensions, span) for span in spans]
    for index, row in enumerate(per_segment):
        row |= {f"text_alignment.{kind}": 100 * float(values[index]) for kind, values in cosines.items()}
    drift = _drift(measured, dimensions)
    metrics |= {f"quality_drift.{PLAIN}": abs(value) for name, value in drift.items() if name == "imaging_quality"}
    return VideoScores(metrics, per_segment, per_clip, drift)


def _over_time(measured: Measured, spans: Sequence[Span], pairs: Sequence[tuple[int, int]]) -> dict[str, float | None]:
    """Freezing from differences of neighbouring frames; looping per segment, coherence of the video and memory from DINO's features."""
    metrics: dict[str, float | None] = {}
    if RECORD["temporal_flickering"] in measured.records and measured.frames > 1:
        metrics["frozen_time"] = repeats.freeze(measured.within(RECORD["temporal_flickering"], (0, measured.frames), 1))
    if RECORD["subject_consistency"] in measured.records:
        features = measured.features(RECORD["subject_consistency"])
        metrics["looping"] = repeats.mean_loop([features[slice(*span)] for span in spans], measured.fps)
        metrics |= {f"coherence_{lag}": value for lag, value in repeats.coherence(features, measured.fps).items()}
        remembered = memory.returns(features, spans, pairs, measured.fps)
        metrics |= remembered._asdict() if remembered else {}
    return {f"{name}.{PLAIN}": 100 * value for name, value in metrics.items() if value is not None}


def over(measured: Measured, dimension: str, span: Span, *, clip: bool = False) -> float:
    """VBench's formula for one dimension over a span taken as a video, 0..1; dynamic degree is 0 or 1.

    clip: whether the span is one of VBench-Long's clips, whose files have a whole frame rate. Raises ValueError for a span with too few
    frames to compare, or one that begins where pairs or triples were not measured.
    """
    metric, (start, end) = RECORD[dimension], span
    if dimension in FIRSTS:
        return consistency(measured.features(metric)[start:end])  # type: ignore[arg-type]
    if dimension in _PER_FRAME:
        return float(measured.records[metric].values[start:end].astype(np.float64).mean()) / _PER_FRAME[dimension]
    if dimension == "dynamic_degree":
        step = sampling_step(int(measured.fps) if clip else measured.fps)
        radii = measured.within(metric, span, step)
        return float(is_dynamic(radii, len(radii) + 1, measured.height, measured.width))
    step, scale = (1, 255.0) if dimension == "temporal_flickering" else (2, 1.0)
    return 1 - float(measured.within(metric, span, step).mean()) / scale


_PER_FRAME: Final = MappingProxyType({"imaging_quality": 100.0, "aesthetic_quality": 10.0})


def _scoped(measured: Measured, dimension: str, scope: Scope, spans: Sequence[Span], pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    if scope is Scope.whole:
        return {f"{dimension}.vbench": 100 * over(measured, dimension, (0, measured.frames))}
    if scope is Scope.segments:
        return {f"{dimension}.vbench": 100 * float(np.mean([over(measured, dimension, span) for span in spans]))}
    features = measured.features(RECORD[dimension])
    both = [(features[slice(*spans[early])], features[slice(*spans[late])]) for late, early in pairs]
    return {f"{dimension}.{name}": 100 * float(np.mean([rule(early, late) for early, late in both])) for name, rule in PAIR_RULES.items()}


PAIR_RULES: Final[Mapping[str, Callable[[NDArray[Any], NDArray[Any]], float]]] = MappingProxyType(
    {"pair_joined": pair_joined, "pair_mean": pair_consistency}
)
"""Readings of A.2's "paired segments"; the first is the default."""


def _cosines(measured: Measured, kind: str, spans: Sequence[Span], texts: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Cosine of each segment with its own text: the mean over its eight frames, or one value if the eight have one feature."""
    cosines = []
    for metric in TEXTS[kind]:
        sentences = texts[metric].astype(np.float64)
        sentences = sentences / np.linalg.norm(sentences, axis=1, keepdims=True)
        features = measured.features(metric)
        if measured.records[metric].units.shape[1] == 1:
            rows = [features[middles(span)] for span in spans]
        else:
            at = {tuple(unit): index for index, unit in enumerate(measured.records[metric].units.tolist())}
            rows = [features[[at[tuple(middles(span))]]] for span in spans]
        cosines.append([float((row @ text).mean()) for row, text in zip(rows, sentences, strict=True)])
    return np.mean(np.array(cosines), 0)


def _row(measured: Measured, dimensions: Sequence[str], span: Span) -> dict[str, float]:
    """A span's scores by dimension, without dimensions for which it has too few frames or begins off the grid."""
    row: dict[str, float] = {"start": span[0], "end": span[1]}
    for dimension in dimensions:
        try:
            row[dimension] = 100 * over(measured, dimension, span, clip=True)
        except ValueError:
            continue
    return row


def _long(measured: Measured, dimension: str, per_clip: Sequence[Mapping[str, float]]) -> float | None:
    """VBench-Long's mean over clips; None if clips have no value or there is no second clip for the comparison."""
    inside = [row[dimension] / 100 for row in per_clip if dimension in row]
    if not inside or len(inside) < len(per_clip):
        return None
    if dimension not in FIRSTS:
        return 100 * float(np.mean(inside))
    if FIRSTS[dimension] not in measured.records or len(per_clip) < 2:
        return None
    places = {int(frame): place for place, (frame,) in enumerate(measured.records[FIRSTS[dimension]].units)}
    firsts = [places[int(row["start"])] for row in per_clip]
    between = consistency(measured.features(FIRSTS[dimension])[firsts])  # type: ignore[arg-type]
    return 100 * float(np.mean([fused(dimension, value, between) for value in inside]))


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean over scenes; None if one of them has no value."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if len(there) == len(values) else None


def _still(measured: Measured, per_clip: Sequence[Mapping[str, float]]) -> float | None:
    """Temporal flickering over the clips that VBench's static filter classifies as still; None if there are none."""
    there, back = ({tuple(unit): value for unit, value in zip(r.units.tolist(), r.values)} for r in map(measured.records.get, STILLS) if r)
    kept = []
    for row in per_clip:
        start, end = int(row["start"]), int(row["end"])
        steps = np.array([there[frame, frame + 1] for frame in range(start, end - 1)])
        tips = np.array([side[start, end - 1] for side in (there, back)])
        if is_still(steps, tips, end - start, measured.height, measured.width):
            kept.append(row["temporal_flickering"])
    return float(np.mean(kept)) if kept else None


def fused(dimension: str, inside: float, between: float) -> float:
    """VBench-Long's score of a clip (`--dev_flag`): half its own consistency, half the mapped one of the clips' first frames.

    0..1. Raises ValueError for a clip-to-clip score outside 0..1, where the table has no points.
    """
    return 0.5 * inside + 0.5 * mapped(dimension, between)


def mapped(dimension: str, between: float) -> float:
    """A clip-to-clip score on the scale of in-clip ones: VBench's table of 101 points, linear between them.

    Raises ValueError outside 0..1 by more than rounding: equal frames have cosines of 1 +- 1e-15.
    """
    if not -ROUNDING <= between <= 1 + ROUNDING:
        raise ValueError(f"clip-to-clip {between}: within 0..1; nearest is {min(max(between, 0), 1)}")
    points = _table(dimension)  # np.interp clamps at the ends
    return float(np.interp(between, points[:, 0], points[:, 1]))


@lru_cache(maxsize=2)
def _table(dimension: str) -> NDArray[np.float64]:
    path = DATA / f"{dimension.partition('_')[0]}_mapping_table.yaml"
    table: NDArray[np.float64] = np.loadtxt(path, delimiter=":")
    return table


def _drift(measured: Measured, dimensions: Sequence[str]) -> dict[str, float]:
    """First minus last 5 s of dimensions measured on single frames; empty for a video under 10 s."""
    both = ends(measured.frames, measured.fps)
    if both is None:
        return {}
    first, last = ((end.start, end.stop) for end in both)
    named = [dimension for dimension in dimensions if dimension in _PER_FRAME]
    return {dimension: 100 * (over(measured, dimension, first) - over(measured, dimension, last)) for dimension in named}
