"""Low-rank additions from files, merged: equal to peft's forward pass, and refused in one line where they cannot be."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from echo.backbone.checkpoints import transformer
from echo.backbone.wan import WanConfig, WanModel
from tests.helpers.checkpoints import FORMATS, forward, shaped, zeros


def with_peft(model: WanModel, rank: int, alpha: int) -> torch.nn.Module:
    """peft's network around a copy of ours: additions on every linear layer of the blocks, as LongLive has them."""
    import peft

    layers = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and name.startswith("blocks.")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(
            copy.deepcopy(model), peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=layers)
        )
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return wrapped.eval()


def longlive(folder: Path, network: torch.nn.Module) -> Path:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(network)
    torch.save({"generator_lora": state, "critic_lora": zeros(state), "step": 3000}, folder / "lora.pt")
    return folder / "lora.pt"


def bare_mapping_with_adapter_names(folder: Path, network: torch.nn.Module) -> Path:
    torch.save({name: value for name, value in network.state_dict().items() if "lora_" in name}, folder / "lora.pt")
    return folder / "lora.pt"


def peft_folder(folder: Path, network: torch.nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.save_pretrained(str(folder / "adapter"))
    return folder / "adapter"


@pytest.mark.parametrize(("write", "alpha"), [(longlive, 4), (bare_mapping_with_adapter_names, 4), (peft_folder, 10)])
def test_merged_additions_equal_a_peft_forward(write: Callable[[Path, torch.nn.Module], Path], alpha: int, tmp_path: Path) -> None:
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6)
    base = transformer.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=alpha)
    lora = write(tmp_path, network)
    path = FORMATS["longlive_base"](tmp_path, base.state_dict())
    transformer.check_lora(lora, config)
    merged = transformer.load_network(path, lora, config, torch.float32, "cpu")
    with torch.no_grad():
        ours, theirs, without = forward(merged, config), forward(network.base_model.model, config), forward(base, config)
    difference = (ours - theirs).abs() / theirs.abs().max()
    assert difference.max() <= 1e-6, f"max {difference.max():.1e}, mean {difference.mean():.1e} of the largest value"
    assert (ours - without).abs().max() > 0.01


def test_nothing_beside_a_file_of_additions_changes_the_network(tmp_path: Path) -> None:
    """A run's name covers the file alone; the config that peft writes is read of a folder, which the name covers whole."""
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=1, freq_dim=32, text_dim=16, text_len=6)
    base = transformer.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=4)
    lora, path = longlive(tmp_path, network), FORMATS["bare"](tmp_path, base.state_dict())
    before = transformer.load_network(path, lora, config, torch.float32, "cpu").state_dict()
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 64}))
    after = transformer.load_network(path, lora, config, torch.float32, "cpu").state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed, f"{len(changed)} tensors changed, first {changed[:1]}"
    folder = peft_folder(tmp_path, network)
    transformer.check_lora(folder, config)
    with pytest.raises(ValueError, match="its scale stands in the adapter_config.json beside it; nearest is the folder"):
        transformer.check_lora(folder / "adapter_model.safetensors", config)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"r": 4}', "KeyError: 'lora_alpha'"),
        ('{"r": 0, "lora_alpha": 4}', "ZeroDivisionError"),
        ('{"r": -4, "lora_alpha": 4}', "r is -4"),
        ('{"r": "4", "lora_alpha": 4}', "TypeError"),
        ("[]", "TypeError"),
        ('{"r": 4,', "JSONDecodeError"),
        ('{"r": 4, "lora_alpha": 4, "alpha_pattern": {"q": 8}}', "alpha_pattern gives layers scales of their own"),
    ],
)
def test_a_folder_of_additions_without_a_scale_is_refused_early(content: str, words: str, tmp_path: Path, model: WanModel) -> None:
    shapes = {"blocks.0.self_attn.q.lora_A.weight": (2, 32), "blocks.0.self_attn.q.lora_B.weight": (32, 2)}
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ValueError, match=words) as refusal:
        transformer.check_lora(shaped(shapes)(tmp_path, {}).parent, model.config)
    assert "\n" not in str(refusal.value) and str(tmp_path / "adapter_config.json") in str(refusal.value)


def test_additions_are_summed_before_the_cast(tmp_path: Path) -> None:
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=1, freq_dim=32, text_dim=16, text_len=6)
    base = transformer.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=4)
    lora, path = longlive(tmp_path, network), FORMATS["bare"](tmp_path, base.state_dict())
    merged = transformer.load_network(path, lora, config, torch.bfloat16, "cpu").state_dict()
    expected = network.merge_and_unload().state_dict()
    assert not [name for name in merged if not torch.equal(merged[name], expected[name].bfloat16())]


def test_additions_that_hold_no_number_are_named_with_the_layer(tmp_path: Path) -> None:
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=1, freq_dim=32, text_dim=16, text_len=6)
    base = transformer.random_network(config, torch.float32, "cpu")
    path = FORMATS["bare"](tmp_path, base.state_dict())
    down, up = torch.ones(2, 32), torch.ones(32, 2)
    up[3, 1] = torch.nan
    torch.save({"blocks.0.self_attn.q.lora_A.weight": down, "blocks.0.self_attn.q.lora_B.weight": up}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"weights.pt with .*nan.pt: blocks.0.self_attn.q.weight holds a NaN or an infinity"):
        transformer.load_network(path, tmp_path / "nan.pt", config, torch.float32, "cpu")


WRONG_ADDITIONS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "layer": (
        {"base_model.model.blocks.7.ffn.0.lora_A.weight": (2, 32)},
        "blocks.7.ffn.0.lora_A.weight: the network has no such linear layer",
    ),
    "half": ({"base_model.model.blocks.0.ffn.0.lora_A.weight": (2, 32)}, "come in pairs"),
    "14B": (
        {"blocks.0.self_attn.q.lora_A.weight": (2, 5120), "blocks.0.self_attn.q.lora_B.weight": (5120, 2)},
        r"must have the shape of the layer's weight, \[32, 32\]",
    ),
    "network": (
        {"patch_embedding.weight": (1536, 16, 1, 2, 2), "blocks.0.norm3.bias": (1536,)},
        "looks like a Wan transformer.*nearest is lora.pt",
    ),
}


@pytest.mark.parametrize("name", WRONG_ADDITIONS)
def test_wrong_additions_are_refused_in_one_line(name: str, tmp_path: Path, model: WanModel) -> None:
    shapes, words = WRONG_ADDITIONS[name]
    with pytest.raises(ValueError, match=words) as refusal:
        transformer.check_lora(shaped(shapes)(tmp_path, {}), model.config)
    assert "\n" not in str(refusal.value)
