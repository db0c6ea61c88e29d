"""Low-rank additions: merged weights against the running parametrization, saved files through `load`, wrong ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from echo.backbone.checkpoints import lora
from echo.backbone.load import load
from tests.helpers.toy import write_backbone


def additions(path: Path) -> dict[str, torch.Tensor]:
    """Non-zero additions to all layers of the toy."""
    model = load(str(path)).model
    made = lora.attach(model, 3, seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for addition in made.values():
            addition.up.copy_(torch.randn(addition.up.shape, generator=generator))
    return lora.tensors_of(made)


def test_loaded_weights_are_base_plus_product(tmp_path: Path) -> None:
    path = write_backbone(tmp_path / "model.safetensors")
    tensors = additions(path)
    save_file(tensors, tmp_path / "lora.safetensors")
    base = load(str(path)).model.state_dict()
    merged = load(str(path), lora=str(tmp_path / "lora.safetensors")).model.state_dict()
    changed = [name for name in base if not torch.equal(base[name], merged[name])]
    assert len(changed) == 2 * (4 + 4 + 2)
    for name in changed:
        layer = name.removesuffix(".weight")
        expected = base[name] + tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
        difference = (merged[name] - expected).abs()
        assert difference.max() < 1e-6, f"{name}: max {difference.max():.1e}, mean {difference.mean():.1e}"


def test_running_addition_equals_merged(tmp_path: Path) -> None:
    path = write_backbone(tmp_path / "model.safetensors")
    running, merged = (load(str(path)).model for _ in range(2))
    made = lora.attach(running, 2, seed=0)
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2))
    layer = "blocks.1.ffn.0"
    before = running.get_submodule(layer)(x)
    with torch.no_grad():
        made[layer].up.fill_(0.25)
    lora.merge(merged, lora.tensors_of(made))
    ours, theirs = running.get_submodule(layer)(x), merged.get_submodule(layer)(x)
    difference = (ours - theirs).abs()
    assert difference.max() < 1e-5, f"max {difference.max():.1e}, mean {difference.mean():.1e}"
    assert (ours - before).abs().max() > 0.1
    assert {name for name, p in running.named_parameters() if p.requires_grad} == {
        f"{name}.parametrizations.weight.0.{part}" for name in made for part in ("down", "up")
    }


def test_wrong_additions_are_refused(tmp_path: Path) -> None:
    path = write_backbone(tmp_path / "model.safetensors")
    model = load(str(path)).model
    tensors = additions(path)
    name = "blocks.0.self_attn.q"
    foreign = {f"blocks.0.self_atn.q{end}": tensors[name + end] for end in (lora.DOWN, lora.UP)}
    with pytest.raises(ValueError, match="self_atn.q.lora_A.weight: the network has no such linear layer, nearest is blocks.0.self_attn.q"):
        lora.merge(model, foreign)
    with pytest.raises(ValueError, match="come in pairs"):
        lora.merge(model, {name + lora.DOWN: tensors[name + lora.DOWN]})
    with pytest.raises(ValueError, match=r"\[32, 3\] and lora_A.weight \[3, 31\] must have the shape"):
        lora.merge(model, {name + lora.UP: tensors[name + lora.UP], name + lora.DOWN: tensors[name + lora.DOWN][:, 1:]})
    with pytest.raises(ValueError, match=r"no low-rank weights at .*nowhere"):
        load(str(path), lora=str(tmp_path / "nowhere"))
