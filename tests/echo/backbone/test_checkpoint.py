"""Checkpoints of every format, written here from a known network: identical tensors, merged additions, refusals in one line."""

from __future__ import annotations

import copy
import json
import math
import struct
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import checkpoint, weights
from echo.backbone.names import network_shapes
from echo.backbone.wan import WanConfig, WanModel

State = dict[str, Tensor]
Write = Callable[[Path, State], Path]


def wrapped(state: State, prefix: str = "model.") -> State:
    return {prefix + name: value for name, value in state.items()}


def sharded_by_fsdp(state: State) -> State:
    """Names as FSDP leaves them, around the network and around every part of a block."""
    mark = "_fsdp_wrapped_module."
    return {f"model.{mark}" + name.replace("_attn.", f"_attn.{mark}"): value for name, value in state.items()}


def of_diffusers(state: State) -> State:
    """By diffusers' own table."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return convert_wan_transformer_to_diffusers(dict(state))


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


def torch_file(content: Callable[[State], object], **options: bool) -> Write:
    def write(folder: Path, state: State) -> Path:
        torch.save(content(state), folder / "weights.pt", **options)
        return folder / "weights.pt"

    return write


def safetensors_file(names: Callable[[State], State]) -> Write:
    def write(folder: Path, state: State) -> Path:
        save_file(names(state), folder / "weights.safetensors")
        return folder / "weights.safetensors"

    return write


def diffusers_folder(shards: int, below: str = "") -> Write:
    def write(folder: Path, state: State) -> Path:
        inner = folder / below
        inner.mkdir(exist_ok=True)
        (inner / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", "num_layers": 2}))
        items = list(of_diffusers(state).items())
        if shards == 1:
            save_file(dict(items), inner / "diffusion_pytorch_model.safetensors")
            return folder
        names = [f"diffusion_pytorch_model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
        for i, name in enumerate(names):
            save_file(dict(items[i::shards]), inner / name)
        index = {"metadata": {}, "weight_map": {key: names[i % shards] for i, (key, _) in enumerate(items)}}
        (inner / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    return write


def wan_folder(folder: Path, state: State) -> Path:
    """The release of Wan: the network lies beside the text encoder and the VAE."""
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    torch.save({"token_embedding.weight": torch.ones(2, 2)}, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 32}))
    return folder


FORMATS: dict[str, Write] = {
    "self_forcing": torch_file(lambda state: {"generator": wrapped(zeros(state)), "generator_ema": wrapped(state), "step": 600}),
    "infinite_forcing": torch_file(lambda state: {"generator_ema": sharded_by_fsdp(state)}),
    "causal_forcing": torch_file(lambda state: {"generator": wrapped(state), "critic": wrapped(zeros(state))}),
    "longlive_base": torch_file(lambda state: {"generator": wrapped(state, "module.model.")}),
    "compiled": torch_file(lambda state: wrapped(state, "_orig_mod.model.")),
    "no_average_kept": torch_file(lambda state: {"generator_ema": {}, "generator": wrapped(state), "step": 600}),
    "bare": torch_file(lambda state: state),
    "bare_with_counters": torch_file(lambda state: state | {"step": torch.tensor(600), "done": torch.tensor(True)}),
    "safetensors_with_counters": safetensors_file(lambda state: state | {"step": torch.tensor(600)}),
    "bare_before_2020": torch_file(lambda state: state, _use_new_zipfile_serialization=False),
    "safetensors": safetensors_file(lambda state: state),
    "comfy": safetensors_file(lambda state: wrapped(state, "model.diffusion_model.")),
    "diffusers_file": safetensors_file(of_diffusers),
    "diffusers_folder": diffusers_folder(1),
    "diffusers_shards": diffusers_folder(3),
    "diffusers_pipeline": diffusers_folder(2, "transformer"),
    "wan_folder": wan_folder,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_loads_to_identical_tensors(name: str, tmp_path: Path, model: WanModel) -> None:
    state = model.state_dict()
    path = FORMATS[name](tmp_path, state)
    checkpoint.check(path, model.config)
    loaded = checkpoint.load_network(path, None, model.config, torch.float32, "cpu")
    found = loaded.state_dict()
    assert list(found) == list(state)
    assert not [key for key in state if not torch.equal(found[key], state[key])]
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    half = checkpoint.load_network(path, None, model.config, torch.bfloat16, "cpu").state_dict()
    assert not [key for key in state if not torch.equal(half[key], state[key].bfloat16())]


def true_size_file(path: Path, config: WanConfig) -> Path:
    """A bfloat16 checkpoint of the given sizes with a true header, whose numbers are a hole in the file."""
    header, end = {}, 0
    for name, shape in network_shapes(config).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def test_shapes_from_sizes_are_those_of_the_network(model: WanModel) -> None:
    assert list(network_shapes(model.config).items()) == [(name, tuple(value.shape)) for name, value in model.state_dict().items()]


def test_true_size_is_checked_without_reading_data(tmp_path: Path) -> None:
    path = true_size_file(tmp_path / "diffusion_pytorch_model.safetensors", WanConfig())
    checkpoint.check(path, WanConfig())
    found = weights.open_weights(path).shapes
    assert len(found) == 825
    assert sum(torch.Size(shape).numel() for shape in found.values()) == 1_418_996_800


def test_tensors_are_read_one_at_a_time(tmp_path: Path, model: WanModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a tensor is read, all earlier ones are only in the network: none of the file's is alive any more."""
    path = FORMATS["safetensors"](tmp_path, model.state_dict())
    opened, most = weights.open_weights, 0
    alive: list[weakref.ref[Tensor]] = []

    def watching(path: Path) -> weights.Weights:
        inner = opened(path)

        def get(name: str) -> Tensor:
            nonlocal most
            most = max(most, sum(reference() is not None for reference in alive))
            tensor = inner.get(name)
            alive.append(weakref.ref(tensor))
            return tensor

        return weights.Weights(inner.path, inner.shapes, inner.dtypes, get)

    monkeypatch.setattr(checkpoint, "open_weights", watching)
    checkpoint.load_network(path, None, model.config, torch.bfloat16, "cpu")
    assert len(alive) == len(model.state_dict())
    assert most <= 1


