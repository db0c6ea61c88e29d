"""Video files: their facts, found before any work, and their frames, decoded once and in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from echo.files import file_digest
from eval.pages.films import pictures

ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")
CHUNK = 64
"""Frames of a chunk: borders of chunks are borders of batches, so another length may change a last bit; keys of records contain it."""
DECODER: Final = MappingProxyType(
    {"av": av.__version__} | {name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat", "libswscale")}
)
"""Versions of the decoder, a part of every record's key. PyAV may be built against another FFmpeg."""
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Facts:
    """A video: its file, the digest of its content, and facts of its header and packets. Sizes in pixels, fps in frames per second.

    frames: number of frames that are shown; a trimmed file holds more. turned: degrees counterclockwise by which the header, often one
    written by a phone, turns frames; height and width are those of turned frames, and the digest includes it.
    """

    path: Path
    digest: str
    frames: int
    fps: float
    height: int
    width: int
    turned: int = 0

    @property
    def name(self) -> str:
        """Its name in messages."""
        return str(self.path)


def inspect(path: Path, *, least_side: int = 1, least_frames: int = 2) -> Facts:
    """Facts of a video. Only the first frame is decoded, but packets are counted, so that a truncated file is found before any work.

    Args:
        path: the file.
        least_side: shorter sides are refused.
        least_frames: shorter videos are refused.

    Raises ValueError, in one line that names the file, if it is missing, empty, no video, truncated, too short or too small, mirrored, or
    has a variable frame rate.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such video")
    if not path.stat().st_size:
        raise ValueError(f"{path}: empty, 0 bytes; it was never written, or a disk was full")
    try:
        with av.open(str(path)) as container:
            stream = pictures(container, path)
            promised, rate = stream.frames, stream.average_rate
            height, width = stream.height, stream.width
            packets = [packet for packet in container.demux(stream) if packet.size]
            times = [_time(packet) for packet in packets if not packet.is_discard]
        there = len(packets)
        if there < promised:  # an edit list may hide whole groups of pictures
            there = _stored(path)
    except av.FFmpegError as error:
        raise ValueError(f"{path}: cannot be read as a video ({error.strerror}); it is truncated or no video") from None
    if there < promised:
        raise ValueError(f"{path}: truncated, {there} of {promised} frames are there")
    shown = len(times)
    if shown < least_frames:
        raise ValueError(f"{path}: {shown} frame(s), at least {least_frames} are needed")
    if not rate:
        raise ValueError(f"{path}: its header says no frame rate")
    _even(path, times, float(rate))
    turned = _turned(path)
    if turned in (90, 270):
        height, width = width, height
    if min(height, width) < least_side:
        rule = f"RAFT and AMT (dynamic_degree, motion_smoothness) need sides of at least {least_side} px"
        raise ValueError(f"{path}: {width}x{height} px; {rule}; nearest is dimensions= without those two")
    digest = f"{file_digest(path)}-turned{turned}" if turned else file_digest(path)
    return Facts(path, digest, shown, float(rate), height, width, turned)


def _time(packet: av.Packet) -> float | None:
    """Seconds at which a packet's frame is shown; None if the file does not say."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None or packet.time_base is None else float(stamp * packet.time_base)


def _even(path: Path, times: Sequence[float | None], fps: float) -> None:
    """Raise ValueError if a frame is shown a frame or more off a constant rate, because scenes and clips are counted in frames."""
    stamps = sorted(time for time in times if time is not None)
    if len(stamps) < len(times):
        return
    for index, stamp in enumerate(stamps):
        if abs((stamp - stamps[0]) * fps - index) > 1:
            where = (
                f"frame {index} is shown at {stamp - stamps[0]:.2f} s, by the header's {fps:.2f} frames a second it is {index / fps:.2f} s"
            )
            raise ValueError(f"{path}: variable frame rate: {where}; nearest is `ffmpeg -i {path.name} -fps_mode cfr {path.stem}-cfr.mp4`")


def _turned(path: Path) -> int:
    """Degrees counterclockwise, 0, 90, 180 or 270, from the first frame's display matrix; other angles count as 0, like in decord."""
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(container.streams.video[0]), None)
    except av.FFmpegError as error:
        raise ValueError(f"{path}: frame 0 cannot be decoded ({error.strerror}); the file is damaged") from None
    matrix: Any = None if frame is None else frame.side_data.get("DISPLAYMATRIX")
    if frame is None or matrix is None:
        return 0
    across, down, _, over, along = np.frombuffer(matrix, np.int32)[:5].astype(float)
    if across * along - down * over < 0:
        raise ValueError(
            f"{path}: its header says that it is shown mirrored, which nothing here does; nearest is `ffmpeg -i {path.name} OUT.mp4`"
        )
    return frame.rotation % 360 if frame.rotation % 90 == 0 else 0


def _stored(path: Path) -> int:
    """Number of packets of the first video stream, including those that a trimmed file's edit list hides: its header counts them all."""
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def chunks(facts: Facts, length: int = CHUNK) -> Iterator[tuple[int, Frames]]:
    """All frames in order, decoded once: (index of the first, uint8 RGB [n <= length, H, W, 3]).

    Raises ValueError that names file and frame if decoding fails or ends early, or if the size changes.
    """
    start, held = 0, list[Frames]()
    for frame in _decoded(facts):
        if frame.shape[:2] != (facts.height, facts.width):
            raise ValueError(f"{facts.name}: frame {start + len(held)} is {frame.shape[1]}x{frame.shape[0]} px, the first ones are not")
        held.append(frame)
        if len(held) == length:
            yield start, np.stack(held)
            start, held = start + length, []
    if held:
        yield start, np.stack(held)
    if start + len(held) != facts.frames:
        raise ValueError(f"{facts.name}: {start + len(held)} of {facts.frames} frames can be decoded; the file is damaged")


def _decoded(facts: Facts) -> Iterator[Frames]:
    count = 0
    try:
        with av.open(str(facts.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                yield np.ascontiguousarray(np.rot90(picture, facts.turned // 90)) if facts.turned else picture
                count += 1
    except av.FFmpegError as error:
        raise ValueError(f"{facts.name}: frame {count} cannot be decoded ({error.strerror}); the file is damaged") from None
