"""Drift-gated phase compression (paper 3.1.2), mean over offsets and heads in closed form.

Shapes: B batch, T candidate frames, S tokens of a frame, H heads, D head_dim, C = D / 2 complex channels, O offsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as fn


def as_complex(x_D: Tensor) -> Tensor:
    """Adjacent channel pairs as complex numbers, [..., D] to [..., C]."""
    return torch.view_as_complex(x_D.float().unflatten(-1, (-1, 2)).contiguous())


def offset_phase(omega_C: Tensor, offsets: Sequence[int]) -> Tensor:
    """c_f = mean over o of exp(i omega_f o); the mean of eq. (3) over future offsets."""
    angle = torch.outer(torch.tensor(list(offsets), dtype=torch.float64, device=omega_C.device), omega_C.double())
    return torch.polar(torch.ones_like(angle), angle).mean(0).to(torch.complex64)


def drift_gate(recent_BHD: Tensor, centre_BHC: Tensor, strength: float) -> Tensor:
    """g = exp(-lambda (1 - cos(q_rec, q_bar))), eq. (5), [B]; the cosine runs over all heads at once."""
    centre = torch.view_as_real(centre_BHC).flatten(1)
    return torch.exp(-strength * (1 - fn.cosine_similarity(recent_BHD.flatten(1).float(), centre, dim=-1, eps=1e-6).clamp(-1, 1)))


def phase_score(keys_BTSHD: Tensor, centre_BHC: Tensor, phase_C: Tensor, omega_C: Tensor, ages_T: Tensor) -> Tensor:
    """Eq. (3) averaged over offsets and heads, [B, T, S].

    Re(q_bar conj(k) e^(i omega (age + o))) is a real dot product of k with a vector that depends only on the frame.
    ages: the block's first frame minus the candidate frame.
    """
    angle = torch.outer(ages_T.double(), omega_C.double())
    turn_TC = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    target = (centre_BHC * phase_C).unsqueeze(1) * turn_TC[None, :, None]
    target_BTE = torch.view_as_real(target).flatten(2)
    heads = keys_BTSHD.shape[-2]
    return torch.matmul(keys_BTSHD.flatten(-2).float(), target_BTE.unsqueeze(-1)).squeeze(-1) / heads


def amplitude_score(keys_BTSHD: Tensor, centre_BHC: Tensor, magnitude_BHC: Tensor) -> Tensor:
    """AMP of eq. (4) averaged over heads, [B, T, S]."""
    size_BTSHC = keys_BTSHD.float().unflatten(-1, (-1, 2)).square().sum(-1).sqrt()
    surplus_BE = (magnitude_BHC - centre_BHC.abs()).flatten(1)
    heads = keys_BTSHD.shape[-2]
    return torch.matmul(size_BTSHC.flatten(-2), surplus_BE[:, None, :, None]).squeeze(-1) / heads


def top_tokens(score_BN: Tensor, count: int) -> Tensor:
    """Eq. (6): the best `count` tokens over all candidates, indices [B, count] ascending (time, then raster)."""
    return score_BN.topk(count, dim=-1).indices.sort(dim=-1).values
