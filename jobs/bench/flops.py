"""Operations of the network by formula, and peak rates of devices: pure arithmetic, no torch.

A multiplication and its addition count as two. Counted are the linear layers and the two attention products, as in
`torch.utils.flop_counter`; norms, rotations and the sampler are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from echo.backbone.sizes import WanConfig
from echo.geometry import PATCH, Geometry

PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H200", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("RTX 4090", 165.2),
    ("RTX A6000", 154.8),
)
"""Dense bf16 TFLOP/s with fp32 sums from the makers' data sheets, by a part of the device's name; the first match counts.
The plain H100 is the SXM one ("NVIDIA H100 80GB HBM3")."""


@dataclass(frozen=True)
class Operations:
    """Operations by part of the network."""

    linear: int = 0
    self_attention: int = 0
    cross_attention: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.self_attention + self.cross_attention


def block(config: WanConfig, geometry: Geometry, attended_frames: float, steps: int = 4, batch: int = 1) -> Operations:
    """A block with texts of full length: `steps` denoising passes and a clean one, whose flow is unused, so that it skips the last
    layer's self-attention. attended_frames: frames that queries attend to, the block's own included; the mean if heads are in groups."""
    dim, tokens, keys = config.dim, geometry.block_tokens, attended_frames * geometry.tokens_per_frame
    layer = 2 * dim * dim * 6 + 4 * dim * config.ffn_dim  # q, k, v, o; cross q, o; up and down
    ends = 2 * dim * PATCH[1] * PATCH[2] * (config.in_channels + config.out_channels)
    queries = batch * tokens * (steps + 1)
    return Operations(
        linear=queries * (config.layers * layer + ends),
        self_attention=round((queries * config.layers - batch * tokens) * 4 * keys * dim),
        cross_attention=queries * config.layers * 4 * config.text_len * dim,
    )


def peak_tflops(device_name: str, dtype: str) -> float | None:
    """Peak TFLOP/s in bf16 of a device with this name; None for another type, an unlisted device or a CPU."""
    if dtype != "bfloat16":
        return None
    return next((peak for part, peak in PEAK_TFLOPS if part.lower() in device_name.lower()), None)
