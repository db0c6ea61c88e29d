"""Captions above a table's rows and differences, and the notes below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval import metrics
from eval.stats.statistics import ALPHA, POWER
from eval.tables.grid import CERTAIN, DECIMALS, FEWER, Grid, TableRow, sections

RENDERED = (
    "Calibration rows are rendered, not generated, and neither ranked nor compared: the ground truth (ceiling); an "
    "independent render of the same words (what text alone can do, so chance for recall fidelity); the ground truth with its "
    "frames in random order (floor; each scene then shows every place, which leakage tells and recall fidelity does not)."
)


@dataclass(frozen=True)
class Panel:
    """A part of a printed table: means of all rows, or, with `gaps`, differences of the rows that have a reference.

    below: the caption without what the panel above it states.
    """

    caption: str
    rows: Sequence[TableRow]
    notes: Sequence[str]
    gaps: bool = False
    below: str = ""


def panels(grid: Grid) -> list[Panel]:
    """Panels of a table, in order."""
    compared = _compared(grid)
    means = Panel(caption(grid), grid.rows, notes(grid))
    if not compared:
        return [means]
    below = _gap_caption(grid, compared)
    return [means, Panel(below + _again(grid), compared, _gap_notes(grid, compared), gaps=True, below=below)]


def caption(grid: Grid) -> str:
    """Description of the numbers: backbone, scorer, rule, prompts, seeds, interval."""
    backbones = " and ".join(label + (f" (weights {weights})" if weights != "-" else "") for label, weights in grid.backbones)
    noun = "Backbone" if len(grid.backbones) == 1 else "Backbones"
    better = "higher is better" + (", lower where ↓ stands" if any(column.lower for column in grid.columns) else "")
    return (
        f"{grid.title}. {noun} {backbones}; {grid.scorer}. "
        f"{f'Settings: {grid.settings}. ' if grid.settings else ''}{f'Rule: {grid.rule}. ' if grid.rule else ''}"
        f"{grid.interval or f'Mean ± 95 % interval, bootstrap clustered by prompt over {size(grid)}'}; {better}."
    )


def size(grid: Grid) -> str:
    """Number of prompts and seeds of each value, in words."""
    parts = grid.parts or (grid,)
    if len({(part.prompts, part.seeds) for part in parts}) == 1:
        return f"{number(grid.prompts, 'prompt')}{' a task' if grid.parts else ''} with {number(grid.seeds, 'seed')} each"
    return ", ".join(f"{number(p.prompts, 'prompt')} with {number(p.seeds, 'seed')} each ({p.title})" for p in parts)


def notes(grid: Grid) -> list[str]:
    """Explanations that the table needs."""
    cells = [cell for row in grid.rows for cell in row.cells]
    ties = any(_tied([[cell.rank for cell in row.cells] for row in rows]) for rows in sections(grid.rows).values())
    asked = "asked for" if grid.parts else f"the {grid.videos} videos asked for"
    needed = {
        "Backbones are ranked each by itself.": len(grid.backbones) > 1,
        RENDERED: any(row.calibration for row in grid.rows),
        "Ties: rows of a backbone that print the same share bold (best) or the underline (second).": ties,
        "-: not measured.": any(cell.estimate is None for cell in cells),
        f"{FEWER}: fewer prompts or seeds than {asked}; not ranked.": any(cell.fewer for cell in cells),
    }
    return [*metrics.notes(grid.columns), *(note for note, wanted in needed.items() if wanted), *grid.remarks, _failures(grid)]


def _tied(ranks: Sequence[Sequence[int | None]]) -> bool:
    return any(column.count(place) > 1 for column in zip(*ranks) for place in (1, 2))


def _failures(grid: Grid) -> str:
    """Numbers of failed, unscored and missing videos; and of dead videos and damaged records, if any."""
    own = [row for row in grid.rows if not row.source]
    failed, unscored, absent = (sum(getattr(row, name) for row in own) for name in ("failed", "unscored", "absent"))
    asked = sum(part.videos * sum(not row.source for row in part.rows) for part in grid.parts or (grid,))
    where = [_in_part(row, row.failed) for row in own if row.failed]
    line = f"Failed runs: {failed} of {asked} videos" + (f" ({', '.join(where)})" if where else "")
    line += f"; {unscored} more are made, not scored" if unscored else ""
    line += f"; {absent} more are not made." if absent else "."
    dead, damaged = ([_in_part(row, count) for row in own if (count := getattr(row, name))] for name in ("dead", "damaged"))
    line += f" Dead videos, of one colour or without motion: {', '.join(dead)}." if dead else ""
    line += f" Records left out, as their lines are damaged: {', '.join(damaged)}." if damaged else ""
    mixed = dict[tuple[str, ...], list[TableRow]]()
    for row in own:
        if len(row.pixel_codes) > 1:
            mixed.setdefault(row.pixel_codes, []).append(row)
    several = [f"{_alike(rows, len(codes), len(own))} ({', '.join(codes)})" for codes, rows in mixed.items()]
    return line + (f" Pixels of a row by several versions of the code that makes them: {'; '.join(several)}." if several else "")


def _alike(rows: Sequence[TableRow], count: int, every: int) -> str:
    """Rows of which the same count is said: all of them in two words, a few by name."""
    return f"every row {count}" if len(rows) == every > 1 else ", ".join(_in_part(row, count) for row in rows)


def _in_part(row: TableRow, count: int) -> str:
    return (f"{row.part}: " if row.part else "") + f"{row.name} {count}"


def _compared(grid: Grid) -> list[TableRow]:
    return [row for row in grid.rows if row.reference]


def _gap_caption(grid: Grid, compared: Sequence[TableRow]) -> str:
    """Description of the differences."""
    names = dict.fromkeys(row.reference for row in compared)
    return (
        f"{grid.title}: difference to {' and '.join(names)} {grid.pairing}; "
        f"{CERTAIN}: p < {ALPHA} after Holm's correction over the rows of a column."
    )


def _again(grid: Grid) -> str:
    """The parts of the table's caption that a separate caption of differences repeats."""
    rule = f" Rule: {grid.rule}." if grid.rule else ""
    return f" Backbone {' and '.join(label for label, _ in grid.backbones)}; {grid.scorer}; {size(grid)}.{rule}"


