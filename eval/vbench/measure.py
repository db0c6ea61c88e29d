"""One pass over a video: every frame is decoded once and given to all networks that need it, alone, in pairs or in triples.

Groups of frames depend only on numbers (`FrameLayout`), so they are known before the video is opened. Work is done in chunks of frames
whose borders depend only on the video; each metric's chunk is written as soon as it is computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.measures.formulas import sampling_step
from eval.vbench import video
from eval.vbench.records import Record, RecordKey, RecordStore, Units
from eval.vbench.video import Facts, Frames

Span = tuple[int, int]
"""Pixel frames [start, end)."""
RULE = 1
"""Version of the queries; raise it when the same network would get other frames, or other batches."""
CLIP_S = 2
TEXT_FRAMES = 8


@dataclass(frozen=True)
class NetworkQuery:
    """A query to one network about a video.

    name: of its record. units: groups of frames, [N, k]. batch: groups at a time. ask: maps frames uint8 [N, k, H, W, 3] to values [N] or
    [N, D], and loads its network at the first call. network, dtype, versions, rest: parts of its key.
    """

    name: str
    units: Units
    batch: int
    ask: Callable[[Frames], NDArray[Any]]
    network: str = "none"
    dtype: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict)
    rest: Mapping[str, str] = field(default_factory=dict)

    def key(self, facts: Facts) -> RecordKey:
        """Key of its record of a video."""
        rest = {
            "units": hashlib.blake2b(np.ascontiguousarray(self.units).tobytes(), digest_size=8).hexdigest(),
            "chunk": str(video.CHUNK),
            "batch": str(self.batch),
            **self.rest,
        }
        return RecordKey(facts.digest, self.name, self.network, RULE, self.dtype, {**video.DECODER, **self.versions}, rest)


def clips(frames: int, fps: float) -> list[Span]:
    """VBench-Long's clips of 2 s; a short last clip begins earlier, and a video under 2 s is one clip.

    >>> clips(80, 16.0)
    [(0, 32), (32, 64), (48, 80)]
    """
    length = int(fps) * CLIP_S
    if not 0 < length <= frames:
        return [(0, frames)]
    spans = [(start, start + length) for start in range(0, frames - length + 1, length)]
    return spans if spans[-1][1] == frames else [*spans, (frames - length, frames)]


def clips_within(span: Span, fps: float) -> list[Span]:
    """The clips of a span, taken as a video of its own."""
    start, end = span
    return [(start + first, start + last) for first, last in clips(end - start, fps)]


def middles(span: Span, count: int = TEXT_FRAMES) -> list[int]:
    """The middle frames of `count` equal parts of a span, which VBench uses for its text dimensions.

    Raises ValueError for a span of fewer frames.
    """
    start, end = span
    if end - start < count:
        raise ValueError(f"frames {start}..{end}: text is compared with {count} frames, so a segment has at least {count}")
    borders = np.linspace(0, end - start, count + 1).astype(int)
    return [start + int(low + high - 1) // 2 for low, high in zip(borders[:-1], borders[1:])]


@dataclass(frozen=True)
class FrameLayout:
    """Groups of a video's frames.

    long: also groups for VBench-Long's clips, of the whole video and of each of `scenes` by itself.
    spans: the segments that have a text.
    """

    frames: int
    fps: float
    long: bool
    spans: tuple[Span, ...] = ()
    scenes: tuple[Span, ...] = ()

    def single(self) -> Units:
        """Every frame."""
        return np.arange(self.frames, dtype=np.int64)[:, None]

    def neighbours(self) -> Units:
        """All pairs of neighbouring frames."""
        return _rows((0, self.frames), 1, (0, 1))

    def sampled(self) -> Units:
        """Pairs of frames about an eighth of a second apart, from the video's first frame and from each clip's."""
        step, within = sampling_step(self.fps), sampling_step(int(self.fps))  # a clip's file has a whole frame rate
        rows = [_rows((0, self.frames), step, (0, step))]
        return _ordered([*rows, *(_rows(clip, within, (0, within)) for clip in self._clips)])

    def triples(self) -> Units:
        """Even frame, odd frame, even frame, counted from the video's first frame and from each clip's."""
        return _ordered([_rows(span, 2, (0, 1, 2)) for span in ((0, self.frames), *self._clips)])

    @property
    def _clips(self) -> list[Span]:
        parts = ((0, self.frames), *self.scenes) if self.long else ()
        return [clip for part in parts for clip in clips_within(part, self.fps)]

    def firsts(self) -> Units:
        """The first frame of each clip."""
        return _ordered([np.array([[start] for start, _ in self._clips], np.int64)])

    def still(self) -> Units:
        """Pairs for VBench's static filter in clips of the whole video: neighbouring frames, and the first with the last."""
        parts = clips(self.frames, self.fps)
        return _ordered([*(_rows(clip, 1, (0, 1)) for clip in parts), self.tips()])

    def tips(self) -> Units:
        """First and last frame of each clip of the whole video."""
        return _ordered([np.array([[start, end - 1] for start, end in clips(self.frames, self.fps)], np.int64)])

    def texts(self) -> Units:
        """Eight frames of each segment. Raises ValueError for a segment of fewer frames."""
        return _ordered([np.array([middles(span) for span in self.spans], np.int64).reshape(-1, TEXT_FRAMES)])


