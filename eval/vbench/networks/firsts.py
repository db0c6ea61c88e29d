"""What VBench-Long compares the first frames of clips with: DINOv2 through transformers, DreamSim through its package.

Source: VBench at 45e79ec, `vbench2_beta_long/{subject,background}_consistency.py`. Its transforms name no antialiasing, so they
have torchvision's default for tensors, which is to antialias.
"""

from __future__ import annotations

import math
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.files import file_digest
from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer, choose_size, digest, drawn, fill, read, ready, renamed

PATCH_PX: Final = 14
HEAD: Final = 64
RESIZED_PX: Final = 256
ADAPTERS: Final = "ensemble_lora"
"""Folder in DreamSim's archive."""

_PLAIN: Final = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_IN_BLOCK: Final = {"attn.proj": "attention.o_proj"}
_SCALE: Final = {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.(.+)")


def resized(frames: Frames, size: tuple[int, int], device: torch.device) -> Tensor:
    """Frames [T, H, W, 3] as floats [T, 3, h, w] in 0..255, bicubic, antialiased, overshoot kept."""
    return F.interpolate(images.planes(frames, device).float(), size=size, mode="bicubic", align_corners=False, antialias=True)


class Dinov2:
    """Subject from clip to clip: the class token of DINOv2 ViT-B/14."""

    name = "dinov2"

    def __init__(self, network: nn.Module, identity: str, dtype: str) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Dinov2:
        """From `dinov2_vitb14_pretrain.pth`. Raises ValueError naming the file, if it is not there or another network's."""
        what = f"a DINOv2 with patches of {PATCH_PX} px"
        identity, tensors = f"sha256 {digest(path)}", read(path)
        first, table = tensors.get("patch_embed.proj.weight"), tensors.pop("pos_embed", None)
        if first is None or table is None or first.shape[-1] != PATCH_PX or first.shape[0] % HEAD:
            raise ValueError(f"{path} is not {what}: its first layer or its positions are missing or of other sizes")
        with drawn(0):
            network = _network(first.shape[0], sum(name.endswith("norm1.weight") for name in tensors))
        named = renamed(tensors, _names) | {"embeddings.position_embeddings": positions(table, images.SIDE_PX // PATCH_PX)}
        fill(network, named, what=what, path=path)
        return cls(ready(network, dtype, device), identity, dtype)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Dinov2:
        """With random weights. Raises ValueError for a size that is not tiny or true."""
        with drawn(seed):
            network = _network(*((64, 2) if choose_size(size) else (768, 12)))
        return cls(ready(network, dtype, device), f"random {size} seed {seed}", dtype)

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames [T, H, W, 3]: shorter side to 256 px, middle 224. Raises ValueError for NaN."""
        height, width = frames.shape[1:3]
        scale = RESIZED_PX / min(height, width)
        size = (RESIZED_PX, int(scale * width)) if height <= width else (int(scale * height), RESIZED_PX)
        seen = images.middle(resized(frames, size, self.network.device), images.SIDE_PX)
        pixels = images.normalised(seen, images.IMAGENET_MEAN, images.IMAGENET_STD).to(self.network.dtype)
        found = self.network(pixel_values=pixels).last_hidden_state[:, 0]
        return answer(F.normalize(found.float(), dim=-1), self.name)


def positions(table: Tensor, side: int) -> Tensor:
    """A table of positions [1, 1 + n * n, D] for side x side patches, by DINOv2's own rule: stretched by (side + 0.1) / n, bicubic."""
    old = math.isqrt(table.shape[1] - 1)
    if old == side:
        return table
    grid = table[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    stretch = (side + 0.1) / old
    stretched = F.interpolate(grid, scale_factor=(stretch, stretch), mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1].float(), stretched.flatten(2).transpose(1, 2)), 1)


def _network(width: int, blocks: int) -> nn.Module:
    transformers = need("transformers", asked="DINOv2")
    config = transformers.Dinov2Config(
        hidden_size=width, num_hidden_layers=blocks, num_attention_heads=width // HEAD, patch_size=PATCH_PX, image_size=images.SIDE_PX
    )
    network: nn.Module = transformers.Dinov2Model(config)
    return network


def _names(old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """DINOv2's name of a tensor to transformers'; one that is unknown stays, to be complained of."""
    block = _BLOCK.fullmatch(old)
    if block is None:
        yield _PLAIN.get(old, old), value
        return
    start, (part, _, kind) = f"encoder.layer.{block[1]}", block[2].rpartition(".")
    if part == "attn.qkv":
        for letter, third in zip("qkv", value.chunk(3)):
            yield f"{start}.attention.{letter}_proj.{kind}", third
    else:
        yield f"{start}.{_SCALE.get(block[2]) or f'{_IN_BLOCK.get(part, part)}.{kind}'}", value


class Dreamsim:
    """Background from clip to clip: DreamSim's ensemble."""

    name = "dreamsim"

    def __init__(self, network: Any, identity: str, dtype: str, device: str) -> None:
        self.network = network
        self.identity = identity
        self.dtype = dtype
        self._device = torch.device(device)

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Dreamsim:
        """From `dreamsim_ensemble_checkpoint.zip`, which is unpacked beside itself once.

        Raises ValueError naming the file, if it is not there or not that archive, or the package with its line.
        """
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path}: no such archive of DreamSim; `python -m data.download eval=vbench` fetches it")
        folder = path.with_name(f".{path.stem}")  # hidden, so that a folder of weights keeps its digest
        if not (folder / ADAPTERS).is_dir():
            _unpack(path, folder)
        network, _ = need("dreamsim", asked="DreamSim").dreamsim(pretrained=True, device=device, cache_dir=str(folder))
        return cls(network, f"blake2b {file_digest(path)}", dtype, device)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Dreamsim:
        """There is none: the package has no ensemble without its weights. Raises ValueError."""
        raise ValueError("DreamSim has no random weights; nearest is clip_features=dino_clip")

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames [T, H, W, 3], each resized to 224x224 px. Raises ValueError for NaN."""
        seen = resized(frames, (images.SIDE_PX, images.SIDE_PX), self._device) / 255.0
        alone = len(seen) == 1  # the package squeezes a batch of one away
        found = self.network.embed(torch.cat((seen, seen)) if alone else seen)[: len(seen)]
        return answer(F.normalize(found.float(), dim=-1), self.name)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive beside `folder`, which gets its name when all is there: a kill leaves no half ensemble, two processes do no harm.

    Raises ValueError naming the archive where it is damaged or holds no ensemble.
    """
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as place:
        whole = Path(place) / "whole"
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(whole)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}: damaged ({error}); away with it, `python -m data.download eval=vbench` fetches it") from None
        if not (whole / ADAPTERS).is_dir():
            raise ValueError(f"{path} is not DreamSim's ensemble: no folder {ADAPTERS} in it")
        try:
            whole.rename(folder)
        except OSError:  # another process was faster
            if not (folder / ADAPTERS).is_dir():
                raise ValueError(f"{folder}: is in the way of what {path.name} holds; away with it") from None
