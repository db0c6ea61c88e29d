"""A table as data: rows in sections, cells with intervals, differences to a reference row. `eval.forms` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eval.statistics import Estimate

DECIMALS = 2
FEWER = "†"
CERTAIN = "*"
ALPHA = 0.05
LOWER = ("leakage", "half_life_blocks")
"""Dimensions of which less is better."""
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Column:
    """A dimension; `kind`: "proxy" if the number is not VBench's, "world" if only the embedded world has such a score, else ""."""

    dimension: str
    kind: str

    @property
    def metric(self) -> str:
        """Name in the store."""
        return f"{self.kind}.{self.dimension}" if self.kind else self.dimension

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return self.dimension in LOWER

    @property
    def words(self) -> tuple[str, ...]:
        """The header, a line for each word."""
        return (*self.dimension.split("_"), *((f"({self.kind})",) if self.kind else ()), *(("↓",) if self.lower else ()))


@dataclass(frozen=True)
class Gap:
    """What a cell has more than the reference row's, on the same prompts and seeds.

    p: of no difference, after Holm's correction over the rows of the column; None where unknown.
    """

    estimate: Estimate
    p: float | None

    @property
    def certain(self) -> bool:
        """Whether the difference is told apart from none."""
        return self.p is not None and self.p < ALPHA


@dataclass(frozen=True)
class Cell:
    """A number of a row; `fewer` marks one of fewer prompts or seeds than were asked for."""

    estimate: Estimate | None
    fewer: bool
    rank: int | None
    gap: Gap | None = None

    @property
    def text(self) -> tuple[str, str]:
        """Mean and interval as printed; the interval is empty where it is unknown."""
        return _text(self.estimate, "")

    @property
    def gap_text(self) -> tuple[str, str]:
        """The difference likewise, with its sign."""
        return _text(self.gap.estimate if self.gap else None, "+")


def _text(estimate: Estimate | None, sign: str) -> tuple[str, str]:
    if estimate is None:
        return "-", ""
    half = estimate.half_width
    return f"{estimate.mean:{sign}.{DECIMALS}f}", "" if half is None else f"{half:.{DECIMALS}f}"


@dataclass(frozen=True)
class Row:
    """A preset, told from its like by the settings that differ.

    section: label of its backbone, or "calibration". reference: name of the row that its differences are to, "" if none.
    reference_section: that row's.
    """

    label: str
    preset: str
    variant: str
    videos: int
    cells: tuple[Cell, ...]
    section: str = ""
    weights: str = ""
    reference: str = ""
    reference_section: str = ""

    @property
    def name(self) -> str:
        """Preset and what is special about it."""
        return f"{self.preset} {self.variant}".strip()

    @property
    def calibration(self) -> bool:
        """Whether no policy made it."""
        return self.section == CALIBRATION


@dataclass(frozen=True)
class Grid:
    """All rows that may be compared: one task, one scorer; a section for each backbone, and the calibration rows."""

    task: str
    title: str
    backbones: tuple[tuple[str, str], ...]  # label and weights
    scorer: str
    settings: str  # shared by all rows and worth telling
    prompts: int
    seeds: int
    videos: int  # asked for in each row
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def weights(self) -> str:
        """Of all backbones."""
        return " ".join(weights for _, weights in self.backbones)

    @property
    def backbone(self) -> str:
        """All backbones by their labels."""
        return " ".join(label for label, _ in self.backbones)

    @property
    def caption(self) -> str:
        """What the numbers are and where they come from, in sentences."""
        backbones = " and ".join(f"{label} (weights {weights})" for label, weights in self.backbones)
        noun = "Backbone" if len(self.backbones) == 1 else "Backbones"
        better = "higher is better" + (", lower where ↓ stands" if any(column.lower for column in self.columns) else "")
        return (
            f"{self.title}. {noun} {backbones}; {self.scorer}. "
            f"{f'Settings: {self.settings}. ' if self.settings else ''}"
            f"Mean ± 95 % interval, bootstrap over {_count(self.prompts, 'prompt')} with {_count(self.seeds, 'seed')} each; {better}."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Explanations that this table needs."""
        cells = [cell for row in self.rows for cell in row.cells]
        found = []
        if any(column.kind == "proxy" for column in self.columns):
            found.append("proxy: the dimension's idea measured by another scorer; not a VBench number.")
        if any(column.kind == "world" for column in self.columns):
            found.append("world: read against the truth of the embedded world; no other benchmark has it.")
        if any(column.dimension == "half_life_blocks" for column in self.columns):
            found.append(
                "half life blocks: censored at the scene's length; where the old place never fades to a half, that length counts, so "
                "13 (a scene of 10 s) says at least 13, and means with such videos are too low."
            )
        if len(self.backbones) > 1:
            found.append("Backbones are ranked each by itself.")
        if any(row.calibration for row in self.rows):
            found.append(
                "Rows under the last rule are rendered, not generated, and neither ranked nor compared: the ground truth (ceiling); an "
                "independent render of the same words (what text alone can do, so chance for recall fidelity); the ground truth with its "
                "frames in random order (floor; each scene then shows every place, which leakage tells and recall fidelity does not)."
            )
        if any(cell.estimate is None for cell in cells):
            found.append("-: not measured.")
        if any(cell.fewer for cell in cells):
            found.append(f"{FEWER}: fewer prompts or seeds than the {self.videos} videos asked for; not ranked.")
        return tuple(found)

    @property
    def compared(self) -> tuple[Row, ...]:
        """Rows that have a reference row."""
        return tuple(row for row in self.rows if row.reference)

    @property
    def gap_caption(self) -> str:
        """What the differences are, in sentences."""
        names = dict.fromkeys(row.reference for row in self.compared)
        return (
            f"{self.title}: difference to {' and '.join(names)} on the same prompts and noise, paired, with its 95 % interval over "
            f"prompts; {CERTAIN}: p < {ALPHA} after Holm's correction over the rows of a column."
        )

    @property
    def gap_notes(self) -> tuple[str, ...]:
        """Explanations that the differences need: which of them are of another backbone's row."""
        return tuple(
            f"{row.name} ({row.section}) is compared with {row.reference} on another backbone ({row.reference_section}): its difference "
            "is the method's and the backbone's together."
            for row in self.compared
            if row.reference_section != row.section
        )

    def sections(self) -> Iterator[tuple[str, tuple[Row, ...]]]:
        """Rows by section, in order."""
        for section in dict.fromkeys(row.section for row in self.rows):
            yield section, tuple(row for row in self.rows if row.section == section)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