def _rows(span: Span, step: int, offsets: tuple[int, ...]) -> Units:
    """Groups within a span: a first frame every `step` from its start, and the frames at `offsets` from it."""
    return np.arange(span[0], span[1] - offsets[-1], step, dtype=np.int64)[:, None] + np.array(offsets, np.int64)


def _ordered(rows: Sequence[Units]) -> Units:
    """Each row once, sorted by last frame, the order in which decoding completes them."""
    once = np.unique(np.concatenate(rows), axis=0)
    return once[np.lexsort((once[:, 0], once[:, -1]))]


Parts = dict[int, Record]
"""Chunks of an unfinished record, by their first frame."""


def measure(
    facts: Facts, queries: Sequence[NetworkQuery], store: RecordStore, progress: Callable[[int], object] = lambda frames: None
) -> dict[str, Record]:
    """Records of a video by name: stored ones, and the others measured in one pass over its frames.

    progress: called with numbers of finished frames.

    Raises ValueError that names the video for a damaged file, and video, record and frame for an answer that is not finite.
    """
    with store.alone(facts.digest):
        records, under_way = dict[str, Record](), list[tuple[NetworkQuery, RecordKey, Parts]]()
        for query in queries:
            key = query.key(facts)
            record = store.read(key)
            if record is None:
                under_way.append((query, key, store.parts(key)))
            else:
                records[query.name] = record
                store.forget_parts(key)  # left by a kill after the whole record was written
        if under_way:
            _pass(facts, under_way, store, progress)
        for query, key, parts in under_way:
            records[query.name] = store.join(key, [parts[start] for start in sorted(parts)])
    return records


def _pass(
    facts: Facts, under_way: Sequence[tuple[NetworkQuery, RecordKey, Parts]], store: RecordStore, progress: Callable[[int], object]
) -> None:
    """Decode the video once; chunks that exist already are not computed again."""
    held: dict[int, Frames] = {}
    for start, frames in video.chunks(facts):
        end = start + len(frames)
        held |= {start + index: frame for index, frame in enumerate(frames)}
        later = set[int]()  # frames of units that end in a later chunk
        for query, key, parts in under_way:
            last = query.units[:, -1]
            if start not in parts:
                units = query.units[(start <= last) & (last < end)]
                parts[start] = Record(units, _answers(facts, query, units, held))
                store.keep_part(key, start, parts[start])
            later.update(query.units[last >= end].ravel().tolist())
        held = {index: held[index].copy() for index in held.keys() & later}  # a view would keep its whole chunk
        progress(len(frames))


def _answers(facts: Facts, query: NetworkQuery, units: Units, held: Mapping[int, Frames]) -> NDArray[Any]:
    """Values of units, in batches whose borders depend only on the chunk."""
    answers = []
    for begin in range(0, len(units), query.batch):
        rows = units[begin : begin + query.batch]
        try:
            values = np.asarray(query.ask(np.stack([np.stack([held[int(index)] for index in row]) for row in rows])))
        except ValueError as error:
            raise ValueError(f"{facts.name}: frames from {int(rows[0][0])}: {error}") from None
        if len(values) != len(rows):
            raise ValueError(f"{facts.name}: {query.name} answered {len(values)} of {len(rows)} units")
        wrong = np.nonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))[0]
        if len(wrong):
            raise ValueError(f"{facts.name}: {query.name} of frame {int(rows[wrong[0]][0])} is no number; nothing of it was kept")
        answers.append(values)
    return np.concatenate(answers) if answers else np.empty(0, np.float32)