def forward(model: torch.nn.Module, config: WanConfig) -> Tensor:
    """Flow of one block; attention without positions."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fn.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 3, config.in_channels, 4, 6, generator=generator)
    text = model.text_states(torch.randn(1, 5, config.text_dim, generator=generator))
    return model(latents, model.time_states(torch.full((1, 3), 625.0)), text, attend)


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
    base = checkpoint.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=alpha)
    lora = write(tmp_path, network)
    path = FORMATS["longlive_base"](tmp_path, base.state_dict())
    checkpoint.check_lora(lora, config)
    merged = checkpoint.load_network(path, lora, config, torch.float32, "cpu")
    with torch.no_grad():
        ours, theirs, without = forward(merged, config), forward(network.base_model.model, config), forward(base, config)
    difference = (ours - theirs).abs() / theirs.abs().max()
    assert difference.max() <= 1e-6, f"max {difference.max():.1e}, mean {difference.mean():.1e} of the largest value"
    assert (ours - without).abs().max() > 0.01


def test_nothing_beside_a_file_of_additions_changes_the_network(tmp_path: Path) -> None:
    """A run's name covers the file alone; the config that peft writes is read of a folder, which the name covers whole."""
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=1, freq_dim=32, text_dim=16, text_len=6)
    base = checkpoint.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=4)
    lora, path = longlive(tmp_path, network), FORMATS["bare"](tmp_path, base.state_dict())
    before = checkpoint.load_network(path, lora, config, torch.float32, "cpu").state_dict()
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 64}))
    after = checkpoint.load_network(path, lora, config, torch.float32, "cpu").state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed, f"{len(changed)} tensors changed, first {changed[:1]}"
    folder = peft_folder(tmp_path, network)
    checkpoint.check_lora(folder, config)
    with pytest.raises(ValueError, match="its scale stands in the adapter_config.json beside it; nearest is the folder"):
        checkpoint.check_lora(folder / "adapter_model.safetensors", config)


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
        checkpoint.check_lora(shaped(shapes)(tmp_path, {}).parent, model.config)
    assert "\n" not in str(refusal.value) and str(tmp_path / "adapter_config.json") in str(refusal.value)


