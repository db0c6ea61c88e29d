"""TAEHV: a small decoder of Wan2.1's latents, an option for watching videos as they come.

A network of 2D convolutions (O. Boer Bohan, TAEHV, github.com/madebyollin/taehv, weights taew2_1.pth) that makes about
what Wan's VAE makes at a small part of its time and memory; scores of its frames are scores of another codec. Facts used
here, from its repository and from two independent ports of it: three levels of three blocks, each of which sees its input
of this frame beside that of the frame before (zeros before the first); a level doubles height and width, the last two
also the frames; latents come as the network makes them (no mean, no deviation); colours go from 0 to 1; and the first
three frames of a video are dropped, so that its first latent frame has one frame and every later one four, as Wan's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.backbone.layout import Layout, fill, module_shapes, open_layout
from echo.backbone.sizes import SMALL_CODECS, TaehvSizes
from echo.backbone.vae import same_shape
from echo.refusals import one_of

LIMIT = 3.0
"""Latents are bent below this size before the first convolution."""

Memory = dict[str, Tensor]


class TaehvDecoder(nn.Module):
    """The decoder under the names of the published file, whose numbers also count the layers without weights."""

    def __init__(self, sizes: TaehvSizes = SMALL_CODECS["native"]) -> None:
        super().__init__()
        self.sizes, widths = sizes, sizes.widths
        layers: dict[str, nn.Module] = {"1": _conv(sizes.channels, widths[0])}
        for level, growth in enumerate(sizes.growth):
            width, first = widths[level], 3 + 6 * level
            for number in range(first, first + sizes.blocks):
                layers[str(number)] = nn.ModuleDict({"conv": _block(width)})
            layers[str(first + 4)] = nn.ModuleDict({"conv": nn.Conv2d(width, width * growth, 1, bias=False)})
            layers[str(first + 5)] = _conv(width, widths[level + 1], bias=False)
        layers["22"] = _conv(widths[3], 3)
        self.decoder = nn.ModuleDict(layers)

    def forward(self, latent: Tensor, memory: Memory) -> Tensor:
        """Frames [B, 4, 3, 8H, 8W] from 0 to 1 of one latent frame [B, 16, H, W]; `memory` is empty before a video's first,
        and is then what the frame before left.
        """
        batch = len(latent)
        x = F.relu(self.decoder["1"](torch.tanh(latent / LIMIT) * LIMIT))
        for level, growth in enumerate(self.sizes.growth):
            first = 3 + 6 * level
            for number in range(first, first + self.sizes.blocks):
                x = self._remembering(str(number), x, batch, memory)
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self._inner(str(first + 4))(x)
            # The frames of one frame lie side by side in the channels.
            x = x.reshape(len(x) * growth, -1, *x.shape[2:])
            x = self.decoder[str(first + 5)](x)
        frames: Tensor = self.decoder["22"](F.relu(x))
        return frames.clamp(0, 1).unflatten(0, (batch, -1))

    def _remembering(self, name: str, x: Tensor, batch: int, memory: Memory) -> Tensor:
        """A block on frames [B * T, C, H, W], of which each sees the one before it; the last one is remembered."""
        frames = x.unflatten(0, (batch, -1))
        before = memory.get(name)
        before = torch.zeros_like(frames[:, :1]) if before is None else before
        past = torch.cat([before, frames[:, :-1]], 1).flatten(0, 1)
        memory[name] = frames[:, -1:].clone()
        return F.relu(self._inner(name)(torch.cat([x, past], 1)) + x)

    def _inner(self, name: str) -> nn.Module:
        inner: nn.Module = self.decoder.get_submodule(f"{name}.conv")
        return inner


class TaehvCodec:
    """The `Codec` (echo.backbone.interface) of the small decoder."""

    first_frames = 1
    """Pixel frames of a video's first latent frame; every later one has four."""

    def __init__(self, decoder: TaehvDecoder) -> None:
        self.decoder = decoder.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path, *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> TaehvCodec:
        """The codec of taew2_1.pth or of the same tensors in a safetensors file. Raises ValueError for a missing or foreign file."""
        layout, decoder = _fitting(path)
        fill(decoder, "", layout, dtype, device)
        return cls(decoder)

    @classmethod
    def random(cls, size: str = "native", *, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> TaehvCodec:
        """A codec with random weights, always the same ones: "tiny" for tests, "native" of the published size."""
        one_of(f"random codec {size!r}", size, SMALL_CODECS)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            decoder = TaehvDecoder(SMALL_CODECS[size])
            # Colours around grey: half of them would be cut off at black.
            decoder.get_parameter("decoder.22.bias").add_(0.5)
        return cls(decoder.to(device, dtype))

    def stream(self) -> TaehvStream:
        """Start a batch of videos."""
        return TaehvStream(self)


class TaehvStream:
    """One batch of videos that is being decoded."""

    def __init__(self, codec: TaehvCodec) -> None:
        self._decoder = codec.decoder
        self._memory: Memory = {}
        self._shape: tuple[int, ...] | None = None

    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        """The next frames of all videos, uint8 [B, T, 8H, 8W, 3] on the codec's device: four for each latent frame, one for
        the very first. Raises ValueError for another number of channels, or of videos or cells than before.
        """
        return torch.cat([(frames * 255).round().to(torch.uint8) for frames in self.pixels(latents_BFCHW)], 1).permute(0, 1, 3, 4, 2)

    @torch.no_grad()
    def pixels(self, latents_BFCHW: Tensor) -> Iterator[Tensor]:
        """The frames of each latent frame before they are rounded, fp32 [B, T, 3, 8H, 8W] from 0 to 1; raises as `decode` does."""
        first = self._shape is None
        self._shape = same_shape(latents_BFCHW, self._shape)
        weight = self._decoder.get_parameter("decoder.1.weight")
        for latent in latents_BFCHW.to(weight.device, weight.dtype).unbind(1):
            frames = self._decoder(latent, self._memory).float()
            # Its authors drop a video's first frames, which Wan's codec does not have.
            yield frames[:, -TaehvCodec.first_frames :] if first else frames
            first = False


def check(path: Path) -> None:
    """Judge a codec's file by its header. Raises ValueError as `TaehvCodec.load` does."""
    _fitting(path)


def _fitting(path: Path) -> tuple[Layout, TaehvDecoder]:
    """A file that fits, and a decoder of its size without memory. Raises ValueError as `TaehvCodec.load` does."""
    layout = open_layout(path, ())
    ends = zip((1, 8, 14, 20), TaehvSizes.widths, strict=True)
    widths = tuple(layout.shapes.get(f"decoder.{number}.weight", (wide,))[0] for number, wide in ends)
    with torch.device("meta"):
        decoder = TaehvDecoder(TaehvSizes(widths))
    layout.check("a TAEHV decoder of Wan2.1 (taew2_1.pth)", module_shapes(decoder), beside=("encoder.",))
    return layout, decoder


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(_conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
