"""Wan's codec: streaming against decoding at once and against diffusers' own decode; files of every layout; wrong ones refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from echo.backbone.extras import need
from echo.backbone.parts.vae import CHANNELS, LATENT_MEAN, LATENT_STD, WanCodec, check
from tests.helpers.compare import report

BASE = 4


@pytest.fixture(scope="module")
def vae():
    """A tiny AutoencoderKLWan, whole."""
    torch.manual_seed(11)
    return need("diffusers").AutoencoderKLWan(base_dim=BASE).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """[2, 7, 16, 3, 4]"""
    return torch.randn(2, 7, CHANNELS, 3, 4, generator=torch.Generator().manual_seed(2))


def wan_name(name: str) -> str:
    """A tensor's name in Wan2.1_VAE.pth."""
    heads = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
    first, _, rest = name.partition(".")
    if first in heads:
        return f"{heads[first]}.{rest}"
    for theirs, ours in (("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2"), ("mid_block.resnets.0", "middle.0"),
                         ("mid_block.attentions.0", "middle.1"), ("mid_block.resnets.1", "middle.2")):  # fmt: skip
        if rest.startswith(theirs + "."):
            rest = ours + rest[len(theirs) :]
    if rest.startswith("up_blocks."):
        _, level, kind, number, end = rest.split(".", 4)
        rest = f"upsamples.{int(level) * 4 + (int(number) if kind == 'resnets' else 3)}.{end}"
    rest = rest.replace("down_blocks.", "downsamples.")
    for theirs, ours in (("norm1.", "residual.0."), ("conv1.", "residual.2."), ("norm2.", "residual.3."), ("conv2.", "residual.6.")):
        if "samples." in rest or rest.startswith(("middle.0", "middle.2")):
            rest = rest.replace(theirs, ours)
    return f"{first}.{rest.replace('conv_shortcut', 'shortcut')}"


def wan_state(vae) -> dict[str, torch.Tensor]:
    return {wan_name(name): value for name, value in vae.state_dict().items()}


@pytest.fixture(scope="module")
def files(vae, tmp_path_factory) -> Path:
    """The codec in all layouts: Wan's, diffusers' folder and pipeline, single safetensors files, and the decoding half alone."""
    folder = tmp_path_factory.mktemp("vae")
    state = wan_state(vae)
    torch.save(state, folder / "Wan2.1_VAE.pth")
    vae.save_pretrained(folder / "folder")
    vae.save_pretrained(folder / "pipeline" / "vae")
    save_file(vae.state_dict(), folder / "diffusers.safetensors")
    save_file({name: value for name, value in state.items() if name.startswith(("decoder.", "conv2."))}, folder / "half.safetensors")
    return folder


def test_layout_is_that_which_diffusers_converts(vae):
    convert = need("diffusers.loaders.single_file_utils").convert_wan_vae_to_diffusers
    theirs = convert(wan_state(vae))
    assert theirs.keys() == vae.state_dict().keys()
    assert all(torch.equal(theirs[name], value) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "folder", "pipeline", "diffusers.safetensors", "half.safetensors"])
def test_every_layout_loads_to_the_same_tensors(name, vae, files):
    check(files / name)
    codec = WanCodec.load(files / name, dtype=torch.float32)
    ours, theirs = codec.decoder.state_dict(), vae.decoder.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(codec.entry.weight, vae.post_quant_conv.weight)
    assert codec.dtype == torch.float32 and not any(weight.is_meta for weight in codec.decoder.parameters())
    assert torch.equal(codec.mean.flatten(), torch.tensor(LATENT_MEAN)) and torch.equal(codec.std.flatten(), torch.tensor(LATENT_STD))


def test_stream_is_diffusers_decode(vae, latents, files):
    codec = WanCodec.load(files / "Wan2.1_VAE.pth", dtype=torch.float32)
    config = vae.config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
    theirs = vae.decode(latents.transpose(1, 2) * std + mean).sample
    stream = codec.stream()
    ours = torch.cat([frames for start, end in ((0, 3), (3, 6), (6, 7)) for frames in stream.pixels(latents[:, start:end])], 2)
    assert ours.shape == theirs.shape == (2, 3, 25, 24, 32)
    assert (ours - theirs).abs().max() < 1e-5, report(ours, theirs)
    assert theirs.std() > 0.02 and (theirs[:, :, 1:] - theirs[:, :, :-1]).abs().mean() > 1e-3
    frames = codec.stream().decode(latents)
    assert frames.shape == (2, 25, 24, 32, 3) and frames.dtype == torch.uint8
    expected = ((theirs.permute(0, 2, 3, 4, 1) * 0.5 + 0.5) * 255).round()
    assert (frames.float() - expected).abs().max() <= 1, report(frames.float(), expected)
    assert (frames.float() != expected).float().mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block_by_block_is_decoding_at_once(dtype, latents):
    codec = WanCodec.random("tiny", dtype=dtype)

    def pixels(stream, latents):  # before they are rounded to bytes, which would hide small differences
        return torch.cat([*stream.pixels(latents)], 2)

    whole = pixels(codec.stream(), latents)
    one, other = codec.stream(), codec.stream()
    parts = []
    for start, end in ((0, 1), (1, 4), (4, 7)):
        parts.append(pixels(one, latents[:, start:end]))
        other.decode(latents[:, start:end].flip(1))  # Another batch of videos in between.
    ours = torch.cat(parts, 2)
    assert [part.shape[2] for part in parts] == [1, 12, 12] and codec.first_frames == 1
    assert ours.dtype == torch.float32 and torch.equal(ours, whole), report(ours, whole)
    fresh = pixels(codec.stream(), latents[:, 1:])
    assert not torch.equal(fresh[:, :, 1:], whole[:, :, 5:]), "a stream without memory would go unnoticed"


