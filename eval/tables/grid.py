"""A table as data: rows in sections, cells with intervals, differences to a reference row. `eval.tables.text` prints it."""

from __future__ import annotations

from dataclasses import dataclass

from eval import metrics
from eval.metrics import Column
from eval.stats.statistics import ALPHA, POWER, Estimate

DECIMALS = 2
FEWER = "†"
CERTAIN = "*"
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Gap:
    """What a cell has more than the reference row's, on the same prompts and seeds.

    p: of no difference, after Holm's correction over the rows of the column; None where unknown.
    detectable: the true difference that would be told apart from none with a power of 80 %; None where unknown.
    """

    estimate: Estimate
    p: float | None
    detectable: float | None = None

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
    reference_section: that row's. failed, unscored, absent: videos asked for that ended in an error, are made and not scored, are not made.
    block: title of its part in a table of several tasks. source: where the numbers are printed, if they are not ours.
    runs: names of the runs that it is made of.
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
    failed: int = 0
    absent: int = 0
    unscored: int = 0
    block: str = ""
    source: str = ""
    runs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Preset and what is special about it."""
        return f"{self.preset} {self.variant}".strip()

    @property
    def calibration(self) -> bool:
        """Whether no policy made it."""
        return self.section == CALIBRATION

    @property
    def count(self) -> str:
        """Videos as printed; a published row tells none."""
        return "-" if self.source else str(self.videos)

    @property
    def heading(self) -> str:
        """What the rule above its part says."""
        return ", ".join(word for word in (self.block, self.section) if word)


@dataclass(frozen=True)
class Grid:
    """All rows that may be compared: one task, one scorer; a section for each backbone, and the calibration rows.

    rule: over which stretch of a video each dimension is scored, and by which definition, in sentences.
    interval: how the intervals are made, if not by the bootstrap over prompts. remarks: what else its notes tell.
    pairing: what is subtracted from what.
    parts: the grids, a task each, that this one shows as blocks; empty for a grid of one task.
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
    rows: tuple[Row, ...]
    rule: str = ""
    interval: str = ""
    remarks: tuple[str, ...] = ()
    parts: tuple[Grid, ...] = ()
    pairing: str = "on the same prompts and noise, paired, with its 95 % interval over prompts"

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
        """What the numbers are and where they come from, in sentences: backbone, scorer, rule, prompts, seeds, interval."""
        backbones = " and ".join(label + (f" (weights {weights})" if weights != "-" else "") for label, weights in self.backbones)
        noun = "Backbone" if len(self.backbones) == 1 else "Backbones"
        better = "higher is better" + (", lower where ↓ stands" if any(column.lower for column in self.columns) else "")
        return (
            f"{self.title}. {noun} {backbones}; {self.scorer}. "
            f"{f'Settings: {self.settings}. ' if self.settings else ''}{f'Rule: {self.rule}. ' if self.rule else ''}"
            f"{self.interval or f'Mean ± 95 % interval, bootstrap clustered by prompt over {self._over}'}; {better}."
        )

    @property
    def _over(self) -> str:
        """Of how many prompts and seeds a number is made."""
        if len({(part.prompts, part.seeds) for part in self.parts or (self,)}) == 1:
            return f"{_count(self.prompts, 'prompt')}{' a task' if self.parts else ''} with {_count(self.seeds, 'seed')} each"
        return ", ".join(f"{_count(p.prompts, 'prompt')} with {_count(p.seeds, 'seed')} each ({p.title})" for p in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """Explanations that this table needs."""
        cells = [cell for row in self.rows for cell in row.cells]
        found = metrics.notes(self.columns)
        if len(self.backbones) > 1:
            found.append("Backbones are ranked each by itself.")
        if any(row.calibration for row in self.rows):
            found.append(
                "Calibration rows are rendered, not generated, and neither ranked nor compared: the ground truth (ceiling); an "
                "independent render of the same words (what text alone can do, so chance for recall fidelity); the ground truth with its "
                "frames in random order (floor; each scene then shows every place, which leakage tells and recall fidelity does not)."
            )
        if self._tied:
            found.append("Ties: rows of a backbone that print the same share bold (best) or the underline (second).")
        if any(cell.estimate is None for cell in cells):
            found.append("-: not measured.")
        if any(cell.fewer for cell in cells):
            asked = "asked for" if self.parts else f"the {self.videos} videos asked for"
            found.append(f"{FEWER}: fewer prompts or seeds than {asked}; not ranked.")
        return (*found, *self.remarks, self._failures)

    @property
    def _tied(self) -> bool:
        for heading in {row.heading for row in self.rows}:
            rows = [row for row in self.rows if row.heading == heading]
            for places in zip(*([cell.rank for cell in row.cells] for row in rows)):
                if any(places.count(place) > 1 for place in (1, 2)):
                    return True
        return False

    @property
    def _failures(self) -> str:
        """How many videos failed, are made and not scored, or are not there, always told."""
        own = [row for row in self.rows if not row.source]
        failed, unscored, absent = (sum(getattr(row, name) for row in own) for name in ("failed", "unscored", "absent"))
        asked = sum(part.videos * sum(not row.source for row in part.rows) for part in self.parts or (self,))
        where = [(f"{row.block}: " if row.block else "") + f"{row.name} {row.failed}" for row in own if row.failed]
        line = f"Failed runs: {failed} of {asked} videos" + (f" ({', '.join(where)})" if where else "")
        line += f"; {unscored} more are made, not scored" if unscored else ""
        return line + (f"; {absent} more are not made." if absent else ".")

    @property
    def compared(self) -> tuple[Row, ...]:
        """Rows that have a reference row."""
        return tuple(row for row in self.rows if row.reference)

    @property
    def gap_caption(self) -> str:
        """What the differences are, in sentences that stand by themselves."""
        names = dict.fromkeys(row.reference for row in self.compared)
        rule = f" Rule: {self.rule}." if self.rule else ""
        return (
            f"{self.title}: difference to {' and '.join(names)} {self.pairing}; "
            f"{CERTAIN}: p < {ALPHA} after Holm's correction over the rows of a column. "
            f"Backbone {' and '.join(label for label, _ in self.backbones)}; {self.scorer}; {self._over}.{rule}"
        )

    @property
    def gap_notes(self) -> tuple[str, ...]:
        """Explanations that the differences need: what could have been seen, and which of them are of another backbone's row."""
        told = [line for part in self.parts or (self,) if (line := part._detectable(bool(self.parts)))]
        others = [
            f"{row.name} ({row.section}) is compared with {row.reference} on another backbone ({row.reference_section}): its difference "
            "is the method's and the backbone's together."
            for row in self.compared
            if row.reference_section != row.section
        ]
        return (*told, *dict.fromkeys(others))

    def _detectable(self, named: bool) -> str:
        """Range over the rows of what each column could tell; empty where nothing is compared or nothing is spread."""
        found = []
        for index, column in enumerate(self.columns):
            gaps = [row.cells[index].gap for row in self.compared]
            sizes = [gap.detectable for gap in gaps if gap is not None and gap.detectable]
            if sizes:
                low, high = (f"{size:.{DECIMALS}f}" for size in (min(sizes), max(sizes)))
                found.append(column.about.label + (f" {low} to {high}" if low != high else f" {low}"))
        if not found:
            return ""
        where = f" ({self.title})" if named else ""
        return (
            f"Detectable with {POWER:.0%} power{where}, at Holm's first step, in the row with least and in that with most spread: "
            f"{', '.join(found)}.".replace("%", " %")
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
