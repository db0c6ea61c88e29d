"""The one way in which tests wait: for something to become true, and never longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 120.0
"""Long on purpose: a machine under load is slow and not wrong."""


def until(condition: Callable[[], T], what: Callable[[], object] | str = "", limit_s: float = PATIENCE_S, every_s: float = 0.02) -> T:
    """What a condition answers as soon as that is true.

    Args:
        what: what was waited for, or a function that says it once the wait was in vain.

    Raises:
        AssertionError: if it is still not true after `limit_s`.
    """
    end = time.monotonic() + limit_s
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {limit_s} s in vain: {what() if callable(what) else what}"
        time.sleep(every_s)
    return answer
