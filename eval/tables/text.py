"""Forms in which a table is shown: terminal, Markdown, CSV; `eval.tables.latex` is the fourth."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from eval.metrics import Column
from eval.tables.grid import CERTAIN, FEWER, Cell, Grid, Row


def as_text(grid: Grid, styled: bool) -> str:
    """For a terminal; `styled` makes the best bold and the second underlined."""
    lines = [grid.caption, "", *_text_rows(grid, grid.rows, styled, gaps=False), *grid.notes]
    if grid.compared:
        lines += ["", grid.gap_caption, "", *_text_rows(grid, grid.compared, False, gaps=True), *grid.gap_notes]
    return "\n".join(lines)


def _text_rows(grid: Grid, rows: Sequence[Row], styled: bool, gaps: bool) -> list[str]:
    tall = max(len(column.words) for column in grid.columns)
    heads = [["method"] + [""] * (tall - 1), ["n"] + [""] * (tall - 1)]
    heads += [list(column.words) + [""] * (tall - len(column.words)) for column in grid.columns]
    body = [[row.name, row.count, *(_gap(cell) if gaps else _plain(cell) for cell in row.cells)] for row in rows]
    widths = [max(len(text) for text in (*head, *(line[i] for line in body))) for i, head in enumerate(heads)]
    lines = []
    for level in range(tall):
        lines.append("  ".join(_pad(head[level], width, i) for i, (head, width) in enumerate(zip(heads, widths))).rstrip())
    section = None
    for row, texts in zip(rows, body):
        if row.heading != section:
            lines.append("  ".join("-" * width for width in widths))
        section = row.heading
        marks = [None, None, *(None if gaps else cell.rank for cell in row.cells)]
        padded = [_pad(text, width, i) for i, (text, width) in enumerate(zip(texts, widths))]
        lines.append("  ".join(_ansi(text, mark) if styled else text for text, mark in zip(padded, marks)).rstrip())
    return lines


def _pad(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _plain(cell: Cell) -> str:
    mean, half = cell.text
    return mean + (f" ± {half}" if half else "") + (FEWER if cell.fewer else "")


def _gap(cell: Cell) -> str:
    mean, half = cell.gap_text
    return mean + (f" ± {half}" if half else "") + (CERTAIN if cell.gap and cell.gap.certain else "")


def _ansi(text: str, rank: int | None) -> str:
    code = {1: "1", 2: "4"}.get(rank or 0)
    body = text.lstrip()
    return text if code is None else text[: len(text) - len(body)] + f"\x1b[{code}m{body}\x1b[0m"


def as_markdown(grids: Sequence[Grid]) -> str:
    """All tables of a task, best in bold, second underlined; a line that names it begins each section where there are several."""
    return "\n".join(_markdown(grid) for grid in grids)


def _markdown(grid: Grid) -> str:
    notes = [line for note in grid.notes for line in (note, "")]
    lines = [grid.caption, "", *_markdown_rows(grid, grid.rows, gaps=False), "", *notes]
    if grid.compared:
        lines += [grid.gap_caption, "", *_markdown_rows(grid, grid.compared, gaps=True), ""]
        lines += [line for note in grid.gap_notes for line in (note, "")]
    return "\n".join(lines)


def _markdown_rows(grid: Grid, rows: Sequence[Row], gaps: bool) -> list[str]:
    lines = ["| method | preset | n | " + " | ".join(" ".join(column.words) for column in grid.columns) + " |"]
    lines.append("|---|---|---:|" + "---:|" * len(grid.columns))
    sections = list(dict.fromkeys(row.heading for row in rows))
    for section in sections:
        if len(sections) > 1:
            lines.append(f"| *{section}* |" + " |" * (2 + len(grid.columns)))
        for row in (row for row in rows if row.heading == section):
            texts = [_gap(cell) if gaps else _marked(cell) for cell in row.cells]
            lines.append(f"| {row.label} | `{row.name}` | {row.count} | " + " | ".join(texts) + " |")
    return lines


def _marked(cell: Cell) -> str:
    text = _plain(cell)
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank or 0, text)


def as_csv(grids: Sequence[Grid]) -> str:
    """All tables of a file in one, a row for each preset and task; four decimals, empty where nothing was measured.

    `<dimension>_gap`, its interval, its corrected p and what could have been detected are of the difference to the row that
    `reference` names. `source`: where a row is printed that is not ours.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    flat = [part for grid in grids for part in grid.parts or (grid,)]
    columns = {column.dimension: column for grid in flat for column in grid.columns}
    head = ["task", "backbone", "weights", "scorer", "settings", "method", "preset", "variant", "videos", "videos_asked", "failed"]
    writer.writerow([*head, "reference", "source", *(dimension + end for dimension in columns for end in ENDS)])
    for grid in flat:
        for row in grid.rows:
            line: list[str | int] = [grid.task, row.section, row.weights, grid.scorer, grid.settings]
            asked = 0 if row.source else grid.videos
            line += [row.label, row.preset, row.variant, row.videos, asked, row.failed, row.reference, row.source]
            cells = {column.dimension: (column, cell) for column, cell in zip(grid.columns, row.cells)}
            for dimension in columns:
                line += _numbers(*cells[dimension], bool(row.source)) if dimension in cells else ["", "", 0, "", "", "", "", ""]
            writer.writerow(line)
    return out.getvalue()


ENDS = ("", "_ci95", "_n", "_metric", "_gap", "_gap_ci95", "_gap_p", "_detectable")
"""Columns of each dimension."""


def _numbers(column: Column, cell: Cell, printed: bool) -> list[str | int]:
    gap = cell.gap
    gaps = ["", "", "", ""]
    if gap is not None:
        gaps = [_four(gap.estimate.mean), _four(gap.estimate.half_width), _four(gap.p), _four(gap.detectable)]
    if cell.estimate is None:
        return ["", "", 0, "", *gaps]
    metric = f"published.{column.dimension}" if printed else column.metric
    return [_four(cell.estimate.mean), _four(cell.estimate.half_width), cell.estimate.videos, metric, *gaps]


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
