"""Codec, size and length of a video file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av


@dataclass(frozen=True)
class Form:
    """Properties that must be equal in videos that play side by side; sizes in pixels."""

    codec: str
    width: int
    height: int
    frames: int
    fps: float

    def __str__(self) -> str:
        return f"{self.codec} {self.width}x{self.height}, {self.frames} frames, {self.fps:g} a second"


def form_of(path: Path) -> Form:
    """The form of a video. Raises ValueError in one line for a file that is not a video."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            return Form(context.name, context.width, context.height, stream.frames, float(stream.average_rate or 0))
    except (OSError, IndexError, ValueError) as error:  # PyAV's errors are of these kinds
        raise ValueError(f"{path}: no video can be read ({error})") from None
