"""Settings of Echo-Forcing's memories, checked at birth. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from echo.refusals import positive, within


class CompressedPosition(StrEnum):
    """RoPE index of compressed tokens.

    slot: raster places of the compressed slots by rank (released code). own_spatial: slot in time, own row and column.
    current_time: the block's own time index, own row and column (appendix C.2).
    """

    slot = "slot"
    own_spatial = "own_spatial"
    current_time = "current_time"


class Encoding(StrEnum):
    """Temporal indices: by slot in a bounded window (C.5, eq. 28), or each frame's own number, as LongLive was trained."""

    relative = "relative"
    native = "native"


class ChainSource(StrEnum):
    """Scene whose recall frame a smooth transition carries: the head of the smooth chain, or the scene before."""

    chain_head = "chain_head"
    previous = "previous"


class Fusion(StrEnum):
    """What a scene leaves behind: candidates fused place by place (eq. 9), the one that scores best as a whole, or nothing.

    The scene's first frame alone is `soft` with base_weight 1.
    """

    soft = "soft"
    crucial = "crucial"
    none = "none"


class RecallPart(StrEnum):
    """Frames of a scene that its recall frame is fused from: its first ones, or its stable part (blocks 2 to 6)."""

    first = "first"
    stable = "stable"


class DecayMap(StrEnum):
    """Interpolate the retention rho = exp(-mu) or the forgetting strength mu (eq. 12) over the discrepancy."""

    rho = "rho"
    mu = "mu"


class Discrepancy(StrEnum):
    """Compare the recall frame alone and tile the result over all old frames (released code), or every old frame."""

    tiled = "tiled"
    per_frame = "per_frame"


@dataclass(frozen=True)
class RecallFrame:
    """Scene recall frames (3.2). `base_weight`: share of the first candidate that is kept beside the fusion (released: 0.9)."""

    fusion: Fusion = Fusion.soft
    part: RecallPart = RecallPart.first
    count: int = 3
    stride: int = 4
    base_weight: float = 0.9

    def __post_init__(self) -> None:
        positive(self, "count", "stride")
        within("recall_frame.base_weight", self.base_weight, 0.0, 1.0)

    def candidates(self, scene_frames: int) -> tuple[int, ...]:
        """Frames of a scene of `scene_frames` frames to fuse, as many as exist; the first frame where none does."""
        if self.part is RecallPart.first:
            wanted = [self.stride * i for i in range(self.count)]
        else:
            wanted = [6 + round(14 * i / max(1, self.count - 1)) for i in range(self.count)]
        return tuple(frame for frame in wanted if frame < scene_frames) or (0,)


@dataclass(frozen=True)
class Fading:
    """Old memory after a transition: frames, first weight, retention per block, life in blocks (3.3).

    old_recent: last frames of the old scene kept behind the recall frame. rho_min, rho_max: share of the weight that is
    left after a block where old and new differ most and least; equal values make the decay a fixed one.
    """

    old_recent: int = 0
    weight: float = 1.0
    rho_min: float = 0.8
    rho_max: float = 0.95
    blocks: int = 5
    map: DecayMap = DecayMap.rho
    discrepancy: Discrepancy = Discrepancy.tiled

    def __post_init__(self) -> None:
        positive(self, "blocks")
        within("old_recent", self.old_recent, 0, 3)
        if not 0 < self.rho_min <= self.rho_max <= 1:
            raise ValueError(f"rho {self.rho_min}..{self.rho_max}: 0 < rho_min <= rho_max <= 1; nearest is {self.rho_max}..{self.rho_max}")
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight {self.weight}: within 0..1, 0 excluded; nearest is 1")

    @property
    def fixed(self) -> bool:
        """The same rate everywhere: no discrepancy is needed."""
        return self.rho_min == self.rho_max
