"""Tables of prompts, in CSV or JSON, and the meaning of their columns."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from data.sets.texts import plain
from echo.files import read_json, read_text
from echo.refusals import nearest_of, shown
from echo.scene import Prompt, TagMeaning

TEXTS = ("prompt", "prompts", "prompt_en", "text", "texts", "caption", "captions", "description", "sentence")
"""Usual names of columns of prompts."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, or of the keys of JSON objects.

    Attributes:
        column: for csv and json, the prompts: a text, or in json a list of texts, one per scene; found by its name if only
            one is called prompt, text or caption.
        id_column: for csv and json, ids; NAME-000 and so on by default.
        duration_column: length of a scene, or in json a list of lengths.
        scenes_column: for json, a list of objects, one per scene, which hold the other columns except the id.
        transition_column: transition into a scene: smooth or continue, hard or cut, recall, or recall:N of scene N, counted from 1.
        per_second: units of duration_column per second: 24 for frames at 24 a second.
    """

    column: str = ""
    id_column: str = ""
    duration_column: str = ""
    scenes_column: str = ""
    transition_column: str = ""
    per_second: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.per_second < math.inf:
            raise ValueError(f"per_second={self.per_second:g}: a number above 0; nearest is 24, of frames")

    def over(self, usual: Columns) -> Columns:
        """These columns, completed by the usual ones."""
        return Columns(*(getattr(self, one.name) or getattr(usual, one.name) for one in fields(Columns)))


FOUND = Columns()
"""Only prompts, found by their column's name."""


@dataclass(frozen=True)
class Row:
    """A prompt of a table. where: file and line. durations_s, tags: one per scene, or empty; seen: observations for the summary."""

    where: str
    texts: tuple[str, ...]
    id: str = ""
    durations_s: tuple[float, ...] = ()
    tags: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


