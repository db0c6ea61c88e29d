"""Streaming of frames to an H.264 file that plays anywhere."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from echo.files import replacing
from jobs.spec.config import enlarged

KEY_FRAMES = 24
"""Frames from one key frame to the next, at most: a jump into a video decodes no more. H.264's usual 250 make six videos of 832x480 stand
for a second. Enlarged frames are small and decode fast, and keep the 250."""
TO_YUV = np.array([[65.481, -37.797, 112.0], [128.553, -74.203, -93.786], [24.966, 112.0, -18.214]], np.float32) / 255
"""Red, green and blue to luma and the two colour differences, BT.601."""


class VideoWriter:
    """An MP4 that appears under its name only when it is complete and on disk.

    Small frames are enlarged by an integer factor, by repeating pixels without interpolation.
    """

    def __init__(self, path: Path, *, fps: int, height_px: int, crf: int) -> None:
        """Prepare to write; the file is opened by the first frames.

        Args:
            path: final name.
            fps: frames per second.
            height_px: largest height; the video has the largest even multiple of the frames' height within it, or the frames' own height.
            crf: H.264 quality, 0 (lossless) to 51.
        """
        self._path = path
        self._stack = ExitStack()
        self._fps, self._height_px, self._crf = fps, height_px, crf
        self._container: av.container.OutputContainer | None = None
        self._factor = 1

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frames_THWC: NDArray[np.uint8]) -> None:
        """Append RGB frames uint8 [T, H, W, 3]."""
        if self._container is None:
            self._open(*frames_THWC.shape[1:3])
        assert self._container is not None
        if self._factor == 1:
            pictures = [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames_THWC]
        else:
            pictures = [av.VideoFrame.from_ndarray(planes, format="yuv420p") for planes in _enlarged(frames_THWC, self._factor)]
        for picture in pictures:
            self._container.mux(self._stream.encode(picture))

    def _open(self, height: int, width: int) -> None:
        self._factor = enlarged(height, width, self._height_px)
        part = self._stack.enter_context(replacing(self._path))
        self._container = av.open(str(part), "w", format="mp4", options={"movflags": "faststart"})
        stream = self._container.add_stream("libx264", rate=Fraction(self._fps))
        stream.height, stream.width = height * self._factor, width * self._factor
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        own = {"preset": "superfast", "g": str(KEY_FRAMES)} if self._factor == 1 else {"preset": "ultrafast"}
        stream.options = {"crf": str(self._crf), **own}
        self._stream = stream
        self._stack.push(self._close)

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._container is not None
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)


def _enlarged(frames_THWC: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Planes of 4:2:0 (BT.601, 16 to 235), [T, 3 H factor / 2, W factor]: converted at small size, then repeated by an even factor."""
    count, height, width, _ = frames_THWC.shape
    values = frames_THWC.astype(np.float32) @ TO_YUV + np.array([16.5, 128.5, 128.5], np.float32)
    small = values.astype(np.uint8)
    sizes = (factor, factor // 2, factor // 2)
    planes = [small[..., index].repeat(by, 1).repeat(by, 2).reshape(count, -1) for index, by in enumerate(sizes)]
    return np.concatenate(planes, 1).reshape(count, height * factor * 3 // 2, width * factor)
