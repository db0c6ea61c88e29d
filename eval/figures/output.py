"""Output of every figure: PDF, PNG, and the numbers with settings, command and commit as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eval.figures import style
from eval.stats.statistics import by_unit, chance, estimate, estimates, less
from eval.store.origin import origin
from eval.store.rows import Unit

DPI = 96
DIGITS = 6
"""Significant digits of a number in JSON."""


@dataclass(frozen=True)
class FigureOrder:
    """A figure's order. settings: values by key. folder: for the files. words: the recorded command."""

    settings: Mapping[str, str]
    folder: Path
    words: tuple[str, ...] = ()

    def number(self, key: str, least: int = 0) -> int:
        """An integer setting of `least` or more. Raises ValueError in one line."""
        text = self.settings[key]
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"{key}={text}: a whole number of {least} or more; nearest is {key}={least}")
        return int(text)

    def seconds(self, key: str) -> float | None:
        """A setting in seconds, None if it is empty. Raises ValueError in one line."""
        text = self.settings[key]
        try:
            return float(text) if text else None
        except ValueError:
            raise ValueError(f"{key}={text}: seconds, for example {key}=4") from None

    @property
    def world(self) -> str:
        """The backbone's description, for the beginning of a title."""
        name = self.settings["backbone"]
        return "Embedded world" if name.startswith("tiny") else f"Backbone {name}"

    @property
    def names(self) -> list[str]:
        """The methods named."""
        return [name for name in self.settings["method"].split(",") if name]


def write(figure: Any, name: str, order: FigureOrder, numbers: object) -> list[Path]:
    """Write `<name>.pdf`, `.png` and `.json` and close the figure; returns the files."""
    order.folder.mkdir(parents=True, exist_ok=True)
    pdf, png = order.folder / f"{name}.pdf", order.folder / f"{name}.png"
    figure.set_dpi(DPI)
    figure.canvas.draw()
    colours = np.asarray(figure.canvas.buffer_rgba())[..., 2::-1]  # all of them: maps are read by their shades
    cv2.imwrite(str(png), np.ascontiguousarray(colours), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    figure.set_layout_engine("none")  # it is laid out
    figure.savefig(pdf, dpi=DPI, metadata={"CreationDate": None})  # the same bytes from the same numbers
    style.pyplot().close(figure)
    return [pdf, png, write_json(name, order, numbers)]


def write_json(name: str, order: FigureOrder, numbers: object) -> Path:
    """Write the numbers behind a figure as `<name>.json`; numbers that are not finite become null."""
    made = {"v": 1, "figure": name, **origin("figures", order.words), "settings": dict(order.settings)}
    content = json.dumps(made | {"numbers": plain(numbers)}, indent=1, allow_nan=False)
    path = order.folder / f"{name}.json"
    path.write_text(_folded(content) + "\n", encoding="utf-8")
    return path


def plain(value: Any) -> Any:
    """Rounded plain values for JSON; records become objects with their fields' names."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, range)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _folded(content: str) -> str:
    """Put lists of plain numbers on one line each, so that people can read the file."""
    lines: list[str] = []
    inside = False
    for line in content.splitlines():
        word = line.strip()
        if inside and (word.rstrip(",").lstrip("-")[:1].isdigit() or word.rstrip(",") in ("null", "]") or word.startswith("]")):
            lines[-1] += word if word.startswith("]") else f"{word} " if word.endswith(",") else word
            inside = not word.startswith("]")
        else:
            lines.append(line)
            inside = word.endswith("[")
    return "\n".join(lines)


@dataclass(frozen=True)
class Mean:
    """A mean over prompts with the half width of its 95 % interval, None for a single prompt."""

    mean: float
    half_width: float | None
    prompts: int


@dataclass(frozen=True)
class PairedGap:
    """A paired difference: mean, half width of its 95 % interval, p."""

    mean: float
    half_width: float | None
    p: float | None


def means(units: Sequence[Unit], rows: Sequence[Sequence[float]]) -> list[Mean]:
    """The mean of each row of numbers, a number for each unit."""
    estimated = estimates([by_unit(dict(zip(units, row, strict=True))) for row in rows])
    return [Mean(one.mean, one.half_width, one.prompts) for one in estimated if one is not None]


def gap(values: Mapping[Unit, float], reference: Mapping[Unit, float]) -> PairedGap:
    """The paired difference to a reference."""
    paired = estimate(less(by_unit(values), by_unit(reference)))
    assert paired is not None
    return PairedGap(paired.mean, paired.half_width, chance(paired))