def cells_of(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank. Raises csv.Error for cells with a quote inside."""
    reader, begins = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield begins, cells
        begins = reader.line_num + 1


def records(path: Path) -> Iterator[tuple[str, object]]:
    """(FILE:LINE, row as a mapping) for each row of a CSV with a header. Raises ValueError for a malformed table."""
    text = read_text(path)
    delimiter = max(",;\t", key=(text.split("\n", 1)[0]).count)
    try:
        table = list(cells_of(text, delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV ({error}); nearest is format=lines") from None
    header = [cell.strip() for cell in table[0][1]] if table else []
    doubled = next((cell for cell in header if cell and header.count(cell) > 1), None)
    if doubled is not None:
        raise ValueError(f"{path}:{table[0][0]}: the column {shown(doubled)} stands twice; nearest is another name for one of them")
    for number, cells in table[1:]:
        if len(cells) != len(header):
            raise ValueError(f"{path}:{number}: {len(cells)} cells, the header has {len(header)}; put texts with {delimiter!r} into quotes")
        yield f"{path}:{number}", dict(zip(header, cells))


def objects(path: Path) -> Iterator[tuple[str, object]]:
    """(place, value) for each value of a JSON list, of a JSON object, or of a file with one object per line. Raises ValueError."""
    text = read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if text.lstrip().startswith("["):
        whole = read_json(text, str(path))
        yield from ((f"{path}:{number}", item) for number, item in enumerate(whole if isinstance(whole, list) else [], 1))
    elif lines and not lines[0][1].rstrip().endswith("}"):
        yield f"{path}:{lines[0][0]}", read_json(text, f"{path}:{lines[0][0]}")
    else:
        yield from ((f"{path}:{number}", read_json(line, f"{path}:{number}")) for number, line in lines)


def row_of(where: str, item: object, columns: Columns) -> Row:
    """A prompt from a table's row or a JSON value. Raises ValueError for a value of another type."""
    if isinstance(item, str) and not columns.column:
        return Row(where, (item,))
    if isinstance(item, str):
        raise ValueError(f"{where}: {shown(item)} is a text alone, without {columns.column}; nearest is to leave column= out")
    if not isinstance(item, dict):
        raise ValueError(f"{where}: {shown(item)} is no text; nearest is column=NAME of one that is")
    scenes: list[tuple[str, dict[str, object]]] = [(where, item)]
    if columns.scenes_column:
        every = item[_named(where, list(item), columns, "scenes_column")]
        if not isinstance(every, list) or not every or not all(isinstance(scene, dict) for scene in every):
            raise ValueError(f"{where}: {columns.scenes_column} is a list of objects, a scene each, not {shown(every)}")
        scenes = [(f"{where}, scene {number}", scene) for number, scene in enumerate(every, 1)]
    texts = [text for spot, scene in scenes for text in _values(spot, scene, columns, "column")]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: {shown(text)} is no text; nearest is column=NAME of one that is")
    durations = [_seconds(spot, one, columns) for spot, scene in scenes for one in _values(spot, scene, columns, "duration_column")]
    ways = [str(one).strip() for spot, scene in scenes for one in _values(spot, scene, columns, "transition_column")]
    for name, values in (("duration_column", durations), ("transition_column", ways)):
        if len(values) not in (0, 1, len(texts)):
            raise ValueError(f"{where}: {len(texts)} scenes, {len(values)} values of {name}; must be equally many")
    (key,) = _values(where, item, columns, "id_column") or [""]
    if type(key) not in (str, int):
        raise ValueError(f"{where}: an id is a text or a whole number, not {shown(key)}")
    each = len(texts) if len(durations) == 1 else 1  # one for all
    return Row(
        where, tuple(map(str, texts)), str(key).strip(), tuple(durations) * each, tuple(ways) * (len(texts) if len(ways) == 1 else 1)
    )


def _values(where: str, item: dict[str, object], columns: Columns, name: str) -> list[object]:
    """The values of a column, single or in a list; empty if no such column is named. Raises ValueError for a missing column."""
    if name != "column" and not getattr(columns, name):
        return []
    value = item[_named(where, list(item), columns, name)]
    return value if isinstance(value, list) and value and name != "id_column" else [value]


def _seconds(where: str, value: object, columns: Columns) -> float:
    """Seconds of a scene. Raises ValueError unless the value is a positive number."""
    try:
        count = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        count = math.nan
    if not 0 < count < math.inf:
        raise ValueError(f"{where}: {columns.duration_column} {shown(value)} is no number above 0; nearest is 10")
    return count / (columns.per_second or 1.0)


def _named(where: str, names: Sequence[str], columns: Columns, name: str) -> str:
    """The named column, or the only one with a usual name of prompts. Raises ValueError if there is none."""
    asked = str(getattr(columns, name))
    fits = [one for one in names if one == asked or not asked and one.lower() in TEXTS]
    if len(fits) != 1:
        which = nearest_of(asked or TEXTS[0], names) if names else "it has none"
        raise ValueError(f"{where}: {name}={asked or '...'}: one of its columns is meant; {which}")
    return fits[0]


WAYS: Mapping[str, str | None] = {
    "smooth": "", "continue": "", "": "", "hard": "#", "cut": "#", "#": "#", "recall": "@", "@": "@", "automatic": None,
}  # fmt: skip
"""Words of tables and `tags=` for a transition, and its tag; automatic has no tag, so that the texts decide (appendix B)."""
RECALL = re.compile(r"recall:(\d{1,6})")
"""A recall of a scene, counted from 1."""
LONE_S = 60.0
"""Duration of a prompt of one scene without one: the shorter of the paper's two settings for long video."""


def entry(word: str, scene: int, where: str) -> tuple[str | None, int | None]:
    """The tag of a word, and the scene that it recalls if it names one. Raises ValueError for an unknown word.

    Args:
        word: as in WAYS, or recall:N.
        scene: number of the scene, counted from 1.
        where: file and line.
    """
    number = RECALL.fullmatch(word)
    if number is None and word not in WAYS:
        rule = nearest_of(word, [*filter(str.isalpha, WAYS), "recall:1"])
        raise ValueError(f"{where}, scene {scene}: {shown(word)} is no way into a scene; {rule}")
    if number is None or scene == 1:
        return (WAYS.get(word) if scene > 1 else ""), None
    if not 1 <= int(number[1]) < scene:
        raise ValueError(
            f"{where}, scene {scene}: {word} is no scene before it; nearest is recall:{min(max(int(number[1]), 1), scene - 1)}"
        )
    return "@", int(number[1]) - 1


def prompt_of(row: Row, name: str, tags: tuple[str, ...] = (), duration_s: float | None = None) -> Prompt:
    """The prompt of a row; transitions are never guessed.

    Args:
        row: of the table.
        name: the prompt's id.
        tags: transitions into the scenes after the first, if the row has none: a word for all, or one for each.
        duration_s: duration of a scene, if the row has none.

    Raises:
        ValueError: for texts that `plain` refuses, and for several scenes without transitions or durations.
    """
    count = len(row.texts)
    if row.tags and tags:
        raise ValueError(f"{row.where}: says how its scenes are entered; nearest is to leave out tags={','.join(tags)}")
    words = ("",) if count == 1 else row.tags or ("", *(tags * (count - 1) if len(tags) == 1 else tags))
    if len(words) != count:
        why = f"tags={','.join(tags)} are {len(tags)}" if tags else "nothing says how they are entered"
        rule = f"nearest is tags=smooth, or {count - 1} words of {', '.join(filter(str.isalpha, WAYS))}"
        raise ValueError(f"{row.where}: {count} scenes, {why}; {rule}")
    usual_s = LONE_S if count == 1 and duration_s is None else duration_s
    if not row.durations_s and usual_s is None:
        raise ValueError(f"{row.where}: {count} scenes without a duration; nearest is duration=10")
    texts = tuple(plain(text, row.where if count == 1 else f"{row.where}, scene {scene}") for scene, text in enumerate(row.texts, 1))
    ways = [entry(word, scene, row.where) for scene, word in enumerate(words, 1)]
    recalls = tuple(recalled for _, recalled in ways)
    durations_s = row.durations_s or (usual_s or 0.0,) * count
    return Prompt(name, texts, durations_s, tuple(tag for tag, _ in ways), TagMeaning.enter, recalls if set(recalls) != {None} else ())