def test_additions_are_summed_before_the_cast(tmp_path: Path) -> None:
    config = WanConfig(dim=32, ffn_dim=48, heads=2, layers=1, freq_dim=32, text_dim=16, text_len=6)
    base = checkpoint.random_network(config, torch.float32, "cpu")
    network = with_peft(base, rank=4, alpha=4)
    lora, path = longlive(tmp_path, network), FORMATS["bare"](tmp_path, base.state_dict())
    merged = checkpoint.load_network(path, lora, config, torch.bfloat16, "cpu").state_dict()
    expected = network.merge_and_unload().state_dict()
    assert not [name for name in merged if not torch.equal(merged[name], expected[name].bfloat16())]


class Evil:
    """Would leave a file behind if a loader ran it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def raw(name: str, content: bytes) -> Write:
    def write(folder: Path, state: State) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def shaped(shapes: dict[str, tuple[int, ...]]) -> Write:
    return safetensors_file(lambda state: {name: torch.ones(shape) for name, shape in shapes.items()})


def changed(change: Callable[[State], object]) -> Write:
    """A torch file of the network after a change."""
    return torch_file(change)


def evil(folder: Path, state: State) -> Path:
    return torch_file(lambda state: {"a": Evil(folder / "evil")})(folder, state)


def shard(number: int, *, gone: bool) -> Write:
    """Three shards: the folder without one of them, or that one alone."""

    def write(folder: Path, state: State) -> Path:
        path = diffusers_folder(3)(folder, state) / f"diffusion_pytorch_model-{number:05d}-of-00003.safetensors"
        if gone:
            path.unlink()
        return folder if gone else path

    return write


WRONG: dict[str, tuple[Write, str]] = {
    "absent": (lambda folder, state: folder / "self_forcing.pt", "no weights at .*self_forcing.pt.*data.download"),
    "near": (
        lambda folder, state: raw("self_forcing_dmd.pt", b"x")(folder, state).with_name("self_forcing.pt"),
        "nearest there is self_forcing_dmd.pt",
    ),
    "renamed": (
        changed(lambda state: {name.replace("head.head.b", "head.heed.b"): value for name, value in state.items()}),
        r"1 missing keys, first head.head.bias \[64\]; 1 unexpected, first head.heed.bias \[64\]; it looks like a Wan transformer, 32 wide",
    ),
    "misshapen": (
        changed(lambda state: state | {"time_embedding.0.weight": torch.ones(32, 31)}),
        r"1 misshapen, first time_embedding.0.weight \[32, 31\] where \[32, 32\] belongs",
    ),
    "14B": (
        lambda folder, state: true_size_file(folder / "w.safetensors", WanConfig(dim=5120, ffn_dim=13824, heads=40, layers=40)),
        "unexpected, first blocks.2.*looks like Wan2.1-14B.*5120 wide with 40 layers.*nearest is self_forcing_dmd.pt",
    ),
    "image": (changed(lambda state: state | {"img_emb.proj.0.bias": torch.ones(1)}), "for image-to-video"),
    "text": (shaped({"blocks.0.ffn.gate.0.weight": (2, 2), "token_embedding.weight": (2, 2)}), "looks like a UMT5 encoder"),
    "vae": (shaped({"decoder.upsamples.0.residual.0.gamma": (4,)}), "looks like a VAE"),
    "taehv": (shaped({"decoder.3.conv.0.weight": (4,)}), "looks like a TAEHV"),
    "lora": (shaped({"base_model.model.blocks.0.ffn.0.lora_A.weight": (2, 2)}), "looks like a LoRA.*give it as the lora of a base"),
    "tiny": (shaped({"codec.mean": (2,), "model.head.head.bias": (2,)}), "a backbone of this project"),
    "float8": (
        changed(lambda state: {name: value.to(torch.float8_e4m3fn) for name, value in state.items()}),
        "float8_e4m3fn, quantized weights are not read; nearest is the original",
    ),
    "both": (changed(lambda state: state | wrapped(state)), "both mean .*keep one of the two"),
    "state": (changed(lambda state: {"optimizer": {"lr": 1.0}, "step": 3}), "training state with optimizer, step"),
    "list": (changed(lambda state: list(state.values())), "holds a list"),
    "pickle": (evil, "a pickled object, refused and not run"),
    "cut_pt": (lambda folder, state: cut(FORMATS["bare"](folder, state)), "cut short or damaged.*download it again"),
    "cut_safetensors": (lambda folder, state: cut(FORMATS["safetensors"](folder, state)), r"cut short, \d+ of \d+ bytes"),
    "pointer": (raw("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"), "a git LFS pointer"),
    "page": (raw("w.pt", b"<!DOCTYPE html><html>"), "a web page"),
    "gguf": (raw("w.bin", b"GGUF\x03\x00\x00\x00"), "quantized"),
    "empty": (raw("w.pt", b""), "the file is empty"),
    "noise": (raw("w.safetensors", b"\x00" * 99), "not a safetensors file"),
    "vae_folder": (
        lambda folder, state: raw("config.json", b'{"_class_name": "AutoencoderKLWan"}')(folder, state).parent,
        "config.json says AutoencoderKLWan; a folder of WanTransformer3DModel belongs there",
    ),
    "shard_gone": (shard(2, gone=True), "1 of 3 shards are missing, first diffusion_pytorch_model-00002-of-00003"),
    "shard_alone": (shard(2, gone=False), "missing keys.*nearest is the folder of all shards"),
    "empty_folder": (lambda folder, state: folder, "no file of weights"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_in_one_line(name: str, tmp_path: Path, model: WanModel) -> None:
    write, words = WRONG[name]
    path = write(tmp_path, model.state_dict())
    with pytest.raises(ValueError, match=words) as refusal:
        checkpoint.load_network(path, None, model.config, torch.float32, "cpu")
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)
    assert not (tmp_path / "evil").exists()


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
        checkpoint.check_lora(shaped(shapes)(tmp_path, {}), model.config)
    assert "\n" not in str(refusal.value)


def test_random_network_depends_on_names_and_seed_alone() -> None:
    config = WanConfig(dim=48, ffn_dim=96, heads=2, layers=6, freq_dim=32, text_dim=16, text_len=6)
    one, same, other = (checkpoint.random_network(config, torch.float32, "cpu", seed).state_dict() for seed in (0, 0, 1))
    assert not [name for name in one if not torch.equal(one[name], same[name])]
    assert not [name for name in one if torch.equal(one[name], other[name])]
    assert not torch.equal(one["blocks.0.self_attn.q.weight"], one["blocks.0.self_attn.k.weight"])
    half = checkpoint.random_network(config, torch.bfloat16, "cpu").state_dict()
    assert not [name for name in one if not torch.equal(one[name].bfloat16(), half[name])]
    with torch.no_grad():
        flow = forward(checkpoint.random_network(config, torch.float32, "cpu"), config)
    assert 0.3 < flow.std() < 3, f"std {flow.std():.2f}, max {flow.abs().max():.2f}"
