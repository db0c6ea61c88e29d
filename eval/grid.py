"""A table as data, and the four forms in which it is shown: terminal, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.statistics import Estimate

DECIMALS = 2
FEWER = "†"


@dataclass(frozen=True)
class Column:
    """A dimension; `proxy` says that the number is not VBench's."""

    dimension: str
    proxy: bool

    @property
    def words(self) -> tuple[str, ...]:
        """The header, a line for each word."""
        return (*self.dimension.split("_"), *(("(proxy)",) if self.proxy else ()))


@dataclass(frozen=True)
class Cell:
    """A number of a row; `fewer` marks one of fewer prompts or seeds than were asked for."""

    estimate: Estimate | None
    fewer: bool
    rank: int | None

    @property
    def text(self) -> tuple[str, str]:
        """Mean and interval as printed; the interval is empty where it is unknown."""
        if self.estimate is None:
            return "-", ""
        half = self.estimate.half_width
        return f"{self.estimate.mean:.{DECIMALS}f}", "" if half is None else f"{half:.{DECIMALS}f}"


@dataclass(frozen=True)
class Row:
    """A preset, told from its like by the settings that differ."""

    label: str
    preset: str
    variant: str
    videos: int
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """Preset and what is special about it."""
        return f"{self.preset} {self.variant}".strip()


@dataclass(frozen=True)
class Grid:
    """All rows that may be compared: one task, one backbone, one scorer."""

    task: str
    title: str
    backbone: str
    weights: str
    scorer: str
    settings: str  # shared by all rows and worth telling
    prompts: int
    seeds: int
    videos: int  # asked for in each row
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def caption(self) -> str:
        """What the numbers are and where they come from, in sentences."""
        return (
            f"{self.title}. Backbone {self.backbone} (weights {self.weights}); {self.scorer}. "
            f"{f'Settings: {self.settings}. ' if self.settings else ''}"
            f"Mean ± 95 % interval, bootstrap over {_count(self.prompts, 'prompt')} with {_count(self.seeds, 'seed')} each; "
            "higher is better."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Explanations that this table needs."""
        found = []
        if any(column.proxy for column in self.columns):
            found.append("proxy: the dimension's idea measured by another scorer; not a VBench number.")
        if any(cell.estimate is None for row in self.rows for cell in row.cells):
            found.append("-: not measured.")
        if any(cell.fewer for row in self.rows for cell in row.cells):
            found.append(f"{FEWER}: fewer prompts or seeds than the {self.videos} videos asked for; not ranked.")
        return tuple(found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def as_text(grid: Grid, styled: bool) -> str:
    """For a terminal; `styled` makes the best bold and the second underlined."""
    tall = max(len(column.words) for column in grid.columns)
    heads = [["method"] + [""] * (tall - 1), ["n"] + [""] * (tall - 1)]
    heads += [list(column.words) + [""] * (tall - len(column.words)) for column in grid.columns]
    body = [[row.name, str(row.videos), *(_plain(cell) for cell in row.cells)] for row in grid.rows]
    widths = [max(len(text) for text in (*head, *(line[i] for line in body))) for i, head in enumerate(heads)]
    lines = [grid.caption, ""]
    for level in range(tall):
        lines.append("  ".join(_pad(head[level], width, i) for i, (head, width) in enumerate(zip(heads, widths))).rstrip())
    lines.append("  ".join("-" * width for width in widths))
    for row, texts in zip(grid.rows, body):
        marks = [None, None, *(cell.rank for cell in row.cells)]
        padded = [_pad(text, width, i) for i, (text, width) in enumerate(zip(texts, widths))]
        lines.append("  ".join(_ansi(text, mark) if styled else text for text, mark in zip(padded, marks)).rstrip())
    return "\n".join([*lines, *grid.notes])


def _pad(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _plain(cell: Cell) -> str:
    mean, half = cell.text
    return mean + (f" ± {half}" if half else "") + (FEWER if cell.fewer else "")


def _ansi(text: str, rank: int | None) -> str:
    code = {1: "1", 2: "4"}.get(rank or 0)
    body = text.lstrip()
    return text if code is None else text[: len(text) - len(body)] + f"\x1b[{code}m{body}\x1b[0m"


def as_markdown(grids: Sequence[Grid]) -> str:
    """All tables of a task, best in bold, second underlined."""
    return "\n".join(_markdown(grid) for grid in grids)


def _markdown(grid: Grid) -> str:
    lines = [f"{grid.caption}", ""]
    lines.append("| method | preset | n | " + " | ".join(" ".join(column.words) for column in grid.columns) + " |")
    lines.append("|---|---|---:|" + "---:|" * len(grid.columns))
    for row in grid.rows:
        texts = []
        for cell in row.cells:
            text = _plain(cell)
            texts.append({1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank or 0, text))
        lines.append(f"| {row.label} | `{row.name}` | {row.videos} | " + " | ".join(texts) + " |")
    notes = [line for note in grid.notes for line in (note, "")]
    return "\n".join([*lines, "", *notes])


def as_latex(grids: Sequence[Grid]) -> str:
    """All tables of a task for booktabs, best in bold, second underlined."""
    return "\n".join(_latex(grid) for grid in grids)


def _latex(grid: Grid) -> str:
    heads = " & ".join(r"\shortstack{" + r" \\ ".join(escape(word) for word in column.words) + "}" for column in grid.columns)
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{" + escape(" ".join((grid.caption, *grid.notes))) + "}",
        r"\label{tab:" + _label(grid) + "}",
        r"\begin{tabular}{llr" + "r" * len(grid.columns) + "}",
        r"\toprule",
        rf"Method & Preset & n & {heads} \\",
        r"\midrule",
    ]
    for row in grid.rows:
        cells = " & ".join(_latex_cell(cell) for cell in row.cells)
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


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "∞": r"$\infty$",
        "±": r"$\pm$",
        FEWER: r"$^\dagger$",
    }
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)


def as_csv(grids: Sequence[Grid]) -> str:
    """All tables of a task in one, a row for each preset; four decimals, empty where nothing was measured."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    dimensions = [column.dimension for column in grids[0].columns]
    ends = ("", "_ci95", "_n", "_metric")
    head = ["task", "backbone", "weights", "scorer", "settings", "method", "preset", "variant", "videos", "videos_asked"]
    writer.writerow(head + [dimension + end for dimension in dimensions for end in ends])
    for grid in grids:
        for row in grid.rows:
            line: list[str | int] = [grid.task, grid.backbone, grid.weights, grid.scorer, grid.settings]
            line += [row.label, row.preset, row.variant, row.videos, grid.videos]
            for column, cell in zip(grid.columns, row.cells):
                line += _numbers(cell) + [("proxy." if column.proxy else "") + column.dimension if cell.estimate else ""]
            writer.writerow(line)
    return out.getvalue()


def _numbers(cell: Cell) -> list[str | int]:
    if cell.estimate is None:
        return ["", "", 0]
    half = cell.estimate.half_width
    return [f"{cell.estimate.mean:.4f}", "" if half is None else f"{half:.4f}", cell.estimate.videos]
