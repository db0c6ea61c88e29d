"""The attention mass of each head on each frame.

Shapes: B batch, N query tokens, T key frames, S tokens of a frame, H heads, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frame_mass(q_BNHD: Tensor, k_BMHD: Tensor, tokens_per_frame: int) -> Tensor:
    """Share of the attention of rotated queries on each frame of rotated keys (M = T * S), the mean over queries; [B, H, T].

    Computed head by head in fp32: the attention weights of all heads take gigabytes at full size.
    """
    scale, masses = q_BNHD.shape[-1] ** -0.5, []
    for head in range(q_BNHD.shape[2]):
        logits_BNM = q_BNHD[:, :, head].float() @ k_BMHD[:, :, head].float().transpose(1, 2) * scale
        masses.append(logits_BNM.softmax(-1).unflatten(-1, (-1, tokens_per_frame)).sum(-1).mean(1))
    return torch.stack(masses, 1)
