"""Difference-aware memory decay (paper 3.3): old tokens fade faster where the new scene differs more.

Shapes: B batch, T old frames, S tokens of a frame, H heads, D head_dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.memory.settings import DecayMap


def discrepancy(old_BTSHD: Tensor, new_BSHD: Tensor) -> Tensor:
    """d of eq. (11), [B, T, S]: one minus the cosine of the keys over all heads, place by place."""
    new = new_BSHD.flatten(-2).float().unsqueeze(1)
    return 1 - fn.cosine_similarity(old_BTSHD.flatten(-2).float(), new, dim=-1)


def normalise(d_BN: Tensor) -> Tensor:
    """delta of eq. (11): min-max over the old tokens; zero where they differ by less than 1e-6."""
    low, high = d_BN.amin(-1, keepdim=True), d_BN.amax(-1, keepdim=True)
    span = high - low
    return torch.where(span < 1e-6, 0.0, (d_BN - low) / span.clamp_min(1e-6))


def retention(delta: Tensor, rho_min: float, rho_max: float, law: DecayMap) -> Tensor:
    """rho = exp(-mu), the share of a token's weight that a block leaves: eq. (12), or the same line drawn in rho."""
    if law is DecayMap.rho:
        return rho_max - (rho_max - rho_min) * delta
    mu_min, mu_max = -math.log(rho_max), -math.log(rho_min)
    return torch.exp(-(mu_min + (mu_max - mu_min) * delta))
