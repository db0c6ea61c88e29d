"""A tiny real network with random weights: two layers, two heads of 16, six tokens a frame."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from echo.backbone.wan import WanConfig, WanModel
from echo.geometry import Geometry

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    return Geometry(layers=2, heads=2, head_dim=16, grid_height=2, grid_width=3)


@pytest.fixture(scope="session")
def model() -> WanModel:
    torch.manual_seed(7)
    network = WanModel(WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def texts() -> Tensor:
    """Text rows of eight scenes, [8, 6, 16]."""
    return torch.randn(8, 6, 16, generator=torch.Generator().manual_seed(3))
