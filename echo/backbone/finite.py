"""Checks for NaN and infinity: in pixels before they become bytes, and in tensors of files when they are cast."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Finite:
    """A flag on the device: whether all values seen were finite. `see` does not wait for the device; `bool` does."""

    def __init__(self) -> None:
        self._flag: Tensor | None = None

    def see(self, values: Tensor) -> None:
        """Check some values, with one read and no copy."""
        low, high = values.aminmax()  # both are NaN where any value is
        flag = low.isfinite() & high.isfinite()
        self._flag = flag if self._flag is None else self._flag & flag

    def __bool__(self) -> bool:
        return self._flag is None or bool(self._flag)


def broken(tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """The first tensor that holds a NaN or an infinity, or is an all-zero matrix, and which of the two; None if there is none.

    Reads each tensor once, without a copy, and waits for the device once.
    """
    named = [(name, value) for name, value in tensors.items() if value.is_floating_point() and value.numel()]
    if not named:
        return None
    ends = torch.stack([torch.stack(value.aminmax()).double() for _, value in named])
    for (name, value), (low, high) in zip(named, ends.tolist(), strict=True):
        if not (math.isfinite(low) and math.isfinite(high)):
            return name, "holds a NaN or an infinity"
        if value.ndim > 1 and value.numel() > 1 and low == high == 0:
            return name, "is a matrix of zeros alone"
    return None
