"""Keys and values of self-attention in a block: the rotated context, followed by the block itself.

A resident window keeps every layer's context: the first pass of a block assembles it from the store, and all passes use it, except
a clean pass with a context of its own. A shared window serves all layers in turn, and every pass assembles it again: the same bits
in a fraction of the memory. In both, a pass writes the block's own keys and values into the window's tail in place. Nothing grows
with the length of the video, and the host reads nothing back.

Shapes: B batch, T context frames, S tokens of a frame, N tokens of the block, K chosen tokens, H heads, D head_dim, C complex channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import kernels, rope
from echo.cache.groups import GroupWindows
from echo.cache.kinds import COMPRESSED, MemoryName
from echo.cache.plan import Plan, Selection, Slot
from echo.cache.policy import Memory
from echo.cache.store import FrameStore
from echo.geometry import Geometry

_SDPA = kernels.attention("sdpa")

OnSelect = Callable[[int, Plan, Tensor], None]
"""Called for each selection: layer, plan, token indices [B, K] into the candidates."""

OnAttend = Callable[[int, Plan, "Pass", Tensor, Tensor], None]
"""Called before each self-attention: layer, plan, pass, the block's raw q and k [B, N, H, D], which must be copied to be kept."""


class Pass(Enum):
    """The passes of a block: the first selects and assembles the context, the clean one writes store and memories.

    REWRITE: the only pass of a recache, which writes new keys and values of old frames to the store.
    """

    FIRST = "first"
    NEXT = "next"
    CLEAN = "clean"
    REWRITE = "rewrite"


class Chosen(NamedTuple):
    """One layer's selection: indices of its tokens in the store [B, K], or copies if their memories may be overwritten.

    places [B, K] = frame * tokens_per_frame + raster place, if tokens keep their own row and column.
    """

    slots: Tensor | None
    states: tuple[Tensor, Tensor] | None
    places: Tensor | None


