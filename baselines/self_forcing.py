"""Self-Forcing with a rolling window (R21): the newest frames at their absolute temporal indices, first in first out.

Huang et al., arXiv 2506.08009. The released code stops at 21 latent frames; rolling on is what its users do. At a prompt
switch only the text changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from echo.cache.plan import Kind, Plan, Slot, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class SelfForcing(Policy):
    """`max_position` is the length of the released RoPE table."""

    max_position: int = 1024

    def plan(self, step: Step) -> Plan:
        first = step.first_frame
        context = tuple(Slot(f, f, Kind.RECENT) for f in range(max(0, first - step.geometry.context_frames), first))
        after = first + step.geometry.frames_per_block
        keep = frozenset(range(max(0, after - step.geometry.context_frames), after))
        return Plan(step.block, step.scene, first, context, step.positions(first), keep)

    def capacity(self, geometry: Geometry) -> int:
        return geometry.window_frames
