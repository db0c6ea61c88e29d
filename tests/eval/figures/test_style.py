"""Figures as small PNG files."""

from __future__ import annotations

import cv2
import numpy as np

from eval.figures import style


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def test_few_colours_are_kept_to_the_bit(tmp_path):
    image = np.random.default_rng(0).integers(0, 6, size=(40, 33, 3)).astype(np.uint8) * 40
    style.write_png(tmp_path / "a" / "few.png", image)
    difference = np.abs(read(tmp_path / "a" / "few.png").astype(int) - image)
    assert difference.max() == 0, f"max {difference.max()}, mean {difference.mean()}"


def test_many_colours_are_near_and_the_file_is_small(tmp_path):
    rows, columns = np.mgrid[0:200, 0:300]
    noise = np.random.default_rng(0).integers(-12, 13, size=(200, 300, 3))
    image = np.clip(np.stack([rows, columns * 0.8, 128 + 0 * rows], axis=2) + noise, 0, 255).astype(np.uint8)
    image[:80] = 255
    style.write_png(tmp_path / "many.png", image)
    shown = read(tmp_path / "many.png")
    difference = np.abs(shown.astype(int) - image)
    assert difference.mean() < 6 and difference.max() < 60, f"max {difference.max()}, mean {difference.mean()}"
    assert (shown[:80] == 255).all(), "white paper stays white"
    assert cv2.imwrite(str(tmp_path / "full.png"), image)
    assert (tmp_path / "many.png").stat().st_size < 0.5 * (tmp_path / "full.png").stat().st_size


def test_same_bytes_twice(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, size=(50, 50, 3)).astype(np.uint8)
    for name in ("a.png", "b.png"):
        style.write_png(tmp_path / name, image)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_is_saved_at_its_size(tmp_path):
    plots = style.pyplot()
    figure, axis = plots.subplots(figsize=(2, 1))
    axis.plot([0, 1], [0, 1], color=style.SERIES[0])
    style.save(figure, tmp_path / "x.png", dpi=100)
    assert read(tmp_path / "x.png").shape == (100, 200, 3) and not plots.get_fignums()


def test_a_persons_matplotlibrc_has_no_say():
    """`text.usetex` there would draw all letters with a LaTeX that may not be installed."""
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True, "savefig.bbox": "tight"}):
        assert style.pyplot().rcParams["text.usetex"] is False and matplotlib.rcParams["savefig.bbox"] is None


def test_an_axis_ends_where_nothing_can_be():
    """A line upon the end is drawn whole, one that goes beyond it is cut."""
    plots = style.pyplot()
    figure, axis = plots.subplots()
    upon, beyond = axis.plot([100.0, 100.0, np.nan])[0], axis.plot([50.0, 103.0])[0]
    style.bounded(axis)
    assert axis.get_ylim() == (0, 100) and not upon.get_clip_on() and beyond.get_clip_on()
    plots.close(figure)
