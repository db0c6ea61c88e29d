"""TAEHV: a small, fast decoder of Wan2.1's latents.

O. Boer Bohan, github.com/madebyollin/taehv, weights taew2_1.pth. By its repository and two independent ports, a block reads its
input of this frame and of the frame before (zeros before the first); latents are used as the network makes them, without mean and
standard deviation; colours go from 0 to 1; a video's first three frames are dropped, so that it has as many frames as Wan's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.backbone.checkpoints.layout import Layout, fill, module_shapes, open_layout
from echo.backbone.checkpoints.weights import SMALL_CODEC
from echo.backbone.parts.vae import LatentStream
from echo.backbone.sizes import SMALL_CODECS, TaehvSizes
from echo.refusals import one_of

LIMIT = 3.0
"""Latents are squashed to this range before the first convolution."""

Memory = dict[nn.Module, Tensor]
"""The last input frame [B, 1, C, H, W] of each `Remembering` block."""


class Bend(nn.Module):
    """Squashes latents to `LIMIT`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / LIMIT) * LIMIT


class Grow(nn.Module):
    """Frames [B * T, C, H, W] to [B * T * growth, C, H, W], by splitting channels into frames."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(-1, *x.shape[1:])


class Remembering(nn.Module):
    """A block on frames [B, T, C, H, W], each of which reads the one before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, frames: Tensor, before: Tensor) -> Tensor:
        """Frames [B * T, C, H, W]; before [B, 1, C, H, W]."""
        x, past = frames.flatten(0, 1), torch.cat([before, frames[:, :-1]], 1).flatten(0, 1)
        return F.relu(self.conv(torch.cat([x, past], 1)) + x)


class TaehvDecoder(nn.Module):
    """The decoder under the names of the published file, whose numbers include layers without weights."""

    def __init__(self, sizes: TaehvSizes = SMALL_CODECS["native"]) -> None:
        super().__init__()
        widths = sizes.widths
        layers: list[nn.Module] = [Bend(), _conv(sizes.channels, widths[0]), nn.ReLU()]
        for width, growth, narrow in zip(widths, sizes.growth, widths[1:]):
            layers += [*(Remembering(width) for _ in range(sizes.blocks)), nn.Upsample(scale_factor=2.0), Grow(width, growth)]
            layers.append(_conv(width, narrow, bias=False))
        self.decoder = nn.Sequential(*layers, nn.ReLU(), _conv(widths[-1], 3))

    def forward(self, latent: Tensor, memory: Memory) -> Tensor:
        """Frames [B, 4, 3, 8H, 8W] of one latent frame [B, 16, H, W], black at 0 and white at 1. `memory` is empty before a video's
        first frame, and is updated in place.
        """
        x, batch = latent, len(latent)
        for layer in self.decoder:
            if isinstance(layer, Remembering):
                frames = x.unflatten(0, (batch, -1))
                before = memory.get(layer, torch.zeros_like(frames[:, :1]))
                memory[layer] = frames[:, -1:].clone()
                x = layer(frames, before)
            else:
                x = layer(x)
        return x.unflatten(0, (batch, -1))


class TaehvCodec:
    """The `Codec` (echo.backbone.interface) of the small decoder."""

    first_frames = 1
    """Pixel frames of a video's first latent frame; every later one has four."""

    def __init__(self, decoder: TaehvDecoder) -> None:
        self.decoder = decoder.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> TaehvCodec:
        """The codec of taew2_1.pth or of the same tensors in a safetensors file. Raises ValueError for a missing or foreign file."""
        layout, decoder = check(path)
        fill(decoder, "", layout, dtype, device)
        return cls(decoder)

    @classmethod
    def random(cls, size: str = "native", *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> TaehvCodec:
        """A codec with random weights, always the same ones: "tiny" for tests, "native" of the published size."""
        one_of(f"random codec {size!r}", size, SMALL_CODECS)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            decoder = TaehvDecoder(SMALL_CODECS[size])
            # Centre colours at grey, or half of them would be clipped at black.
            decoder.get_parameter("decoder.22.bias").add_(0.5)
        return cls(decoder.to(device, dtype))

    def stream(self) -> LatentStream:
        """Start a batch of videos, whose pixels are fp32 [B, T, 3, 8H, 8W] from 0 to 1."""
        return LatentStream(partial(self._frames, {}), 0, lambda frames: (frames * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2))

    def _frames(self, memory: Memory, latent: Tensor, first: bool) -> Tensor:
        weight = self.decoder.get_parameter("decoder.1.weight")
        frames: Tensor = self.decoder(latent.to(weight.device, weight.dtype), memory)
        # Its authors drop a video's first frames, which Wan's codec does not have.
        return frames[:, -self.first_frames :] if first else frames


def check(path: Path, *, whole: bool = False) -> tuple[Layout, TaehvDecoder]:
    """Check a codec's file by its header, or completely; returns the file and a decoder on the meta device. Raises like `load`."""
    layout = open_layout(path, SMALL_CODEC)
    ends = zip((1, 8, 14, 20), TaehvSizes.widths, strict=True)
    widths = tuple(layout.shapes.get(f"decoder.{number}.weight", (wide,))[0] for number, wide in ends)
    with torch.device("meta"):
        decoder = TaehvDecoder(TaehvSizes(widths))
    layout.check("a TAEHV decoder of Wan2.1 (taew2_1.pth)", module_shapes(decoder), beside=("encoder.",), whole=whole)
    return layout, decoder


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
