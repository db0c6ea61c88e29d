"""MemRoPE: two running means of evicted frames, a slow and a fast one, between the sink and the recent frames.

Kim et al., arXiv 2603.12513. Window of 12: [sink 3 | long mean | short mean | recent 4 | block 3], all at slot indices. At the
first eviction both means begin as the mean of the evicted frames. The released code takes that mean over all evicted tokens, one vector
per head; `per_position` keeps one for each place, as the paper's figures suggest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo.cache.kinds import Kind, MemoryName, Source
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Memory, Policy
from echo.geometry import Geometry
from echo.refusals import within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore

MEANS = MemoryName("long"), MemoryName("short")


@dataclass(frozen=True, kw_only=True)
class MemRope(Policy):
    """long_rate, short_rate: weight of newly evicted frames in the two means."""

    window_frames: int = 12
    sink_frames: int = 3
    long_rate: float = 0.01
    short_rate: float = 0.1
    per_position: bool = False

    def recent_frames(self, geometry: Geometry) -> int:
        return self.window_frames - self.sink_frames - len(MEANS) - geometry.frames_per_block

    def evicted(self, step: Step) -> range:
        """Frames that move into the means before this block; empty while the window fills."""
        size = step.geometry.frames_per_block
        newest = step.first_frame - self.recent_frames(step.geometry)
        return range(newest - size, newest) if step.first_frame + size > self.window_frames else range(0)

    def plan(self, step: Step) -> Plan:
        first, size = step.first_frame, step.geometry.frames_per_block
        entries: list[tuple[Source, Kind]] = [(f, Kind.SINK) for f in range(min(self.sink_frames, first))]
        if self.evicted(step):
            entries += [(name, Kind.SUMMARY) for name in MEANS]
            entries += [(f, Kind.RECENT) for f in range(first - self.recent_frames(step.geometry), first)]
        else:
            entries += [(f, Kind.RECENT) for f in range(self.sink_frames, first)]
        context = tuple(Slot(source, index, kind) for index, (source, kind) in enumerate(entries))
        after = first + size
        held = self.capacity(step.geometry) - self.sink_frames
        means = MEANS if self.evicted(step) else ()
        keep = frozenset((*range(self.sink_frames), *means, *range(max(0, after - held), after)))
        return Plan(step.block, step.scene, first, context, step.positions(len(entries)), keep)

    def capacity(self, geometry: Geometry) -> int:
        """The window without the means, with evicted frames until the means are updated."""
        return self.window_frames - min(len(MEANS), geometry.frames_per_block)

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return RunningMeans(self, geometry, store)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        others = len(MEANS) + 1 + geometry.frames_per_block
        within("sink_frames", self.sink_frames, 0, geometry.window_frames - others)
        least = self.sink_frames + others
        within("window_frames (sink, means, a recent frame, the block)", self.window_frames, least, geometry.window_frames)
        within("long_rate", self.long_rate, 0, 1)
        within("short_rate", self.short_rate, 0, 1)


class RunningMeans(Memory):
    """The two means of every layer, updated once before a block; K and V alike."""

    def __init__(self, policy: MemRope, geometry: Geometry, store: FrameStore) -> None:
        self.policy, self.geometry, self.store = policy, geometry, store

    def begin_block(self, step: Step, plan: Plan) -> None:
        from echo.cache.store import Named

        evicted = self.policy.evicted(step)
        if not evicted:
            return
        begun = self.store.knows(MEANS[0])
        for layer in range(self.geometry.layers):
            k, v = (self._mean(states) for states in self.store.frames(layer, evicted))
            for name, rate in zip(MEANS, (self.policy.long_rate, self.policy.short_rate), strict=True):
                old = self.store.named(layer, name) if begun else Named(k, v)
                self.store.remember(name, layer, Named(old.k.lerp(k, rate), old.v.lerp(v, rate)))

    def _mean(self, states_BTSHD: Tensor) -> Tensor:
        mean = states_BTSHD.mean(1) if self.policy.per_position else states_BTSHD.mean((1, 2)).unsqueeze(1)
        return mean.expand(-1, states_BTSHD.shape[2], -1, -1)
