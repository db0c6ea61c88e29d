"""What self-attention meets in a block: the context, rotated once per layer, and behind it the block itself.

The first pass of a block assembles each layer's context from the store; every pass writes the block's own keys and values into
the window's tail in place. Nothing grows with the length of the video and nothing is read back by the host.

Shapes: B batch, T context frames, S tokens of a frame, N tokens of the block, H heads, D head_dim, C complex channels.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
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
    """The passes of a block: the first assembles the context, the clean one feeds the memories.

    REWRITE: the only pass of a recache; it assembles, and leaves new keys and values of old frames in the store.
    """

    FIRST = "first"
    NEXT = "next"
    CLEAN = "clean"
    REWRITE = "rewrite"


class Window:
    """Rotated keys and values of one rollout, preallocated for `window_frames`."""

    def __init__(self, geometry: Geometry, store: FrameStore, memory: Memory, on_select: OnSelect | None = None) -> None:
        self.geometry, self.store, self.memory, self.on_select = geometry, store, memory, on_select
        tokens = geometry.window_frames * geometry.tokens_per_frame
        shape = (geometry.layers, store.batch, tokens, geometry.heads, geometry.head_dim)
        self.k, self.v = store.k.new_zeros(shape), store.v.new_zeros(shape)
        self.phase = Pass.FIRST
        self._grid = (geometry.grid_height, geometry.grid_width, geometry.head_dim)

    def begin(self, plan: Plan, phase: Pass = Pass.FIRST) -> None:
        """Turn the plan into tensors that all layers share."""
        self.plan, self.phase, tokens = plan, phase, self.geometry.tokens_per_frame
        positions = [-1 if slot.position is None else slot.position for slot in plan.context]
        assert len(positions) + len(plan.queries) - plan.unseen <= self.geometry.window_frames, "the plan is longer than the window"
        device = self.store.device
        self._turn_NC = rope.frame_table(plan.queries, *self._grid).to(device)
        self._context_turn = rope.frame_table(positions, *self._grid).to(device) if positions else self._turn_NC[:0]
        self._context, self._unseen = len(positions) * tokens, plan.unseen * tokens
        self._positions = self._context_turn.new_tensor(positions, dtype=torch.long)
        # Slots without a stored frame of their own (memories, selections) borrow any; their content is laid over it.
        frames = [slot.source if isinstance(slot.source, int) else None for slot in plan.context]
        stand_in = next((frame for frame in frames if frame is not None), None)
        self._frames = [frame if frame is not None else stand_in for frame in frames] if stand_in is not None else []
        names = [(i, slot.source) for i, slot in enumerate(plan.context) if isinstance(slot.source, str)]
        self._named = [(i, name) for i, name in names if name != COMPRESSED]
        self._selected = next((i for i, name in names if name == COMPRESSED), 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention of the block's raw q, k, v [B, N, H, D] over the window; no mask."""
        if self.phase in (Pass.FIRST, Pass.REWRITE):
            self._assemble(layer, q)
        own_k, own_v = k[:, self._unseen :], v[:, self._unseen :]
        end = self._context + own_k.shape[1]
        keys, values = self.k[layer, :, :end], self.v[layer, :, :end]
        rope.rotate_into(keys[:, self._context :], own_k, self._turn_NC[self._unseen :])
        values[:, self._context :] = own_v
        if self.phase in (Pass.CLEAN, Pass.REWRITE):
            first = self.plan.first_frame
            self.store.write(layer, range(first + self.plan.unseen, first + len(self.plan.queries)), own_k, own_v)
        if self.phase is Pass.CLEAN:
            self.memory.observe(layer, self.plan, q, k, v)
        if layer == self.geometry.layers - 1 and self.phase in (Pass.CLEAN, Pass.REWRITE):
            return q  # the flow of these passes is read by nobody
        return self.attention(rope.rotate(q, self._turn_NC), keys, values)

    @staticmethod
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Dense soft-maximum attention, all [B, N, H, D]; a benchmark that times everything else replaces it."""
        return fn.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

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
        k, v = k_BTSHD.flatten(1, 2), v_BTSHD.flatten(1, 2)
        for slot, name in self._named:
            span = slice(slot * tokens, (slot + 1) * tokens)
            k[:, span], v[:, span], places = self.store.named(layer, name)
            if places is not None:
                turn = self._replace(turn, span, places)
        if self.plan.selection is not None:
            turn = self._select(layer, q, k, v, turn)
        if self.plan.faded and (weights := self.memory.weights(layer, self.plan)) is not None:
            faded = self.plan.faded * tokens
            k[:, :faded] *= weights[..., None, None].to(k.dtype)
            v[:, :faded] *= weights[..., None, None].to(v.dtype)
        self.k[layer, :, : self._context] = rope.rotate(k, turn)
        self.v[layer, :, : self._context] = v

    def _replace(self, turn: Tensor, span: slice, places: Tensor) -> Tensor:
        """The context's rotation, [B, N, C], where the tokens of `span` turn by their own places [B, K]."""
        tokens, width, head_dim = self.geometry.tokens_per_frame, self.geometry.grid_width, self.geometry.head_dim
        own = self._positions[span.start // tokens : span.stop // tokens].repeat_interleave(tokens)
        turn = turn.expand(self.store.batch, -1, -1).clone()
        turn[:, span] = rope.place_table(places, own, width, tokens, head_dim)
        return turn

    def _select(self, layer: int, q: Tensor, k: Tensor, v: Tensor, turn: Tensor) -> Tensor:
        """Lay the selected tokens over their slots; gives the context's rotation, [N, C] or [B, N, C]."""
        selection, tokens = self.plan.selection, self.geometry.tokens_per_frame
        assert selection is not None
        index_BK = self.memory.select(layer, self.plan, q)
        if self.on_select is not None:
            self.on_select(layer, self.plan, index_BK)
        span = slice(self._selected * tokens, (self._selected + selection.frames) * tokens)
        every = index_BK[..., None, None].expand(-1, -1, *k.shape[-2:])
        candidates_k, candidates_v = self.store.sources(layer, selection.candidates)
        k[:, span] = candidates_k.flatten(1, 2).gather(1, every)
        v[:, span] = candidates_v.flatten(1, 2).gather(1, every)
        if not selection.own_spatial:
            return turn
        places = self.store.places(layer, selection.candidates).gather(1, index_BK)
        self.memory.selected(layer, self.plan, index_BK, k[:, span], v[:, span], places)
        return self._replace(turn, span, places)
