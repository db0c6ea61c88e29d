"""Frames to an H.264 file that plays anywhere, written while they come."""

from __future__ import annotations

import secrets
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

LEFT_S = 3600
"""A part that nobody has written to for so long was left by a kill."""


class VideoWriter:
    """An MP4 that appears under its name only when it is whole.

    Small frames are enlarged by a whole factor, each pixel repeated, so that they can be watched and nothing is blurred.
    """

    def __init__(self, path: Path, *, fps: int, height_px: int, crf: int) -> None:
        """Prepare to write; the file is opened by the first frames.

        Args:
            path: final name.
            fps: frames per second.
            height_px: wished height; the nearest whole multiple of the frames' height is taken.
            crf: H.264 quality, 0 (lossless) to 51.
        """
        self._path = path
        self._beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.mp4")
        self._fps, self._height_px, self._crf = fps, height_px, crf
        self._container: av.container.OutputContainer | None = None
        self._factor = 1

    def __enter__(self) -> VideoWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for left in self._path.parent.glob(f".{self._path.stem}.*.mp4"):
            if time.time() - left.stat().st_mtime > LEFT_S:
                left.unlink(missing_ok=True)
        return self

    def write(self, frames_THWC: NDArray[np.uint8]) -> None:
        """Append RGB frames uint8 [T, H, W, 3]."""
        if self._container is None:
            self._open(*frames_THWC.shape[1:3])
        assert self._container is not None
        for frame_HWC in frames_THWC:
            large = frame_HWC.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")
            self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        self._factor = max(1, round(self._height_px / height))
        if height * self._factor % 2 or width * self._factor % 2:
            self._factor += 1  # 4:2:0 needs even sides
        self._container = av.open(str(self._beside), "w", options={"movflags": "faststart"})
        stream = self._container.add_stream("libx264", rate=Fraction(self._fps))
        stream.height, stream.width = height * self._factor, width * self._factor
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(self._crf), "preset": "superfast"}
        self._stream = stream

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._container is not None:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        if kind is None and self._container is not None:
            self._beside.rename(self._path)
        else:
            self._beside.unlink(missing_ok=True)
