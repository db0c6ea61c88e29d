"""DINO ViT-B/16 and DINOv2 ViT-B/14 through transformers, from their published files, with DINO's own resizing of positions.

VBench-Long uses DINOv2 to compare the subjects of clips' first frames (VBench at 45e79ec,
`vbench2_beta_long/subject_consistency.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.interface import HEAD_CHANNELS
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import unit

RESIZED_PX: Final = 256

_PLAIN: Final = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias|gamma)")


def positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """A position table [1, 1 + n * n, D] for rows x columns patches, by DINO's own rule: resized by (patches + 0.1) / n, bicubic.

    DINO adds the 0.1 against rounding errors.
    """
    side = math.isqrt(table.shape[1] - 1)
    if rows == columns == side:
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    stretch = ((rows + 0.1) / side, (columns + 0.1) / side)
    stretched = F.interpolate(grid, scale_factor=stretch, mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], stretched.flatten(2).transpose(1, 2)), 1)


class Dino(VBenchNetwork):
    """Subject consistency: the class token of DINO v1, from `dino_vitbase16_pretrain.pth`."""

    name = "dino"
    what = "a DINO with patches of 16 px"
    patch_px = 16
    tiny, true = (64, 2), (768, 12)
    """Width and blocks."""
    layers = "layers"
    parts: ClassVar[dict[str, str]] = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    """`layers` is transformers' name of the list of blocks; `parts` maps the published names of a block's parts to transformers'."""

    def __init__(self, network: nn.Module, identity: str, dtype: str, folder: Path | None = None) -> None:
        super().__init__(network, identity, dtype, folder)
        # Set the method without the module's own `__setattr__`, which is for parameters and submodules.
        object.__setattr__(self.network.embeddings, "interpolate_pos_encoding", self._positions)

    @classmethod
    def size_of(cls, tensors: Mapping[str, Tensor], path: Path) -> tuple[int, int]:
        first = tensors.get("patch_embed.proj.weight")
        if first is None or first.ndim != 4 or first.shape[-1] != cls.patch_px or first.shape[0] % HEAD_CHANNELS:
            problem = "it lacks patch_embed.proj.weight" if first is None else f"its first layer is {list(first.shape)}"
            raise ValueError(f"{path} is not {cls.what}: {problem}")
        return first.shape[0], sum(name.endswith("norm1.weight") for name in tensors)

    @classmethod
    def settings(cls, size: tuple[int, int]) -> dict[str, int | float]:
        """Settings of both networks, by transformers' names."""
        width, blocks = size
        sizes = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": width // HEAD_CHANNELS}
        return sizes | {"patch_size": cls.patch_px, "image_size": images.SIDE_PX, "layer_norm_eps": 1e-6, "qkv_bias": True}

    @classmethod
    def build(cls, size: tuple[int, int]) -> nn.Module:
        transformers = need("transformers", asked="DINO")
        config = transformers.ViTConfig(**cls.settings(size), intermediate_size=4 * size[0])
        network: nn.Module = transformers.ViTModel(config, add_pooling_layer=False)
        return network

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        block = _BLOCK.fullmatch(old)
        if block is None:
            yield _PLAIN.get(old, old), value
            return
        start, part, kind = f"{cls.layers}.{block[1]}", block[2], block[3]
        if part == "attn.qkv":
            for letter, third in zip("qkv", value.chunk(3)):
                yield f"{start}.attention.{letter}_proj.{kind}", third
        else:
            yield f"{start}.{cls.parts.get(part, part)}.{'lambda1' if kind == 'gamma' else kind}", value

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames [T, H, W, 3]. Raises ValueError for NaN."""
        pixels = images.for_dino(frames, self.device).to(self.weight.dtype)
        features = self.network(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        return unit(features, self.name)

    def _positions(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """The position table for frames of any shape."""
        return positions(self.network.embeddings.position_embeddings, height // self.patch_px, width // self.patch_px)


class Dinov2(Dino):
    """Subject consistency between clips: the class token of DINOv2 ViT-B/14, from `dinov2_vitb14_pretrain.pth`."""

    name = "dinov2"
    what = "a DINOv2 with patches of 14 px"
    patch_px = 14
    layers = "encoder.layer"
    parts: ClassVar[dict[str, str]] = {"attn.proj": "attention.o_proj", "ls1": "layer_scale1", "ls2": "layer_scale2"}

    @classmethod
    def build(cls, size: tuple[int, int]) -> nn.Module:
        transformers = need("transformers", asked="DINOv2")
        network: nn.Module = transformers.Dinov2Model(transformers.Dinov2Config(**cls.settings(size)))
        return network

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        side = images.SIDE_PX // cls.patch_px
        yield from super().names(old, positions(value.float(), side, side) if old == "pos_embed" else value)

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames [T, H, W, 3], with the shorter side resized to 256 px, then the middle 224 px cropped.
        Raises ValueError for NaN."""
        height, width = frames.shape[1:3]
        scale = RESIZED_PX / min(height, width)
        size = (RESIZED_PX, int(scale * width)) if height <= width else (int(scale * height), RESIZED_PX)
        middle = images.middle(images.resized(frames, size, self.device), images.SIDE_PX)
        pixels = images.normalised(middle, images.IMAGENET_MEAN, images.IMAGENET_STD).to(self.weight.dtype)
        features = self.network(pixel_values=pixels).last_hidden_state[:, 0]
        return unit(features, self.name)
