"""Scene recall frames (paper 3.2): several frames of a scene fused into one frame of keys and values.

Shapes: B batch, M candidates, S tokens of a frame, H heads, D head_dim.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as fn


def recall_weights(keys_BMSHD: Tensor, centre: Tensor) -> Tensor:
    """alpha of eq. (8), [B, M, S]: softmax over candidates of the head-mean dot product with the scene's mean query.

    centre: one query for all places [B, H, D], or one for each place [B, S, H, D].
    """
    heads = keys_BMSHD.shape[-2]
    centre_BSHD = centre if centre.dim() == 4 else centre.unsqueeze(1)
    return ((keys_BMSHD.float() * centre_BSHD.unsqueeze(1)).sum((-1, -2)) / heads).softmax(dim=1)


def crucial(weights_BMS: Tensor) -> Tensor:
    """All weight on the candidate with the largest mean weight, [B, M, S]."""
    best_B = weights_BMS.mean(-1).argmax(-1)
    return fn.one_hot(best_B, weights_BMS.shape[1]).to(weights_BMS.dtype).unsqueeze(-1).expand_as(weights_BMS)


def fuse(states_BMSHD: Tensor, weights_BMS: Tensor, base_weight: float) -> Tensor:
    """Eq. (9), [B, S, H, D], blended with the first candidate, whose share is `base_weight`."""
    fused = (states_BMSHD.float() * weights_BMS[..., None, None]).sum(1)
    return (base_weight * states_BMSHD[:, 0].float() + (1 - base_weight) * fused).to(states_BMSHD.dtype)
