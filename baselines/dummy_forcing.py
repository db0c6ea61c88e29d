"""Dummy-Forcing: heads that attend to neither the first frame nor the middle of the window get only its newest frame.

arXiv 2601.20499, csguoh/DummyForcing (Apache-2.0), on the weights of Self-Forcing, LongLive and others. Up to block a every head attends
to [frame 0 | local 3L | block], absolute indices. In the clean pass of block a, a random third of a frame's query tokens measures each
head's attention mass on the window's first frames (p0) and on its middle (p1); the block itself is its end. Both are divided by their sums
over all heads of all layers. The share of heads with the smallest max(p0, p1) is dummy; the others are "first" if p0 >= p1, else "mid".
From then on first heads attend to frame 0, dummy heads to the newest frame, mid heads to the newest 3L, and all to the block.
Groups are chosen once per video; a prompt switch is LongLive's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from baselines.longlive import AtSwitch, LongLive
from echo.cache.plan import HeadGroup, Plan, Step
from echo.cache.policy import Memory
from echo.geometry import Geometry
from echo.refusals import within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore

NAMES = "first", "mid", "dummy"
ROWS = 3
"""Ratio of a frame's tokens to the drawn query tokens: 520 of 1560."""


@dataclass(frozen=True, kw_only=True)
class DummyForcing(LongLive):
    """LongLive's settings, where `window_frames` are the frames of a recache; counts are frames. local_frames: 3L.
    classify_after: 3a, the frames before block a. first_frames: frames at the front of the window, whose mass is p0. dummy_share: of the
    heads of all layers. rows_seed: seed of the drawn query tokens."""

    sink_frames: int = 1
    at_switch: AtSwitch = AtSwitch.keep
    local_frames: int = 3
    classify_after: int = 3
    first_frames: int = 1
    dummy_share: float = 0.5
    rows_seed: int = 0

    def recent_frames(self, block_frames: int) -> int:
        return self.local_frames

    def looks(self, plan: Plan) -> bool:
        """Whether a plan is of block a."""
        return plan.first_frame - len(plan.queries) < self.classify_after <= plan.first_frame

    def plan(self, step: Step) -> Plan:
        plan = super().plan(step)
        if self.looks(plan):  # its clean pass reads the keys of its context
            return replace(plan, keep=plan.keep.union(slot.source for slot in plan.context))
        if step.first_frame < self.classify_after:
            return plan
        first, last = len(self.sink(step, step.first_frame)), len(plan.context)
        slots = range(first), range(first, last), range(max(first, last - 1), last)
        groups = (
            HeadGroup(name, tuple(own), self.dummy_share if name == "dummy" else None) for name, own in zip(NAMES, slots, strict=True)
        )
        return replace(plan, groups=tuple(groups))

    def capacity(self, geometry: Geometry) -> int:
        return max(super().capacity(geometry), geometry.frames_per_block + self.looked_at(geometry))

    def looked_at(self, geometry: Geometry) -> int:
        """Past frames in the window of block a."""
        size = geometry.frames_per_block
        return min(-(-self.classify_after // size) * size, self.sink_frames + self.local_frames)

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return WhereHeadsLook(self, geometry, store)

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """Indices of the heads of each group."""
        return geometry.layers * geometry.heads * batch * 8

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("local_frames", self.local_frames, max(1, 2 - self.sink_frames), geometry.context_frames - self.sink_frames)
        within("classify_after (a block later all local frames are there)", self.classify_after, max(2, self.local_frames), 10_000)
        within("first_frames (fewer than block a looks at)", self.first_frames, 1, self.looked_at(geometry) - 1)
        within("dummy_share", self.dummy_share, 0, 1)


class WhereHeadsLook(Memory):
    """Attention masses of the heads in block a, and from then on their groups."""

    def __init__(self, policy: DummyForcing, geometry: Geometry, store: FrameStore) -> None:
        self.policy, self.geometry, self.store = policy, geometry, store
        self.mass: dict[int, Tensor] = {}
        self.groups: list[list[Tensor]] = []

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """p0 and p1 of the heads of a layer, [B, H, 2], in the clean pass of block a."""
        import torch

        from echo.backbone import rope
        from echo.memory.heads import frame_mass

        if not self.policy.looks(plan):
            return
        g, random = self.geometry, Random(f"{self.policy.rows_seed} {layer}")
        rows = rope.integers(random.choices(range(q.shape[1]), k=max(1, g.tokens_per_frame // ROWS)), q.device)
        positions = [slot.position for slot in plan.context if slot.position is not None]
        turn = rope.frame_table((*positions, *plan.queries), g.grid_height, g.grid_width, g.head_dim, q.device)
        past, _ = self.store.sources(layer, [slot.source for slot in plan.context])
        keys = rope.rotate(torch.cat([past.flatten(1, 2), k], 1), turn)
        mass = frame_mass(rope.rotate(q, turn[-q.shape[1] :])[:, rows], keys, g.tokens_per_frame)
        front = self.policy.first_frames
        self.mass[layer] = torch.stack([mass[..., :front].sum(-1), mass[..., front : len(plan.context)].sum(-1)], -1)

    def begin_block(self, step: Step, plan: Plan) -> None:
        """Form the groups; the host reads their sizes once, since they are tensor shapes."""
        import torch

        from echo.backbone.rope import host_integers
        from echo.cache.groups import members

        if not plan.groups or self.groups:
            return
        kinds = divided(torch.stack([self.mass.pop(layer) for layer in range(self.geometry.layers)], 1), self.policy.dummy_share)
        self.groups = members(host_integers(kinds.transpose(0, 1).flatten(1)), len(NAMES), self.store.device)

    def heads(self, layer: int, plan: Plan) -> Sequence[Tensor]:
        return self.groups[layer]


def divided(mass_BLHP: Tensor, dummy_share: float) -> Tensor:
    """Group of each head from its p0 and p1, [B, L, H, 2] to indices into `NAMES` [B, L, H]."""
    p_BLHP = mass_BLHP / mass_BLHP.sum((1, 2), keepdim=True)
    cost_BN = p_BLHP.amax(-1).flatten(1)
    kinds = (p_BLHP[..., 0] < p_BLHP[..., 1]).long().flatten(1)
    dummies = cost_BN.argsort(dim=1, stable=True)[:, : round(dummy_share * cost_BN.shape[1])]
    return kinds.scatter(1, dummies, NAMES.index("dummy")).view(mass_BLHP.shape[:3])
