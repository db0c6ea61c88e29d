"""Low-rank additions from files, merged: equal to peft's forward pass, and refused in one line where they cannot be."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from echo.backbone.checkpoints import transformer
from echo.backbone.checkpoints.additions import check_lora
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


def pairs(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """peft's tensors under the network's own names: `<layer>.lora_A.weight` and `<layer>.lora_B.weight`."""
    from peft import get_peft_model_state_dict

    return {name.removeprefix("base_model.model."): value for name, value in get_peft_model_state_dict(network).items()}


def diffusers_name(name: str) -> str:
    """By hand, not by the table that is tested."""
    for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        name = re.sub(rf"{ours}\.([qkv])\.", rf"{theirs}.to_\1.", name).replace(f"{ours}.o.", f"{theirs}.to_out.0.")
    return name.replace(".ffn.0.", ".ffn.net.0.proj.").replace(".ffn.2.", ".ffn.net.2.")


def of_diffusers_loader(folder: Path, network: torch.nn.Module) -> Path:
    """By diffusers itself: its names, and peft's config in the header."""
    from diffusers.loaders import WanLoraLoaderMixin

    layers = {diffusers_name(name): value for name, value in pairs(network).items()}
    said = network.peft_config["default"].to_dict() | {"target_modules": None}
    WanLoraLoaderMixin.save_lora_weights(folder, transformer_lora_layers=layers, transformer_lora_adapter_metadata=said)
    return folder / "pytorch_lora_weights.safetensors"


def header_words(folder: Path, network: torch.nn.Module) -> Path:
    state = {f"transformer.{name}": value for name, value in pairs(network).items()}
    save_file(state, folder / "words.safetensors", metadata={"transformer.lora_alpha": "10", "transformer.use_rslora": "False"})
    return folder / "words.safetensors"


def downs_and_ups(network: torch.nn.Module, layer_name: Callable[[str], str], alpha: torch.Tensor) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in pairs(network).items():
        layer, _, end = name.removesuffix(".weight").rpartition(".")
        state[f"{layer_name(layer)}.{'lora_down' if end == 'lora_A' else 'lora_up'}.weight"] = value
        state[f"{layer_name(layer)}.alpha"] = alpha.clone()
    return state


def kohya(folder: Path, network: torch.nn.Module) -> Path:
    """Dots are underlines, a whole number beside each layer; the header tells of the training alone."""
    state = downs_and_ups(network, lambda layer: f"lora_unet_{layer.replace('.', '_')}", torch.tensor(10))
    save_file(state, folder / "kohya.safetensors", metadata={"ss_network_dim": "32", "ss_network_alpha": "1.0"})
    return folder / "kohya.safetensors"


def kohya_of_diffusers(folder: Path, network: torch.nn.Module) -> Path:
    flat = {
        layer: diffusers_name(f"{layer}.")[:-1].replace(".", "_") for layer in {name.rpartition(".lora_")[0] for name in pairs(network)}
    }
    save_file(downs_and_ups(network, lambda layer: f"lora_unet_{flat[layer]}", torch.tensor(10.0)), folder / "k.safetensors")
    return folder / "k.safetensors"


def kohya_by_header(folder: Path, network: torch.nn.Module) -> Path:
    state = downs_and_ups(network, lambda layer: f"lora_unet_{layer.replace('.', '_')}", torch.tensor(10))
    kept = {name: value for name, value in state.items() if not name.endswith("alpha")}
    save_file(kept, folder / "kohya.safetensors", metadata={"ss_network_dim": "4", "ss_network_alpha": "10.0"})
    return folder / "kohya.safetensors"


def comfy(folder: Path, network: torch.nn.Module) -> Path:
    torch.save(
        {
            name: int(value) if name.endswith("alpha") else value
            for name, value in downs_and_ups(network, lambda layer: f"diffusion_model.{layer}", torch.tensor(10)).items()
        },
        folder / "comfy.pt",
    )
    return folder / "comfy.pt"


SCALED = (peft_folder, of_diffusers_loader, header_words, kohya, kohya_of_diffusers, kohya_by_header, comfy)


def small() -> tuple[WanConfig, WanModel]:
    """A network of one layer with random weights, and its sizes."""
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=1, freq_dim=32, text_dim=16, text_len=6)
    return config, transformer.random_network(config, torch.float32, "cpu")


