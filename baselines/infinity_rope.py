"""Infinity-RoPE: raw keys re-indexed by slot, a KV flush at every prompt switch, a RoPE cut at scene changes.

Yesiltepe et al., arXiv 2511.20649. The released code pins frame 0 (`sink_frames` 1) in a window of 6. The Echo paper runs
it as R21 without a sink, which that code cannot do: with 21 frames its flush leaves the queries at indices 18..20 and the block's
own keys at 3..5. Here queries always have the indices of the block's own keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from echo.cache.kinds import Kind
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.refusals import within
from echo.scene import Transition


@dataclass(frozen=True, kw_only=True)
class InfinityRope(Policy):
    """window_frames: 0 takes the backbone's. flush_frames: newest frames that a flush keeps. cut_position: index of the
    first block after a cut (0: no cut); cut_on: transitions that cut."""

    window_frames: int = 0
    sink_frames: int = 0
    flush_frames: int = 2
    cut_position: int = 45
    cut_on: tuple[Transition, ...] = (Transition.hard, Transition.recall)

    def window(self, geometry: Geometry) -> int:
        return self.window_frames or geometry.window_frames

    def past(self, geometry: Geometry) -> int:
        """Number of frames between sink and block, those that a flush keeps included."""
        return self.window(geometry) - geometry.frames_per_block - self.sink_frames

    def plan(self, step: Step) -> Plan:
        geometry, first = step.geometry, step.first_frame
        past = self.past(geometry)
        oldest = max(self.sink_frames, first - past)
        if step.scene:
            oldest = max(oldest, step.scene_frame - self.flush_frames)
        sink = tuple(f for f in range(self.sink_frames) if f < first)
        frames = (*sink, *range(oldest, first))
        context = tuple(Slot(f, i, Kind.SINK if i < len(sink) else Kind.RECENT) for i, f in enumerate(frames))
        cuts = step.block_in_scene == 0 and step.start.transition in self.cut_on and self.cut_position > 0
        queries = step.positions(self.cut_position if cuts else len(frames))
        after = first + geometry.frames_per_block
        keep = frozenset((*sink, *range(self.sink_frames), *range(max(0, after - past), after)))
        return Plan(step.block, step.scene, first, context, queries, keep)

    def capacity(self, geometry: Geometry) -> int:
        return self.sink_frames + max(self.past(geometry), geometry.frames_per_block)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("window_frames", self.window(geometry), 2 * geometry.frames_per_block, geometry.window_frames)
        within("cut_position", self.cut_position, 0, float("inf"))
        within("sink_frames", self.sink_frames, 0, self.window(geometry) - geometry.frames_per_block - 1)
        within("flush_frames", self.flush_frames, 0, self.window(geometry) - geometry.frames_per_block - self.sink_frames)
