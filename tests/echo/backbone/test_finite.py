"""What is not finite is seen wherever it stands, without a wait for the device, and before a clamp or a cast to bytes can hide it."""

from __future__ import annotations

import math

import pytest
import torch

from echo.backbone.finite import Finite, broken
from echo.backbone.parts.codec import PatchCodec
from echo.backbone.parts.taehv import TaehvCodec
from echo.backbone.parts.vae import WanCodec

BAD = (math.nan, math.inf, -math.inf)
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", BAD)
def test_one_value_among_many_is_seen(dtype, bad):
    for count in (1, 5, 64, 1001):
        for place in {0, count // 2, count - 1}:
            values = torch.linspace(-3, 3, count).to(dtype)
            flag = Finite()
            flag.see(values)
            assert flag and all(map(math.isfinite, values.tolist()))
            values[place] = bad
            flag.see(values)
            flag.see(torch.ones(2))
            assert not flag, f"{bad} at {place} of {count} in {dtype}"
            assert broken({"fine": torch.ones(2), "x": values}) == ("x", "holds a NaN or an infinity")


def test_zeros_are_broken_in_a_matrix_alone():
    fine = {"bias": torch.zeros(4), "one": torch.zeros(1, 1), "few": torch.eye(3), "step": torch.zeros(2, 2, dtype=torch.int64)}
    assert broken(fine) is None and broken({}) is None
    assert broken(fine | {"x": torch.zeros(2, 3)}) == ("x", "is a matrix of zeros alone")


def patches():
    frames = torch.randint(0, 256, (4, 8, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    codec = PatchCodec.fit(frames, channels=16)
    return codec, codec.encode(frames)


CODECS = {
    "embedded": patches,
    "wan": lambda: (WanCodec.random("tiny", dtype=torch.float32), torch.randn(1, 2, 16, 3, 4)),
    "taehv": lambda: (TaehvCodec.random("tiny", dtype=torch.float32), torch.randn(1, 2, 16, 3, 4)),
}


def spoil(codec: PatchCodec | WanCodec | TaehvCodec, bad: float) -> None:
    """Make the codec's last sum overflow, or no number, whatever comes in."""
    if isinstance(codec, PatchCodec):
        codec.mean[7] = bad
    else:
        bias = [value for name, value in codec.decoder.named_parameters() if name.endswith("bias")][-1]
        bias.data[0] = bad


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bad", BAD)
def test_pixels_are_looked_at_before_they_become_bytes(name, bad):
    codec, latents = CODECS[name]()
    stream = codec.stream()
    stream.decode(latents)
    assert stream.finite
    spoil(codec, bad)
    frames = stream.decode(latents)
    assert frames.dtype == torch.uint8 and not stream.finite, "bytes say nothing of it: an infinity is white, a NaN black"
    assert codec.stream().finite, "another batch of videos is another one"
