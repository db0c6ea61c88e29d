"""Sizes of Wan2.1 backbones, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from echo.geometry import PATCH, Geometry
from echo.scene import FRAMES_PER_BLOCK

CELL_PX = 8
"""Pixels on a side of a latent cell of Wan's codec."""


@dataclass(frozen=True)
class WanConfig:
    """Sizes of the network; the defaults are Wan2.1-T2V-1.3B."""

    dim: int = 1536
    ffn_dim: int = 8960
    heads: int = 12
    layers: int = 30
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    in_channels: int = 16
    out_channels: int = 16
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @classmethod
    def from_weights(cls, shapes: Mapping[str, tuple[int, ...]], *, heads: int, text_len: int) -> WanConfig:
        """All sizes by the checkpoint's shapes, except the number of heads and of text rows, which the shapes do not show."""
        dim = shapes["patch_embedding.weight"][0]
        if dim % heads:
            raise ValueError(f"heads {heads}: must divide the checkpoint's width {dim}")
        return cls(
            dim=dim,
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            heads=heads,
            layers=1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
            freq_dim=shapes["time_embedding.0.weight"][1],
            text_dim=shapes["text_embedding.0.weight"][1],
            text_len=text_len,
            in_channels=shapes["patch_embedding.weight"][1],
            out_channels=shapes["head.head.weight"][0] // (PATCH[1] * PATCH[2]),
        )


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a UMT5 encoder; the defaults are those of XXL."""

    vocabulary: int = 256384
    width: int = 4096
    heads: int = 64
    head_dim: int = 64
    ffn: int = 10240
    layers: int = 24
    buckets: int = 32


RANDOM_TEXT = {
    "tiny": TextSizes(vocabulary=512, width=32, heads=4, head_dim=8, ffn=64, layers=2),
    "native": TextSizes(vocabulary=4096, layers=2),
}
"""Text encoders with random weights."""


@dataclass(frozen=True)
class CodecSizes:
    """Sizes of Wan2.1's decoder; the defaults are the released ones.

    base: channels at full resolution. multipliers: factors of channels of the levels, the finest first. temporal: which of the
    doublings in space also double time.
    """

    base: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    channels: int = 16
    temporal: tuple[bool, ...] = (True, True, False)


CODECS = {"tiny": CodecSizes(base=4), "native": CodecSizes()}
"""Wan2.1 decoders with random weights."""


@dataclass(frozen=True)
class TaehvSizes:
    """Sizes of the small decoder; the defaults are the published ones.

    widths: channels of the three levels and after them. growth: frames that a level makes of one. blocks: blocks per level.
    """

    widths: tuple[int, ...] = (256, 128, 64, 64)
    growth: tuple[int, ...] = (1, 2, 2)
    channels: int = 16
    blocks: int = 3


SMALL_CODECS = {"tiny": TaehvSizes(widths=(16, 8, 8, 8)), "native": TaehvSizes()}
"""Small decoders with random weights."""


@dataclass(frozen=True)
class Size:
    """A network's sizes and the size of its frames in pixels (tiny: frames that a CPU makes in seconds)."""

    network: WanConfig
    height_px: int
    width_px: int


SIZES = {
    "native": Size(WanConfig(), 480, 832),
    "tiny": Size(WanConfig(dim=48, ffn_dim=96, heads=2, layers=2, freq_dim=32, text_dim=32), 64, 96),
}


def geometry(network: WanConfig, height_px: int, width_px: int, window_frames: int, frames_per_block: int = FRAMES_PER_BLOCK) -> Geometry:
    """Geometry of a network at a frame size."""
    rows, columns = (px // (CELL_PX * side) for px, side in zip((height_px, width_px), PATCH[1:], strict=True))
    return Geometry(
        network.layers, network.heads, network.head_dim, rows, columns,
        latent_channels=network.in_channels, frames_per_block=frames_per_block, window_frames=window_frames,
    )  # fmt: skip
