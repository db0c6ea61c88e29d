"""Formats of a table: terminal, Markdown, CSV (`eval.tables.latex` is the fourth)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from textwrap import wrap

import pandas as pd

from data.outgoing import without_formulas
from eval import metrics
from eval.metrics import Column
from eval.tables.captions import Panel, notes, panels, size
from eval.tables.grid import FEWER, Grid, TableCell, TableRow, sections

BEST = "*"
KEYS = 4
"""Largest number of columns of a summary."""
NAMES = (24, 16)
"""Lengths to which names of rows are shortened before a summary drops a column."""


def as_text(grid: Grid, styled: bool) -> str:
    """A table for a terminal; `styled` sets the best bold and the second underlined. Columns without a number are named below."""
    shown, left_out = grid.measured()
    means, *differences = panels(shown)
    lines = [means.caption, "", *_text_rows(shown.columns, means, styled), *means.notes, *left_out]
    for panel in differences:
        lines += ["", panel.below, "", *_text_rows(shown.columns, panel, styled), *panel.notes]
    return "\n".join(lines)


def as_summary(grid: Grid, styled: bool, width: int) -> str:
    """A summary of at most `width` characters per line: all rows, and the most important columns that fit.

    These are the columns that the task's figures show, then the others in their order; four at most.
    """
    shown, _ = grid.measured()
    first = metrics.panels(grid.task)
    order = sorted(range(len(shown.columns)), key=lambda place: (shown.columns[place].dimension not in first, place))
    longest = max(len(row.name) for row in grid.rows)
    for count, name in product(range(min(KEYS, len(order)), -1, -1), (longest, *NAMES)):
        narrow = shown.only(sorted(order[:count]))
        panel = Panel("", [replace(row, preset=_cut(row.name, name), variant="") for row in narrow.rows], ())
        if max(map(len, _text_rows(narrow.columns, panel, False, BEST))) <= width:
            break
    compared = any(cell.printed(False).rank == 1 for row in narrow.rows for cell in row.cells)
    backbones = " and ".join(label for label, _ in grid.backbones)
    words = f"{grid.title}, {backbones}; {grid.scorer}; {size(grid)}, mean ± 95 % interval" + f"; {BEST} the best" * compared
    fewer = any(cell.fewer for row in narrow.rows for cell in row.cells)
    said = [f"{FEWER} fewer than asked for, not ranked"] * fewer + notes(grid)[-1:]
    told = [line for text in said for line in wrap(text, width)]
    return "\n".join([*wrap(words, width), "", *_text_rows(narrow.columns, panel, styled, BEST), "", *told])


def _cut(name: str, most: int) -> str:
    """A name shortened in the middle to at most `most` characters."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"


def _text_rows(columns: Sequence[Column], panel: Panel, styled: bool, best: str = "") -> list[str]:
    """best: what stands before the best number of a column."""
    tall = max((len(column.words) for column in columns), default=1)
    heads = [[*words, *[""] * (tall - len(words))] for words in (("method",), ("n",), *(column.words for column in columns))]
    numbers = [[best * (cell.printed(panel.gaps).rank == 1) + plain(cell, panel.gaps) for cell in row.cells] for row in panel.rows]
    body = [[row.name, row.count, *own] for row, own in zip(panel.rows, numbers)]
    widths = [max(map(len, (*head, *(texts[index] for texts in body)))) for index, head in enumerate(heads)]

    def line(texts: Iterable[str], ranks: Iterable[int]) -> str:
        padded = [text.rjust(width) if index else text.ljust(width) for index, (text, width) in enumerate(zip(texts, widths))]
        return "  ".join(_ansi(text, rank) for text, rank in zip(padded, ranks)).rstrip()

    lines, texts = [line(level, [0] * len(heads)) for level in zip(*heads)], iter(body)
    for rows in sections(panel.rows).values():
        lines.append("  ".join("-" * width for width in widths))
        for row in rows:
            lines.append(line(next(texts), [0, 0, *(cell.printed(panel.gaps).rank * styled for cell in row.cells)]))
    return lines


def plain(cell: TableCell, gaps: bool) -> str:
    """A number with its interval and mark; `gaps`: the difference."""
    mean, half, mark, _ = cell.printed(gaps)
    return mean + (f" ± {half}" if half else "") + mark