@pytest.mark.parametrize(("write", "alpha"), [(longlive, 4), (bare_mapping_with_adapter_names, 4), *((write, 10) for write in SCALED)])
def test_merged_additions_equal_a_peft_forward(write: Callable[[Path, torch.nn.Module], Path], alpha: int, tmp_path: Path) -> None:
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6)
    base = transformer.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=alpha)
    lora = write(tmp_path, network)
    path = FORMATS["longlive_base"](tmp_path, base.state_dict())
    check_lora(lora, transformer.linear_layers(config))
    merged = transformer.load_network(path, lora, config, torch.float32, "cpu")
    with torch.no_grad():
        ours, theirs, without = forward(merged, config), forward(network.base_model.model, config), forward(base, config)
    difference = (ours - theirs).abs() / theirs.abs().max()
    assert difference.max() <= 1e-6, f"max {difference.max():.1e}, mean {difference.mean():.1e} of the largest value"
    assert (ours - without).abs().max() > 0.01


def test_nothing_beside_a_file_of_additions_changes_the_network(tmp_path: Path) -> None:
    """A run's name covers the file alone; the config that peft writes is read of a folder, which the name covers whole."""
    config, base = small()
    network = with_peft(base, rank=4, alpha=4)
    lora, path = longlive(tmp_path, network), FORMATS["bare"](tmp_path, base.state_dict())
    before = transformer.load_network(path, lora, config, torch.float32, "cpu").state_dict()
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 64}))
    after = transformer.load_network(path, lora, config, torch.float32, "cpu").state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed, f"{len(changed)} tensors changed, first {changed[:1]}"
    folder = peft_folder(tmp_path, network)
    check_lora(folder, transformer.linear_layers(config))
    with pytest.raises(ValueError, match="its scale stands in the adapter_config.json beside it; nearest is the folder"):
        check_lora(folder / "adapter_model.safetensors", transformer.linear_layers(config))


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
        check_lora(shaped(shapes)(tmp_path, {}).parent, transformer.linear_layers(model.config))
    assert "\n" not in str(refusal.value) and str(tmp_path / "adapter_config.json") in str(refusal.value)


def test_additions_are_summed_before_the_cast(tmp_path: Path) -> None:
    config, base = small()
    network = with_peft(base, rank=4, alpha=4)
    lora, path = longlive(tmp_path, network), FORMATS["bare"](tmp_path, base.state_dict())
    merged = transformer.load_network(path, lora, config, torch.bfloat16, "cpu").state_dict()
    expected = network.merge_and_unload().state_dict()
    assert not [name for name in merged if not torch.equal(merged[name], expected[name].bfloat16())]


def test_additions_that_hold_no_number_are_named_with_the_layer(tmp_path: Path) -> None:
    config, base = small()
    path = FORMATS["bare"](tmp_path, base.state_dict())
    down, up = torch.ones(2, 32), torch.ones(32, 2)
    up[3, 1] = torch.nan
    torch.save({"blocks.0.self_attn.q.lora_A.weight": down, "blocks.0.self_attn.q.lora_B.weight": up}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"weights.pt with .*nan.pt: blocks.0.self_attn.q.weight holds a NaN or an infinity"):
        transformer.load_network(path, tmp_path / "nan.pt", config, torch.float32, "cpu")


@pytest.mark.parametrize("kind", ["ffn", "cross_attn"])
def test_layers_of_one_kind_alone_are_read_in_every_layout(kind: str, tmp_path: Path) -> None:
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6)
    base = transformer.random_network(config, torch.float32, "cpu")
    own = {name: value for name, value in pairs(with_peft(base, rank=4, alpha=4)).items() if kind in name}
    files = {"ours": own, "diffusers": {f"transformer.{diffusers_name(name)}": value for name, value in own.items()}}
    made = {}
    for name, state in files.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        addition = check_lora(tmp_path / f"{name}.safetensors", transformer.linear_layers(config), whole=True)
        made[name] = {layer: addition(layer, "cpu") for layer in transformer.linear_layers(config)}
    assert sum(pair is not None for pair in made["ours"].values()) == len(own) / 2
    for layer, pair in made["ours"].items():
        other = made["diffusers"][layer]
        assert (pair is None) == (other is None) and (pair is None or torch.equal(pair[0], other[0]) and pair[2] == other[2] == 1)


