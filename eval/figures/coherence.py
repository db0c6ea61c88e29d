"""Coherence over distance: similarity of frames 1 s to 40 s apart, a curve for each policy, a panel for each task.

Reads the newest rows of each task that have the score; docs/vbench.md defines it and says when it misleads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval import metrics
from eval.figures import output, style
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader
from eval.measures.repeats import LAGS_S
from eval.stats.statistics import estimate
from eval.store.rows import Entry, newest
from eval.store.runs import tasks

KEYS: dict[str, str] = {}


@dataclass(frozen=True)
class Apart:
    """A row's mean similarity of frames at one distance. half: half width of the 95 % interval over prompts, None if unknown."""

    task: str
    metric: str
    row: str
    label: str
    seconds: int
    mean: float
    half: float | None


def curves_of(task: str, rows: list[Entry]) -> list[list[Apart]]:
    """The curve of each row of a task, up to the length of its videos; rows without one are left out."""
    names = {name for row in rows for name in row.videos}
    columns = {lag: metrics.column(task, f"coherence_{lag}", names).metric for lag in LAGS_S}
    curves = []
    for row in rows:
        known = {lag: row.videos[name].dropna() for lag, name in columns.items() if name in row.videos}
        means = {lag: mean for lag, values in known.items() if (mean := estimate(values)) is not None}
        curves.append([Apart(task, columns[lag], row.name, row.label, lag, one.mean, one.half_width) for lag, one in means.items()])
    return [curve for curve in curves if curve]


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Draw the curves of each task; returns the files. Raises ValueError if the store has none."""
    store = Path(order.settings["store"])
    panels = [curves for task in tasks(store) if (curves := curves_of(task, newest(store, task)))]
    if not panels:
        raise ValueError(f"store={store}: no coherence over distance; scores of videos have it, `python run.py method=echo -m` makes some")
    figure, axes = style.pyplot().subplots(1, len(panels), figsize=(1.2 + 3.4 * len(panels), 3.2), squeeze=False, sharey=True)
    for axis, curves in zip(axes[0], panels):
        _panel(axis, curves)
    style.one_scale(list(axes[0]), 100.0)
    axes[0][0].set_ylabel("mean cosine of frames so far apart, x 100")
    figure.tight_layout()
    return output.write(figure, name, order, {"rows": [asdict(point) for curves in panels for curve in curves for point in curve]})


def _panel(axis: Any, curves: list[list[Apart]]) -> None:
    for number, curve in enumerate(curves):
        seconds, means = [point.seconds for point in curve], [point.mean for point in curve]
        colour, halves = style.SERIES[number % len(style.SERIES)], [point.half or 0.0 for point in curve]
        axis.errorbar(seconds, means, halves, fmt="o-", ms=3, lw=1, elinewidth=0.6, color=colour, label=curve[0].label)
    axis.set_xscale("log")
    axis.set_xticks(LAGS_S, [str(lag) for lag in LAGS_S])
    axis.minorticks_off()
    axis.set_xlabel("seconds apart")
    axis.set_title(curves[0][0].task)
    axis.legend(fontsize=7)
