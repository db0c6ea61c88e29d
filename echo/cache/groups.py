"""Groups of heads that each attend to a part of the context: the layout of their keys and values in a window, and their attention.

The heads of a group lie one after another in the window's own memory, as samples of one head each. So a group may have
other heads in each sample of a batch, attention is computed once per group, and no further memory is needed.

Shapes: B batch, H heads, D head_dim, n heads of a group in all samples, T context frames, S tokens of a frame, N tokens of the block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from echo.backbone.kernels import AttentionKernel
from echo.backbone.rope import integers
from echo.cache.plan import HeadGroup


class GroupWindow(NamedTuple):
    """One group's part: slots of the context, heads [n] as sample * H + head, and keys and values, views [n, T * S + N, D]."""

    slots: tuple[int, ...]
    heads: Tensor
    k: Tensor
    v: Tensor


class GroupWindows:
    """The groups of one layer in its window: the context is written first, then in each pass the block after it."""

    def __init__(self, groups: Sequence[HeadGroup], heads: Sequence[Tensor], k: Tensor, v: Tensor, tokens: int, own: int) -> None:
        """Divide a layer's window among the groups that have heads in it.

        Args:
            groups: of the plan.
            heads: of each of them.
            k, v: the window, [B, tokens, H, D] each.
            tokens: tokens per frame.
            own: tokens of the block itself.
        """
        self.tokens, self.windows, start = tokens, list[GroupWindow](), 0
        assert sum(map(len, heads)) == k.shape[0] * k.shape[2], "every head is in one group"
        for group, rows in zip(groups, heads, strict=True):
            shape = len(rows), len(group.slots) * tokens + own, k.shape[-1]
            stop = start + shape[0] * shape[1]
            if len(rows):
                self.windows.append(GroupWindow(group.slots, rows, *(x.view(-1, shape[2])[start:stop].view(shape) for x in (k, v))))
            start = stop

    def lay_context(self, k: Tensor, v: Tensor) -> None:
        """Copy each group's slots of the whole context, rotated k and v [B, T * S, H, D]."""
        for met in self.windows:
            for place, slot, count in runs(met.slots):
                into, out_of = (slice(at * self.tokens, (at + count) * self.tokens) for at in (place, slot))
                take(k[:, out_of], met.heads, met.k[:, into])
                take(v[:, out_of], met.heads, met.v[:, into])

    def lay_own(self, k: Tensor, v: Tensor) -> None:
        """Copy the block's rotated keys and its values [B, N, H, D] behind each group's context."""
        for met in self.windows:
            take(k, met.heads, met.k[:, -k.shape[1] :])
            take(v, met.heads, met.v[:, -v.shape[1] :])

    def answer(self, attention: AttentionKernel, q: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention of the block's rotated queries [B, N, H, D], each head over its group's part; the same shape.

        bias: added to the logits of the whole context and the block, [1, 1, 1, T * S + N].
        """
        batch, tokens, heads, size = q.shape
        out = q.new_empty(batch * heads, tokens, size)
        for met in self.windows:
            asked = take(q, met.heads, q.new_empty(len(met.heads), tokens, size))
            added = () if bias is None else (self._added(met, bias),)
            out.index_copy_(0, met.heads, attention(*(x.unsqueeze(2) for x in (asked, met.k, met.v)), *added).squeeze(2))
        return out.unflatten(0, (batch, heads)).transpose(1, 2)

    def _added(self, met: GroupWindow, bias: Tensor) -> Tensor:
        """The bias of a group's keys."""
        own = met.k.shape[1] - len(met.slots) * self.tokens
        spans = (bias[..., slot * self.tokens : (slot + count) * self.tokens] for _, slot, count in runs(met.slots))
        return torch.cat([*spans, bias[..., -own:]], -1)


def members(kinds: Iterable[Sequence[int]], count: int, device: torch.device) -> list[list[Tensor]]:
    """Index sets of `count` groups in each layer, from each head's group number, sample after sample."""
    return [[integers([place for place, kind in enumerate(row) if kind == group], device) for group in range(count)] for row in kinds]


def runs(slots: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of consecutive slots: (index of the first in `slots`, the first slot, length).

    >>> runs((0, 2, 3))
    [(0, 0, 1), (1, 2, 2)]
    """
    together = [list(members) for _, members in groupby(enumerate(slots), lambda member: member[1] - member[0])]
    return [(*members[0], len(members)) for members in together]


def take(x: Tensor, heads: Tensor, into: Tensor) -> Tensor:
    """Copy heads [n] of `x` [B, N, H, D] to `into` [n, N, D]."""
    return torch.index_select(x.transpose(1, 2).flatten(0, 1), 0, heads, out=into)
