"""The small decoder against a plain account of it, layer after layer over the whole video; streaming; wrong files refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from echo.backbone.parts.taehv import TaehvCodec, TaehvDecoder, check
from tests.helpers.compare import report

PUBLISHED = {
    "decoder.1.weight": (256, 16, 3, 3), "decoder.1.bias": (256,), "decoder.3.conv.0.weight": (256, 512, 3, 3),
    "decoder.5.conv.4.bias": (256,), "decoder.7.conv.weight": (256, 256, 1, 1), "decoder.8.weight": (128, 256, 3, 3),
    "decoder.9.conv.0.weight": (128, 256, 3, 3), "decoder.13.conv.weight": (256, 128, 1, 1), "decoder.14.weight": (64, 128, 3, 3),
    "decoder.17.conv.2.weight": (64, 64, 3, 3), "decoder.19.conv.weight": (128, 64, 1, 1), "decoder.20.weight": (64, 64, 3, 3),
    "decoder.22.weight": (3, 64, 3, 3), "decoder.22.bias": (3,),
}  # fmt: skip
"""Some tensors of taew2_1.pth."""


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """[2, 5, 16, 3, 4]"""
    return torch.randn(2, 5, 16, 3, 4, generator=torch.Generator().manual_seed(4)) * 2


def plainly(state: dict[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """All frames [T, 3, 8H, 8W] of one video [F, 16, H, W], undropped: each layer over a list of frames."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        weight = state[f"decoder.{name}.weight"]
        return F.conv2d(x, weight, state.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)

    frames = [F.relu(conv("1", 3 * torch.tanh(frame[None] / 3))) for frame in latents]
    for blocks, grow, narrow, times in (((3, 4, 5), 7, 8, 1), ((9, 10, 11), 13, 14, 2), ((15, 16, 17), 19, 20, 2)):
        for block in blocks:
            before, made = torch.zeros_like(frames[0]), []
            for frame in frames:
                x = F.relu(conv(f"{block}.conv.0", torch.cat([frame, before], 1)))
                x = conv(f"{block}.conv.4", F.relu(conv(f"{block}.conv.2", x)))
                made.append(F.relu(x + frame))
                before = frame
            frames = made
        grown = []
        for frame in frames:
            x = conv(f"{grow}.conv", frame.repeat_interleave(2, 2).repeat_interleave(2, 3))
            grown += x.chunk(times, 1)
        frames = [conv(str(narrow), frame) for frame in grown]
    return torch.cat([conv("22", F.relu(frame)).clamp(0, 1) for frame in frames])


def test_frames_are_those_of_the_plain_account(latents):
    codec = TaehvCodec.random("tiny", dtype=torch.float32)
    state = codec.decoder.state_dict()
    whole = torch.stack([plainly(state, video) for video in latents])
    stream = codec.stream()
    ours = torch.cat([*stream.pixels(latents[:, :2]), *stream.pixels(latents[:, 2:])], 1)
    assert whole.shape == (2, 20, 3, 24, 32)
    theirs = whole[:, 3:]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5, report(ours, theirs)
    assert theirs.std() > 0.02 and (theirs[:, 1:] - theirs[:, :-1]).abs().mean() > 1e-3
    frames = codec.stream().decode(latents)
    assert frames.dtype == torch.uint8 and frames.shape == (2, 17, 24, 32, 3)
    expected = (theirs.permute(0, 1, 3, 4, 2) * 255).round()
    assert (frames.float() - expected).abs().max() <= 1, report(frames.float(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block_by_block_is_decoding_at_once(dtype, latents):
    codec = TaehvCodec.random("tiny", dtype=dtype)
    whole = codec.stream().decode(latents)
    stream, other = codec.stream(), codec.stream()
    parts = []
    for start, end in ((0, 1), (1, 4), (4, 5)):
        parts.append(stream.decode(latents[:, start:end]))
        other.decode(latents[:, start:end].flip(1))
    ours = torch.cat(parts, 1)
    assert [part.shape[1] for part in parts] == [1, 12, 4] and codec.first_frames == 1
    assert torch.equal(ours, whole), report(ours.float(), whole.float())
    assert not torch.equal(codec.stream().decode(latents[:, 1:])[:, 1:], whole[:, 5:]), "a stream without memory would go unnoticed"


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        state = TaehvDecoder().state_dict()
    assert {name: tuple(state[name].shape) for name in PUBLISHED} == PUBLISHED
    assert len(state) == 2 + 3 * (3 * 6 + 2) + 2
    assert {int(name.split(".")[1]) for name in state} == {1, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 19, 20, 22}


@pytest.mark.parametrize("name", ["taew2_1.pth", "taew2_1.safetensors"])
def test_files_round_trip(name, latents, tmp_path):
    codec = TaehvCodec.random("tiny", dtype=torch.float32)
    state = codec.decoder.state_dict() | {"encoder.0.weight": torch.ones(2), "encoder.12.conv.weight": torch.ones(3)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    check(tmp_path / name)
    loaded = TaehvCodec.load(tmp_path / name, dtype=torch.float32)
    assert loaded.decoder.state_dict().keys() == codec.decoder.state_dict().keys()
    assert torch.equal(loaded.stream().decode(latents), codec.stream().decode(latents))


def test_wrong_files_and_latents_are_refused(latents, tmp_path):
    codec = TaehvCodec.random("tiny", dtype=torch.float32)
    state = codec.decoder.state_dict()
    torch.save(state | {"decoder.1.weight": torch.ones(16, 48, 3, 3)}, tmp_path / "taew2_2.pth")
    with pytest.raises(
        ValueError, match=r"taew2_2\.pth: not a TAEHV decoder .*1 misshapen, first decoder\.1\.weight .* looks like a TAEHV"
    ):
        TaehvCodec.load(tmp_path / "taew2_2.pth")
    with pytest.raises(ValueError, match="not a TAEHV decoder"):
        check(tmp_path / "taew2_2.pth")
    torch.save({"decoder.upsamples.0.residual.0.gamma": torch.ones(2, 1, 1, 1)}, tmp_path / "Wan2.1_VAE.pth")
    with pytest.raises(ValueError, match=r"missing keys, first decoder\.1\.weight .*it looks like a VAE in Wan's layout"):
        TaehvCodec.load(tmp_path / "Wan2.1_VAE.pth")
    with pytest.raises(ValueError, match="random codec 'huge': one of tiny, native"):
        TaehvCodec.random("huge")
    stream = codec.stream()
    stream.decode(latents)
    with pytest.raises(ValueError, match=r"latents \[1, 16, 3, 4\] follow \[2, 16, 3, 4\]"):
        stream.decode(latents[:1])
