"""The interface of backbones, embedded or Wan2.1, for rollouts and workers.

Shapes: B batch, F latent frames, C channels, H W latent cells (of frames: pixels), T pixel frames, L text rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from echo.backbone.finite import Finite
from echo.backbone.kernels import AttentionKernel
from echo.backbone.packed import Network
from echo.geometry import Geometry
from echo.routing import Encoder
from echo.sampler import Schedule


class Text(Protocol):
    """A text encoder."""

    @property
    def text_len(self) -> int: ...
    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for texts that it cannot read completely: too long, or with unknown words."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, L, text_dim] on the host, zero past a text's end. Raises ValueError like `check`."""
        ...

    def pieces(self, text: str) -> list[str]:
        """The tokenizer's pieces of letters of a script without spaces, in order."""
        ...

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts in advance, so that the encoder can be freed."""

    def release(self) -> None:
        """Free the encoder; prepared texts can still be encoded."""


class Stream(Protocol):
    """The decoding of one batch of videos, latent frame after latent frame.

    finite: whether all pixels so far were finite before they became bytes; a NaN would become black.
    """

    @property
    def finite(self) -> Finite: ...
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        """The next frames, uint8 [B, T, H, W, 3]."""
        ...


class Codec(Protocol):
    """A codec; first_frames: pixel frames of a video's very first latent frame (every later one has four)."""

    @property
    def first_frames(self) -> int: ...
    def stream(self) -> Stream:
        """Start a batch of videos."""
        ...


class VideoModel(Protocol):
    """Everything between a prompt and pixels that no policy changes."""

    @property
    def network(self) -> Network: ...
    @property
    def text(self) -> Text: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def geometry(self) -> Geometry: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def attention(self) -> AttentionKernel | None:
        """The kernel of self-attention; None for torch's own choice."""
        ...

    @property
    def shared_window(self) -> bool:
        """Whether all layers share one window, assembled in every pass: less memory, the same numbers."""
        ...


def latent_shape(geometry: Geometry) -> tuple[int, int, int, int]:
    """[frames, channels, height, width] of a block."""
    return geometry.frames_per_block, geometry.latent_channels, geometry.latent_height, geometry.latent_width


def features(text: Text, sentences: Sequence[str]) -> list[list[float]]:
    """One feature for each sentence: the mean of its non-zero rows."""
    rows = text.encode(sentences).float()
    count = rows.abs().sum(-1).gt(0).sum(-1, keepdim=True).clamp_min(1)
    means: list[list[float]] = (rows.sum(1) / count).tolist()
    return means


def reader(text: Text) -> Encoder:
    """A text encoder for the router."""
    return Encoder(partial(features, text), text.pieces)
