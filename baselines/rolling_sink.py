"""Rolling-Sink: a window that looks like a long past but holds the first frames, walked to and fro.

arXiv 2602.07775. [rolling 15 | recent 3 | block 3] at absolute, contiguous indices: position p carries early frame g(p), a triangle
wave over frames 0..17 with doubled ends. The released code repeats one block of initial noise for the whole video; here that is a
setting (`noise.repeat_initial`), off by default, so that methods share their noise.
"""

from __future__ import annotations

from dataclasses import dataclass

from echo.cache.kinds import Kind
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.refusals import within


def triangle(position: int, pool_frames: int) -> int:
    """g(p): p mod P going up, P - 1 - (p mod P) coming down; period 2 P."""
    cycle, offset = divmod(position, pool_frames)
    return pool_frames - 1 - offset if cycle % 2 else offset


@dataclass(frozen=True, kw_only=True)
class RollingSink(Policy):
    """pool_frames: early frames that the window cycles through. recent_frames: real frames before the block."""

    pool_frames: int = 18
    recent_frames: int = 3
    max_position: int = 8192

    def plan(self, step: Step) -> Plan:
        first, past = step.first_frame, range(max(0, step.first_frame - step.geometry.context_frames), step.first_frame)
        newest = first - self.recent_frames
        context = tuple(
            Slot(p, p, Kind.RECENT) if p >= newest else Slot(triangle(p, self.pool_frames), p, Kind.SINK) for p in past
        )  # fmt: skip
        after = first + step.geometry.frames_per_block
        keep = frozenset((*range(self.pool_frames), *range(max(0, after - self.recent_frames), after)))
        return Plan(step.block, step.scene, first, context, step.positions(first), keep)

    def capacity(self, geometry: Geometry) -> int:
        return self.pool_frames + max(self.recent_frames, geometry.frames_per_block)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("pool_frames", self.pool_frames, 1, geometry.context_frames)
        within("recent_frames", self.recent_frames, 1, geometry.context_frames)
