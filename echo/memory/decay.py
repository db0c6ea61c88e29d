"""Difference-aware memory decay (paper 3.3): old tokens fade faster where the new scene differs more.

Shapes: B batch, T old frames, S tokens of a frame, H heads, D head_dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.memory.settings import DecayMap


def neighbourhood(height: int, width: int) -> Tensor:
    """The 3x3 neighbourhood of each place of a grid, itself included, [9, S]; clamped at the edges."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return torch.stack(
        [((rows + down).clamp(0, height - 1) * width + (columns + right).clamp(0, width - 1)).flatten() for down, right in moves]
    )


def discrepancy(old_BTSHD: Tensor, new_BRSHD: Tensor, places_NS: Tensor | None = None) -> Tensor:
    """d of eqs. (11) and (19), [B, T, S]: one minus the cosine of the keys over all heads, with the best matching key.

    Args:
        old_BTSHD: keys of the old memory.
        new_BRSHD: keys of the new scene's reference frames, with all of which they are compared.
        places_NS: places of the reference with which each place is compared; by default only the same place.
    """
    old, new = old_BTSHD.flatten(-2).float(), new_BRSHD.flatten(-2).float()
    at = [slice(None)] if places_NS is None else list(places_NS)
    return torch.stack(
        [1 - fn.cosine_similarity(old, frame[:, places].unsqueeze(1), dim=-1) for frame in new.unbind(1) for places in at]
    ).amin(0)


def normalise(d_BN: Tensor) -> Tensor:
    """delta of eq. (11): min-max over the old tokens; zero if they differ by less than 1e-6."""
    low, high = d_BN.amin(-1, keepdim=True), d_BN.amax(-1, keepdim=True)
    span = high - low
    return torch.where(span < 1e-6, 0.0, (d_BN - low) / span.clamp_min(1e-6))


def retention(delta: Tensor, rho_min: float, rho_max: float, law: DecayMap) -> Tensor:
    """rho = exp(-mu), the share of a token's weight that is left after a block: eq. (12), or interpolated in rho."""
    if law is DecayMap.rho:
        return rho_max - (rho_max - rho_min) * delta
    mu_min, mu_max = -math.log(rho_max), -math.log(rho_min)
    return torch.exp(-(mu_min + (mu_max - mu_min) * delta))
