"""A video file's stream of pictures: its codec, size and length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream


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


def pictures(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream of an open file. Raises ValueError in one line if there is none, or none that can be decoded."""
    if not container.streams.video:
        raise ValueError(f"{path}: holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # PyAV has then no size either
        raise ValueError(f"{path}: its video is of a codec that is not known here; the file is damaged, or has to be converted to H.264")
    return stream


def form_of(path: Path) -> Form:
    """The form of a video. Raises ValueError in one line for a file that is not a video."""
    try:
        with av.open(str(path)) as container:
            stream = pictures(container, path)
            context = stream.codec_context
            return Form(context.name, context.width, context.height, stream.frames, float(stream.average_rate or 0))
    except (OSError, av.FFmpegError) as error:
        raise ValueError(f"{path}: no video can be read ({error})") from None
