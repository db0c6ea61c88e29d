"""Anchor Forcing: LongLive's window with the first block of the scene, its junction, between sink and recent frames.

arXiv 2603.13405, vivoCameraResearch/Anchor-Forcing (CC BY-NC-SA 4.0; written from the paper and a description of the released code).
[sink 3 at 0 | junction 3 at 6 | recent 6 at 12 | block at 18], raw keys. A junction is read once the block lies more than nine frames
after its switch; until then the previous junction, if there is one. A switch runs LongLive's recache, which leaves the sink unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from baselines.longlive import LongLive
from echo.cache.kinds import Kind
from echo.cache.plan import Plan, Slot, Step
from echo.geometry import Geometry
from echo.refusals import within


@dataclass(frozen=True, kw_only=True)
class AnchorForcing(LongLive):
    """junction_frames: first frames of a scene after a switch. junction_position: their first index. junction_after: smallest
    distance in frames from the switch at which a block reads them. window_frames: sink, recent frames and block."""

    relative: bool = True
    junction_frames: int = 3
    junction_position: int = 6
    junction_after: int = 9

    def switches(self, step: Step) -> list[int]:
        """First latent frames of the last two scenes after a switch."""
        return [start.block * step.geometry.frames_per_block for start in step.starts[1:]][-2:]

    def junction(self, step: Step, oldest: int) -> range:
        """The junction's frames; empty if they are among the recent frames, which begin with `oldest`, or if no junction is old enough."""
        switches = self.switches(step)
        before = switches[0] if len(switches) == 2 else None
        first = next((frame for frame in reversed(switches) if step.first_frame > frame + self.junction_after), before)
        if first is None or first + self.junction_frames > oldest:
            return range(0)
        return range(first, first + self.junction_frames)

    def plan(self, step: Step) -> Plan:
        geometry, first, sink = step.geometry, step.first_frame, self.sink(step, step.first_frame)
        size, block = geometry.frames_per_block, min(geometry.context_frames, first)
        recent = range(max(sink.stop, first - self.recent_frames(size)), first)
        junction = self.junction(step, recent.start)
        parts = (sink, 0, Kind.SINK), (junction, self.junction_position, Kind.ANCHOR), (recent, block - len(recent), Kind.RECENT)
        context = tuple(Slot(frame, at + i, kind) for frames, at, kind in parts for i, frame in enumerate(frames))
        after = first + size
        junctions = (first + i for first in self.switches(step) for i in range(self.junction_frames))
        keep = frozenset((*self.sink(step, after), *junctions, *range(max(0, after - self.kept_frames(size)), after)))
        return Plan(step.block, step.scene, first, context, step.positions(block), keep)

    def capacity(self, geometry: Geometry) -> int:
        return super().capacity(geometry) + 2 * self.junction_frames

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        size = geometry.frames_per_block
        within("junction_frames", self.junction_frames, 1, size)
        last = geometry.context_frames - self.recent_frames(size) - self.junction_frames
        within("junction_position (between sink and recent frames)", self.junction_position, self.sink_frames, last)
        within("junction_after (or the recent frames stand in its place)", self.junction_after, self.window_frames - size, math.inf)
