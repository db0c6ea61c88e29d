"""Whole documents of tables, for looking at them."""

from __future__ import annotations

from collections.abc import Sequence

from eval.tables.latex import PACKAGES


def document(fragments: Sequence[str]) -> str:
    """A whole document of tables, for looking at them."""
    loaded = "".join(rf"\usepackage{{{package}}}" for package in PACKAGES)
    head = rf"\documentclass[a4paper]{{article}}\usepackage[margin=15mm]{{geometry}}{loaded}\begin{{document}}"
    return "\n".join((head, "\n\\clearpage\n".join(fragments), r"\end{document}", ""))
