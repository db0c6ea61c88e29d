"""A sheet as an animated GIF: its rows side by side and in step, the running scene's sentence above and a progress bar below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.figures import mosaic, style
from eval.figures.mosaic import DPI, FONT_PX, GAP, LINE, MARGIN, PAPER, TILE, Section

FRAMES = 90
"""Default number of frames of the GIF."""
FPS = 7.5
BAR = 6
"""Height of the bar of scenes in pixels."""
DONE, LEFT = (42, 111, 187), (228, 227, 223)
COLOURS = 128


def animate(section: Section, path: Path) -> None:
    """Write a section as a GIF that loops, a frame for each column; the folder is made."""
    frames = [Image.fromarray(frame) for frame in _frames(section)]
    # One palette for the whole GIF: a palette per frame would flicker.
    sample = np.concatenate([np.asarray(frame) for frame in frames[:: max(1, len(frames) // 12)]])
    palette = Image.fromarray(sample).quantize(COLOURS, Image.Quantize.MEDIANCUT)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=round(1000 / FPS), loop=0, optimize=False)


def _frames(section: Section) -> Iterator[NDArray[np.uint8]]:
    """The picture at each column, uint8 [H, W, 3]."""
    strips, columns = section.strips, len(section.times_s)
    height, width = strips[0].frames.shape[1:3]
    scale = max(1, TILE // width)
    tile, step = height * scale, width * scale + GAP
    wide = 2 * MARGIN + len(strips) * step - GAP
    sentences = {start: textwrap.wrap(text, int((wide - 2 * MARGIN) / FONT_PX / 0.56)) for start, text in section.texts}
    labels = [mosaic.folded(strip.label) for strip in strips]
    above = MARGIN + LINE * max((len(lines) for lines in sentences.values()), default=0) + GAP
    below = above + tile + LINE * max(label.count("\n") + 1 for label in labels) + GAP
    high = below + BAR + MARGIN
    plots = style.pyplot()
    for column in range(columns):
        canvas = np.full((high, wide, 3), PAPER, dtype=np.uint8)
        for number, strip in enumerate(strips):
            shown = strip.frames[min(column, len(strip.frames) - 1)].repeat(scale, axis=0).repeat(scale, axis=1)
            canvas[above : above + tile, MARGIN + number * step : MARGIN + number * step + width * scale] = shown
        _bar(canvas[below : below + BAR, MARGIN : wide - MARGIN], column + 1, columns, strips[0].cuts)
        figure = plots.figure(figsize=(wide / DPI, high / DPI), dpi=DPI)
        figure.figimage(canvas, 0, 0, origin="upper")
        running = max((start for start in sentences if start <= column), default=None)
        for number, line in enumerate(sentences[running] if running is not None else ()):
            mosaic.letter(figure, high, MARGIN, MARGIN + LINE * (number + 0.5), line)
        for number, label in enumerate(labels):
            middle = MARGIN + number * step + width * scale / 2
            mosaic.letter(figure, high, middle, above + tile + (below - above - tile) / 2, label, ha="center", linespacing=1.25)
        figure.canvas.draw()
        yield np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        plots.close(figure)


def _bar(into_HWC: NDArray[np.uint8], shown: int, columns: int, cuts: frozenset[int]) -> None:
    """Fill a bar up to the columns that are shown, with a gap where a scene begins."""
    width = into_HWC.shape[1]
    into_HWC[:] = LEFT
    into_HWC[:, : width * shown // columns] = DONE
    for cut in cuts:
        into_HWC[:, max(0, width * cut // columns - 1) : width * cut // columns + 1] = PAPER