def _gap_notes(grid: Grid, compared: Sequence[TableRow]) -> list[str]:
    """Notes on the differences: detectable differences, and rows that are compared with another backbone's row."""
    detectable = [line for part in grid.parts or (grid,) if (line := _detectable(part, bool(grid.parts)))]
    others = [
        f"{row.name} ({row.section}) is compared with {row.reference} on another backbone ({row.reference_section}): its difference "
        "is the method's and the backbone's together."
        for row in compared
        if row.reference_section != row.section
    ]
    return [*detectable, *dict.fromkeys(others)]


def _detectable(grid: Grid, named: bool) -> str:
    """Range of each column's detectable difference over the rows; empty if nothing is compared or has a spread."""
    ranges = []
    for index, column in enumerate(grid.columns):
        gaps = [row.cells[index].gap for row in _compared(grid)]
        sizes = [gap.detectable for gap in gaps if gap is not None and gap.detectable]
        if sizes:
            ends = dict.fromkeys(f"{size:.{DECIMALS}f}" for size in (min(sizes), max(sizes)))
            ranges.append(f"{column.about.label} {' to '.join(ends)}")
    where = f" ({grid.title})" if named else ""
    line = f"Detectable with {POWER:.0%} power{where}, at Holm's first step, in the row with least and in that with most spread: "
    return f"{line}{', '.join(ranges)}.".replace("%", " %") if ranges else ""


def number(count: int, noun: str) -> str:
    """A count with its noun, for example "1 seed"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
