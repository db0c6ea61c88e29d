r"""A table for LaTeX, for `\input`; its document loads booktabs and graphicx or, if texts have other letters, `PREAMBLE`, which
is then given at the table's head.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from eval.tables.captions import Panel, panels
from eval.tables.grid import CERTAIN, FEWER, NOTHING, Grid, TableCell, sections

PACKAGES = ("booktabs", "graphicx")
PREAMBLE = r"""\usepackage{booktabs}\usepackage{graphicx}\usepackage{iftex}
\ifpdftex
\usepackage[T1]{fontenc}\usepackage{lmodern}\usepackage{textcomp}\usepackage{CJKutf8}
\DeclareRobustCommand\letters[1]{\begin{CJK*}{UTF8}{gbsn}#1\end{CJK*}}
\else
\usepackage{fontspec}\newcommand\lettersfont{}
\newcommand\lettersof[2]{\IfFontExistsTF{#1}{\renewcommand\lettersfont{\fontspec{#1}}}{#2}}
\lettersof{FandolSong-Regular.otf}{\lettersof{Noto Serif CJK SC}{\lettersof{gbsn00lp.ttf}{}}}
\DeclareRobustCommand\letters[1]{{\lettersfont#1}}
\fi"""
"""For pdflatex and lualatex: accents and quotes of Latin scripts, and Chinese, kana and Cyrillic where their fonts are installed."""
MANY = 20
"""Number of rows beyond which they are set closer, to leave room for notes on the page."""
GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega".split()
CAPITALS = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split()
RELATIONS = "rightarrow leftarrow leftrightarrow uparrow downarrow leq geq approx neq infty pm times".split()
LETTERS = re.compile(r"[\u0401\u0410-\u044f\u0451\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+")
"""Runs of Cyrillic, Chinese and kana, and their punctuation."""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    FEWER: r"$^\dagger$",
    CERTAIN: "$^*$",
    "[": "{[}",  # a row's first would be an argument of the line end before it
    "]": "{]}",
    **dict(zip("–—‘’“”…−", ("--", "---", "`", "'", "``", "''", r"\dots{}", "$-$"))),
    **{char: "\\" + char for char in "&%$#_{}"},
    **{char: rf"$\{name}$" for char, name in zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ→←↔↑↓≤≥≈≠∞±×", (*GREEK, *CAPITALS, *RELATIONS))},
}


def as_latex(grids: Sequence[Grid]) -> str:
    """All tables of a file: best in bold, second underlined, a rule between parts; then the differences, as a separate float.

    Captions describe the numbers; notes are below the rows. A table is as wide as the line.
    """
    tables = [_table(grid, panel) for grid in grids for panel in panels(grid)]
    plain = "".join(rf"\usepackage{{{package}}}" for package in PACKAGES)
    return "\n".join([*(f"% {line}" for line in (plain if "".join(tables).isascii() else PREAMBLE).splitlines()), *tables])


def _table(grid: Grid, panel: Panel) -> str:
    heads = " & ".join(r"\shortstack{" + r" \\ ".join(escape(word) for word in column.words) + "}" for column in grid.columns)
    lines = [
        r"\begin{table}[p]",
        r"\centering",
        r"\caption{" + escape(panel.caption) + r"}\smallskip",
        r"\label{tab:" + _label(grid) + "-differences" * panel.gaps + "}",
        *[r"\renewcommand{\arraystretch}{0.9}"] * (len(panel.rows) > MANY),
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
    """A label that is unique in a document and valid in LaTeX."""
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
    """Text escaped for LaTeX; a letter that neither LaTeX nor `PREAMBLE` has loses its marks, or becomes a question mark."""
    parts = zip(LETTERS.split(text), [*LETTERS.findall(text), ""])
    return "".join("".join(map(_sign, own)) + (rf"\letters{{{other}}}" if other else "") for own, other in parts)


def _sign(char: str) -> str:
    if char in SPECIAL:
        return SPECIAL[char]
    base = char if ord(char) < 0x180 else unicodedata.normalize("NFKD", char)[0]
    return base if ord(base) < 0x180 and base.isprintable() else " " if base.isspace() else "?"