class Window:
    """Rotated keys and values of one rollout, preallocated for `window_frames`, in every layer or (`shared`) in one for all."""

    def __init__(
        self, geometry: Geometry, store: FrameStore, memory: Memory, on_select: OnSelect | None = None, *,
        attention: kernels.AttentionKernel | None = None, shared: bool = False,
    ) -> None:  # fmt: skip
        self.geometry, self.store, self.memory, self.on_select, self.shared = geometry, store, memory, on_select, shared
        tokens = geometry.window_frames * geometry.tokens_per_frame
        shape = (1 if shared else geometry.layers, store.batch, tokens, geometry.heads, geometry.head_dim)
        self.k, self.v = store.k.new_zeros(shape), store.v.new_zeros(shape)
        self.phase = Pass.FIRST
        self.on_attend: OnAttend | None = None
        self._grid = (geometry.grid_height, geometry.grid_width, geometry.head_dim)
        if attention is not None:
            self.attention = attention  # type: ignore[method-assign]

    def begin(self, plan: Plan, phase: Pass = Pass.FIRST) -> None:
        """Turn the plan into tensors that all layers share. Store indices are taken now, because frames may leave the store later."""
        self.plan, self.phase = plan, phase
        self._turn_NC = rope.frame_table(plan.queries, *self._grid, self.store.device)
        self._unseen = plan.unseen * self.geometry.tokens_per_frame
        self._selection, self._faded = plan.selection, plan.faded
        self._heads = [self.memory.heads(layer, plan) for layer in range(self.geometry.layers)] if plan.groups else None
        self._chosen: list[Chosen | None] = [None] * self.geometry.layers
        self._assembling = phase in (Pass.FIRST, Pass.REWRITE)
        self._meet(plan.context)
        self._biases = () if plan.bias is None else self._laid(plan.bias)

    def turn_clean(self) -> None:
        """The clean pass is next, with the context that the plan has for it, if any."""
        self.phase, self._biases = Pass.CLEAN, ()
        if self.plan.revision is not None:  # the memories change, so that the assembled context is stale
            self._leaving = self.store.index([source for source in self.plan.revision.candidates if isinstance(source, int)])
            self._assembling = True
        if self.plan.clean is not None:
            self._selection, self._faded, self._heads, self._assembling = None, 0, None, True
            self._meet(self.plan.clean)

    @property
    def attended(self) -> float:
        """Frames that the block's denoising passes attend to, its own included: the mean over heads and layers."""
        own, whole = len(self.plan.queries) - self.plan.unseen, len(self.plan.context)
        if not self.plan.groups:
            return own + whole
        every = (zip(self.plan.groups, self.memory.heads(layer, self.plan)) for layer in range(self.geometry.layers))
        met = sum(len(heads) * len(group.slots) for layer in every for group, heads in layer)
        return own + met / (self.geometry.layers * self.geometry.heads * self.store.batch)

    def turn_next(self) -> None:
        """The first pass is over."""
        self.phase, self._assembling = Pass.NEXT, False
        self._biases = self._biases[1:] or self._biases

    def _laid(self, bias: Sequence[Sequence[float]]) -> tuple[Tensor, ...]:
        """Each pass's bias on the logits of all keys, [1, 1, 1, T * S + N] each; zero for the block's own."""
        rows = rope.on_device(bias, self.store.k.dtype, self.store.device).repeat_interleave(self.geometry.tokens_per_frame, 1)
        own = (len(self.plan.queries) - self.plan.unseen) * self.geometry.tokens_per_frame
        return fn.pad(rows, (0, own))[:, None, None, None].unbind()

    def _meet(self, context: Sequence[Slot]) -> None:
        """Rotations, store indices and memory names of a context."""
        tokens, device = self.geometry.tokens_per_frame, self.store.device
        positions = [-1 if slot.position is None else slot.position for slot in context]
        own = len(self.plan.queries) - self.plan.unseen
        assert len(positions) + own <= self.geometry.window_frames, "the plan is longer than the window"
        self._context_turn = rope.frame_table(positions, *self._grid, device) if positions else self._turn_NC[:0]
        self._context = len(positions) * tokens
        self._positions = rope.integers(positions, device)
        # Slots without a stored frame of their own (memories, selections) gather any frame, which is then overwritten.
        frames = [slot.source if isinstance(slot.source, int) else None for slot in context]
        stand_in = next((frame for frame in frames if frame is not None), None)
        held = [frame if frame is not None else stand_in for frame in frames if stand_in is not None]
        self._frames = self.store.index([frame for frame in held if frame is not None]) if held else None
        names = [(i, slot.source) for i, slot in enumerate(context) if isinstance(slot.source, MemoryName)]
        self._named = [(i, name) for i, name in names if name != COMPRESSED]
        self._selected = next((i for i, name in names if name == COMPRESSED), 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention of the block's raw q, k, v [B, N, H, D] over the window; the plan's bias is the only mask."""
        row = 0 if self.shared else layer
        if self.on_attend is not None:
            self.on_attend(layer, self.plan, self.phase, q, k)
        if self.phase is Pass.CLEAN and self.plan.revision is not None:
            self.memory.revise(layer, self.plan, q, *(part[layer].index_select(1, self._leaving) for part in (self.store.k, self.store.v)))
        own_k, own_v = k[:, self._unseen :], v[:, self._unseen :]
        end = self._context + own_k.shape[1]
        keys, values = self.k[row, :, :end], self.v[row, :, :end]
        grouped = self._grouped(layer, row)
        if self._context and (self.shared or self._assembling):
            if grouped is None:
                self._assemble(layer, q, keys[:, : self._context], values[:, : self._context])
            else:
                whole = [k.new_empty(k.shape[0], self._context, *k.shape[2:]) for _ in "kv"]
                self._assemble(layer, q, *whole)
                grouped.lay_context(*whole)
        if grouped is None:
            rope.rotate_into(keys[:, self._context :], own_k, self._turn_NC[self._unseen :])
            values[:, self._context :] = own_v
        else:
            grouped.lay_own(rope.rotate(own_k, self._turn_NC[self._unseen :]), own_v)
        if self.phase in (Pass.CLEAN, Pass.REWRITE):  # after the assembly, since the block may overwrite frames of its context
            first = self.plan.first_frame
            self.store.write(layer, range(first + self.plan.unseen, first + len(self.plan.queries)), own_k, own_v)
        if self.phase is Pass.CLEAN:
            self.memory.observe(layer, self.plan, q, k, v)
        if layer == self.geometry.layers - 1 and self.phase in (Pass.CLEAN, Pass.REWRITE):
            return q  # nobody reads the flow of these passes
        turned = rope.rotate(q, self._turn_NC)
        bias = self._biases[:1]
        return self.attention(turned, keys, values, *bias) if grouped is None else grouped.answer(self.attention, turned, *bias)

    def _grouped(self, layer: int, row: int) -> GroupWindows | None:
        """The layer's window divided among groups of heads; None if the plan has no groups."""
        if self._heads is None:
            return None
        tokens, own = self.geometry.tokens_per_frame, self._turn_NC.shape[0] - self._unseen
        return GroupWindows(self.plan.groups, self._heads[layer], self.k[row], self.v[row], tokens, own)

    @staticmethod
    def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, /) -> Tensor:
        """Dense softmax attention, all [B, N, H, D]; a benchmark of the remaining work replaces it."""
        return _SDPA(q, k, v, bias)

    def _assemble(self, layer: int, q: Tensor, into_k: Tensor, into_v: Tensor) -> None:
        """Gather, weight and rotate the context of one layer into the window, [B, T * S, H, D] each."""
        tokens, turn, v = self.geometry.tokens_per_frame, self._context_turn, into_v
        if self._frames is None:
            k = torch.empty_like(into_k)
        else:
            k = self.store.k[layer].index_select(1, self._frames).flatten(1, 2)
            torch.index_select(self.store.v[layer], 1, self._frames, out=v.unflatten(1, (-1, tokens)))
        for slot, name in self._named:
            span = slice(slot * tokens, (slot + 1) * tokens)
            k[:, span], v[:, span], places = self.store.named(layer, name)
            if places is not None:
                turn = self._replace(turn, span, places)
        if self._selection is not None:
            turn = self._select(layer, self._selection, q, k, v, turn)
        if self._faded and (weights := self.memory.weights(layer, self.plan)) is not None:
            faded = self._faded * tokens
            k[:, :faded] *= weights[..., None, None].to(k.dtype)
            v[:, :faded] *= weights[..., None, None].to(v.dtype)
        rope.rotate_into(into_k, k, turn)

    def _replace(self, turn: Tensor, span: slice, places: Tensor) -> Tensor:
        """The context's rotation [B, N, C], with the tokens of `span` rotated by their own places [B, K]."""
        tokens, width, head_dim = self.geometry.tokens_per_frame, self.geometry.grid_width, self.geometry.head_dim
        own = self._positions[span.start // tokens : span.stop // tokens].repeat_interleave(tokens)
        turn = turn.expand(self.store.batch, -1, -1).clone()
        turn[:, span] = rope.place_table(places, own, width, tokens, head_dim)
        return turn

    def _select(self, layer: int, selection: Selection, q: Tensor, k: Tensor, v: Tensor, turn: Tensor) -> Tensor:
        """Write the selected tokens into their slots; returns the context's rotation, [N, C] or [B, N, C]."""
        tokens, chosen = self.geometry.tokens_per_frame, self._chosen[layer]
        if chosen is None:
            chosen = self._choose(layer, selection, q)
        span = slice(self._selected * tokens, (self._selected + selection.frames) * tokens)
        states = chosen.states
        if states is None:
            assert chosen.slots is not None
            states = self.store.tokens(layer, chosen.slots)
        k[:, span], v[:, span] = states
        return turn if chosen.places is None else self._replace(turn, span, chosen.places + selection.shift * tokens)

    def _choose(self, layer: int, selection: Selection, q: Tensor) -> Chosen:
        """The block's selection of one layer; a shared window selects once and writes the tokens again in every pass."""
        store, tokens = self.store, self.geometry.tokens_per_frame
        index_BK = self.memory.select(layer, self.plan, q)
        if self.on_select is not None:
            self.on_select(layer, self.plan, index_BK)
        frames = [source for source in selection.candidates if isinstance(source, int)]
        slots = None
        if len(frames) == len(selection.candidates):
            slots = store.index(frames)[index_BK.div(tokens, rounding_mode="floor")] * tokens + index_BK % tokens
            states = store.tokens(layer, slots)
        else:
            every = index_BK[..., None, None].expand(-1, -1, *q.shape[-2:])
            k, v = (part.flatten(1, 2).gather(1, every) for part in store.sources(layer, selection.candidates))
            states = k, v
        places = None
        if selection.own_spatial:
            places = store.places(layer, selection.candidates).gather(1, index_BK)
            self.memory.selected(layer, self.plan, index_BK, *states, places)
        if self.shared:
            self._chosen[layer] = Chosen(slots, None if slots is not None else states, places)
        return Chosen(slots, states, places)
