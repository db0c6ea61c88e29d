"""Raw keys and values by latent frame, preallocated: what plans refer to by number, and a few stored memories by name.

Shapes: B batch, T frames, S tokens of a frame, H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from echo.geometry import Geometry

LayerStates = Sequence[tuple[Tensor, Tensor]]
"""Keys and values [B, S, H, D] of one frame for each layer."""


class FrameStore:
    """Slots for `capacity` frames in each layer, keys as they are before RoPE. Frames come and go by number on the host."""

    def __init__(self, geometry: Geometry, capacity: int, batch: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.geometry, self.batch, self.device = geometry, batch, device
        shape = (geometry.layers, batch, capacity, geometry.tokens_per_frame, geometry.heads, geometry.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.named: dict[str, LayerStates] = {}
        self._slot: dict[int, int] = {}
        self._free = list(range(capacity))
        self._index: dict[tuple[int, ...], Tensor] = {}

    @property
    def bytes(self) -> int:
        """Size of the preallocated part."""
        return 2 * self.k.numel() * self.k.element_size()

    def admit(self, frames: Iterable[int]) -> None:
        """Give each new frame a slot. The capacity is the policy's promise."""
        for frame in frames:
            assert self._free, f"the store is full: {sorted(self._slot)} and now {frame}"
            self._slot[frame] = self._free.pop()

    def release(self, keep: frozenset[int | str]) -> None:
        """Forget all frames and memories outside `keep`."""
        for frame in [frame for frame in self._slot if frame not in keep]:
            self._free.append(self._slot.pop(frame))
        for name in [name for name in self.named if name not in keep]:
            del self.named[name]
        self._index.clear()

    def index(self, frames: Sequence[int]) -> Tensor:
        """Slot numbers of frames, [T]; made once per block, shared by all layers."""
        key = tuple(frames)
        if key not in self._index:
            self._index[key] = torch.tensor([self._slot[frame] for frame in key], device=self.device)
        return self._index[key]

    def write(self, layer: int, frames: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Store a block's keys and values [B, T * S, H, D]."""
        index, shape = self.index(frames), (self.batch, len(frames), -1, *k.shape[-2:])
        self.k[layer].index_copy_(1, index, k.reshape(shape))
        self.v[layer].index_copy_(1, index, v.reshape(shape))

    def frames(self, layer: int, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of frames, [B, T, S, H, D] each."""
        index = self.index(frames)
        return self.k[layer].index_select(1, index), self.v[layer].index_select(1, index)

    def keys(self, layer: int, source: int | str) -> Tensor:
        """Keys of one frame or memory, [B, S, H, D]."""
        return self.named[source][layer][0] if isinstance(source, str) else self.k[layer][:, self._slot[source]]

    def remember(self, name: str, states: LayerStates) -> None:
        """Keep a frame's worth of keys and values under a name."""
        self.named[name] = states
