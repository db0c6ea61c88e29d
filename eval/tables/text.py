"""Forms in which a table is shown: terminal, Markdown, CSV; `eval.tables.latex` is the fourth."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from eval.metrics import Column
from eval.tables.captions import Panel, panels
from eval.tables.grid import Grid, TableCell, sections


def as_text(grid: Grid, styled: bool) -> str:
    """For a terminal; `styled` makes the best bold and the second underlined."""
    parts = [[panel.caption, "", *_text_rows(grid.columns, panel, styled), *panel.notes] for panel in panels(grid)]
    return "\n\n".join("\n".join(part) for part in parts)


def _text_rows(columns: Sequence[Column], panel: Panel, styled: bool) -> list[str]:
    tall = max(len(column.words) for column in columns)
    heads = [[*words, *[""] * (tall - len(words))] for words in (("method",), ("n",), *(column.words for column in columns))]
    body = [[row.name, row.count, *(plain(cell, panel.gaps) for cell in row.cells)] for row in panel.rows]
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
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def markdown_head(words: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Head and rule of a Markdown table, words to the left and numbers to the right."""
    return [markdown([*words, *numbers]), "|" + "---|" * len(words) + "---:|" * len(numbers)]


def _markdown_rows(columns: Sequence[Column], panel: Panel) -> list[str]:
    lines = markdown_head(["method", "preset"], ["n", *(" ".join(column.words) for column in columns)])
    parts = sections(panel.rows)
    for heading, rows in parts.items():
        if len(parts) > 1:
            lines.append(f"| *{heading}* |" + " |" * (2 + len(columns)))
        for row in rows:
            lines.append(markdown([row.label, f"`{row.name}`", row.count, *(_marked(cell, panel.gaps) for cell in row.cells)]))
    return lines


def _marked(cell: TableCell, gaps: bool) -> str:
    text = plain(cell, gaps)
    return (text, f"**{text}**", f"<u>{text}</u>")[cell.printed(gaps).rank]


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


def _numbers(column: Column, cell: TableCell, printed: bool) -> list[str | int]:
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
