"""Self-attention with a soft maximum of its own, one query of one head after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def by_hand(q: Tensor, k: Tensor, v: Tensor, added: Sequence[float] | None = None) -> Tensor:
    """q [N, H, D], k and v [M, H, D], rotated; `added`: to the logits of each key. Gives [N, H, D]."""
    out, more = torch.zeros_like(q), added or [0.0] * k.shape[0]
    for head in range(q.shape[1]):
        for n in range(q.shape[0]):
            logits = [float(q[n, head] @ k[m, head]) / math.sqrt(q.shape[2]) + more[m] for m in range(k.shape[0])]
            shares = [math.exp(logit - max(logits)) for logit in logits]
            out[n, head] = sum(share / sum(shares) * v[m, head] for m, share in enumerate(shares))
    return out
