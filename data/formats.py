"""What a file of prompts is by its content, and the texts that it holds: lines, a column of a table, a key of JSON objects."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo.files import read_json, read_text
from echo.refusals import nearest_of, shown

Numbered = list[tuple[int, str]]
"""Texts with the lines, from 1, where they begin."""
TEXTS = ("prompt", "prompts", "prompt_en", "text", "texts", "caption", "captions", "description", "sentence")
"""What columns of prompts are called."""
OTHERS = ("id", "index", "seed", "tag", "tags", "category", "categories", "dimension", "name", "duration", "split", "url", "video", "model")
"""What stands beside them."""
RELEASED = re.compile(r"\[\d{1,3}(?:\.\d+)? *s[#@]?\]\s*(?:[|;]|$)")
LISTED = {"a number and a point": r"\s*\d+\s*[.):]\s", "a bullet": r"\s*[-*•]\s"}
COMMENT = re.compile(r"\s*(?:#|//)(?:\s|$)")


def numbered_lines(path: Path) -> Numbered:
    """Lines that are not blank. Raises ValueError as `echo.files.read_text` does."""
    return _lines(read_text(path))


def texts(path: Path, form: str, column: str = "") -> Numbered:
    """The texts of a file that is said to be of a format.

    Args:
        path: the file.
        form: released, lines and jsonl: a text a line; csv: a cell a row; json: of each object, or texts in a list.
        column: the one with the prompts; found by its name where it is empty.

    Raises:
        ValueError: in one line, for a file of another format, or without that column.
    """
    text = read_text(path)
    if form == "csv":
        return list(_column(path, text, column))
    if form == "json":
        return list(_key(path, text, column))
    lines = _lines(text)
    if other := _other(text, lines, form):
        raise ValueError(f"{path}:{lines[0][0]}: format={form}, but it looks like {other}")
    for number, line in lines if form != "jsonl" else ():
        if COMMENT.match(line):
            raise ValueError(f"{path}:{number}: {shown(line)} looks like a comment; nearest is to remove it")
    return lines


def _lines(text: str) -> Numbered:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _other(text: str, lines: Numbered, form: str) -> str | None:
    """What a file of lines looks like instead, and the nearest choice; None where it may be what it is said to be."""
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
    """Rows of cells, each with the line where it ends; whether one has the name of a column of prompts is for the reader to see."""

    rows: Sequence[tuple[int, list[str]]]


def _table(text: str) -> _Table | None:
    """A text as a table, where it can be meant as one: rows of equally many cells that a tab parts, or under a header, or in quotes."""
    for delimiter in "\t,;":
        try:
            rows = list(_rows(text, delimiter))
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


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank. Raises csv.Error for cells with a quote inside."""
    reader, begins = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield begins, cells
        begins = reader.line_num + 1


def _column(path: Path, text: str, column: str) -> Iterator[tuple[int, str]]:
    """The cells of one column of a table with a header. Raises ValueError."""
    delimiter = max(",;\t", key=(text.split("\n", 1)[0]).count)
    try:
        rows = list(_rows(text, delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV ({error}); nearest is format=lines") from None
    if not rows:
        return
    header = [cell.strip() for cell in rows[0][1]]
    at = header.index(_named(path, header, column))
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise ValueError(f"{path}:{number}: {len(cells)} cells, the header has {len(header)}; put texts with {delimiter!r} into quotes")
        yield number, cells[at]


def _key(path: Path, text: str, column: str) -> Iterator[tuple[int, str]]:
    """The texts of a JSON list or of a JSON object a line: themselves, or under one key. Raises ValueError."""
    if text.lstrip().startswith("["):
        whole = read_json(text, str(path))
        items: list[tuple[int, Any]] = list(enumerate(whole, 1)) if isinstance(whole, list) else []
    else:
        items = [(number, read_json(line, f"{path}:{number}")) for number, line in _lines(text)]
    for number, item in items:
        value = item[_named(path, list(item), column)] if isinstance(item, dict) else item
        if not isinstance(value, str):
            raise ValueError(f"{path}:{number}: {shown(value)} is no text; nearest is column=NAME of one that is")
        yield number, value


def _named(path: Path, names: Sequence[str], column: str) -> str:
    """The column that is asked for, or the only one that is called like prompts. Raises ValueError."""
    fits = [name for name in names if name == column or not column and name.lower() in TEXTS]
    if len(fits) != 1:
        which = nearest_of(column or TEXTS[0], names) if names else "it has none"
        raise ValueError(f"{path}: column={column or '...'}: one of its columns is meant; {which}")
    return fits[0]