def one_pair(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    layer = "blocks.0.self_attn.q"
    return {f"{layer}.lora_A.weight": torch.ones(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)} | {
        name.replace("__", "."): value for name, value in more.items()
    }


REFUSED: dict[str, tuple[dict[str, torch.Tensor], dict[str, str], str]] = {
    "loha": (
        {"lora_unet_blocks_0_ffn_0.hada_w1_a": torch.ones(2, 2)},
        {},
        "a LoHa, a product of two low-rank matrices, which is not merged",
    ),
    "lokr": ({"lora_unet_blocks_0_ffn_0.lokr_w1": torch.ones(2, 2)}, {}, "a LoKr, a Kronecker product"),
    "dora": (one_pair(blocks__0__self_attn__q__dora_scale=torch.ones(32, 1)), {}, "a DoRA"),
    "diff": (one_pair(diffusion_model__blocks__0__norm3__diff=torch.ones(32)), {}, "a whole difference of a tensor, as ComfyUI saves them"),
    "bias": (one_pair(blocks__0__self_attn__q__lora_B__bias=torch.ones(32)), {}, "an addition to a bias"),
    "text": ({"lora_te1_encoder_block_0.lora_down.weight": torch.ones(2, 2)}, {}, "an addition to a text encoder"),
    "twice": (one_pair(blocks__0__attn1__to_q__lora_A__weight=torch.ones(2, 32)), {}, "both mean blocks.0.self_attn.q.lora_A.weight"),
    "some": (one_pair(blocks__0__ffn__0__alpha=torch.tensor(2)), {}, "all of them, or none"),
    "zero": (one_pair(blocks__0__self_attn__q__alpha=torch.tensor(0)), {}, "q.alpha is 0.0; a number other than 0 belongs there"),
    "nan": (one_pair(blocks__0__self_attn__q__alpha=torch.tensor(float("nan"))), {}, "alpha is nan; a number other than 0"),
    "two": (one_pair(blocks__0__self_attn__q__alpha=torch.tensor(2)), {"lora_alpha": "8"}, "scale 1 by its alpha, and 4 by the config"),
    "rank": (one_pair(), {"lora_alpha": "8", "r": "16"}, "r is 16, but the addition to blocks.0.self_attn.q has rank 2"),
    "pattern": (
        one_pair(),
        {"lora_adapter_metadata": '{"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"q": 1}}'},
        "alpha_pattern",
    ),
    "no json": (one_pair(), {"lora_adapter_metadata": "{"}, "lora_adapter_metadata in its header is no JSON"),
    "word": (one_pair(), {"transformer.lora_alpha": '"eight"'}, "no scale in it"),
    "untrained": (one_pair() | {"blocks.0.self_attn.q.lora_B.weight": torch.zeros(32, 2)}, {}, "every lora_B.weight is zero"),
    "hole": (one_pair() | {"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 32)}, {}, "lora_A.weight is a matrix of zeros alone"),
    "infinite": (one_pair() | {"blocks.0.self_attn.q.lora_B.weight": torch.full((32, 2), torch.inf)}, {}, "lora_B.weight holds a NaN or"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_refused_by_what_it_is(name: str, tmp_path: Path, model: WanModel) -> None:
    tensors, said, words = REFUSED[name]
    save_file(tensors, tmp_path / "w.safetensors", metadata=said)
    with pytest.raises(ValueError, match=re.escape(words)) as refusal:
        check_lora(tmp_path / "w.safetensors", transformer.linear_layers(model.config), whole=True)
    assert "\n" not in str(refusal.value) and str(refusal.value).startswith(str(tmp_path / "w.safetensors"))


def test_a_header_that_lies_about_its_data_is_one_line(tmp_path: Path, model: WanModel) -> None:
    """The scale is read when the command is checked, by a library that looks closer at the file than its header's shapes do."""
    path = tmp_path / "w.safetensors"
    save_file(one_pair(blocks__0__self_attn__q__alpha=torch.tensor(2)), path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"cannot be read \(SafetensorError: .*; download it again") as refusal:
        check_lora(path, transformer.linear_layers(model.config))
    assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)


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
        check_lora(shaped(shapes)(tmp_path, {}), transformer.linear_layers(model.config))
    assert "\n" not in str(refusal.value)
