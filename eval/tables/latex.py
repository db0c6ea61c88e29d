r"""A table for LaTeX, to be read in with `\input`; its document loads booktabs and graphicx."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.tables.grid import CERTAIN, FEWER, Cell, Grid, Row

PACKAGES = ("booktabs", "graphicx")
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "∞": r"$\infty$",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "λ": r"$\lambda$",
    "α": r"$\alpha$",
    "×": r"$\times$",
    "<": "$<$",
    ">": "$>$",
    FEWER: r"$^\dagger$",
    CERTAIN: "$^*$",
} | {char: "\\" + char for char in "&%$#_{}"}


def as_latex(grids: Sequence[Grid]) -> str:
    """All tables of a file: best in bold, second underlined, a rule between blocks; then the differences, as a float of their own.

    Captions tell what the numbers are; notes stand below the rows. A table is as wide as the line.
    """
    tables = ["% " + "".join(rf"\usepackage{{{package}}}" for package in PACKAGES)]
    for grid in grids:
        tables.append(_table(grid, grid.rows, grid.caption, grid.notes, _label(grid), gaps=False))
        if grid.compared:
            tables.append(_table(grid, grid.compared, grid.gap_caption, grid.gap_notes, f"{_label(grid)}-differences", gaps=True))
    return "\n".join(tables)


def document(fragments: Sequence[str]) -> str:
    """A whole document of tables, for looking at them."""
    loaded = "".join(rf"\usepackage{{{package}}}" for package in PACKAGES)
    head = rf"\documentclass[a4paper]{{article}}\usepackage[margin=15mm]{{geometry}}{loaded}\begin{{document}}"
    return "\n".join((head, "\n\\clearpage\n".join(fragments), r"\end{document}", ""))


def _table(grid: Grid, rows: Sequence[Row], caption: str, notes: Sequence[str], label: str, gaps: bool) -> str:
    heads = " & ".join(r"\shortstack{" + r" \\ ".join(escape(word) for word in column.words) + "}" for column in grid.columns)
    lines = [
        r"\begin{table}[p]",
        r"\centering",
        r"\caption{" + escape(caption) + r"}\smallskip",
        r"\label{tab:" + label + "}",
        r"\resizebox{\linewidth}{!}{%",
        r"\begin{tabular}{llr" + "r" * len(grid.columns) + "}",
        r"\toprule",
        rf"Method & Preset & n & {heads} \\",
    ]
    heading, several = None, len({row.heading for row in rows}) > 1
    for row in rows:
        if row.heading != heading:
            lines.append(r"\midrule")
            if several:
                lines.append(rf"\multicolumn{{{3 + len(grid.columns)}}}{{l}}{{\textit{{{escape(row.heading)}}}}} \\")
        heading = row.heading
        cells = " & ".join(_gap(cell) if gaps else _cell(cell) for cell in row.cells)
        lines.append(rf"{escape(row.label)} & \texttt{{{escape(row.name)}}} & {row.count.replace('-', '--')} & {cells} \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if notes:
        lines += [r"\par\smallskip", r"\parbox{\linewidth}{\footnotesize " + r"\par ".join(escape(note) for note in notes) + "}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _label(grid: Grid) -> str:
    """A name that no other table of a document has and that LaTeX takes as it is."""
    words = " ".join((grid.title if grid.parts else "", grid.task, grid.backbone, grid.weights, grid.scorer, grid.settings))
    return "-".join(re.findall(r"[A-Za-z0-9.]+", words))


def _cell(cell: Cell) -> str:
    mean, half = cell.text
    if cell.estimate is None:
        return "--"
    mean = {1: rf"\textbf{{{mean}}}", 2: rf"\underline{{{mean}}}"}.get(cell.rank or 0, mean)
    return mean + (rf" $\pm$ {half}" if half else "") + (r"$^\dagger$" if cell.fewer else "")


def _gap(cell: Cell) -> str:
    mean, half = cell.gap_text
    if cell.gap is None:
        return "--"
    return f"${mean}$" + (rf" $\pm$ {half}" if half else "") + (r"$^*$" if cell.gap.certain else "")


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; a sign that plain pdflatex has no letter for becomes a question mark."""
    return "".join(SPECIAL.get(char, char if ord(char) < 0x180 else "?") for char in text)
