"""Scores against one setting of Echo.

Reads the store of `python run.py experiment=sweep_lambda -m` (or `sweep_budget`) and writes `sweep_<name>.pdf`, `.png` and `.csv`:
a panel for each score, a row of panels for each task, means with 95 % intervals over prompts, the default filled, and lines
for rendered videos if they are near. The CSV also has the paired differences to the default.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from data.outgoing import harmless
from echo.files import RESULTS
from echo.refusals import nearest_of
from eval import metrics
from eval.figures import output, style
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader
from eval.metrics import Column
from eval.store.rows import Comparable, Entry, gather, sources
from eval.tables.build import grid_of
from eval.tables.grid import Grid, TableCell, TableRow

SETTINGS = {"lambda": "method.settings.drift_gate_lambda", "budget": "method.settings.anchors"}
AXES = {"lambda": "drift gate's λ", "budget": "anchors (of 15; the rest is compressed)"}
LINES = {"render_truth": "-", "render_other": ":", "render_shuffled": "--"}
"""Line styles of rendered rows."""
OTHER_LINE = "-."
COLUMNS = ("task", "metric", "value", "preset", "mean", "ci95", "videos", "gap", "gap_ci95", "gap_p")
KEYS: dict[str, str] = {}


@dataclass(frozen=True)
class SweptTask:
    """One task of a sweep: a row for each value of the setting, in order, and the calibration rows."""

    task: str
    grid: Grid
    values: tuple[tuple[float, TableRow], ...]
    calibration: tuple[TableRow, ...]

    @property
    def panels(self) -> list[tuple[int, Column]]:
        """Columns to be drawn with their indices, the same for every task of a kind."""
        there = {column.dimension: (place, column) for place, column in enumerate(self.grid.columns)}
        panels = [there[name] for name in metrics.panels(self.task) if name in there]
        return [(place, column) for place, column in panels if any(row.cells[place].estimate for _, row in self.values)]


def sweeps_of(store: Path, name: str) -> list[SweptTask]:
    """A store's tasks of a sweep. Raises ValueError with the command that makes them if there are none."""
    sweeps = []
    for source in sources(store):
        if source.experiment == f"sweep_{name}":
            block, *_ = blocks = gather(source.wishes)
            sweeps.append(_sweep(block, blocks, SETTINGS[name]))
    if not sweeps:
        raise ValueError(f"store={store}: nothing of this sweep; `python run.py experiment=sweep_{name} store={store} -m` makes it")
    return sweeps


def _sweep(block: Comparable, blocks: Sequence[Comparable], setting: str) -> SweptTask:
    grid = grid_of(block, blocks)
    entries: dict[str, Entry] = {entry.preset: entry for entry in block.entries.values()}
    rows = [row for row in grid.rows if not row.calibration]
    values = sorted(((float(entries[row.preset].settings[setting]), row) for row in rows), key=lambda pair: pair[0])
    return SweptTask(block.task.name, grid, tuple(values), tuple(row for row in grid.rows if row.calibration))


def lines(sweeps: Sequence[SweptTask]) -> Iterator[tuple[str | int, ...]]:
    """A line for each task, score and value, as `COLUMNS`; calibration rows have no value."""
    for sweep in sweeps:
        named = [*sweep.values, *((None, row) for row in sweep.calibration)]
        for place, column in sweep.panels:
            for value, row in named:
                yield sweep.task, column.metric, "" if value is None else f"{value:g}", row.preset, *_numbers(row.cells[place])


def _numbers(cell: TableCell) -> list[str | int]:
    if cell.estimate is None:
        return ["", "", 0, "", "", ""]
    gap = cell.gap
    gaps = [None, None, None] if gap is None else [gap.estimate.mean, gap.estimate.half_width, gap.p]
    texts = ["" if number is None else f"{number:.4f}" for number in (cell.estimate.mean, cell.estimate.half_width, *gaps)]
    return [*texts[:2], cell.estimate.videos, *texts[2:]]


