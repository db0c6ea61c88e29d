"""A report's view of a store: parts (a task and a way of scoring each), their methods, and a cell for every requested video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from echo.scene import Prompt, prompt_digest
from eval.store.records import UnitRecord
from eval.store.rows import Comparable, Entry, Source, Unit, prompts_of
from eval.store.runs import Run
from eval.tables.grid import Grid, TableRow
from eval.tables.meta import MadeGrid

DONE, DEAD, UNSCORED, FAILED, ABSENT, GONE = "done", "dead", "made, not scored", "failed", "not made", "video file gone"
CHANGED = "file changed"
"""Status of a requested video."""
MEDIA = ".mp4"
"""Suffix of videos; pages link to no other file that a record names as video."""
DEAD_NOTES = {"": "", "space": "each frame is of one colour", "time": "all frames are the same"}
"""Outcome's `dead` -> note about the video."""


@dataclass(frozen=True)
class VideoCell:
    """One requested video. record: its line in the store, None if there is no video.

    note: why it failed, what makes it dead, which of its files has changed since it was written, or "".

    trace: path of the traceback below the run's folder, or "".
    """

    run: Run
    prompt: str
    seed: int
    status: str
    record: UnitRecord | None = None
    scores: str = ""
    note: str = ""
    trace: str = ""

    @property
    def video(self) -> Path | None:
        """Its file; None if there is none, or if it is not the one that was written."""
        path = None if self.record is None else self.side("video")
        if path is None or path.suffix != MEDIA or not path.is_file() or (self.status == CHANGED and self.note.startswith(path.name)):
            return None
        return path

    def side(self, kind: str) -> Path | None:
        """Path of a file beside the video, for example its trace; None if the record names none."""
        return None if self.record is None else self.run.side(self.record, kind)

    @property
    def key(self) -> str:
        """Its name in the report's folder: run, unit, and way of scoring."""
        video = self.side("video")
        assert video is not None
        return f"{self.run.path.name[:12]}/{video.stem}-{self.scores[:8]}"


@dataclass
class Method:
    """A row of a part. name: unique in the part and usable in a link, for example `tiny/echo`."""

    name: str
    row: TableRow
    entry: Entry
    cells: dict[Unit, VideoCell] = field(default_factory=dict)


@dataclass
class ReportPart:
    """A task under one way of scoring. texts: prompts whose content has not changed since the videos were made, by id."""

    name: str
    grid: Grid
    methods: list[Method]
    texts: dict[str, Prompt]

    @property
    def task(self) -> str:
        """The task whose protocol scores its videos."""
        return self.grid.task

    @property
    def prompts(self) -> list[str]:
        """Ids of all requested prompts, in order."""
        return sorted({prompt for method in self.methods for prompt, _ in method.cells})

    @property
    def seeds(self) -> list[int]:
        """All requested seeds, in order."""
        return sorted({seed for method in self.methods for _, seed in method.cells})


def parts(source: Source, made: Sequence[MadeGrid]) -> Iterator[ReportPart]:
    """The parts of a table's source, one per group of comparable rows."""
    for index, one in enumerate(made):
        name = source.name if index == 0 else f"{source.name}-{index + 1}"
        entries = {tuple(run.place.run for run in entry.runs): entry for entry in one.group.entries.values()}
        methods: list[Method] = []
        for row in one.grid.rows:
            entry = entries[row.runs]
            first = entry.name
            like = sum(method.name.partition("~")[0] == first for method in methods)
            methods.append(Method(f"{first}~{like + 1}" if like else first, row, entry, cells_of(entry)))
        yield ReportPart(name, one.grid, methods, _texts(one.group))


def cells_of(entry: Entry) -> dict[Unit, VideoCell]:
    """A cell for each prompt and seed that was requested for a row."""
    cells: dict[Unit, VideoCell] = {}
    for run, asked in entry.parts:
        units: dict[str, str] = {}
        for wish in asked:
            units |= wish.units
        scores = asked[-1].scores  # None if only the video was requested
        settled, filmed = run.settled(scores), run.settled(None)
        done, videos, spoilt = settled.done, filmed.done, filmed.spoilt | settled.spoilt
        errors = {record.unit: record for record in run.records() if not record.ok and record.scores == scores}  # the last of each
        for prompt, unit in units.items():
            record, film = done.get(unit), videos.get(unit)
            error = None if record else errors.get(unit)
            note = DEAD_NOTES[record.dead] if record else ""
            status = DEAD if note else DONE if record else FAILED if error else UNSCORED if film else ABSENT
            shown = record or film
            if shown is not None and unit in spoilt and not error:
                gone = shown.files.get("video", "")
                status, note = (GONE, gone) if spoilt[unit] == f"{gone} is gone" else (CHANGED, spoilt[unit])
            failure = (error.err, error.trace) if error else (note, "")
            cells[prompt, run.spec.seed] = VideoCell(run, prompt, run.spec.seed, status, record or film, scores or "", *failure)
    return cells


def _texts(group: Comparable) -> dict[str, Prompt]:
    """The prompts of a part from the sets that its runs name, without those that have been edited or are gone."""
    texts: dict[str, Prompt] = {}
    for name in sorted({run.prompt_set for entry in group.entries.values() for run in entry.runs}):
        for prompt in prompts_of(name):
            if group.prompts.get(prompt.id) == prompt_digest(prompt):
                texts[prompt.id] = prompt
    return texts
