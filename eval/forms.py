"""The four forms in which a table is shown: terminal, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from eval.grid import CERTAIN, FEWER, Cell, Column, Grid, Row


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
    body = [[row.name, str(row.videos), *(_gap(cell) if gaps else _plain(cell) for cell in row.cells)] for row in rows]
    widths = [max(len(text) for text in (*head, *(line[i] for line in body))) for i, head in enumerate(heads)]
    lines = []
    for level in range(tall):
        lines.append("  ".join(_pad(head[level], width, i) for i, (head, width) in enumerate(zip(heads, widths))).rstrip())
    section = None
    for row, texts in zip(rows, body):
        if row.section != section:
            lines.append("  ".join("-" * width for width in widths))
        section = row.section
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
    sections = list(dict.fromkeys(row.section for row in rows))
    for section in sections:
        if len(sections) > 1:
            lines.append(f"| *{section}* |" + " |" * (2 + len(grid.columns)))
        for row in (row for row in rows if row.section == section):
            texts = [_gap(cell) if gaps else _marked(cell) for cell in row.cells]
            lines.append(f"| {row.label} | `{row.name}` | {row.videos} | " + " | ".join(texts) + " |")
    return lines


def _marked(cell: Cell) -> str:
    text = _plain(cell)
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank or 0, text)


def as_latex(grids: Sequence[Grid]) -> str:
    """All tables of a task for booktabs, best in bold, second underlined, a rule between sections; then the differences."""
    tables = []
    for grid in grids:
        tables.append(_latex(grid, grid.rows, " ".join((grid.caption, *grid.notes)), _label(grid), gaps=False))
        if grid.compared:
            caption = " ".join((grid.gap_caption, *grid.gap_notes))
            tables.append(_latex(grid, grid.compared, caption, f"{_label(grid)}-differences", gaps=True))
    return "\n".join(tables)


def _latex(grid: Grid, rows: Sequence[Row], caption: str, label: str, gaps: bool) -> str:
    heads = " & ".join(r"\shortstack{" + r" \\ ".join(escape(word) for word in column.words) + "}" for column in grid.columns)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{" + escape(caption) + "}",
        r"\label{tab:" + label + "}",
        r"\begin{tabular}{llr" + "r" * len(grid.columns) + "}",
        r"\toprule",
        rf"Method & Preset & n & {heads} \\",
    ]
    section = None
    for row in rows:
        if row.section != section:
            lines.append(r"\midrule")
        section = row.section
        cells = " & ".join(_latex_gap(cell) if gaps else _latex_cell(cell) for cell in row.cells)
        lines.append(rf"{escape(row.label)} & \texttt{{{escape(row.name)}}} & {row.videos} & {cells} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _label(grid: Grid) -> str:
    """A name that no other table of a document has and that LaTeX takes as it is."""
    words = " ".join((grid.task, grid.backbone, grid.weights, grid.scorer, grid.settings))
    return "-".join(re.findall(r"[A-Za-z0-9.]+", words))


def _latex_cell(cell: Cell) -> str:
    mean, half = cell.text
    if cell.estimate is None:
        return "--"
    mean = {1: rf"\textbf{{{mean}}}", 2: rf"\underline{{{mean}}}"}.get(cell.rank or 0, mean)
    return mean + (rf" $\pm$ {half}" if half else "") + (r"$^\dagger$" if cell.fewer else "")


def _latex_gap(cell: Cell) -> str:
    mean, half = cell.gap_text
    if cell.gap is None:
        return "--"
    return f"${mean}$" + (rf" $\pm$ {half}" if half else "") + (r"$^*$" if cell.gap.certain else "")


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "∞": r"$\infty$",
        "±": r"$\pm$",
        "↓": r"$\downarrow$",
        "<": "$<$",
        FEWER: r"$^\dagger$",
        CERTAIN: "$^*$",
    }
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)


def as_csv(grids: Sequence[Grid]) -> str:
    """All tables of a task in one, a row for each preset; four decimals, empty where nothing was measured.

    `<dimension>_gap`, its interval and its corrected p are of the difference to the row that `reference` names.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = {column.dimension: column for grid in grids for column in grid.columns}
    ends = ("", "_ci95", "_n", "_metric", "_gap", "_gap_ci95", "_gap_p")
    head = ["task", "backbone", "weights", "scorer", "settings", "method", "preset", "variant", "videos", "videos_asked", "reference"]
    writer.writerow(head + [dimension + end for dimension in columns for end in ends])
    for grid in grids:
        for row in grid.rows:
            line: list[str | int] = [grid.task, row.section, row.weights, grid.scorer, grid.settings]
            line += [row.label, row.preset, row.variant, row.videos, grid.videos, row.reference]
            cells = {column.dimension: (column, cell) for column, cell in zip(grid.columns, row.cells)}
            for dimension in columns:
                line += _numbers(*cells[dimension]) if dimension in cells else ["", "", 0, "", "", "", ""]
            writer.writerow(line)
    return out.getvalue()


def _numbers(column: Column, cell: Cell) -> list[str | int]:
    gap = cell.gap
    gaps = ["", "", ""] if gap is None else [_four(gap.estimate.mean), _four(gap.estimate.half_width), _four(gap.p)]
    if cell.estimate is None:
        return ["", "", 0, "", *gaps]
    return [_four(cell.estimate.mean), _four(cell.estimate.half_width), cell.estimate.videos, column.metric, *gaps]


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
