"""A Wan2.1 backbone from its parts: text encoder, network, codec, each loaded when it is first used.

A worker keeps peak memory low by its order of use: it encodes texts, frees the text encoder, then loads the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from echo.backbone import compiled, kernels
from echo.backbone.checkpoints import transformer
from echo.backbone.interface import Codec, Text
from echo.backbone.kernels import AttentionKernel
from echo.backbone.load import DTYPES
from echo.backbone.packed import Network
from echo.backbone.sizes import SIZES, WanConfig
from echo.geometry import Geometry
from echo.sampler import Schedule


@dataclass(frozen=True)
class Parts:
    """The files of the parts and how they are computed.

    size: "native" or "tiny". weights, lora, text, tokenizer, codec: files; None draws random weights of that size.
    decoder: "wan" or "taehv". text_identity: digest of the text encoder, for the cache of its rows.
    kernel: as `echo.backbone.kernels` resolved it. window: "shared" or "resident". content: digests of the other files, so that
    parts with a replaced file compare unequal.
    """

    size: str
    geometry: Geometry
    schedule: Schedule
    weights: Path | None
    lora: Path | None
    text: Path | None
    tokenizer: Path | None
    codec: Path | None
    decoder: str
    dtype: str
    text_dtype: str
    codec_dtype: str
    device: str
    text_device: str
    kernel: str
    compile: str
    window: str
    text_cache: Path
    text_identity: str
    content: tuple[str | None, ...] = ()

    @property
    def network(self) -> WanConfig:
        """Sizes of the network."""
        return SIZES[self.size].network


class RealBackbone:
    """A backbone that is loaded part by part, an `echo.backbone.interface.VideoModel`."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.geometry = parts, parts.geometry
        self.schedule: Schedule = parts.schedule
        self.device, self.dtype = torch.device(parts.device), DTYPES[parts.dtype]
        kernels.require(parts.kernel, self.device)
        self.attention: AttentionKernel = kernels.attention(parts.kernel)
        self.shared_window = parts.window == "shared"

    @cached_property
    def text(self) -> Text:
        """Text encoder with its cache; the encoder itself is loaded for the first text that is not cached."""
        from echo.backbone.parts.umt5 import Umt5Text

        p = self.parts
        if p.text is None or p.tokenizer is None:
            return Umt5Text.random(p.size, cache=p.text_cache, dtype=p.text_dtype, device=p.text_device)
        text = Umt5Text.load(p.text, p.tokenizer, cache=p.text_cache, identity=p.text_identity, dtype=p.text_dtype, device=p.text_device)
        if text.text_dim != p.network.text_dim:
            wanted = f"the network reads {p.network.text_dim}; it belongs to another backbone"
            raise ValueError(f"{p.text}: rows of {text.text_dim} numbers, but {wanted}")
        return text

    @cached_property
    def network(self) -> Network:
        """The network for rollouts. Raises ValueError for weights of another network."""
        p = self.parts
        if p.weights is None:
            model = transformer.random_network(p.network, self.dtype, self.device)
        else:
            model = transformer.load_network(p.weights, p.lora, p.network, self.dtype, self.device)
        return compiled.speed_up(model, p.compile)

    @cached_property
    def codec(self) -> Codec:
        """The decoder of latents. Raises ValueError for a foreign file."""
        p, dtype = self.parts, DTYPES[self.parts.codec_dtype]
        if p.decoder == "taehv":
            from echo.backbone.parts.taehv import TaehvCodec

            return (TaehvCodec.random if p.codec is None else partial(TaehvCodec.load, p.codec))(dtype=dtype, device=p.device)
        from echo.backbone.parts.vae import WanCodec

        return (partial(WanCodec.random, p.size) if p.codec is None else partial(WanCodec.load, p.codec))(dtype=dtype, device=p.device)
