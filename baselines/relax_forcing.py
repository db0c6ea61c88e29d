"""Relax-Forcing: from a long past only the sink, the newest frame and one frame between them, chosen by similarity.

arXiv 2603.21366, zengqunzhao/Relax-Forcing (Apache-2.0), on Self-Forcing's weights. Context: [sink 2 | history 1 | tail 1 | block 3].
Tail and block have their absolute indices, sink and history the three before the tail. The history frame is chosen in the
first pass of layer 0 from up to four frames of the newer half between sink and tail: the largest cos(frame, sink) - 2 cos(frame, tail)
of their mean keys; all layers and passes use it. A past of up to four frames is attended to as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo.cache.kinds import COMPRESSED, Kind
from echo.cache.plan import Plan, Selection, Slot, Step
from echo.cache.policy import Memory, Policy
from echo.geometry import Geometry
from echo.refusals import within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore


def spread(middle: int, most: int) -> tuple[int, ...]:
    """Up to `most` evenly spaced places in the newer half of `middle` frames, without the last one."""
    half, count = middle // 2, min(most, middle - middle // 2)
    places = (half + i * (middle - 1 - half) // count for i in range(count + 1))
    return tuple(dict.fromkeys(places))[:-1] or (half,)


@dataclass(frozen=True, kw_only=True)
class RelaxForcing(Policy):
    """sink_frames: pinned first frames. reservoir_frames: frames kept, the sink included. candidates: most frames from which one is
    chosen. tail_weight: weight of the similarity to the newest frame. max_position: Self-Forcing's table."""

    sink_frames: int = 2
    reservoir_frames: int = 120
    candidates: int = 4
    tail_weight: float = 2.0
    max_position: int = 1024

    def reservoir(self, before: int) -> tuple[int, ...]:
        """Frames kept once `before` frames are made."""
        newest = range(max(self.sink_frames, before - self.reservoir_frames + self.sink_frames), before)
        return (*range(min(self.sink_frames, before)), *newest)

    def plan(self, step: Step) -> Plan:
        first, past, sink = step.first_frame, self.reservoir(step.first_frame), range(self.sink_frames)
        keep = frozenset(self.reservoir(first + step.geometry.frames_per_block))
        middle = past[self.sink_frames : -1]
        if len(middle) < 2:
            context = tuple(Slot(f, f, Kind.SINK if f in sink else Kind.RECENT) for f in past)
            return Plan(step.block, step.scene, first, context, step.positions(first), keep)
        tail = first - 1
        moved = range(tail - 1 - len(sink), tail - 1)
        slots = *(Slot(f, at, Kind.SINK) for f, at in zip(sink, moved)), Slot(COMPRESSED, tail - 1, Kind.COMPRESSED)
        context = (*slots, Slot(tail, tail, Kind.RECENT))
        chosen_from = Selection(tuple(middle[place] for place in spread(len(middle), self.candidates)), 1)
        return Plan(step.block, step.scene, first, context, step.positions(first), keep, chosen_from)

    def capacity(self, geometry: Geometry) -> int:
        return self.reservoir_frames

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return LikeTheSink(self, geometry, store)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("sink_frames", self.sink_frames, 1, geometry.context_frames - 2)
        within("reservoir_frames", self.reservoir_frames, self.sink_frames + 3 + geometry.frames_per_block, 100_000)
        within("candidates", self.candidates, 1, self.reservoir_frames)


class LikeTheSink(Memory):
    """The frame that layer 0 chose, for all layers of the block."""

    def __init__(self, policy: RelaxForcing, geometry: Geometry, store: FrameStore) -> None:
        self.policy, self.geometry, self.store = policy, geometry, store

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        if layer == 0:
            assert plan.selection is not None
            self.chosen = self._choose([source for source in plan.selection.candidates if isinstance(source, int)], plan.first_frame - 1)
        return self.chosen

    def _choose(self, candidates: list[int], tail: int) -> Tensor:
        """All tokens [B, S] of the candidate with the largest score; S tokens of a frame."""
        import torch

        (there, _), (sink, _), (last, _) = (self.store.frames(0, f) for f in (candidates, range(self.policy.sink_frames), [tail]))
        seen_BTD, sink_BD, tail_BD = prototype(there, 2), prototype(sink, (1, 2)), prototype(last, (1, 2))
        score_BT = torch.einsum("btd,bd->bt", seen_BTD, sink_BD - self.policy.tail_weight * tail_BD)
        tokens = self.geometry.tokens_per_frame
        return score_BT.argmax(1, keepdim=True) * tokens + torch.arange(tokens, device=score_BT.device)


def prototype(keys: Tensor, over: int | tuple[int, ...]) -> Tensor:
    """Unit vector of the mean key over tokens (dimensions `over`), then over heads: [..., H, D] to [..., D]."""
    from torch.nn.functional import normalize

    return normalize(keys.float().mean(over).mean(-2), dim=-1)
