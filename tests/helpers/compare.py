"""What a failed comparison says."""

from __future__ import annotations

from torch import Tensor


def report(ours: Tensor, other: Tensor) -> str:
    """Largest and mean difference, for messages of failed comparisons."""
    difference = (ours - other).abs()
    return f"max {difference.max():.3g}, mean {difference.mean():.3g}"
