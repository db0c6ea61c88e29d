"""Whole documents of tables, for looking at them."""

from __future__ import annotations

from collections.abc import Sequence

from eval.tables.latex import PACKAGES, PREAMBLE


def document(fragments: Sequence[str]) -> str:
    """A whole document of tables, for looking at them."""
    head = r"\documentclass[a4paper]{article}\usepackage[margin=15mm]{geometry}"
    plain = "".join(rf"\usepackage{{{package}}}" for package in PACKAGES)
    needs_more = not "".join(fragments).isascii()
    return "\n".join(
        (head, PREAMBLE if needs_more else plain, r"\begin{document}", "\n\\clearpage\n".join(fragments), r"\end{document}", "")
    )
