"""Checkpoints of every format, written here from a known network: identical tensors, refusals in one line."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from echo.backbone.checkpoints import transformer, weights
from echo.backbone.wan import WanConfig, WanModel
from tests.helpers.checkpoints import FORMATS, State, Write, diffusers_folder, forward, shaped, torch_file, true_size_file, wrapped


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_loads_to_identical_tensors(name: str, tmp_path: Path, model: WanModel) -> None:
    state = model.state_dict()
    path = FORMATS[name](tmp_path, state)
    transformer.check(path, model.config)
    loaded = transformer.load_network(path, None, model.config, torch.float32, "cpu")
    found = loaded.state_dict()
    assert list(found) == list(state)
    assert not [key for key in state if not torch.equal(found[key], state[key])]
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    half = transformer.load_network(path, None, model.config, torch.bfloat16, "cpu").state_dict()
    assert not [key for key in state if not torch.equal(half[key], state[key].bfloat16())]


def test_true_size_is_checked_without_reading_data(tmp_path: Path) -> None:
    path = true_size_file(tmp_path / "diffusion_pytorch_model.safetensors", WanConfig())
    transformer.check(path, WanConfig())
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

    monkeypatch.setattr(transformer, "open_weights", watching)
    transformer.load_network(path, None, model.config, torch.bfloat16, "cpu")
    assert len(alive) == len(model.state_dict())
    assert most <= 1


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


def one_number(state: State, name: str, value: float) -> State:
    tensor = state[name].clone()
    tensor.view(-1)[tensor.numel() // 2] = value
    return {name: tensor}


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
    "flat": (
        changed(lambda state: state | {"patch_embedding.weight": torch.ones(())}),
        r"patch_embedding.weight \[\] where .* it looks like ",
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
    "nan": (changed(lambda state: state | one_number(state, "blocks.1.ffn.2.weight", math.nan)), "blocks.1.ffn.2.weight holds a NaN"),
    "infinity": (changed(lambda state: state | one_number(state, "head.head.bias", -math.inf)), "head.head.bias holds a NaN or an inf"),
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
        transformer.load_network(path, None, model.config, torch.float32, "cpu")
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)
    assert not (tmp_path / "evil").exists()


def test_what_overflows_in_the_cast_is_told_from_a_damaged_file(tmp_path: Path, model: WanModel) -> None:
    path = torch_file(lambda state: state | one_number(state, "blocks.0.ffn.0.weight", 3.4e38))(tmp_path, model.state_dict())
    transformer.load_network(path, None, model.config, torch.float32, "cpu")
    with pytest.raises(ValueError, match="blocks.0.ffn.0.weight holds a NaN or an infinity once it is bfloat16; nearest is float32$"):
        transformer.load_network(path, None, model.config, torch.bfloat16, "cpu")


def test_random_network_depends_on_names_and_seed_alone() -> None:
    config = WanConfig(dim=48, ffn_dim=96, heads=2, layers=6, freq_dim=32, text_dim=16, text_len=6)
    one, same, other = (transformer.random_network(config, torch.float32, "cpu", seed).state_dict() for seed in (0, 0, 1))
    assert not [name for name in one if not torch.equal(one[name], same[name])]
    assert not [name for name in one if torch.equal(one[name], other[name])]
    assert not torch.equal(one["blocks.0.self_attn.q.weight"], one["blocks.0.self_attn.k.weight"])
    half = transformer.random_network(config, torch.bfloat16, "cpu").state_dict()
    assert not [name for name in one if not torch.equal(one[name].bfloat16(), half[name])]
    with torch.no_grad():
        flow = forward(transformer.random_network(config, torch.float32, "cpu"), config)
    assert 0.3 < flow.std() < 3, f"std {flow.std():.2f}, max {flow.abs().max():.2f}"
