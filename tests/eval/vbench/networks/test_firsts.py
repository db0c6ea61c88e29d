"""What VBench-Long compares clips with: DINOv2 from its published names against a plain re-derivation, DreamSim's call."""

from __future__ import annotations

import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eval.vbench.networks.dino import Dinov2, positions
from eval.vbench.networks.dreamsim import Dreamsim

WIDTH, BLOCKS, PATCH = 64, 2, 14


def published(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the names and shapes of `dinov2_vitb14_pretrain.pth`, but narrow: a table of 37 x 37 positions."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * (0.3 if len(shape) < 2 else shape[-1] ** -0.5)

    tensors = {"cls_token": draw(1, 1, WIDTH), "mask_token": draw(1, WIDTH), "pos_embed": draw(1, 37 * 37 + 1, WIDTH)}
    tensors |= {"patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH) * 0.1, "patch_embed.proj.bias": draw(WIDTH)}
    tensors |= {"norm.weight": 1 + draw(WIDTH), "norm.bias": draw(WIDTH)}
    for block in range(BLOCKS):
        rows = {"norm1": (WIDTH,), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH), "norm2": (WIDTH,)}
        rows |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for name, shape in rows.items():
            tensors |= {f"blocks.{block}.{name}.weight": draw(*shape), f"blocks.{block}.{name}.bias": draw(shape[0])}
        tensors |= {f"blocks.{block}.ls{number}.gamma": draw(WIDTH) for number in (1, 2)}
    return tensors


def plain(tensors: dict[str, torch.Tensor], frames: np.ndarray) -> np.ndarray:
    """The same in a few lines: resize to 256, the middle 224, 16 x 16 patches, two blocks, the class token."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    height, width = pixels.shape[2:]
    pixels = F.interpolate(pixels, size=(256, int(256 * width / height)), mode="bicubic", antialias=True)
    left, top = round((pixels.shape[3] - 224) / 2), 16
    pixels = pixels[:, :, top : top + 224, left : left + 224] / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.conv2d(pixels, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    grid = tensors["pos_embed"][:, 1:].reshape(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    table = grid.permute(0, 2, 3, 1).reshape(1, 256, WIDTH)
    first = (tensors["cls_token"] + tensors["pos_embed"][:, :1]).expand(len(x), -1, -1)
    x = torch.cat([first, x + table], 1)
    for block in range(BLOCKS):
        at = {name.removeprefix(f"blocks.{block}."): value for name, value in tensors.items() if name.startswith(f"blocks.{block}.")}
        y = F.layer_norm(x, (WIDTH,), at["norm1.weight"], at["norm1.bias"], 1e-6)
        q, k, v = (y @ at["attn.qkv.weight"].T + at["attn.qkv.bias"]).chunk(3, -1)
        y = torch.softmax(q @ k.transpose(1, 2) / WIDTH**0.5, -1) @ v  # one head of 64 channels
        x = x + at["ls1.gamma"] * (y @ at["attn.proj.weight"].T + at["attn.proj.bias"])
        y = F.layer_norm(x, (WIDTH,), at["norm2.weight"], at["norm2.bias"], 1e-6)
        y = F.gelu(y @ at["mlp.fc1.weight"].T + at["mlp.fc1.bias"]) @ at["mlp.fc2.weight"].T + at["mlp.fc2.bias"]
        x = x + at["ls2.gamma"] * y
    found = F.layer_norm(x, (WIDTH,), tensors["norm.weight"], tensors["norm.bias"], 1e-6)[:, 0]
    return F.normalize(found, dim=-1).numpy()


def test_dinov2_by_another_way(tmp_path):
    tensors = published()
    torch.save(tensors, tmp_path / "dinov2_vitb14_pretrain.pth")
    frames = np.random.default_rng(0).integers(0, 256, (3, 150, 200, 3), np.uint8)
    apart = np.abs(Dinov2.load(tmp_path / "dinov2_vitb14_pretrain.pth").images(frames) - plain(tensors, frames))
    assert apart.max() < 1e-5, f"max {apart.max():.3g}, mean {apart.mean():.3g}"
    fitted = F.interpolate(tensors["pos_embed"][:, 1:].reshape(1, 37, 37, WIDTH).permute(0, 3, 1, 2), size=(16, 16), mode="bicubic")
    table = positions(tensors["pos_embed"], 16, 16)[:, 1:].transpose(1, 2).reshape(1, WIDTH, 16, 16)
    assert (table - fitted).abs().max() > 1e-3, "transformers' own rule gives another table"


def test_another_networks_file_is_refused(tmp_path):
    path = tmp_path / "dinov2_vitb14_pretrain.pth"
    torch.save({name: value for name, value in published().items() if "ls1" not in name}, path)
    with pytest.raises(ValueError, match=r"is not a DINOv2 .*2 missing"):
        Dinov2.load(path)
    torch.save({"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)}, path)
    with pytest.raises(ValueError, match="is not a DINOv2"):
        Dinov2.load(path)


def test_dreamsim_is_asked_for_its_unpacked_ensemble(tmp_path, monkeypatch):
    """By a package that answers mean colours: unpacked once and hidden, frames in 0..1 of 224 px, a single frame not squeezed away."""
    path = tmp_path / "dreamsim_ensemble_checkpoint.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ensemble_lora/adapter_config.json", "{}")
    seen = []

    class Ensemble:
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return images.mean((2, 3)).squeeze()

    def dreamsim(pretrained: bool, device: str, cache_dir: str) -> tuple[Ensemble, None]:
        assert pretrained and (tmp_path / cache_dir / "ensemble_lora" / "adapter_config.json").is_file()
        return Ensemble(), None

    monkeypatch.setitem(sys.modules, "dreamsim", types.SimpleNamespace(dreamsim=dreamsim))
    network = Dreamsim.load(path)
    frames = np.full((2, 40, 60, 3), (255, 0, 51), np.uint8)
    for count in (1, 2):
        found = network.images(frames[:count])
        assert np.allclose(found, np.array([[1, 0, 0.2]]) / np.hypot(1, 0.2), atol=1e-6) and found.shape == (count, 3)
    assert seen[0].shape[2:] == (224, 224) and float(seen[0].min()) >= 0 and float(seen[0].max()) <= 1 + 1e-6
    assert [place.name for place in tmp_path.iterdir() if place.is_dir()] == [".dreamsim_ensemble_checkpoint"]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no such archive of DreamSim"):
        Dreamsim.load(path)
