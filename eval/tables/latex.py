r"""A table for LaTeX, to be read in with `\input`; its document loads booktabs and graphicx."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.tables.captions import Panel, panels
from eval.tables.grid import CERTAIN, FEWER, NOTHING, Grid, TableCell, sections

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
    """All tables of a file: best in bold, second underlined, a rule between parts; then the differences, as a float of their own.

    Captions tell what the numbers are; notes stand below the rows. A table is as wide as the line.
    """
    head = "% " + "".join(rf"\usepackage{{{package}}}" for package in PACKAGES)
    return "\n".join([head, *(_table(grid, panel) for grid in grids for panel in panels(grid))])


def _table(grid: Grid, panel: Panel) -> str:
    heads = " & ".join(r"\shortstack{" + r" \\ ".join(escape(word) for word in column.words) + "}" for column in grid.columns)
    lines = [
        r"\begin{table}[p]",
        r"\centering",
        r"\caption{" + escape(panel.caption) + r"}\smallskip",
        r"\label{tab:" + _label(grid) + "-differences" * panel.gaps + "}",
        r"\resizebox{\linewidth}{!}{%",
        r"\begin{tabular}{llr" + "r" * len(grid.columns) + "}",
        r"\toprule",
        rf"Method & Preset & n & {heads} \\",
    ]
    parts = sections(panel.rows)
    for heading, rows in parts.items():
        lines.append(r"\midrule")
        if len(parts) > 1:
            lines.append(rf"\multicolumn{{{3 + len(grid.columns)}}}{{l}}{{\textit{{{escape(heading)}}}}} \\")
        for row in rows:
            cells = " & ".join(_cell(cell, panel.gaps) for cell in row.cells)
            lines.append(rf"{escape(row.label)} & \texttt{{{escape(row.name)}}} & {row.count.replace('-', '--')} & {cells} \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if panel.notes:
        lines += [r"\par\smallskip", r"\parbox{\linewidth}{\footnotesize " + r"\par ".join(escape(note) for note in panel.notes) + "}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _label(grid: Grid) -> str:
    """A name that no other table of a document has and that LaTeX takes as it is."""
    backbones = (label for label, _ in grid.backbones)
    words = (grid.title if grid.parts else "", grid.task, *backbones, grid.weights, grid.scorer, grid.settings)
    return "-".join(re.findall(r"[A-Za-z0-9.]+", " ".join(words)))


def _cell(cell: TableCell, gaps: bool) -> str:
    mean, half, mark, rank = cell.printed(gaps)
    if mean == NOTHING:
        return "--"
    mean = f"${mean}$" if gaps else (mean, rf"\textbf{{{mean}}}", rf"\underline{{{mean}}}")[rank]
    return mean + (rf" $\pm$ {half}" if half else "") + escape(mark)


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; a sign that plain pdflatex has no letter for becomes a question mark."""
    return "".join(SPECIAL.get(char, char if ord(char) < 0x180 else "?") for char in text)
