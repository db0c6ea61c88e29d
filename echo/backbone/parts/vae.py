"""Wan2.1's codec: the decoder of diffusers' AutoencoderKLWan, one latent frame after another.

Every causal convolution keeps its last two input frames between calls, so that decoding block by block equals decoding
at once bit for bit, and memory does not grow with the video's length. Only the decoder is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from echo.backbone.checkpoints.headers import Shape
from echo.backbone.checkpoints.layout import Layout, fill, module_shapes, open_layout
from echo.backbone.checkpoints.weights import CODEC, Weights
from echo.backbone.extras import need
from echo.backbone.finite import Finite
from echo.backbone.sizes import CODECS, CodecSizes
from echo.refusals import one_of, reading

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503,
    -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251,
    1.9160,
)  # fmt: skip
"""For each latent channel: the network works on (latent - mean) / std (Wan2.1's own constants)."""

CONSTANTS = {"latents_mean": LATENT_MEAN, "latents_std": LATENT_STD}
"""By their names in diffusers' config."""
CHANNELS = len(LATENT_MEAN)


class WanCodec:
    """The `Codec` of a Wan2.1 backbone (echo.backbone.interface): latents [B, F, 16, h, w] to frames of 8h x 8w pixels."""

    first_frames = 1
    """Pixel frames of a video's first latent frame; every later one has four."""

    def __init__(self, decoder: nn.Module, entry: nn.Module, mean: Tensor, std: Tensor) -> None:
        """decoder, entry: `decoder` and `post_quant_conv` of an AutoencoderKLWan; mean, std: [16] of the latents."""
        self.decoder, self.entry = (part.eval().requires_grad_(False) for part in (decoder, entry))
        weight: Any = entry.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.mean, self.std = (value.float().to(self.device).reshape(1, -1, 1, 1, 1) for value in (mean, std))
        causal = need("diffusers.models.autoencoders.autoencoder_kl_wan").WanCausalConv3d
        self.memories = sum(isinstance(part, causal) for part in decoder.modules())
        """Convolutions that remember frames."""

    @classmethod
    def load(cls, path: Path, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> WanCodec:
        """The codec of Wan2.1_VAE.pth, of a safetensors file in its layout or diffusers', or of diffusers' folder.

        Raises ValueError for a missing or foreign file.
        """
        layout, decoder, entry = _fitting(path)
        fill(decoder, "decoder.", layout, dtype, device)
        fill(entry, "post_quant_conv.", layout, dtype, device)
        return cls(decoder, entry, *_constants(layout.weights))

    @classmethod
    def random(cls, size: str, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> WanCodec:
        """A codec with fixed random weights: "tiny" for tests, "native" in full size."""
        one_of(f"random codec {size!r}", size, CODECS)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            decoder, entry = _parts(CODECS[size], meta=False)
        return cls(decoder.to(device, dtype), entry.to(device, dtype), torch.tensor(LATENT_MEAN), torch.tensor(LATENT_STD))

    def stream(self) -> LatentStream:
        """Start a batch of videos, whose pixels are fp32 [B, 3, T, 8H, 8W] from -1 to 1."""
        return LatentStream(partial(self._frames, [None] * self.memories), -1, to_bytes)

    def _frames(self, memory: list[Any], latent: Tensor, first: bool) -> Tensor:
        latent = (latent.to(self.device).float().unsqueeze(2) * self.std + self.mean).to(self.dtype)
        # The decoder counts its convolutions in the second list, to find the memory of each in the first.
        out: Tensor = self.decoder(self.entry(latent), feat_cache=memory, feat_idx=[0], first_chunk=first)
        return out


class LatentStream:
    """One batch of videos that is being decoded, latent frame after latent frame."""

    def __init__(self, frames: Callable[[Tensor, bool], Tensor], black: float, to_bytes: Callable[[Tensor], Tensor]) -> None:
        """frames: decodes a latent frame [B, C, H, W], given whether it is the first; its pixels are clamped to `black`..1.
        to_bytes: from such pixels to [B, T, 8H, 8W, 3].
        """
        self._frames, self._black, self._to_bytes = frames, black, to_bytes
        self.finite = Finite()
        self._shape: tuple[int, ...] | None = None

    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        """The next frames of all videos, uint8 [B, T, 8H, 8W, 3] on the codec's device: four for each latent frame, one for
        the very first. Raises ValueError for another number of channels, or of videos or cells than before.
        """
        return torch.cat([self._to_bytes(frames) for frames in self.pixels(latents_BFCHW)], 1)

    @torch.no_grad()
    def pixels(self, latents_BFCHW: Tensor) -> Iterator[Tensor]:
        """The frames of each latent frame before rounding; raises like `decode`."""
        first = self._shape is None
        self._shape = same_shape(latents_BFCHW, self._shape)
        for latent in latents_BFCHW.unbind(1):
            frames = self._frames(latent, first)
            self.finite.see(frames)
            yield frames.float().clamp(self._black, 1)
            first = False


def check(path: Path, *, whole: bool = False) -> None:
    """Check a codec's file by its header, or completely. Raises ValueError like `WanCodec.load`."""
    _constants(_fitting(path, whole)[0].weights)


def same_shape(latents: Tensor, before: tuple[int, ...] | None) -> tuple[int, ...]:
    """Shape [B, C, H, W] of latents [B, F, C, H, W]. Raises ValueError if it differs from the stream's."""
    batch, length, channels, height, width = latents.shape
    shape = (batch, channels, height, width)
    if channels != CHANNELS or length == 0:
        raise ValueError(
            f"latents of {length} frames and {channels} channels; Wan2.1's codecs take {CHANNELS} channels, and a frame or more"
        )
    if before not in (None, shape):
        raise ValueError(f"latents {list(shape)} follow {list(before or ())}; a stream decodes one batch of videos, so start another one")
    return shape


def to_bytes(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] of `frames` [B, 3, T, H, W] from -1 to 1, rounded to the nearest."""
    return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1)


def _parts(sizes: CodecSizes, *, meta: bool = True) -> tuple[nn.Module, nn.Module]:
    """`decoder` and `post_quant_conv` of an AutoencoderKLWan of this size, by default on the meta device."""
    module = need("diffusers.models.autoencoders.autoencoder_kl_wan")
    with torch.device("meta" if meta else "cpu"):
        entry: nn.Module = module.WanCausalConv3d(sizes.channels, sizes.channels, 1)
        decoder: nn.Module = module.WanDecoder3d(
            dim=sizes.base, z_dim=sizes.channels, dim_mult=list(sizes.multipliers), num_res_blocks=sizes.res_blocks, attn_scales=[],
            temperal_upsample=list(sizes.temporal),
        )  # fmt: skip
    return decoder, entry


def _fitting(path: Path, whole: bool = False) -> tuple[Layout, nn.Module, nn.Module]:
    """A file that fits, and the two modules of its size on the meta device. Raises ValueError like `WanCodec.load`."""
    layout = open_layout(path, CODEC, need("diffusers.loaders.single_file_utils").convert_wan_vae_to_diffusers)
    (base,) = layout.shapes.get("decoder.norm_out.gamma", (CodecSizes.base, 1, 1, 1))[:1]
    decoder, entry = _parts(CodecSizes(base=base))
    layout.check("the VAE of Wan2.1", _expected(decoder, entry), beside=("encoder.", "quant_conv."), whole=whole)
    return layout, decoder, entry


def _expected(decoder: nn.Module, entry: nn.Module) -> dict[str, Shape]:
    parts = (("decoder.", decoder), ("post_quant_conv.", entry))
    return {prefix + name: shape for prefix, part in parts for name, shape in module_shapes(part).items()}


def _constants(weights: Weights) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of latents: those of a folder's config if it has them, else Wan2.1's."""
    with reading(weights.path, f"its config.json needs latents_mean and latents_std of {CHANNELS} numbers each"):
        mean, std = (torch.tensor(weights.said.get(name, usual), dtype=torch.float32) for name, usual in CONSTANTS.items())
        if len(mean) != CHANNELS or len(std) != CHANNELS:
            counts = f"{len(mean)} means and {len(std)} deviations"
            raise ValueError(f"{weights.path}/config.json: {counts}; the VAE of Wan2.1 has {CHANNELS} channels")
        if not (mean.isfinite().all() and std.isfinite().all() and std.min() > 0):
            raise ValueError(f"{weights.path}/config.json: latents_mean and latents_std must be numbers, deviations above 0")
    return mean, std
