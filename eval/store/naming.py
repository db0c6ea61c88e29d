"""Names by content: hashes of plain values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from echo.scene import Prompt


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinity are refused.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """80 bits of BLAKE2b over canonical JSON, as 20 hex digits."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=10).hexdigest()


def prompt_digest(prompt: Prompt, duration_scale: float = 1.0) -> str:
    """Name by content of a prompt as it stands in its set.

    Args:
        prompt: the prompt, its durations already scaled.
        duration_scale: what they were multiplied by.
    """
    durations = [round(duration / duration_scale, 6) for duration in prompt.durations_s]
    return digest(prompt.content() | {"durations_s": durations})
