"""A sheet of stills: a row for each video, time to the right, drawn pixel by pixel so that small frames stay sharp."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from data.world.render import SIZE
from echo.refusals import reading
from eval.figures import style

GAP, RULE, MARGIN = 4, 16, 10
"""Pixels between stills, between blocks of rows, and at the margin."""
LABEL, LINE = 150, 15
"""Pixels for a row's label and for a line of text."""
WIDTH = 1900
"""Largest width of a sheet in pixels."""
TILE = 192
"""Largest width of a still in pixels."""
MARK = (220, 20, 60)
LARGE = 96
"""Height in pixels of a still of a video that is not of the embedded world."""
PAPER = 255
DPI = 100
"""Pixels per inch of a sheet's figure, whose texts are placed by pixels."""
FONT_PX = 11.5


@dataclass(frozen=True)
class Strip:
    """label: of the row. frames: uint8 [N, H, W, 3]. cuts: numbers of the stills before which a scene begins. apart: under a rule."""

    label: str
    frames: NDArray[np.uint8]
    cuts: frozenset[int] = frozenset()
    apart: bool = False


def stills(path: Path, every_s: float) -> NDArray[np.uint8]:
    """Frames [N, H, W, 3] of a video, one each `every_s` seconds, from the middle of each span. Raises ValueError if it is shorter."""
    with reading(path, "run its command again"), av.open(str(path)) as container:
        stream = container.streams.video[0]
        step = max(1.0, every_s * float(stream.average_rate or 16))
        frames: list[NDArray[np.uint8]] = []
        for index, frame in enumerate(container.decode(stream)):
            if index == math.floor((len(frames) + 0.5) * step):
                frames.append(native(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)))
    if not frames:
        raise ValueError(f"every_s={every_s:g}: {path.name} is shorter than that, for example every_s=1")
    return np.stack(frames)


def native(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame of the embedded world before it was enlarged; a large frame of another video is downscaled."""
    height, width, _ = frame_HWC.shape
    if height % SIZE == 0 and width % SIZE == 0:
        factor = height // SIZE
        blocks = frame_HWC.reshape(SIZE, factor, width // factor, factor, 3)
        return blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    if height > LARGE:
        small = cv2.resize(frame_HWC, (round(width * LARGE / height), LARGE), interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.uint8)
    return frame_HWC


def marks(borders: Sequence[float], every_s: float) -> frozenset[int]:
    """Numbers of the first stills of scenes that begin at `borders` seconds; a still shows the middle of its span."""
    return frozenset(math.ceil(border / every_s - 0.5) for border in borders)


@dataclass(frozen=True)
class Section:
    """A block of rows under a title.

    strips: the rows; all frames of one size. times_s: labels below the columns. texts: (first column, sentence) of each scene,
    written above its columns.
    """

    strips: Sequence[Strip]
    times_s: Sequence[float]
    texts: Sequence[tuple[int, str]]
    title: str


@dataclass
class _Layout:
    """Layout of a section: pixels of its upper edge, its rows, the part below them, and its lower edge."""

    section: Section
    top: int
    scale: int
    wrapped: list[tuple[int, list[str]]]
    rows: list[int]
    below: int

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a still."""
        height, width = self.section.strips[0].frames.shape[1:3]
        return height * self.scale, width * self.scale

    @property
    def right(self) -> int:
        """Pixel of its right edge."""
        return MARGIN + LABEL + len(self.section.times_s) * (self.tile[1] + GAP) + MARGIN

    @property
    def end(self) -> int:
        """Pixel of its lower edge."""
        return self.below + LINE + MARGIN


def compose(sections: Sequence[Section]) -> Any:
    """The figure of a sheet, a section below the other, at `DPI`."""
    placed, top = list[_Layout](), 0
    for section in sections:
        placed.append(_place(section, top))
        top = placed[-1].end
    canvas = np.full((top, max(one.right for one in placed), 3), PAPER, dtype=np.uint8)
    for one in placed:
        for strip, y in zip(one.section.strips, one.rows):
            _paint(canvas, strip, MARGIN + LABEL, y, one.scale)
    plots = style.pyplot()
    figure = plots.figure(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI), dpi=DPI)
    figure.figimage(canvas, 0, 0, origin="upper")
    for one in placed:
        _texts(figure, canvas.shape[0], one)
    return figure


def _place(section: Section, top: int) -> _Layout:
    height, width = section.strips[0].frames.shape[1:3]
    columns = len(section.times_s)
    scale = min(TILE, (WIDTH - LABEL - 2 * MARGIN) // columns - GAP) // width or 1
    ends = [*(column for column, _ in section.texts[1:]), columns]
    spans = [(start, text, (end - start) * (width * scale + GAP)) for (start, text), end in zip(section.texts, ends)]
    wrapped = [(start, textwrap.wrap(text, max(8, int(size / FONT_PX / 0.56)))) for start, text, size in spans]
    below = top + MARGIN + 2 * LINE + LINE * max((len(lines) for _, lines in wrapped), default=0)
    rows = []
    for index, strip in enumerate(section.strips):
        below += RULE if strip.apart and index and not section.strips[index - 1].apart else 0
        rows.append(below)
        below += height * scale + GAP
    return _Layout(section, top, scale, wrapped, rows, below)


def _texts(figure: Any, height: int, one: _Layout) -> None:
    left, (tile_h, tile_w) = MARGIN + LABEL, one.tile
    letter(figure, height, MARGIN, one.top + MARGIN + LINE / 2, one.section.title, color=style.MUTED)
    for start, lines in one.wrapped:
        for number, line in enumerate(lines):
            letter(figure, height, left + start * (tile_w + GAP) + 2, one.top + MARGIN + LINE * (number + 1.9), line)
    for strip, y in zip(one.section.strips, one.rows):
        letter(figure, height, left - 8, y + tile_h / 2, folded(strip.label), ha="right", linespacing=1.25)
    for column, second in enumerate(one.section.times_s):
        x = left + column * (tile_w + GAP) + tile_w / 2
        letter(figure, height, x, one.below + LINE / 2, f"{second:g} s", ha="center", color=style.MUTED)


def folded(label: str) -> str:
    """A row's label in lines that fit beside it."""
    return "\n".join(piece for line in label.splitlines() for piece in textwrap.wrap(line, 24))


def _paint(canvas: NDArray[np.uint8], strip: Strip, left: int, top: int, scale: int) -> None:
    for column, frame in enumerate(strip.frames):
        large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
        x = left + column * (large.shape[1] + GAP)
        canvas[top : top + large.shape[0], x : x + large.shape[1]] = large
        if column in strip.cuts:
            canvas[top : top + large.shape[0], x - GAP : x - 1] = MARK


def letter(figure: Any, height: int, x: float, y: float, text: str, **more: Any) -> None:
    """Text at pixels from the upper left corner."""
    size = FONT_PX * 72 / DPI
    width = figure.get_figwidth() * DPI
    figure.text(x / width, 1 - y / height, text, fontsize=size, va="center", **more)
