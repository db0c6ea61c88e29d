"""Style of all figures: fonts, colours, plain axes, and PNG files small enough for a repository.

Text is always drawn in ink, never in a series' colour. A series gets its colour by its index, in the order of `SERIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

INK = "#1d1d1b"
MUTED = "#6b6a66"
GRID = "#e4e3df"
OTHERS = "#cfcdc7"
SERIES = ("#2a6fbb", "#c8501e", "#1b8a6b", "#8a4fa3", "#b08900", "#c2417c", "#5b6b7a", "#6a8f2f")
CEILING = "#1d1d1b"
DPI = 110
COLOURS = 256

RC: Any = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # Times, like a paper's text; the second has the signs that the first lacks
    "mathtext.fontset": "stix",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
}


def pyplot() -> Any:
    """Matplotlib's pyplot in the project's style, drawing only to files and ignoring the user's `matplotlibrc`."""
    import matplotlib

    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    from matplotlib import pyplot as plots

    plots.rcParams.update(RC)
    return plots


def bare(*axes: Any) -> None:
    """Remove ticks, grid and frame from axes that show images."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)


def heading(figure: Any, text: str) -> None:
    """A title above a figure or a part of one."""
    figure.suptitle(text, fontsize=9.5, color=MUTED, x=0.01, ha="left")


def row_label(axis: Any, text: str, **more: Any) -> None:
    """A horizontal label at the left of a row of panels; `more` as in matplotlib's labels."""
    axis.set_ylabel(text, rotation=0, ha="right", va="center", color=INK, **more)


def bounded(*axes: Any, least: float = 0.0, most: float = 100.0) -> None:
    """End axes at the limits of possible values, without clipping lines at the limits."""
    for axis in axes:
        axis.set_ylim(least, most)
        for line in axis.lines:
            values = np.asarray(line.get_ydata(), dtype=np.float64)
            line.set_clip_on(bool(np.any(values < least) or np.any(values > most)))


def one_scale(axes: Sequence[Any], most: float) -> None:
    """Give compared axes a common scale, within 0 and `most`."""
    ends = [end for axis in axes for end in axis.get_ylim()]
    bounded(*axes, least=max(0.0, min(ends)), most=min(most, max(ends)))


def save_pair(figure: Any, stem: Path, dpi: int = DPI) -> list[Path]:
    """Write a figure as `<stem>.pdf` and `<stem>.png`, reproducible byte for byte, and close it; returns the files."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".pdf", ".png")]
    figure.savefig(paths[0], dpi=dpi, metadata={"CreationDate": None})
    save(figure, paths[1], dpi)
    return paths


def save(figure: Any, path: Path, dpi: int = DPI) -> None:
    """Write a figure as a PNG of 256 colours and close it; the folder is made."""
    figure.set_dpi(dpi)
    figure.canvas.draw()
    write_png(path, np.asarray(figure.canvas.buffer_rgba())[..., :3])
    pyplot().close(figure)


def write_png(path: Path, image_HWC: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] as a PNG of at most 256 colours, about a third of its size in full colour.

    An image with at most 256 colours is unchanged; otherwise k-means chooses the colours.
    """
    height, width, _ = image_HWC.shape
    palette, index = _palette(image_HWC.reshape(-1, 3))
    image = Image.frombytes("P", (width, height), index.tobytes())
    image.putpalette(palette.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def _palette(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours [N, 3] and the number of each pixel's colour."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    codes, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8)
    if len(colours) <= COLOURS:
        return colours, inverse.astype(np.uint8)
    often = np.argsort(counts)[-8:]  # paper, ink and lines keep their exact colours
    sample = np.random.default_rng(0).choice(len(colours), size=min(20_000, len(colours)), replace=False)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 12, 0.0)
    points, labels = colours[sample].astype(np.float32), np.zeros((len(sample), 1), dtype=np.int32)
    _, _, centres = cv2.kmeans(points, COLOURS - len(often), labels, stop, 1, cv2.KMEANS_PP_CENTERS)
    palette = np.concatenate([colours[often], np.asarray(centres).round().astype(np.uint8)])
    return palette, _nearest(colours, palette)[inverse]


def _nearest(colours: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    closest = np.empty(len(colours), dtype=np.uint8)
    wide = palette.astype(np.float32)
    for start in range(0, len(colours), 1 << 14):
        part = colours[start : start + (1 << 14)].astype(np.float32)
        closest[start : start + len(part)] = ((wide**2).sum(1) - 2 * part @ wide.T).argmin(1)
    return closest
