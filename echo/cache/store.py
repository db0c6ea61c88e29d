"""Raw keys and values, preallocated by latent frame, and a few memories by name.

Shapes: B batch, T frames, S tokens of a frame, K single tokens, H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from echo.backbone.rope import integers
from echo.cache.kinds import MemoryName, Source
from echo.geometry import Geometry


class Named(NamedTuple):
    """One frame's worth of tokens of one layer under a name: raw k, v [B, S, H, D].

    places [B, S] if the tokens come from several frames: frame * tokens_per_frame + raster place of each.
    """

    k: Tensor
    v: Tensor
    places: Tensor | None = None


class FrameStore:
    """Slots for `capacity` frames in each layer, with keys before RoPE. The host admits and releases frames by number."""

    def __init__(self, geometry: Geometry, capacity: int, batch: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.geometry, self.batch, self.device = geometry, batch, device
        shape = (geometry.layers, batch, capacity, geometry.tokens_per_frame, geometry.heads, geometry.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self._named: dict[MemoryName, dict[int, Named]] = {}
        self._slot: dict[int, int] = {}
        self._free = list(range(capacity))
        self._index: dict[tuple[int, ...], Tensor] = {}
        self._raster = torch.arange(geometry.tokens_per_frame, device=device)

    @property
    def bytes(self) -> int:
        """Size of the preallocated part."""
        return 2 * self.k.numel() * self.k.element_size()

    def admit(self, frames: Iterable[int]) -> None:
        """Give each new frame a slot."""
        for frame in frames:
            assert self._free, f"the store is full: {sorted(self._slot)} and now {frame}"
            self._slot[frame] = self._free.pop()

    def turn_over(self, frames: Iterable[int], keep: frozenset[Source]) -> None:
        """Give new frames the slots of frames outside `keep`.

        Their old content can be read through an index that was made before, until `write` overwrites it; memories stay.
        """
        self._release_frames(keep)
        self.admit(frames)

    def release(self, keep: frozenset[Source]) -> None:
        """Forget all frames and memories outside `keep`."""
        self._release_frames(keep)
        for name in [name for name in self._named if name not in keep]:
            del self._named[name]

    def _release_frames(self, keep: frozenset[Source]) -> None:
        for frame in [frame for frame in self._slot if frame not in keep]:
            self._free.append(self._slot.pop(frame))
        self._index.clear()

    def index(self, frames: Sequence[int]) -> Tensor:
        """Slot numbers of frames, [T]; made once per block and shared by all layers."""
        key = tuple(frames)
        if key not in self._index:
            self._index[key] = integers([self._slot[frame] for frame in key], self.device)
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

    def tokens(self, layer: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of single tokens, [B, K, H, D] each; places [B, K] = slot * tokens_per_frame + raster place."""
        every = places[..., None, None].expand(-1, -1, *self.k.shape[-2:])
        return self.k[layer].flatten(1, 2).gather(1, every), self.v[layer].flatten(1, 2).gather(1, every)

    def sources(self, layer: int, sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
        """Keys and values of memories, then frames, [B, T, S, H, D] each."""
        names = [source for source in sources if isinstance(source, MemoryName)]
        k, v = self.frames(layer, [source for source in sources if isinstance(source, int)])
        if not names:
            return k, v
        states = [self.named(layer, name) for name in names]
        named_k, named_v = torch.stack([state.k for state in states], 1), torch.stack([state.v for state in states], 1)
        return torch.cat([named_k, k], 1), torch.cat([named_v, v], 1)

    def places(self, layer: int, sources: Sequence[Source]) -> Tensor:
        """Place of every token of memories and frames, [B, T * S]: frame * tokens_per_frame + raster place."""
        rows = []
        for source in sources:
            own = self.named(layer, source).places if isinstance(source, MemoryName) else source * len(self._raster) + self._raster
            assert own is not None, f"memory {source} is of no frame: its tokens have no place of their own"
            rows.append(own.expand(self.batch, -1))
        return torch.cat(rows, 1)

    def keys(self, layer: int, source: Source) -> Tensor:
        """Keys of one frame or memory, [B, S, H, D]."""
        return self.named(layer, source).k if isinstance(source, MemoryName) else self.k[layer][:, self._slot[source]]

    def named(self, layer: int, name: MemoryName) -> Named:
        """A memory of one layer."""
        return self._named[name][layer]

    @property
    def size(self) -> int:
        """Latent frames and memories that are kept."""
        return len(self._slot) + len(self._named)

    def count(self, keep: frozenset[Source]) -> int:
        """How many of the latent frames that are kept are among these."""
        return sum(frame in keep for frame in self._slot)

    def holds(self, frame: int) -> bool:
        """Whether a latent frame is kept."""
        return frame in self._slot

    def knows(self, name: MemoryName) -> bool:
        """Whether a memory of this name is kept."""
        return name in self._named

    def remember(self, name: MemoryName, layer: int, state: Named) -> None:
        """Keep a frame's worth of keys and values under a name, in place of what the name held."""
        self._named.setdefault(name, {})[layer] = state
