"""The format of a prompt file by its content, and the texts of line formats."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.sets.columns import TEXTS, cells_of
from echo.files import read_text
from echo.refusals import shown

Numbered = list[tuple[int, str]]
"""Texts with the numbers of their first lines, from 1."""
OTHERS = ("id", "index", "seed", "tag", "tags", "category", "categories", "dimension", "name", "duration", "split", "url", "video", "model")
"""Other columns that usually occur beside prompts."""
RELEASED = re.compile(r"\[\d{1,3}(?:\.\d+)? *s[#@]?\]\s*(?:[|;]|$)")
LISTED = {"a number and a point": r"\s*\d+\s*[.):]\s", "a bullet": r"\s*[-*•]\s"}
COMMENT = re.compile(r"\s*(?:#|//)(?:\s|$)")


def numbered_lines(path: Path) -> Numbered:
    """Lines that are not blank. Raises ValueError like `echo.files.read_text`."""
    return _lines(read_text(path))


def texts(path: Path, form: str) -> Numbered:
    """The texts of a file in one of the line formats: released, lines, jsonl.

    Raises:
        ValueError: in one line, for a file of another format.
    """
    text = read_text(path)
    lines = _lines(text)
    if other := _other(text, lines, form):
        raise ValueError(f"{path}:{lines[0][0]}: format={form}, but it looks like {other}")
    for number, line in lines if form != "jsonl" else ():
        if COMMENT.match(line):
            raise ValueError(f"{path}:{number}: {shown(line)} looks like a comment; nearest is to remove it")
    return lines


def line_numbers(path: Path) -> list[tuple[str, int]]:
    """Integers from 0 on, one per line, each with its place as FILE:LINE. Raises ValueError for anything else."""
    for number, line in numbered_lines(path):
        if not re.fullmatch(r"\s*\d{1,9}\s*", line):
            raise ValueError(f"{path}:{number}: {shown(line)} is no line number, counted from 0; nearest is 0")
    return [(f"{path}:{number}", int(line)) for number, line in numbered_lines(path)]


def _lines(text: str) -> Numbered:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _other(text: str, lines: Numbered, form: str) -> str | None:
    """The format that a file of lines looks like instead, and the nearest choice; None if it fits its format."""
    first = lines[0][1].lstrip() if lines else ""
    if first.startswith("{") and form != "jsonl":
        ours = '"scenes"' in first
        return f"JSON, an object a line; nearest is format={'jsonl' if ours else 'json'}"
    if first.startswith("[") and re.match(r'\[\s*(?:[{"]|\])', text.lstrip()):
        return "a JSON list; nearest is format=json"
    tagged = any(RELEASED.search(line) for _, line in lines)
    table = None if tagged or first.startswith("{") else _table(text)
    if table is not None:
        return f"a table with the columns {', '.join(map(shown, table.rows[0][1]))}; nearest is format=csv"
    if form == "lines" and len(lines) > 1:
        for name, pattern in LISTED.items():
            if all(re.match(pattern, line) for _, line in lines):
                return f"a list, each line with {name} first; nearest is the file without them"
    return None


@dataclass(frozen=True)
class _Table:
    """Rows of cells, each with its last line."""

    rows: Sequence[tuple[int, list[str]]]


def _table(text: str) -> _Table | None:
    """A text as a table if it looks like one: rows with equally many cells, separated by tabs, under a header, or in quotes."""
    for delimiter in "\t,;":
        try:
            rows = list(cells_of(text, delimiter))
        except csv.Error:
            continue
        header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
        if len(rows) < 2 or len({len(cells) for _, cells in rows}) > 1:
            continue
        named = any(cell in TEXTS for cell in header) and all(cell in TEXTS + OTHERS or len(cell.split()) < 3 for cell in header)
        quoted = re.search(rf'^"(?:[^"]|"")*"{delimiter}|{delimiter}"(?:[^"]|"")*"$', text, re.MULTILINE)
        if named or len(header) > 1 and (delimiter == "\t" or quoted):
            return _Table(rows)
    return None
