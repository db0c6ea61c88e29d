"""The codec: how much it loses, and that blocks alone decode as the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.world.render import draw, render
from echo.backbone.parts.codec import CHANNELS, SIDE, PatchCodec
from jobs.train.data import fit_codec


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return fit_codec(96)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.from_numpy(render([draw((77, index), 36) for index in range(6)]))


def test_psnr(codec: PatchCodec, frames: torch.Tensor) -> None:
    error = (codec.decode(codec.encode(frames)).double() - frames.double()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 25


def test_latents_have_unit_deviation_and_falling_energy(codec: PatchCodec, frames: torch.Tensor) -> None:
    latents = codec.encode(frames)
    assert latents.shape == (6, 9, CHANNELS, 8, 8) and latents.dtype == torch.float32
    assert 0.85 < latents.std() < 1.15
    deviation = latents.std(dim=(0, 1, 3, 4))
    assert deviation[0] > deviation[8] > deviation[-1] > 0.2


def test_blocks_alone_decode_as_the_whole(codec: PatchCodec, frames: torch.Tensor) -> None:
    latents = codec.encode(frames) + 0.3 * torch.randn(6, 9, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([codec.decode(block) for block in latents.split(3, dim=1)], dim=1)
    assert torch.equal(alone, codec.decode(latents))
    assert torch.equal(codec.decode(latents[2:3]), codec.decode(latents)[2:3])


def test_encode_is_a_projection_of_each_patch(codec: PatchCodec, frames: torch.Tensor) -> None:
    patch = frames[1, 4:8, 3 * SIDE : 4 * SIDE, 5 * SIDE : 6 * SIDE].numpy().astype(np.float64).reshape(-1) / 127.5 - 1
    expected = (patch - codec.mean.numpy()) @ codec.basis.numpy() / codec.scale.numpy()
    assert np.allclose(codec.encode(frames)[1, 1, :, 3, 5].numpy(), expected, atol=1e-4)


def test_fit_is_deterministic_and_survives_saving(codec: PatchCodec, frames: torch.Tensor) -> None:
    again = fit_codec(96)
    assert torch.equal(again.basis, codec.basis)
    assert (codec.basis.gather(0, codec.basis.abs().argmax(0)[None]) > 0).all()
    assert torch.equal(PatchCodec.load(codec.save()).encode(frames), codec.encode(frames))


def test_sizes_that_do_not_divide_are_refused(codec: PatchCodec) -> None:
    for shape, rule in (((6, 48, 48), "frames 6 is no multiple of 4"), ((8, 48, 32), "width 32 is no multiple of 6")):
        with pytest.raises(ValueError, match=rule):
            codec.encode(torch.zeros(1, *shape, 3, dtype=torch.uint8))
