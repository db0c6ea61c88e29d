"""What self-attention meets in a block: the context, rotated once per layer, and behind it the block itself.

The first pass of a block assembles each layer's context from the store; every pass writes the block's own keys and values into
the window's tail in place. Nothing is concatenated and nothing is read back by the host.

Shapes: B batch, T context frames, S tokens of a frame, N tokens of the block, H heads, D head_dim, C complex channels.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import rope
from echo.cache.plan import COMPRESSED, Plan
from echo.cache.policy import Memory
from echo.cache.store import FrameStore
from echo.geometry import Geometry

OnSelect = Callable[[int, Plan, Tensor], None]
"""Told of each selection: layer, plan, token indices [B, K] into the candidates."""


class Pass(Enum):
    """The passes of a block: the first assembles the context, the clean one feeds the memories."""

    FIRST = "first"
    NEXT = "next"
    CLEAN = "clean"


class Window:
    """Rotated keys and values of one rollout, preallocated for `window_frames`."""

    def __init__(self, geometry: Geometry, store: FrameStore, memory: Memory, on_select: OnSelect | None = None) -> None:
        self.geometry, self.store, self.memory, self.on_select = geometry, store, memory, on_select
        tokens = geometry.window_frames * geometry.tokens_per_frame
        shape = (geometry.layers, store.batch, tokens, geometry.heads, geometry.head_dim)
        self.k, self.v = store.k.new_zeros(shape), store.v.new_zeros(shape)
        self.phase = Pass.FIRST
        grid = (geometry.grid_height, geometry.grid_width, geometry.head_dim)
        self._spatial_SC = rope.frame_table([0], *grid).to(store.device)
        self._channels_t = rope.split(geometry.head_dim)[0]
        self._grid = grid

    def begin(self, plan: Plan) -> None:
        """Turn the plan into tensors that all layers share."""
        self.plan, self.phase = plan, Pass.FIRST
        positions = [slot.position for slot in plan.context]
        assert len(positions) + len(plan.queries) <= self.geometry.window_frames, "the plan is longer than the window"
        self._turn_NC = rope.frame_table(plan.queries, *self._grid).to(self.store.device)
        self._context_turn = rope.frame_table(positions, *self._grid).to(self.store.device) if positions else self._turn_NC[:0]
        self._context = len(positions) * self.geometry.tokens_per_frame
        # Slots without a stored frame of their own (memories, selections) borrow any; their content is laid over it.
        frames = [slot.source if isinstance(slot.source, int) else None for slot in plan.context]
        stand_in = next((frame for frame in frames if frame is not None), None)
        self._frames = [frame if frame is not None else stand_in for frame in frames] if stand_in is not None else []
        names = [(i, slot.source) for i, slot in enumerate(plan.context) if isinstance(slot.source, str)]
        self._named = [(i, name) for i, name in names if name != COMPRESSED]
        self._selected = next((i for i, slot in enumerate(plan.context) if slot.source == COMPRESSED), 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention of the block's raw q, k, v [B, N, H, D] over the window; no mask."""
        if self.phase is Pass.FIRST:
            self._assemble(layer, q)
        end = self._context + q.shape[1]
        keys, values = self.k[layer, :, :end], self.v[layer, :, :end]
        keys[:, self._context :] = rope.rotate(k, self._turn_NC)
        values[:, self._context :] = v
        if self.phase is Pass.CLEAN:
            self.store.write(layer, range(self.plan.first_frame, self.plan.first_frame + len(self.plan.queries)), k, v)
            self.memory.observe(layer, self.plan, q, k, v)
        turned = rope.rotate(q, self._turn_NC)
        return fn.scaled_dot_product_attention(turned.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)).transpose(1, 2)

    def _assemble(self, layer: int, q: Tensor) -> None:
        """Gather, weigh and rotate the context of one layer into the window."""
        if not self._context:
            return
        tokens, turn = self.geometry.tokens_per_frame, self._context_turn
        if self._frames:
            k_BTSHD, v_BTSHD = self.store.frames(layer, self._frames)
        else:
            shape = (self.store.batch, len(self.plan.context), tokens, self.geometry.heads, self.geometry.head_dim)
            k_BTSHD, v_BTSHD = self.k.new_empty(shape), self.v.new_empty(shape)
        for slot, name in self._named:
            k_BTSHD[:, slot], v_BTSHD[:, slot] = self.store.named[name][layer]
        k, v = k_BTSHD.flatten(1, 2), v_BTSHD.flatten(1, 2)
        if self.plan.selection is not None:
            turn = self._select(layer, q, k, v)
        if self.plan.faded and (weights := self.memory.weights(layer, self.plan)) is not None:
            faded = self.plan.faded * tokens
            k[:, :faded] *= weights[..., None, None].to(k.dtype)
            v[:, :faded] *= weights[..., None, None].to(v.dtype)
        self.k[layer, :, : self._context] = rope.rotate(k, turn)
        self.v[layer, :, : self._context] = v

    def _select(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Lay the selected tokens over their slots; gives the context's rotation, [N, C] or [B, N, C]."""
        selection = self.plan.selection
        assert selection is not None
        index_BK = self.memory.select(layer, self.plan, q)
        if self.on_select is not None:
            self.on_select(layer, self.plan, index_BK)
        first = self._selected * self.geometry.tokens_per_frame
        span = slice(first, first + index_BK.shape[1])
        every = index_BK[..., None, None].expand(-1, -1, *k.shape[-2:])
        candidates_k, candidates_v = self.store.frames(layer, selection.candidates)
        k[:, span] = candidates_k.flatten(1, 2).gather(1, every)
        v[:, span] = candidates_v.flatten(1, 2).gather(1, every)
        if not selection.own_spatial:
            return self._context_turn
        turn = self._context_turn.expand(len(k), -1, -1).clone()
        turn[:, span, self._channels_t :] = self._spatial_SC[index_BK % self.geometry.tokens_per_frame][..., self._channels_t :]
        return turn
