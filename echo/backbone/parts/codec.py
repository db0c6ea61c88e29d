"""A linear codec: each patch of 6x6 pixels x 4 frames becomes one latent vector by principal components."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from echo.backbone.finite import Finite

SIDE = 6
"""Pixels on a side of a patch."""
FRAMES = 4
"""Pixel frames in one latent frame, the first one included."""

CHANNELS = 24
"""Components kept of a patch's 432 numbers."""


class PatchCodec:
    """Principal components of 6x6 px x 4 frames x RGB patches, half whitened.

    Dividing by the square root of a component's standard deviation leaves coarse components larger than fine
    ones, so that a flow model does not spend its loss on the finest; one factor then gives latents unit standard deviation.
    Latent frames are independent: decoding a video block by block equals decoding it at once.
    """

    first_frames = FRAMES
    """Pixel frames of a video's first latent frame: as many as of any other."""

    def __init__(self, mean: torch.Tensor, basis: torch.Tensor, scale: torch.Tensor) -> None:
        """mean [432], basis [432, channels] orthonormal, scale [channels]: latent = (patch - mean) @ basis / scale."""
        self.mean = mean.double()
        self.basis = basis.double()
        self.scale = scale.double()
        self._project = (self.basis / self.scale).float()
        self._project_mean = (self.mean @ (self.basis / self.scale)).float()
        self._restore = (self.basis * self.scale).T.contiguous()

    @property
    def channels(self) -> int:
        """Latent channels."""
        return int(self.scale.numel())

    @classmethod
    def fit(cls, frames: torch.Tensor, channels: int = CHANNELS) -> PatchCodec:
        """Components of the patches of `frames` (uint8 [B,T,H,W,3]); the sign of each makes its largest weight positive."""
        patches = _patches(frames).reshape(-1, SIDE * SIDE * FRAMES * 3).double() / 127.5 - 1.0
        mean = patches.mean(0)
        centred = patches - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        basis = vectors.flip(1)[:, :channels]
        largest = basis.abs().argmax(0)
        basis = basis * basis.gather(0, largest[None]).sign()
        deviation = values.flip(0)[:channels].clamp(min=1e-12).sqrt()
        half = deviation.sqrt()
        return cls(mean, basis, half * (deviation / half).square().mean().sqrt())

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Latents fp32 [B, T/4, channels, H/6, W/6] of `frames` uint8 [B,T,H,W,3].

        Raises ValueError if T is no multiple of 4, or H or W none of 6.
        """
        batch, length, height, width, _ = frames.shape
        for name, size, unit in (("frames", length, FRAMES), ("height", height, SIDE), ("width", width, SIDE)):
            if size % unit or size == 0:
                nearest = max(unit, round(size / unit) * unit)
                raise ValueError(f"{name} {size} is no multiple of {unit}, as the codec needs; nearest: {nearest}")
        values = _patches(frames).flatten(4).float() / 127.5 - 1.0
        latents = values @ self._project.to(values.device) - self._project_mean.to(values.device)
        return latents.permute(0, 1, 4, 2, 3).contiguous()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames uint8 [B,4F,H,W,3] of `latents` [B,F,channels,h,w]; in double precision, so that summation order changes no pixel."""
        return self.to_bytes(self.values(latents))

    def values(self, latents: torch.Tensor) -> torch.Tensor:
        """Patches [B,F,h,w,432] of `latents`, black at -1 and white at 1."""
        return latents.permute(0, 1, 3, 4, 2).double() @ self._restore.to(latents.device) + self.mean.to(latents.device)

    def to_bytes(self, values: torch.Tensor) -> torch.Tensor:
        """Frames as from `decode`, of patches as from `values`."""
        batch, length, height, width, _ = values.shape
        values = values.reshape(batch, length, height, width, FRAMES, SIDE, SIDE, 3)
        values = values.permute(0, 1, 4, 2, 5, 3, 6, 7)
        values = values.reshape(batch, length * FRAMES, height * SIDE, width * SIDE, 3)
        return ((values + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def stream(self) -> PatchStream:
        """Start a batch of videos; a latent frame is decoded without the others."""
        return PatchStream(self)

    def save(self) -> dict[str, torch.Tensor]:
        """Everything that `load` needs, as tensors in double precision."""
        return {"mean": self.mean.clone(), "basis": self.basis.contiguous().clone(), "scale": self.scale.clone()}

    @classmethod
    def load(cls, tensors: Mapping[str, torch.Tensor]) -> PatchCodec:
        """The codec that `save` wrote."""
        return cls(tensors["mean"], tensors["basis"], tensors["scale"])


class PatchStream:
    """One batch of videos that is being decoded; `finite` as of `echo.backbone.interface.Stream`."""

    def __init__(self, codec: PatchCodec) -> None:
        self._codec, self.finite = codec, Finite()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Frames as from `PatchCodec.decode`."""
        values = self._codec.values(latents)
        self.finite.see(values)
        return self._codec.to_bytes(values)


def _patches(frames: torch.Tensor) -> torch.Tensor:
    """uint8 [B,T,H,W,3] to [B, T/4, H/6, W/6, 4, 6, 6, 3] (frame, row, column, colour inside a patch)."""
    batch, length, height, width, colours = frames.shape
    cut = frames.reshape(batch, length // FRAMES, FRAMES, height // SIDE, SIDE, width // SIDE, SIDE, colours)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7)
