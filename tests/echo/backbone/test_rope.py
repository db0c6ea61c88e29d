"""Rotation against a direct complex computation, and the property that it exists for."""

from __future__ import annotations

import math

import torch

from echo.backbone import rope
from tests.helpers.compare import report


def test_split_is_wan_s() -> None:
    assert rope.split(128) == (22, 21, 21)
    assert rope.split(16) == (4, 2, 2)
    assert rope.split(32) == (6, 5, 5)


def test_rotation_equals_a_loop_over_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 12, 2, 16, generator=generator)
    ours = rope.rotate(x, rope.frame_table([5, 1000], 2, 3, 16))
    expected = torch.empty_like(x)
    for n in range(12):
        frame, raster = divmod(n, 6)
        place = [(5, 1000)[frame]] * 4 + [raster // 3] * 2 + [raster % 3] * 2
        size = [4] * 4 + [2] * 4
        order = [0, 1, 2, 3, 0, 1, 0, 1]
        for c in range(8):
            angle = place[c] * 10000 ** (-order[c] / size[c])
            a, b = x[0, n, :, 2 * c].double(), x[0, n, :, 2 * c + 1].double()
            expected[0, n, :, 2 * c] = a * math.cos(angle) - b * math.sin(angle)
            expected[0, n, :, 2 * c + 1] = a * math.sin(angle) + b * math.cos(angle)
    assert torch.allclose(ours, expected, atol=2e-6), report(ours, expected)


def test_scores_depend_on_distance_only() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 6, 2, 32, generator=generator)

    def score(query: int, key: int) -> torch.Tensor:
        return (rope.rotate(q, rope.frame_table([query], 2, 3, 32)) * rope.rotate(k, rope.frame_table([key], 2, 3, 32))).sum(-1)

    near, far, other = score(9, 4), score(30009, 30004), score(9, 3)
    assert torch.allclose(near, far, atol=1e-4), report(near, far)
    assert not torch.allclose(near, other, atol=1e-2), report(near, other)
