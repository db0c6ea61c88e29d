"""Self-Forcing with a rolling window (R21): the newest frames at their absolute temporal indices, first in first out.

Huang et al., arXiv 2506.08009. The released code stops at 21 latent frames; its users let the window roll on. At a prompt
switch only the text changes; with `recache_at_switch`, LongLive's recache first runs over the whole window.
"""

from __future__ import annotations

from dataclasses import dataclass

from echo.cache.kinds import Kind
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class SelfForcing(Policy):
    """`max_position` is the length of the released RoPE table."""

    max_position: int = 1024
    recache_at_switch: bool = False

    def plan(self, step: Step) -> Plan:
        first, after = step.first_frame, step.first_frame + step.geometry.frames_per_block
        context = tuple(Slot(f, f, Kind.RECENT) for f in range(max(0, first - step.geometry.context_frames), first))
        keep = frozenset(range(max(0, after - self.kept_frames(step.geometry)), after))
        return Plan(step.block, step.scene, first, context, step.positions(first), keep)

    def recache(self, step: Step) -> Plan | None:
        first = max(0, step.first_frame - self.recache_frames(step.geometry))
        if first == step.first_frame:
            return None
        frames = range(first, step.first_frame)
        return Plan(step.block, step.scene, first, (), tuple(frames), frozenset())

    def recache_frames(self, geometry: Geometry) -> int:
        return geometry.window_frames if self.recache_at_switch else 0

    def kept_frames(self, geometry: Geometry) -> int:
        return max(geometry.context_frames, self.recache_frames(geometry))

    def capacity(self, geometry: Geometry) -> int:
        return self.kept_frames(geometry)
