"""Reward-Forcing's sink: a running mean that begins as the first frames and is updated with the frames that leave the window.

arXiv 2512.04678, JaydenLyh/Reward-Forcing (Apache-2.0). Window of 9: [sink 3 | recent 3 | block 3] at slot indices, raw keys. Before
each block, at each place and for keys and values, sink <- 0.999 sink + 0.001 evicted. The mean is kept in float32, since bfloat16
would round away a thousandth.
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
    from echo.cache.store import FrameStore


@dataclass(frozen=True, kw_only=True)
class RewardEma(Policy):
    """window_frames: sink, recent frames and block; the sink is as long as a block. rate: weight of newly evicted frames."""

    window_frames: int = 9
    rate: float = 0.001

    def recent_frames(self, geometry: Geometry) -> int:
        return self.window_frames - 2 * geometry.frames_per_block

    def evicted(self, step: Step) -> range:
        """Frames that move into the sink before this block; empty while the window fills."""
        size, newest = step.geometry.frames_per_block, step.first_frame - self.recent_frames(step.geometry)
        return range(newest - size, newest) if newest >= 2 * size else range(0)

    def plan(self, step: Step) -> Plan:
        first, size, recent = step.first_frame, step.geometry.frames_per_block, self.recent_frames(step.geometry)
        running = bool(self.evicted(step))
        sink: tuple[Source, ...] = means(size) if running else tuple(range(min(size, first)))
        newest = range(max(len(sink), first - recent), first)
        entries = [(source, Kind.SINK) for source in sink] + [(frame, Kind.RECENT) for frame in newest]
        context = tuple(Slot(source, index, kind) for index, (source, kind) in enumerate(entries))
        after = first + size
        held = means(size) if running else range(size)
        keep = frozenset((*held, *range(max(0, after - recent - size), after)))
        return Plan(step.block, step.scene, first, context, step.positions(len(entries)), keep)

    def capacity(self, geometry: Geometry) -> int:
        return self.window_frames

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return RunningSink(self, geometry, store)

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """The sink in float32, besides the named memory in the network's dtype."""
        frame = 2 * geometry.layers * batch * geometry.tokens_per_frame * geometry.heads * geometry.head_dim
        return geometry.frames_per_block * frame * max(0, 4 - item)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        size = geometry.frames_per_block
        within("window_frames (sink, a past block, the block)", self.window_frames, 3 * size, geometry.window_frames)
        within("rate", self.rate, 0, 1)


def means(frames: int) -> tuple[MemoryName, ...]:
    """Names of the sink's frames once the mean is updated."""
    return tuple(MemoryName("ema", index, Kind.SINK) for index in range(frames))


class RunningSink(Memory):
    """The sink of every layer, updated once before a block."""

    def __init__(self, policy: RewardEma, geometry: Geometry, store: FrameStore) -> None:
        self.policy, self.geometry, self.store = policy, geometry, store

    def begin_block(self, step: Step, plan: Plan) -> None:
        from echo.cache.store import Named

        evicted, names = self.policy.evicted(step), means(self.geometry.frames_per_block)
        if not evicted:
            return
        begun = self.store.knows(names[0])
        for layer in range(self.geometry.layers):
            k, v = (states.float() for states in self.store.frames(layer, evicted))
            first = None if begun else [states.float() for states in self.store.frames(layer, range(len(names)))]
            for i, name in enumerate(names):
                old = self.store.named(layer, name) if first is None else Named(first[0][:, i], first[1][:, i])
                self.store.remember(name, layer, Named(old.k.lerp(k[:, i], self.policy.rate), old.v.lerp(v[:, i], self.policy.rate)))
