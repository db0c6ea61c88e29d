"""Prompt sets of other benchmarks as rules: their columns, defaults and further files.

Most are one line of `SETS`. Two are read from folders: LayerRecall's cases, and VMem-Bench's stories with their ground truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from data.sets.columns import Columns, Row, objects, records, row_of
from echo.files import inside, read_json, read_text
from echo.refusals import shown

T = TypeVar("T")


@dataclass(frozen=True)
class SetRule:
    """How the files of a set are read.

    form: format of its files. columns: their names. count: number of prompts. duration_s: of a scene, if no column has it.
    tags: transitions into the scenes after the first, if no column has them; one word for all, or one for each. note: for the summary.
    """

    form: Literal["csv", "json", "lines"]
    columns: Columns
    count: int
    duration_s: float | None = None
    tags: tuple[str, ...] = ()
    note: str = ""


SETS: Mapping[str, SetRule] = {
    "memflow": SetRule("json", Columns("prompts"), 100, 10.0, ("smooth",), "its prompts go on without a cut, 10 s each"),
    "helios": SetRule("csv", Columns("prompt", "id", "duration", per_second=24.0), 240, note="its durations are frames at 24 a second"),
    "vmem": SetRule("json", Columns("prompt", "story_id", "duration_sec", "segments", "transition"), 50),
    "layerrecall": SetRule(
        "json", Columns("caption", "case_id", "duration_blocks", "shots", per_second=0.75), 100, None, ("smooth", "recall:1"),
        "the subject leaves without a cut and returns; its blocks are eight latent frames at 24 pixel frames a second, 4/3 s",
    ),
    "rollf200": SetRule("lines", Columns(), 200, 60.0),
}  # fmt: skip
"""Sets of other benchmarks: MemFlow, Helios-Bench, VMem-Bench's track B, LayerRecall, and Rolling Forcing's sample of MovieGen."""
TABLES: Mapping[str, SetRule] = {
    "csv": SetRule("csv", Columns(), 0), "json": SetRule("json", Columns(), 0),
    **{name: rule for name, rule in SETS.items() if rule.form != "lines"},
}  # fmt: skip
"""Formats with columns: any table, and sets."""
SHOTS = 3
BLOCKS = (24, 12, 12)
"""Blocks of a LayerRecall case (visible, absent, return) if `global.json` does not state them."""


def rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    """The prompts of a table.

    Args:
        path: a file; of vmem also the folder of its stories, of layerrecall that of its cases.
        name: one of TABLES.
        columns: names of its columns; by default found, or those of the set.

    Raises:
        ValueError: in one line with the file's line, for a file of another format, a missing column, or a value of another type.
    """
    rule = TABLES[name]
    columns = columns.over(rule.columns)
    if name == "layerrecall":
        documents = _cases(path)
    elif name == "vmem" and path.is_dir():
        place = path / "sut_prompts" if (path / "sut_prompts").is_dir() else path
        documents = (one for file in _inside(place, "*.json", "a story of segments") for one in objects(file))
    else:
        documents = records(path) if rule.form == "csv" else objects(path)
    for where, item in documents:
        row = row_of(where, item, columns)
        yield _with_truth(row, path) if name == "vmem" else row


def _inside(folder: Path, pattern: str, what: str) -> list[Path]:
    """Entries of a folder that match a pattern, by name. Raises ValueError if there are none."""
    if not folder.is_dir() or not (there := sorted(folder.glob(pattern))):
        raise ValueError(f"{folder}: a folder is expected with {what} in each of {pattern}; nothing of that is there")
    return there


class _Shot(msgspec.Struct):
    """LayerRecall's design of a shot."""

    duration_blocks: float


class _Case(msgspec.Struct):
    """LayerRecall's `global.json`, as far as it is read."""

    shot_design: list[_Shot] = []


