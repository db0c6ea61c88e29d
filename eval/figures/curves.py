"""Scores over the drift gate's coefficient and over the anchors' share, from a store (`eval.figures.sweeps` draws them)."""

from __future__ import annotations

import csv
from pathlib import Path

from eval.figures import output, sweeps
from eval.figures.output import Order
from eval.figures.recorded.backbones import Loader

KEYS: dict[str, str] = {}


def make(name: str, order: Order, load: Loader) -> list[Path]:
    """Draw a sweep; the files. Raises ValueError in one line, with the command that makes what is missing."""
    order.folder.mkdir(parents=True, exist_ok=True)
    found = sweeps.make(Path(order.given["store"]), name, order.folder)
    paths = [path.rename(order.folder / f"{name}{path.suffix}") for path in found]
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    paths[0].unlink()  # the same numbers stand in the JSON
    output.write_json(order.folder / f"{name}.json", name, order, {"rows": rows})
    return [*paths[1:], order.folder / f"{name}.json"]


def _number(text: str) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
