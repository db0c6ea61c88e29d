"""Score against cost: frames that a block attends to, and frames that are kept, a point for each policy.

Reads the store of `python run.py experiment=zoo -m`. A task is a row of panels; its score is the first metric of a sweep's figure.
Policies that no other beats at the same or lower cost are named and joined: the frontier. A line leads from a policy to the same one with
Commit Forcing (NAME_commit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval import metrics
from eval.figures import output, style
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader
from eval.metrics import Column
from eval.store.rows import Comparable, gather, sources
from eval.tables.build import grid_of

COSTS = {"attended": ("attended_frames", "frames attended (K)"), "kept": ("kept_frames", "frames kept")}
"""For each panel of a row: the fact of a record, and the axis label."""
COMMIT = "_commit"
KEYS: dict[str, str] = {}


@dataclass(frozen=True)
class Point:
    """A policy. score: its mean. half: half the 95 % interval, None if unknown. attended, kept: latent frames."""

    task: str
    metric: str
    preset: str
    label: str
    score: float
    half: float | None
    attended: float
    kept: float


def best(points: Sequence[Point], cost: str, lower: bool) -> list[Point]:
    """The points that no other beats at the same or lower cost, by ascending cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (getattr(point, cost), point.score if lower else -point.score)):
        if not front or (point.score < front[-1].score if lower else point.score > front[-1].score):
            front.append(point)
    return front


def points_of(block: Comparable) -> tuple[Column, list[Point]] | None:
    """The score of a task and each policy's point; None without scores, or without records of the cost."""
    grid, videos = grid_of(block, [block]), {entry.preset: entry.videos for entry in block.entries.values()}
    places = {column.dimension: place for place, column in enumerate(grid.columns)}
    place = next((places[name] for name in metrics.panels(block.task.name) if name in places), None)
    if place is None:
        return None
    column, points = grid.columns[place], list[Point]()
    for row in grid.rows:
        spent = [float(videos[row.preset][fact].max()) for fact, _ in COSTS.values()]
        estimate = row.cells[place].estimate
        if estimate is not None and not row.calibration and all(map(math.isfinite, spent)):
            points.append(Point(block.task.name, column.metric, row.preset, row.label, estimate.mean, estimate.half_width, *spent))
    return (column, points) if points else None


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Draw the frontier of each task; returns the files. Raises ValueError with the command that makes what the store lacks."""
    store = order.settings["store"]
    blocks = [block for source in sources(Path(store)) if source.experiment == "zoo" for block in gather(source.wishes)]
    found = [rows for block in blocks if (rows := points_of(block)) is not None]
    if not found:
        raise ValueError(f"store={store}: no policies of one backbone; `python run.py experiment=zoo store={store} -m` makes them")
    plots = style.pyplot()
    figure, axes = plots.subplots(len(found), len(COSTS), figsize=(7.4, 2.9 * len(found)), squeeze=False, sharey="row")
    for line, (column, points) in zip(axes, found):
        for axis, (cost, (_, words)) in zip(line, COSTS.items()):
            _panel(axis, points, cost, column.lower)
            axis.set_xlabel(words)
        style.one_scale(line, 100.0 if column.unit == metrics.PERCENT else math.inf)
        line[0].set_ylabel(" ".join(column.words))
        line[0].set_title(points[0].task)
    figure.supxlabel("orange: with a commit of its own, dotted from the same policy without", fontsize=8, color=style.MUTED)
    figure.tight_layout()
    return output.write(figure, name, order, {"rows": [asdict(point) for _, points in found for point in points]})


def _panel(axis: Any, points: Sequence[Point], cost: str, lower: bool) -> None:
    front, by_name = best(points, cost, lower), {point.preset: point for point in points}
    axis.step([getattr(point, cost) for point in front], [point.score for point in front], where="post", color=style.MUTED, lw=0.8)
    for point in points:
        plain = by_name.get(point.preset.removesuffix(COMMIT))
        if plain is not None and plain is not point:
            axis.plot([getattr(plain, cost), getattr(point, cost)], [plain.score, point.score], color=style.MUTED, lw=0.6, ls=":")
        colour = style.SERIES[1] if point.preset.endswith(COMMIT) else style.SERIES[0]
        axis.errorbar(getattr(point, cost), point.score, point.half or 0.0, fmt="o", ms=4, color=colour, elinewidth=0.6, capsize=0)
    for place, point in enumerate(front):  # names of neighbours above and below
        beside = (4, (3, -9, 11)[place % 3])
        axis.annotate(point.preset, (getattr(point, cost), point.score), textcoords="offset points", xytext=beside, fontsize=7)
    axis.xaxis.get_major_locator().set_params(integer=True)