def _cases(root: Path) -> Iterator[tuple[str, object]]:
    """LayerRecall's cases: folders with a file per shot (`0.json`, `1.json`, `2.json`) and `global.json`. Raises ValueError."""
    folder = root / "caption" if (root / "caption").is_dir() else root
    for case in _inside(folder, "case_*", "0.json, 1.json and 2.json"):
        shots = [(file, _whole(file)) for file in sorted(case.glob("[0-9]*.json"))]
        if [file.name for file, _ in shots] != [f"{number}.json" for number in range(SHOTS)]:
            names = ", ".join(file.name for file, _ in shots) or "none"
            raise ValueError(f"{case}: shots {names}; a case is visible, absent, return: 0.json, 1.json, 2.json")
        about = case / "global.json"
        design = _typed(about, _Case).shot_design if about.is_file() else []
        blocks = [shot.duration_blocks for shot in design] or BLOCKS
        if len(blocks) != SHOTS:
            raise ValueError(f"{about}: shot_design of {len(blocks)} shots; a case has {SHOTS}")
        for file, shot in shots:
            if not isinstance(shot, dict):
                raise ValueError(f"{file}: {shown(shot)} is no object with a caption")
        yield str(case), {"case_id": case.name, "shots": [{**shot, "duration_blocks": n} for (_, shot), n in zip(shots, blocks)]}


def _whole(path: Path) -> Any:
    return read_json(read_text(path), str(path))


def _typed(path: Path, kind: type[T]) -> T:
    """A JSON file as a typed record. Raises ValueError that names the key."""
    try:
        return msgspec.convert(_whole(path), kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from None


class _Present(msgspec.Struct):
    """Something that a segment shows. gap: number of segments without it since `last_seen`; both are absent if it is new."""

    eid: str
    op: Literal["introduce", "recall", "recall_after_gap", "transform", "persist"]
    gap: int = 0
    last_seen: str = ""


class _Segment(msgspec.Struct):
    """A segment of a story's ground truth, as far as it is read."""

    segment_id: str
    cast: list[_Present]


class _Entity(msgspec.Struct):
    """A person, an object or a place."""

    kind: str = ""


class _Story(msgspec.Struct):
    """A story's ground truth, as far as it is read."""

    segments: list[_Segment]
    entities: dict[str, _Entity] = {}


RETURNS = ("recall", "recall_after_gap", "persist")
"""Operations of the ground truth for things that return unchanged."""


def _with_truth(row: Row, path: Path) -> Row:
    """A story whose cuts name the earlier segment that they recall, by the ground truth beside it (`gt/<story>.json`).

    A cut becomes a recall if something returns that was away for at least one segment: a place first, else what was away longest. It
    recalls the segment that showed it last. Raises ValueError for a ground truth of another story.
    """
    folders = (path / "gt", path.parent / "gt") if path.is_dir() else (path.parent / "gt", path.parent.parent / "gt")
    files = [file for folder in folders if folder.is_dir() and (file := inside(folder, f"{row.id}.json")).is_file()]
    if not files:
        return replace(row, seen=("stories without a ground truth beside them (gt/STORY.json): their cuts recall nothing",))
    story = _typed(files[0], _Story)
    places = {segment.segment_id: index for index, segment in enumerate(story.segments)}
    if len(story.segments) != len(row.texts):
        raise ValueError(f"{files[0]}: {len(story.segments)} segments, the story in {row.where} has {len(row.texts)}")
    tags = list(row.tags)
    for index, segment in enumerate(story.segments):
        back = [one for one in segment.cast if one.op in RETURNS and one.gap > 0]
        if not back or tags[index] != "cut":
            continue
        longest = max(back, key=lambda one: (story.entities.get(one.eid, _Entity()).kind == "location", one.gap))
        seen = places.get(longest.last_seen, index)
        if seen >= index:
            raise ValueError(
                f"{files[0]}: {segment.segment_id} shows {longest.eid} again, last seen in {shown(longest.last_seen)}, not before"
            )
        tags[index] = f"recall:{seen + 1}"
    return replace(row, tags=tuple(tags))
