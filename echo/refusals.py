"""One clear line for a setting outside its range."""

from __future__ import annotations

import math
from typing import Any


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError for a setting outside low..high or not finite, naming the nearest one inside."""
    if low <= value <= high and math.isfinite(value):
        return
    rule = f"{low} or more" if high == math.inf else f"within {low}..{high}"
    nearest = low if not math.isfinite(value) and high == math.inf else min(max(low, value), high)
    raise ValueError(f"{name} {value}: {rule}; nearest is {nearest}")


def positive(settings: Any, *names: str) -> None:
    """Raises ValueError for a setting under 1."""
    for name in names:
        within(name, getattr(settings, name), 1, math.inf)


def multiple_of(size: int, **settings: int) -> None:
    """Raises ValueError for a setting that is no multiple of `size`, naming the next one up."""
    for name, value in settings.items():
        if value % size:
            raise ValueError(f"{name} {value}: a multiple of {size}; nearest is {-(-value // size) * size}")
