"""What is not finite is seen wherever it stands, without a wait for the device, and before a clamp or a cast to bytes can hide it."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

from echo.backbone.checkpoints.transformer import network_shapes, random_network
from echo.backbone.finite import Finite, broken
from echo.backbone.parts.codec import PatchCodec
from echo.backbone.parts.taehv import TaehvCodec
from echo.backbone.parts.vae import WanCodec
from echo.backbone.sizes import SIZES, geometry

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


NATIVE = geometry(SIZES["native"].network, SIZES["native"].height_px, SIZES["native"].width_px, 21)
"""The true geometry: 832x480, blocks of three latent frames, a window of 21."""


def block_of_numbers() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What is looked at of a block at the true geometry: its latents on the host, and the pixels of each of its latent frames."""
    g = NATIVE
    latents = torch.randn(g.frames_per_block, g.latent_channels, g.latent_height, g.latent_width)
    return latents, [torch.randn(1, 3, 4, 480, 832).bfloat16() for _ in range(g.frames_per_block)]


def test_the_look_reads_few_of_a_blocks_bytes():
    """Computed: a pass reads all weights and the keys and values of the window, five times a block."""
    latents, pixels = block_of_numbers()
    looked = sum(part.numel() * part.element_size() for part in (latents, *pixels))
    weights = 2 * sum(torch.Size(shape).numel() for shape in network_shapes(SIZES["native"].network).values())
    tokens = NATIVE.window_frames * NATIVE.grid_height * NATIVE.grid_width
    window = 2 * 2 * NATIVE.layers * tokens * NATIVE.heads * NATIVE.head_dim
    share = looked / (5 * (weights + window))
    assert share < 0.001, f"{looked / 1e6:.1f} MB of {5 * (weights + window) / 1e9:.1f} GB, {share:.3%}"


@pytest.mark.slow
def test_the_look_costs_little_of_one_layer():
    """Measured, on one thread: one layer's pass of one frame over the full window, of the 450 that a block takes."""
    from torch.nn import functional as fn

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    g, latents_pixels = NATIVE, block_of_numbers()
    network = random_network(replace(SIZES["native"].network, layers=1), torch.bfloat16, "cpu")
    keys = torch.randn(1, g.heads, g.window_frames * g.grid_height * g.grid_width, g.head_dim).bfloat16()
    with torch.inference_mode():
        text = network.text_states(torch.randn(1, 512, 4096).bfloat16())
        clock = network.time_states(torch.full((1, 1), 625.0))
        begun = time.perf_counter()
        network(latents_pixels[0][None, :1].bfloat16(), clock, text, lambda i, q, k, v: fn.scaled_dot_product_attention(
            q.transpose(1, 2), keys, keys).transpose(1, 2))  # fmt: skip
        layer_s, begun = g.frames_per_block * (time.perf_counter() - begun), time.perf_counter()
        for _ in range(10):
            flag = Finite()
            for part in (latents_pixels[0], *latents_pixels[1]):
                flag.see(part)
            assert flag
    look_s = (time.perf_counter() - begun) / 10
    torch.set_num_threads(threads)
    assert look_s < 0.005 * layer_s, f"{1e3 * look_s:.2f} ms beside {layer_s:.1f} s of one layer, {look_s / layer_s:.3%}"


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
