"""DINO ViT-B/16 through transformers, from its published file, with DINO's own rule for positions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer, choose_size, digest, drawn, fill, read, ready, renamed

PATCH_PX: Final = 16
HEAD: Final = 64
"""Channels of an attention head."""

_PLAIN: Final = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_IN_BLOCK: Final = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


class Dino:
    """Subject consistency: the class token of DINO v1."""

    name = "dino"

    def __init__(self, network: nn.Module, identity: str, dtype: str) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype
        # A module's attributes are parameters and parts; this is a rule, so it goes around them.
        object.__setattr__(self.network.embeddings, "interpolate_pos_encoding", self._positions)

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Dino:
        """From `dino_vitbase16_pretrain.pth`.

        Raises ValueError naming the file, if it is not there, not readable or another network's.
        """
        what = f"a DINO with patches of {PATCH_PX} px"
        identity, tensors = f"sha256 {digest(path)}", read(path)
        with drawn(0):
            network = _network(_sizes(tensors, what, path))
        fill(network, renamed(tensors, _names), what=what, path=path)
        return cls(ready(network, dtype, device), identity, dtype)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Dino:
        """With random weights. Raises ValueError for a size that is not tiny or true."""
        with drawn(seed):
            network = _network((64, 2) if choose_size(size) else (768, 12))
        return cls(ready(network, dtype, device), f"random {size} seed {seed}", dtype)

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames [T, H, W, 3]. Raises ValueError for NaN."""
        pixels = images.for_dino(frames, self.network.device).to(self.network.dtype)
        found = self.network(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        return answer(F.normalize(found.float(), dim=-1), self.name)

    def _positions(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Position table for frames of another shape than 224x224: DINO stretches it by (patches + 0.1) / 14, not to the patches.

        The tenth was put there against rounding, and the weights' users have lived with it since.
        """
        table = self.network.embeddings.position_embeddings
        side = math.isqrt(table.shape[1] - 1)
        rows, columns = height // PATCH_PX, width // PATCH_PX
        if rows == columns == side:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        stretch = ((rows + 0.1) / side, (columns + 0.1) / side)
        resized = F.interpolate(grid, scale_factor=stretch, mode="bicubic", align_corners=False)
        return torch.cat((table[:, :1], resized.flatten(2).transpose(1, 2)), 1)


def _sizes(tensors: Mapping[str, Tensor], what: str, path: Path) -> tuple[int, int]:
    """Width and blocks."""
    first = tensors.get("patch_embed.proj.weight")
    if first is None or first.ndim != 4 or first.shape[-1] != PATCH_PX or first.shape[0] % HEAD:
        found = "it lacks patch_embed.proj.weight" if first is None else f"its first layer is {list(first.shape)}"
        raise ValueError(f"{path} is not {what}: {found}")
    return first.shape[0], sum(name.endswith("norm1.weight") for name in tensors)


def _network(sizes: tuple[int, int]) -> nn.Module:
    transformers = need("transformers", asked="DINO")
    width, blocks = sizes
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=width // HEAD,
        intermediate_size=4 * width,
        patch_size=PATCH_PX,
        image_size=images.SIDE_PX,
        layer_norm_eps=1e-6,  # DINO's, where transformers' ViT has 1e-12
        qkv_bias=True,
    )
    network: nn.Module = transformers.ViTModel(config, add_pooling_layer=False)
    return network


def _names(old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """DINO's name of a tensor to transformers'; one that is unknown stays, to be complained of."""
    block = _BLOCK.fullmatch(old)
    if block is None:
        yield _PLAIN.get(old, old), value
    elif block[2] == "attn.qkv":
        for letter, third in zip("qkv", value.chunk(3)):
            yield f"layers.{block[1]}.attention.{letter}_proj.{block[3]}", third
    else:
        yield f"layers.{block[1]}.{_IN_BLOCK.get(block[2], block[2])}.{block[3]}", value