def _ansi(text: str, rank: int) -> str:
    body = text.lstrip()
    return f"{text[: len(text) - len(body)]}\x1b[{(1, 4)[rank - 1]}m{body}\x1b[0m" if rank else text


def as_markdown(grids: Sequence[Grid]) -> str:
    """All tables of a task, best in bold, second underlined; a line that names it begins each section where there are several."""
    return "\n".join(
        line
        for grid in grids
        for panel in panels(grid)
        for line in (*spaced([panel.caption]), *_markdown_rows(grid.columns, panel), "", *spaced(panel.notes))
    )


def spaced(lines: Iterable[str]) -> list[str]:
    """Lines with an empty one behind each."""
    return [part for line in lines for part in (line, "")]


def markdown(cells: Iterable[str]) -> str:
    """A line of a Markdown table; a cell is one line, and a `|` in it none of the table's."""
    plain = (" ".join(cell.splitlines()).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(plain)} |"


def markdown_table(words: Iterable[str], numbers: Iterable[str], rows: Iterable[Iterable[str]] = ()) -> list[str]:
    """A Markdown table: heads of columns of words, to the left, and of numbers, to the right; then its rows."""
    left, right = list(words), list(numbers)
    return [markdown([*left, *right]), "|" + "---|" * len(left) + "---:|" * len(right), *map(markdown, rows)]


def _markdown_rows(columns: Sequence[Column], panel: Panel) -> list[str]:
    lines = markdown_table(["method", "preset"], ["n", *(" ".join(column.words) for column in columns)])
    parts = sections(panel.rows)
    for heading, rows in parts.items():
        lines += [f"| *{heading}* |" + " |" * (2 + len(columns))] * (len(parts) > 1)
        lines += [markdown([row.label, f"`{row.name}`", row.count, *(_marked(cell, panel.gaps) for cell in row.cells)]) for row in rows]
    return lines


def _marked(cell: TableCell, gaps: bool) -> str:
    text = plain(cell, gaps)
    return (text, f"**{text}**", f"<u>{text}</u>")[cell.printed(gaps).rank]


ENDS = ("", "_ci95", "_n", "_metric", "_gap", "_gap_ci95", "_gap_p", "_detectable")
"""Columns of each dimension."""


def as_csv(grids: Sequence[Grid]) -> str:
    """All tables of a file in one, a row for each preset and task; four decimals, empty where nothing was measured.

    `<dimension>_gap`, its interval, its corrected p and what could have been detected are of the difference to the row that
    `reference` names. `source`: where a row is printed that is not ours.
    """
    flat = [part for grid in grids for part in grid.parts or (grid,)]
    dimensions = dict.fromkeys(column.dimension for grid in flat for column in grid.columns)
    head = ["task", "backbone", "weights", "scorer", "settings", "method", "preset", "variant", "videos", "videos_asked", "failed"]
    head += ["reference", "source", *(dimension + end for dimension in dimensions for end in ENDS)]
    lines = pd.DataFrame([_csv_line(grid, row) for grid in flat for row in grid.rows], columns=head)
    lines = lines.astype({f"{dimension}_n": "Int64" for dimension in dimensions}).fillna({f"{dimension}_n": 0 for dimension in dimensions})
    return str(without_formulas(lines).to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def _csv_line(grid: Grid, row: TableRow) -> dict[str, object]:
    line: dict[str, object] = {"task": grid.task, "backbone": row.section, "scorer": grid.scorer, "settings": grid.settings}
    line |= {"method": row.label, "videos_asked": 0 if row.source else grid.videos}
    line |= {name: getattr(row, name) for name in ("weights", "preset", "variant", "videos", "failed", "reference", "source")}
    for column, cell in zip(grid.columns, row.cells):
        name, own, gap = column.dimension, cell.estimate, cell.gap
        if own is not None:
            metric = f"published.{name}" if row.source and not row.videos else column.metric
            line |= {name: own.mean, f"{name}_ci95": own.half_width, f"{name}_n": own.videos, f"{name}_metric": metric}
        if gap is not None:
            line |= {f"{name}_gap": gap.estimate.mean, f"{name}_gap_ci95": gap.estimate.half_width}
            line |= {f"{name}_gap_p": gap.p, f"{name}_detectable": gap.detectable}
    return line
