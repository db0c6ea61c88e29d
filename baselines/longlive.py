"""LongLive: a frame sink and a short local window at absolute indices, and a KV recache at every prompt switch.

Yang et al., arXiv 2509.22622, release 1.0. Window of 12: [sink 3 | recent 6 | block 3]. The sink keeps its indices, so its distance
grows without bound. Recache: one clean forward pass over the newest generated frames under the new text, bidirectional over all of
them. With `global_sink` (as released) the sink keeps the first prompt's keys; without it the recached window's first frames become
the sink. `relative` is the later "infinity" variant, whose keys have slot indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from echo.cache.kinds import Kind
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.refusals import within


class AtSwitch(StrEnum):
    """What a prompt switch does to the cache: nothing, LongLive's recache, or a flush that keeps only sink and newest frames."""

    keep = "keep"
    recache = "recache"
    flush = "flush"


@dataclass(frozen=True, kw_only=True)
class LongLive(Policy):
    """Counts are latent frames; `flush_frames`: newest frames that a flush keeps."""

    window_frames: int = 12
    sink_frames: int = 3
    at_switch: AtSwitch = AtSwitch.recache
    global_sink: bool = True
    relative: bool = False
    flush_frames: int = 1
    max_position: int = 1024

    def recent_frames(self, block_frames: int) -> int:
        return self.window_frames - block_frames - self.sink_frames

    def kept_frames(self, block_frames: int) -> int:
        """Number of newest frames that a later block reads, or a recache writes."""
        return self.window_frames if self.at_switch is AtSwitch.recache else self.recent_frames(block_frames)

    def sink(self, step: Step, after: int) -> range:
        """The sink's frames before `after`: the video's first frames, or the first frames of the last recache."""
        first = 0
        if self.at_switch is AtSwitch.recache and not self.global_sink and step.scene:
            first = max(0, step.scene_frame - self.window_frames)
        return range(first, min(first + self.sink_frames, after))

    def plan(self, step: Step) -> Plan:
        size, first, sink = step.geometry.frames_per_block, step.first_frame, self.sink(step, step.first_frame)
        oldest = max(sink.stop, first - self.recent_frames(size))
        if self.at_switch is AtSwitch.flush and step.scene:
            oldest = max(oldest, step.scene_frame - self.flush_frames)
        frames = (*sink, *range(oldest, first))
        context = tuple(Slot(f, i if self.relative else f, Kind.SINK if f in sink else Kind.RECENT) for i, f in enumerate(frames))
        queries = step.positions(len(frames) if self.relative else first)
        keep = frozenset((*self.sink(step, first + size), *range(max(0, first + size - self.kept_frames(size)), first + size)))
        return Plan(step.block, step.scene, first, context, queries, keep)

    def recache(self, step: Step) -> Plan | None:
        first = max(0, step.first_frame - self.window_frames)
        if self.at_switch is not AtSwitch.recache or first == step.first_frame:
            return None
        frames, protected = range(first, step.first_frame), first > 0 and self.global_sink
        sink = range(self.sink_frames if protected else 0)
        context = tuple(Slot(f, f, Kind.SINK) for f in sink)
        queries = tuple(range(len(frames))) if self.relative else tuple(frames)
        return Plan(step.block, step.scene, first, context, queries, frozenset(), unseen=len(sink))

    def recache_frames(self, geometry: Geometry) -> int:
        return self.window_frames if self.at_switch is AtSwitch.recache else 0

    def capacity(self, geometry: Geometry) -> int:
        return self.sink_frames + max(self.kept_frames(geometry.frames_per_block), geometry.frames_per_block)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, 0 if self.relative else blocks)  # slot indices never exceed the window
        size, own = geometry.frames_per_block, geometry.window_frames
        within("sink_frames", self.sink_frames, 0, own - 2 * size)
        within("window_frames (sink, a past block, the block)", self.window_frames, self.sink_frames + 2 * size, own)
        within("flush_frames", self.flush_frames, 0, self.window_frames)