def test_rows_do_not_mix(latents):
    codec = WanCodec.random("tiny", dtype=torch.float32)
    both, alone = codec.stream().decode(latents).float(), codec.stream().decode(latents[1:]).float()
    assert (both[1:] - alone).abs().max() <= 1, report(both[1:], alone)
    assert (both[0] - both[1]).abs().mean() > 1


def test_memory_does_not_grow(latents):
    codec = WanCodec.random("tiny", dtype=torch.float32)
    stream = codec.stream()
    sizes = []
    for _ in range(4):
        stream.decode(latents)
        sizes.append(sum(value.numel() for value in stream._frames.args[0] if isinstance(value, torch.Tensor)))
    assert len(set(sizes)) == 1 and sizes[0] > 0
    assert codec.memories == 33


def test_random_codec_is_always_the_same(latents):
    frames = WanCodec.random("tiny", dtype=torch.float32).stream().decode(latents)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = WanCodec.random("tiny", dtype=torch.float32).stream().decode(latents)
    assert torch.equal(frames, again) and torch.equal(before, torch.random.get_rng_state())
    assert frames.float().std() > 2


def test_constants_of_a_folder_count(vae, files, tmp_path):
    vae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latents_mean": [0.5] * CHANNELS}))
    assert torch.equal(WanCodec.load(tmp_path).mean.flatten(), torch.full((CHANNELS,), 0.5))
    (tmp_path / "config.json").write_text(json.dumps(config | {"latents_mean": [0.5] * 48}))
    with pytest.raises(ValueError, match=r"config\.json: 48 means and 16 deviations; the VAE of Wan2\.1 has 16 channels"):
        WanCodec.load(tmp_path)


def test_wrong_files_are_refused_in_one_line(vae, tmp_path):
    def refused(tensors: dict[str, torch.Tensor], match: str) -> None:
        torch.save(tensors, tmp_path / "vae.pth")
        with pytest.raises(ValueError, match=match) as error:
            WanCodec.load(tmp_path / "vae.pth")
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match=match):
            check(tmp_path / "vae.pth")

    state = wan_state(vae)
    first = "decoder.upsamples.5.residual.2.weight"
    refused({k: v for k, v in state.items() if k != first}, r"1 missing keys, first decoder\.up_blocks\.1\.resnets\.1\.conv1\.weight")
    refused(state | {"decoder.extra": torch.ones(1)}, r"1 unexpected, first decoder\.extra \[1\]; it looks like a VAE in Wan's layout")
    refused(state | {"conv2.bias": torch.ones(48)}, r"1 misshapen, first post_quant_conv\.bias \[48\] where \[16\] belongs")
    refused({"blocks.0.ffn.0.lora_A.weight": torch.ones(2, 2)}, r"it looks like a LoRA \(low-rank additions\)")
    refused({"blocks.0.self_attn.q.weight": torch.ones(2, 2)}, r"not the VAE of Wan2\.1: .*; it looks like a Wan network")
    refused({"decoder.upsamples.0.upsamples.0.residual.0.gamma": torch.ones(2, 1, 1, 1)}, r"it looks like the VAE of Wan2\.2")
    with pytest.raises(ValueError, match="no weights at .*nowhere"):
        WanCodec.load(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="random codec 'huge': one of tiny, native"):
        WanCodec.random("huge")


def test_wrong_latents_are_refused(latents):
    stream = WanCodec.random("tiny", dtype=torch.float32).stream()
    with pytest.raises(ValueError, match="latents of 7 frames and 15 channels; Wan2.1's codecs take 16"):
        stream.decode(latents[:, :, :15])
    stream.decode(latents[:, :1])
    with pytest.raises(ValueError, match=r"latents \[1, 16, 3, 4\] follow \[2, 16, 3, 4\]"):
        stream.decode(latents[:1, 1:])
