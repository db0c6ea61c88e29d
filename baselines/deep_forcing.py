"""Deep-Forcing: a deep sink that slides along with the window, and participative compression of what lies between.

arXiv 2512.05081. Deep sink alone (`budget_frames` 0): the first S frames at indices that follow the window, then the newest frames
at absolute indices. With compression: once the cache is full, every other block rebuilds it as [sink S | best tokens C | recent R]
with S + C + R = budget; R counts the block. A token's score is its rotated key's dot product with the summed rotated queries of the
recent frames, over all heads; no token is chosen more than `reuse_limit` times. The released code leaves chosen tokens at their own
temporal index; `unify_positions` is the unification that the paper describes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo.cache.kinds import COMPRESSED, Kind, MemoryName, Source, chosen
from echo.cache.plan import Plan, Selection, Slot, Step
from echo.cache.policy import Memory, Policy
from echo.geometry import Geometry
from echo.refusals import within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore


@dataclass(frozen=True, kw_only=True)
class DeepForcing(Policy):
    """Counts are latent frames; the window is the backbone's."""

    sink_frames: int = 10
    budget_frames: int = 16
    recent_frames: int = 4
    reuse_limit: int = 7
    unify_positions: bool = False
    max_position: int = 1024

    @property
    def chosen(self) -> tuple[MemoryName, ...]:
        return tuple(map(chosen, range(self.budget_frames - self.sink_frames - self.recent_frames)))

    def rebuilt(self, step: Step) -> int | None:
        """First frame of the block at which the cache was last rebuilt; None while it fills or without compression."""
        window, size = step.geometry.window_frames, step.geometry.frames_per_block
        if not self.budget_frames or step.first_frame + size <= window:
            return None
        period = size * ((window - self.budget_frames) // size + 1)
        first = -(-(window - size + 1) // size) * size
        return step.first_frame - (step.first_frame - first) % period

    def plan(self, step: Step) -> Plan:
        first, size, window = step.first_frame, step.geometry.frames_per_block, step.geometry.window_frames
        rebuilt, start, oldest = self.rebuilt(step), 0, self.sink_frames
        if rebuilt is not None:
            start, oldest = rebuilt - self.budget_frames, rebuilt - (self.recent_frames - size)
        elif first + size > window:
            start, oldest = first - window, first - (window - size - self.sink_frames)
        context = [Slot(f, start + f, Kind.SINK) for f in range(min(self.sink_frames, first))]
        selection = None
        if rebuilt is not None:
            now, first_position = rebuilt == first, oldest - len(self.chosen)
            for rank, name in enumerate(self.chosen):
                context.append(Slot(COMPRESSED if now else name, first_position + rank if self.unify_positions else None, name.kind))
            selection = Selection(self.candidates(step), len(self.chosen), own_spatial=True) if now else None
        context += [Slot(f, f, Kind.RECENT) for f in range(oldest, first)]
        held = range(oldest if self.budget_frames else max(0, first + 2 * size - window + self.sink_frames), first + size)
        keep = frozenset((*range(self.sink_frames), *(self.chosen if rebuilt is not None else ()), *held))
        return Plan(step.block, step.scene, first, tuple(context), step.positions(first), keep, selection)

    def candidates(self, step: Step) -> tuple[Source, ...]:
        """All of the cache except sink and recent frames: the tokens chosen last, then newer frames."""
        past = self.recent_frames - step.geometry.frames_per_block
        last = self.rebuilt(Step(step.block - 1, step.starts, step.geometry))
        if last is None:
            return tuple(range(self.sink_frames, step.first_frame - past))
        return (*self.chosen, *range(last - past, step.first_frame - past))

    def capacity(self, geometry: Geometry) -> int:
        return geometry.window_frames if self.budget_frames else max(geometry.context_frames, self.sink_frames + geometry.frames_per_block)

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """The last queries, and a counter of 8 bytes for each chosen token."""
        past = (self.recent_frames - geometry.frames_per_block) * geometry.heads * geometry.head_dim * item + len(self.chosen) * 8
        return geometry.layers * batch * geometry.tokens_per_frame * past if self.budget_frames else 0

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return Participation(self, geometry, store) if self.budget_frames else Memory()

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        size, window = geometry.frames_per_block, geometry.window_frames
        recent = self.recent_frames if self.budget_frames else size
        if self.budget_frames:
            within("reuse_limit", self.reuse_limit, 1, float("inf"))
            within("recent_frames (the block's included)", recent, size + 1, window - 2)
        within("sink_frames", self.sink_frames, 1, window - 1 - recent)
        within("budget_frames (sink, one chosen, recent at least)", self.budget_frames or window, self.sink_frames + recent + 1, window)


class Participation(Memory):
    """Clean queries of the newest frames, and how often each chosen token has been chosen."""

    def __init__(self, policy: DeepForcing, geometry: Geometry, store: FrameStore) -> None:
        self.policy, self.geometry, self.store = policy, geometry, store
        self.past: list[Tensor | None] = [None] * geometry.layers
        self.uses: list[Tensor | None] = [None] * geometry.layers

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        import torch

        tokens, past = (self.policy.recent_frames - len(plan.queries)) * self.geometry.tokens_per_frame, self.past[layer]
        self.past[layer] = (q if past is None or tokens <= q.shape[1] else torch.cat((past, q), 1))[:, -tokens:].clone()

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        from echo.memory.compression import top_tokens

        past = self.past[layer]
        assert plan.selection is not None and past is not None
        participation = self._turned(q, plan.first_frame + len(plan.queries)).sum(1) + self._turned(past, plan.first_frame).sum(1)
        places = self.store.places(layer, plan.selection.candidates)
        keys = self.store.sources(layer, plan.selection.candidates)[0].flatten(1, 2)
        score = (self._rotated(keys, places) * participation.unsqueeze(1)).sum((-1, -2))
        score = score.masked_fill(self._counts(layer, places) >= self.policy.reuse_limit, float("-inf"))
        return top_tokens(score, plan.selection.frames * self.geometry.tokens_per_frame)

    def selected(self, layer: int, plan: Plan, index: Tensor, k: Tensor, v: Tensor, places: Tensor) -> None:
        from echo.cache.store import Named

        assert plan.selection is not None
        candidates = self.store.places(layer, plan.selection.candidates)
        self.uses[layer] = self._counts(layer, candidates).gather(1, index) + 1
        frames = zip(*(part.split(self.geometry.tokens_per_frame, 1) for part in (k, v, places)), strict=True)
        for name, parts in zip(self.policy.chosen, frames, strict=True):
            self.store.remember(name, layer, Named(*parts))

    def _counts(self, layer: int, places: Tensor) -> Tensor:
        """How often each candidate was chosen, [B, N]; zero for new frames."""
        counts, uses = places.new_zeros(places.shape), self.uses[layer]
        if uses is not None:
            counts[:, : uses.shape[1]] = uses
        return counts

    def _turned(self, q: Tensor, after: int) -> Tensor:
        return self._rotated(q, self.store.places(0, range(after - q.shape[1] // self.geometry.tokens_per_frame, after)))

    def _rotated(self, x: Tensor, places: Tensor) -> Tensor:
        from echo.backbone import rope

        g = self.geometry
        return rope.rotate(x.float(), rope.place_table(places, None, g.grid_width, g.tokens_per_frame, g.head_dim))