def draw(sweeps: Sequence[SweptTask], name: str) -> Any:
    """The figure."""
    plots = style.pyplot()
    columns = max(len(sweep.panels) for sweep in sweeps)
    figure, axes = plots.subplots(len(sweeps), columns, figsize=(2.1 * columns, 2.1 * len(sweeps) + 0.5), squeeze=False)
    alike: dict[str, list[Any]] = {}
    for line, sweep in zip(axes, sweeps, strict=True):
        for axis in line[len(sweep.panels) :]:
            axis.set_visible(False)
        for axis, (place, column) in zip(line, sweep.panels):
            _panel(axis, sweep, place)
            alike.setdefault(column.metric, []).append(axis)
            axis.set_title(" ".join(word for word in column.words if not word.startswith("(")), fontsize=8.5)
        line[0].set_ylabel(sweep.grid.title, fontsize=9)
    for metric, panels in alike.items():  # one scale for what is compared from task to task
        style.one_scale(panels, 100.0 if Column.named(metric).unit == metrics.PERCENT else inf)
    grid = sweeps[0].grid
    made = f"{grid.scorer}, weights {grid.weights}; {grid.prompts} prompts with {grid.seeds} seeds each"
    figure.suptitle(made, fontsize=9, color=style.MUTED)
    figure.supxlabel(AXES[name], fontsize=9, color=style.MUTED)
    rendered = dict.fromkeys(row.preset for sweep in sweeps for row in sweep.calibration)
    handles = [plots.Line2D([], [], color=style.MUTED, lw=1, ls=LINES.get(preset, OTHER_LINE), label=preset) for preset in rendered]
    if handles:
        figure.legend(handles=handles, loc="lower right", ncols=len(handles), fontsize=7.5, frameon=False)
    figure.tight_layout()
    return figure


def _panel(axis: Any, sweep: SweptTask, place: int) -> None:
    points = [(value, row, estimate) for value, row in sweep.values if (estimate := row.cells[place].estimate) is not None]
    spread = [estimate.half_width or 0.0 for _, _, estimate in points]
    colour, means = style.SERIES[0], [estimate.mean for *_, estimate in points]
    axis.errorbar([value for value, *_ in points], means, spread, color=colour, fmt="-o", mfc="white", ms=4, capsize=2)
    full = [(value, estimate.mean) for value, row, estimate in points if not row.reference]
    axis.plot([value for value, _ in full], [mean for _, mean in full], "o", color=colour, mfc=colour, ms=5, zorder=5)
    axis.set_xticks([value for value, *_ in points], [f"{value:g}" for value, *_ in points])
    low, high = axis.get_ylim()
    for row in sweep.calibration:
        estimate = row.cells[place].estimate
        if estimate is not None and low - (high - low) <= estimate.mean <= high + (high - low):
            axis.axhline(estimate.mean, color=style.MUTED, lw=0.8, ls=LINES.get(row.preset, OTHER_LINE))


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Draw a sweep as a figure; returns the files. Raises ValueError like `write`."""
    sweeps = scored_sweeps(Path(order.settings["store"]), name)
    paths = style.save_pair(draw(sweeps, name), order.folder / name)
    rows = [{column: _number(value) for column, value in zip(COLUMNS, line)} for line in lines(sweeps)]
    return [*paths, output.write_json(name, order, {"rows": rows})]


def _number(text: str | int) -> float | str | None:
    try:
        return float(text) if text != "" else None
    except ValueError:
        return str(text)


def write(store: Path, name: str, out: Path) -> list[Path]:
    """Write `sweep_<name>.csv`, `.pdf` and `.png` into a folder; returns the files. Raises ValueError like `scored_sweeps`."""
    sweeps = scored_sweeps(store, name)
    out.mkdir(parents=True, exist_ok=True)
    table = out / f"sweep_{name}.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *([harmless(cell) for cell in line] for line in lines(sweeps))])
    return [table, *style.save_pair(draw(sweeps, name), out / f"sweep_{name}")]


def scored_sweeps(store: Path, name: str) -> list[SweptTask]:
    """Like `sweeps_of`; also raises ValueError if nothing is scored."""
    sweeps = sweeps_of(store, name)
    if not any(sweep.panels for sweep in sweeps):
        raise ValueError(f"store={store}: this sweep has no scores; it is drawn from videos that were made with eval=embedded")
    return sweeps


def sweep(names: Sequence[str] = tuple(SETTINGS), /, *, store: Path = RESULTS, output: Path | None = None) -> Iterator[str]:
    """Draw scores against one setting of Echo, from the runs of `run.py experiment=sweep_lambda` or `sweep_budget`.

        echo-harness figures sweep lambda --store results

    Args:
        names: lambda, budget, or both.
        store: the run store.
        output: the folder; the store's tables by default.
    """
    for name in names:
        if name not in SETTINGS:
            raise ValueError(f"{name}: no such sweep; {nearest_of(name, SETTINGS)}")
    for name in names:
        yield from map(str, write(store, name, output or store / "tables"))
