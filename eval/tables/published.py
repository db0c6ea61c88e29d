"""The paper's printed numbers as rows of a table, each below the matching row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from baselines.ours import BASES, rebased
from data.published import Number, backbones, numbers, ours
from eval.metrics import Column
from eval.stats.statistics import Estimate
from eval.tables.grid import Grid, TableCell, TableRow

PAPER = "Echo-Forcing, arXiv 2605.16003"
RATED = ("4", "5")


def published(grid: Grid, experiment: str | None) -> Grid:
    """A grid with published rows, and a note on their source and comparability.

    Args:
        grid: of one task.
        experiment: its name; `table2` takes only numbers of Table 2, any other name those of all tables.
    """
    wanted = [n for n in numbers() if _fits(n, grid, experiment)]
    rows: list[TableRow] = []
    used: list[Number] = []
    told: set[tuple[str, Number]] = set()  # if several rows may stand for one of the paper, only the first gets it
    for row in grid.rows:
        rows.append(row)
        own = [] if row.variant or row.calibration else _first([n for n in wanted if _stands(row, n)])
        if any(number.metric == _printed(column) for number in own for column in grid.columns) and (row.section, own[0]) not in told:
            rows.append(_row(row, own, grid.columns))
            told.add((row.section, own[0]))
            used += own
    if not used:
        return dataclasses.replace(grid, remarks=(*grid.remarks, f"As published: {PAPER} has no number of these rows."))
    places = dict.fromkeys(f"Table {number.table}, {number.source}" for number in used)
    note = f"As published: {PAPER} ({'; '.join(places)}); no interval is told, not ranked with ours."
    if any(column.definition.embedded for column in grid.columns):
        note += " They are VBench's scores of a model of 1.3 billion parameters on other prompts: compare orders of rows, not values."
    rest = dict.fromkeys(number.method for number in wanted if number not in used)
    if rest:
        note += f" Published rows without a counterpart here: {', '.join(rest)}."
    return dataclasses.replace(grid, rows=tuple(rows), remarks=(*grid.remarks, note))


def _fits(number: Number, grid: Grid, experiment: str | None) -> bool:
    table = (experiment or "").removeprefix("table")
    if table in RATED or number.table in RATED:
        return number.table == table
    if number.table != table and any(other.table == table for other in numbers()):
        return False
    return grid.task in ours("task", number.task, number.table)


def _stands(row: TableRow, number: Number) -> bool:
    """Whether one of our rows has a printed number's method and backbone; for the embedded world and for raters any backbone fits."""
    presets = {rebased(preset, base) for preset in ours("method", number.method, number.table) for base in BASES}
    if number.table in RATED:
        return row.preset in presets
    places = {*ours("backbone", number.backbone, number.table), *backbones(embedded=True)}
    return row.preset in presets and row.backbone in places


def _first(printed: Sequence[Number]) -> list[Number]:
    """The numbers of the first of several tables that print a row."""
    return [number for number in printed if number.table == printed[0].table]


def _printed(column: Column) -> str:
    """A column's name in published data."""
    return column.about.printed or column.dimension


def _row(row: TableRow, own: Sequence[Number], columns: Sequence[Column]) -> TableRow:
    by_metric = {number.metric: number for number in own}
    cells = []
    for column in columns:
        number = by_metric.get(_printed(column))
        cells.append(TableCell(None if number is None else Estimate(number.value, None, 0, 0, 0), False, None))
    label, source = f"{row.label}, as published", f"{PAPER}, Table {own[0].table}, {own[0].source}"
    return TableRow(label, row.preset, "as published", 0, tuple(cells), row.section, "", source=source)
