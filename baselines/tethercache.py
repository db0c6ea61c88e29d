"""TetherCache: a memory of 14 past frames that each layer chooses again for each block, by attention mass and diversity.

arXiv 2606.13035, my4f175/TetherCache (Apache-2.0). [sink 3 | memory 14 | recent 4, the block included] at slot indices, raw keys. The
memory begins as frames 3 to 16. Later, before the attention of a clean pass, the three frames that left the recent tier with this block
compete with the memory in each layer: score = mass + 0.35 diversity, and the 14 best stay. Newly admitted frames are aligned
with the keys and values of the memory (AdaIN), so that a drifted frame does not change the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo.cache.kinds import Kind, MemoryName, Source
from echo.cache.plan import Plan, Selection, Slot, Step
from echo.cache.policy import Memory, Policy
from echo.geometry import Geometry
from echo.refusals import within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore

EPSILON = 1e-5
"""Added to variances, as in AdaIN."""


@dataclass(frozen=True, kw_only=True)
class TetherCache(Policy):
    """recent_frames: newest frames, the block's own included. diversity_weight: against the mass. align_share: of AdaIN on admission."""

    sink_frames: int = 3
    memory_frames: int = 14
    recent_frames: int = 4
    diversity_weight: float = 0.35
    align_share: float = 0.35

    def places(self, before: int) -> tuple[MemoryName, ...]:
        """The memory's places that are filled once `before` frames are made; place i begins with frame sink + i."""
        return tuple(MemoryName("mem", i, Kind.COMPRESSED) for i in range(max(0, min(self.memory_frames, before - self.sink_frames))))

    def recent(self, oldest: int, before: int) -> range:
        """Recent frames from `oldest` on, without those with which the memory began."""
        start = max(self.sink_frames + self.memory_frames, oldest)
        return range(start, max(start, before))

    def plan(self, step: Step) -> Plan:
        first, size = step.first_frame, step.geometry.frames_per_block
        after, oldest = first + size, first + size - self.recent_frames
        memory, recent = self.places(first), self.recent(oldest, first)
        entries: list[tuple[Source, Kind]] = [(frame, Kind.SINK) for frame in range(min(self.sink_frames, first))]
        entries += [(name, Kind.COMPRESSED) for name in memory] + [(frame, Kind.RECENT) for frame in recent]
        context = tuple(Slot(source, index, kind) for index, (source, kind) in enumerate(entries))
        leaving = self.recent(first - self.recent_frames, oldest)
        revision = Selection((*memory, *leaving), len(memory)) if leaving else None
        keep = frozenset((*range(self.sink_frames), *self.places(after), *self.recent(oldest, after)))
        return Plan(step.block, step.scene, first, context, step.positions(len(context)), keep, revision=revision)

    def capacity(self, geometry: Geometry) -> int:
        return self.sink_frames + self.recent_frames

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return Tether(self, geometry, store)

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        return geometry.layers * batch * self.memory_frames * 8

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        size, room = geometry.frames_per_block, geometry.window_frames
        within("recent_frames (the block among them)", self.recent_frames, size, room - 2)
        within("sink_frames", self.sink_frames, 1, room - self.recent_frames - 1)
        within("memory_frames", self.memory_frames, 1, room - self.recent_frames - self.sink_frames)
        within("diversity_weight", self.diversity_weight, 0, 1000)
        within("align_share", self.align_share, 0, 1)


class Tether(Memory):
    """Keys and values of every layer's memory, preallocated, and the numbers of its frames."""

    def __init__(self, policy: TetherCache, geometry: Geometry, store: FrameStore) -> None:
        import torch

        self.policy, self.store = policy, store
        shape = (geometry.layers, store.batch, policy.memory_frames, *store.k.shape[3:])
        self.k, self.v = store.k.new_zeros(shape), store.v.new_zeros(shape)
        frames = torch.arange(policy.sink_frames, policy.sink_frames + policy.memory_frames, device=store.device)
        self.frames_LBT = frames.repeat(geometry.layers, store.batch, 1)

    def begin_block(self, step: Step, plan: Plan) -> None:
        from echo.backbone.rope import integers

        if plan.revision is not None:
            self.leaving = integers([source for source in plan.revision.candidates if isinstance(source, int)], self.store.device)

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the memory's first frames when they are made."""
        from echo.cache.store import Named

        first, size = plan.first_frame, len(plan.queries)
        taken = len(self.policy.places(first))
        for place, name in enumerate(self.policy.places(first + size)[taken:], taken):
            frame = place + self.policy.sink_frames - first
            own = Named(self.k[layer, :, place], self.v[layer, :, place])
            own.k.copy_(k.unflatten(1, (size, -1))[:, frame])
            own.v.copy_(v.unflatten(1, (size, -1))[:, frame])
            self.store.remember(name, layer, own)

    def revise(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Keep the best of memory and leaving frames, in their order; new ones are aligned."""
        import torch

        sink_k, sink_v = self.store.frames(layer, range(self.policy.sink_frames))
        frames = torch.cat([self.frames_LBT[layer], self.leaving.expand(len(q), -1)], 1)
        stay = best(mass(q, torch.cat([self.k[layer], k], 1)), frames, self.policy.diversity_weight, self.policy.memory_frames)
        for memory, leaving, sink in ((self.k[layer], k, sink_k), (self.v[layer], v, sink_v)):
            aligned = align(leaving, torch.cat([sink, memory], 1), self.policy.align_share)
            for row, new, index in zip(memory, aligned, stay):
                row.copy_(torch.cat([row, new]).index_select(0, index))
        self.frames_LBT[layer] = frames.gather(1, stay)


def mass(q_BNHD: Tensor, k_BTSHD: Tensor) -> Tensor:
    """Softmax over frames of the mean over heads, queries and tokens of q . k / sqrt(D), [B, T]."""
    mean_q, mean_k = q_BNHD.float().mean(1), k_BTSHD.float().mean(2)
    return (mean_k * mean_q[:, None]).sum(-1).mean(-1).div(q_BNHD.shape[-1] ** 0.5).softmax(-1)


def best(mass_BT: Tensor, frames_BT: Tensor, weight: float, count: int) -> Tensor:
    """Ascending places [B, count] of the largest mass + weight * diversity.

    diversity_i = 1 - max over j != i of exp(-|f_i - f_j| / sigma) mass_j, sigma = max(1, half the span of the frames f).
    """
    import torch

    span = frames_BT.amax(1) - frames_BT.amin(1) + 1
    apart = (frames_BT[:, :, None] - frames_BT[:, None]).abs() / span.div(2).clamp_min(1)[:, None, None]
    near = apart.neg().exp() * mass_BT[:, None] * (1 - torch.eye(mass_BT.shape[1], device=mass_BT.device))
    return (mass_BT + weight * (1 - near.amax(-1))).topk(count, 1).indices.sort(1).values


def align(x_BTSHD: Tensor, reference_BTSHD: Tensor, share: float) -> Tensor:
    """(1 - share) x + share AdaIN(x): each frame of x gets the mean and standard deviation of the reference, per head and channel."""
    import torch

    variance, mean = torch.var_mean(x_BTSHD.float(), 2, keepdim=True, correction=0)
    wanted, centre = (part[:, None, None] for part in torch.var_mean(reference_BTSHD.float(), (1, 2), correction=0))
    stretched = (x_BTSHD.float() - mean) * ((wanted + EPSILON) / (variance + EPSILON)).sqrt() + centre
    return x_BTSHD.float().lerp(stretched, share).to(x_BTSHD.dtype)
