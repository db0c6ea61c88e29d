"""Recency reading: sink and newest frames, where noisy passes attend less to older frames.

arXiv 2609.19729, training-free part, by the formula in github.com/Dwell-Jing/commit-forcing. [sink 3 | recent 15 | block 3], with the sink
at the indices right before the oldest recent frame. In noisy pass t, the logits of a chunk of 3 frames, d chunks before the block, get a
bias: 0 for the newest chunk, down to -4 four chunks further back. Sink and block have no bias, and neither has the clean pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from baselines.longlive import AtSwitch, LongLive
from echo.cache.kinds import Kind, Source
from echo.cache.plan import Plan, Step
from echo.geometry import Geometry
from echo.refusals import within


def added_logit(away: int, number: int, most: float, reach: int, rate: float) -> float:
    """-most * dt^g with dt = min(1, (d - 1) / reach) and g = rate * 2^t, for chunks d = `away` from 2 on; t = `number` of the pass, from 1.

    >>> [round(added_logit(d, 1, 4, 4, 0.1), 2) for d in (1, 2, 3, 5, 6)]
    [0.0, -3.03, -3.48, -4.0, -4.0]
    """
    return 0.0 - float(most * min(1.0, (away - 1) / reach) ** (rate * 2**number)) if away > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Recency(LongLive):
    """chunk_frames: past frames that share a bias. bias_most: reduction of the oldest logits. bias_chunks: distance in chunks from the
    newest at which it is reached. bias_rate: of the exponent, which doubles from pass to pass. bias_passes: noisy passes that differ."""

    biased: ClassVar[bool] = True

    window_frames: int = 21
    at_switch: AtSwitch = AtSwitch.keep
    chunk_frames: int = 3
    bias_most: float = 4.0
    bias_chunks: int = 4
    bias_rate: float = 0.1
    bias_passes: int = 4

    def plan(self, step: Step) -> Plan:
        plan = super().plan(step)
        oldest = plan.queries[0] - len(plan.context)
        context = tuple(replace(slot, position=oldest + i) for i, slot in enumerate(plan.context))
        away = [0 if slot.kind is Kind.SINK else self.chunks(step, slot.source) for slot in plan.context]
        if max(away, default=0) < 2:
            return replace(plan, context=context)
        shape = self.bias_most, self.bias_chunks, self.bias_rate
        rows = (tuple(added_logit(d, number, *shape) for d in away) for number in range(1, self.bias_passes + 1))
        return replace(plan, context=context, bias=tuple(rows))

    def chunks(self, step: Step, source: Source) -> int:
        """How many chunks before the block a frame lies; 1 for the newest."""
        assert isinstance(source, int)
        return -((source - step.first_frame) // self.chunk_frames)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("bias_most", self.bias_most, 0, 1000)
        within("chunk_frames", self.chunk_frames, 1, self.window_frames)
        within("bias_chunks", self.bias_chunks, 1, 1000)
        within("bias_rate", self.bias_rate, 0, 100)
        within("bias_passes", self.bias_passes, 1, 1000)
