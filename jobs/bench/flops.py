"""Operations that the network takes, by formula, and what a device could do: pure arithmetic, no torch.

A multiplication and its addition count as two. Counted are the linear layers and the two attention products, as
`torch.utils.flop_counter` counts them; norms, rotations and the sampler are left out.
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
"""Dense bf16 TFLOP/s with fp32 sums from the makers' data sheets, by a part of the device's name; the first that fits counts.
The plain H100 is the SXM one ("NVIDIA H100 80GB HBM3")."""


@dataclass(frozen=True)
class Operations:
    """Operations by what asks for them."""

    linear: int = 0
    self_attention: int = 0
    cross_attention: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.self_attention + self.cross_attention

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.linear + other.linear, self.self_attention + other.self_attention, self.cross_attention + other.cross_attention
        )  # fmt: skip

    def __mul__(self, times: int) -> Operations:
        return Operations(self.linear * times, self.self_attention * times, self.cross_attention * times)


def one_pass(config: WanConfig, tokens: int, keys: int, *, flow: bool = True) -> Operations:
    """A forward of `tokens` queries over `keys` keys (both of one prompt) under a text of full length.

    flow: whether anybody reads the flow; a clean pass and a recache ask nothing of the last layer's self-attention.
    """
    dim, cell = config.dim, PATCH[1] * PATCH[2]
    layer = 2 * dim * dim * 6 + 4 * dim * config.ffn_dim  # q, k, v, o; cross q, o; up and down
    ends = 2 * dim * cell * (config.in_channels + config.out_channels)
    asked = config.layers if flow else config.layers - 1
    return Operations(
        linear=tokens * (config.layers * layer + ends),
        self_attention=asked * 4 * tokens * keys * dim,
        cross_attention=config.layers * 4 * tokens * config.text_len * dim,
    )


def block(config: WanConfig, geometry: Geometry, attended_frames: int, steps: int = 4, batch: int = 1) -> Operations:
    """A block: `steps` denoising passes and a clean one. attended_frames: frames that queries see, the block's own among them."""
    tokens, keys = geometry.block_tokens, attended_frames * geometry.tokens_per_frame
    return (one_pass(config, tokens, keys) * steps + one_pass(config, tokens, keys, flow=False)) * batch


def peak_tflops(device_name: str, dtype: str) -> float | None:
    """What a device of this name can do in bf16; None for another type, a device that is not listed, or a processor."""
    if dtype != "bfloat16":
        return None
    return next((peak for part, peak in PEAK_TFLOPS if part.lower() in device_name.lower()), None)
