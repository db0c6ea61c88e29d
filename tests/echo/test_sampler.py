"""The schedule's published numbers and the sampler's algebra."""

from __future__ import annotations

import pytest
import torch

from echo import sampler


def test_warped_steps() -> None:
    steps = sampler.schedule()
    assert steps.timesteps == pytest.approx((1000, 937.5, 833.3333333, 625))
    assert steps.sigmas == pytest.approx((1, 0.9375, 0.8333333333, 0.625))
    assert steps.draws == 4


def test_own_steps_are_the_timesteps_that_the_network_reads() -> None:
    """CausVid's three lie on the table of shift 8; a noise level is the nearest of the table, found by looking at all."""
    steps = sampler.schedule((1000, 757, 522), 8.0, warp=False)
    levels = [8 * i / 1000 / (1 + 7 * i / 1000) for i in range(1, 1001)]
    expected = [min(levels, key=lambda level: abs(1000 * level - step)) for step in (1000, 757, 522)]
    assert steps.timesteps == (1000, 757, 522) and steps.sigmas == pytest.approx(expected)
    assert expected == pytest.approx([1, 0.757, 0.522], abs=5e-4)


def test_table_falls_from_one() -> None:
    table = sampler.sigma_table()
    assert table[0] == 1 and table[-1] == pytest.approx(5 * 0.001 / 1.004) and bool((table.diff() < 0).all())


def test_x0_inverts_renoise() -> None:
    x0, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    noisy = sampler.renoise(x0, noise, 0.8)
    assert torch.allclose(sampler.x0_from_flow(noisy, noise - x0, 0.8), x0, atol=1e-6)


@pytest.mark.parametrize("steps", [[], [750, 1000], [0], [1001], [500, 500]])
def test_bad_steps_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="denoising steps"):
        sampler.schedule(steps)
