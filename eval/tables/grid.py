"""A table as data: rows in sections, cells with intervals, differences to a reference row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from eval.metrics import Column
from eval.stats.statistics import ALPHA, Estimate
from eval.store.rows import CALIBRATION

DECIMALS = 2
FEWER = "†"
CERTAIN = "*"
NOTHING = "-"


@dataclass(frozen=True)
class Gap:
    """Difference of a cell to the reference row's, on the same prompts and seeds.

    p: of no difference, after Holm's correction over the rows of the column; None if unknown.
    detectable: the true difference that would be distinguished from none with a power of 80 %; None if unknown.
    """

    estimate: Estimate
    p: float | None
    detectable: float | None = None


@dataclass(frozen=True)
class TableCell:
    """A number of a row; `fewer` marks one of fewer prompts or seeds than were requested."""

    estimate: Estimate | None
    fewer: bool
    rank: int | None
    gap: Gap | None = None

    def printed(self, gaps: bool) -> Printed:
        """The number as every format prints it; with `gaps` the difference, with its sign."""
        gap = self.gap if gaps else None
        estimate = gap.estimate if gap else None if gaps else self.estimate
        if estimate is None:
            return Printed(NOTHING, "", "", 0)
        mean = f"{estimate.mean:{'+' if gaps else ''}.{DECIMALS}f}"
        half = "" if estimate.half_width is None else f"{estimate.half_width:.{DECIMALS}f}"
        if gap:
            return Printed(mean, half, CERTAIN if gap.p is not None and gap.p < ALPHA else "", 0)
        return Printed(mean, half, FEWER if self.fewer else "", self.rank if self.rank in (1, 2) else 0)


class Printed(NamedTuple):
    """A number in digits, half its interval ("" if unknown), its mark, and 1 for the best, 2 for the second, else 0."""

    mean: str
    half: str
    mark: str
    rank: int


@dataclass(frozen=True)
class TableRow:
    """A preset, distinguished from others of the same preset by the settings that differ.

    section: label of its backbone, or "calibration". reference: name of the row that it is compared with, "" if none.
    reference_section: that row's section. failed, unscored, absent: number of requested videos that failed, are not scored, are not made.
    dead: videos of one colour or without motion. damaged: number of damaged lines of records.
    pixel_codes: digests of the code that made its pixels, normally one.
    part: title of its part in a table of several tasks. source: of published numbers, or the file of another system's.
    backbone: name of the backbone.
    runs: names of its runs.
    """

    label: str
    preset: str
    variant: str
    videos: int
    cells: tuple[TableCell, ...]
    section: str = ""
    weights: str = ""
    reference: str = ""
    reference_section: str = ""
    failed: int = 0
    absent: int = 0
    unscored: int = 0
    dead: int = 0
    damaged: int = 0
    pixel_codes: tuple[str, ...] = ()
    part: str = ""
    source: str = ""
    backbone: str = ""
    runs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Preset and variant."""
        return f"{self.preset} {self.variant}".strip()

    @property
    def calibration(self) -> bool:
        """Whether it is rendered, not generated."""
        return self.section == CALIBRATION

    @property
    def count(self) -> str:
        """Number of videos as printed; empty for a published row."""
        return "-" if self.source and not self.videos else str(self.videos)

    @property
    def heading(self) -> str:
        """The heading above its part."""
        return ", ".join(word for word in (self.part, self.section) if word)


@dataclass(frozen=True)
class Grid:
    """All comparable rows: one task, one scorer; a section for each backbone, and the calibration rows.

    rule: the stretch of video and the definition of each dimension, in sentences.
    interval: how the intervals are made, if not by the bootstrap over prompts. remarks: further notes.
    pairing: how differences are paired.
    parts: the grids of the tasks that this one merges; empty for a grid of one task.
    """

    task: str
    title: str
    backbones: tuple[tuple[str, str], ...]  # label and weights
    scorer: str
    settings: str  # shared by all rows and worth telling
    prompts: int
    seeds: int
    videos: int  # asked for in each row
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    rule: str = ""
    interval: str = ""
    remarks: tuple[str, ...] = ()
    parts: tuple[Grid, ...] = ()
    pairing: str = "on the same prompts and noise, paired, with its 95 % interval over prompts"

    @property
    def weights(self) -> str:
        """Weights of all backbones."""
        return " ".join(weights for _, weights in self.backbones)

    def only(self, places: Sequence[int]) -> Grid:
        """The same grid with only these columns."""
        rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[place] for place in places), rows=rows)

    def measured(self) -> tuple[Grid, list[str]]:
        """The same grid without empty columns, and a note that names these, if there are any."""
        full = [place for place in range(len(self.columns)) if any(row.cells[place].estimate is not None for row in self.rows)]
        empty = [column.about.label for place, column in enumerate(self.columns) if place not in full]
        return self.only(full), [f"Columns left out, as no row has a number: {', '.join(empty)}."] if empty else []


def sections(rows: Iterable[TableRow]) -> dict[str, list[TableRow]]:
    """Rows by the heading of their part, in order."""
    parts: dict[str, list[TableRow]] = {}
    for row in rows:
        parts.setdefault(row.heading, []).append(row)
    return parts
