"""Rows, columns, marks and differences of comparable rows, as a `Grid`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from baselines.presets import bases, choices, preset
from echo.refusals import nearest
from eval import metrics
from eval.metrics import Column
from eval.stats.statistics import Estimate, chance, detectable, estimates, holm, less, ranks
from eval.store.rows import Comparable, Entry, agree, asked_of
from eval.tables.grid import DECIMALS, Gap, Grid, TableCell, TableRow

REFERENCES = tuple(bases())
"""Presets that the other rows are compared with, in order of preference; without any of them it is the first row."""
DEFAULTS = {"backbone.dtype": "float32", "backbone.threads": 1, "batch": 1, "duration_scale": 1.0, "noise.repeat_initial": False}
"""Usual settings of a run other than its method's; the caption states every other value."""
NAMED = 3
"""How many of the unreadable files are named."""


@dataclass(frozen=True)
class Look:
    """Title and columns of a table. title: of an experiment. dimensions: its columns; by default the task's own.

    rules: definitions that are preferred to the usual ones (`eval.metrics.RULES`).
    """

    title: str = ""
    dimensions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


def look_of(experiment: str | None, rules: Sequence[str] = ()) -> Look:
    """The content of `table:` in `conf/experiment/<name>.yaml`; `rules` come before its own.

    Raises:
        ValueError: for an unknown dimension or definition.
    """
    said = preset("experiment", experiment).get("table", {}) if experiment in choices("experiment") else {}
    metrics.check(list(rules) + list(said.get("rules", ())))
    for dimension in said.get("columns", ()):
        if dimension not in (known := metrics.showable()):
            raise ValueError(f"{experiment}.yaml: table.columns: {dimension}: no such dimension; nearest is {nearest(dimension, known)}")
    return Look(said.get("title", ""), tuple(said.get("columns", ())), (*rules, *said.get("rules", ())))


def grid_of(
    group: Comparable, groups: Sequence[Comparable], ordered: bool = True, look: Look | None = None, unreadable: Sequence[str] = ()
) -> Grid:
    """The table of comparable rows.

    Args:
        group: its rows.
        groups: all groups of the same table, from which the caption must distinguish it.
        ordered: rows in the order in which they were requested; else by name.
        look: title and columns.
        unreadable: unreadable files of the table, besides those of its rows.
    """
    entries = list(group.entries.values()) if ordered else sorted(group.entries.values(), key=_row_order)
    entries = _in_sections(entries)
    asked = asked_of(entries)
    task, look = group.task.name, look or Look()
    names = set().union(*(entry.metrics for entry in entries))
    columns = metrics.columns(task, names, look.rules, look.dimensions)
    others = references(entries)
    cells = _columns(entries, others, columns, len(asked))
    rows = [_row(entry, group, cells) for entry, cells in zip(entries, zip(*cells))]
    names_of = {id(entry): (row.name, row.section) for entry, row in zip(entries, rows)}
    pairs = [names_of.get(id(other), ("", "")) for other in others]
    backbones = {entry.section: entry.weights for entry in entries if not entry.calibration}
    return Grid(
        task=task,
        title=group.task.label,
        backbones=tuple((backbones or {"none": "-"}).items()),
        scorer=_scorer(group),
        settings=_common(group, groups),
        prompts=asked.unique("prompt").size,
        seeds=asked.unique("seed").size,
        videos=len(asked),
        columns=columns,
        rows=tuple(dataclasses.replace(row, reference=name, reference_section=where) for row, (name, where) in zip(rows, pairs)),
        rule=metrics.rule_of(task, columns),
        remarks=(*(_speeds_told(entries) for column in columns if column.about.of_device), *_left_out(entries, unreadable)),
    )


def _left_out(entries: Sequence[Entry], more: Sequence[str]) -> list[str]:
    """A table's note on unreadable files: their number, and the first of them."""
    lines = list(dict.fromkeys([*more, *(line for entry in entries for line in entry.unreadable)]))
    rest = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return [f"Left out, as they cannot be read ({len(lines)}): {'; '.join(lines[:NAMED])}{rest}."] if lines else []


def merged(title: str, grids: Sequence[Grid]) -> Grid:
    """One table of several tasks, a part each, with all columns that any of them has; a single grid keeps all but its title.

    Definitions that differ between parts are named in the rule, part by part, instead of the header.
    """
    if len(grids) == 1:
        return dataclasses.replace(grids[0], title=f"{title}: {grids[0].title}" if title else grids[0].title)
    shown: dict[str, Column] = {}
    for grid in sorted(grids, key=lambda grid: -len(grid.columns)):
        for column in grid.columns:
            known = shown.setdefault(column.dimension, column)
            if known.kind != column.kind:
                shown[column.dimension] = Column(column.dimension, "")
    columns = tuple(shown.values())
    rules = {grid.rule: [other.title for other in grids if other.rule == grid.rule] for grid in grids}
    return dataclasses.replace(
        grids[0],
        task=" ".join(grid.task for grid in grids),
        title=title or ", ".join(grid.title for grid in grids),
        backbones=tuple(dict.fromkeys(backbone for grid in grids for backbone in grid.backbones)),
        videos=max(grid.videos for grid in grids),
        columns=columns,
        rows=tuple(_aligned(row, grid, columns) for grid in grids for row in grid.rows),
        rule="; ".join(f"{' and '.join(titles)}: {rule}" if len(rules) > 1 else rule for rule, titles in rules.items()),
        remarks=tuple(dict.fromkeys(remark for grid in grids for remark in grid.remarks)),
        parts=tuple(grids),
    )


def _aligned(row: TableRow, grid: Grid, columns: Sequence[Column]) -> TableRow:
    cells = {column.dimension: cell for column, cell in zip(grid.columns, row.cells)}
    nothing = TableCell(None, False, None)
    return dataclasses.replace(row, part=grid.title, cells=tuple(cells.get(column.dimension, nothing) for column in columns))


def _in_sections(entries: Sequence[Entry]) -> list[Entry]:
    """Backbones in the order of their first row, calibration last."""
    sections = list(dict.fromkeys(entry.section for entry in entries))
    return sorted(entries, key=lambda entry: (entry.calibration, sections.index(entry.section)))


def references(entries: Sequence[Entry]) -> list[Entry | None]:
    """For each row its reference: of its own backbone, else of the first backbone that has one; None for a reference itself."""
    of_section: dict[str, Entry] = {}
    for entry in sorted((entry for entry in entries if entry.preset in REFERENCES), key=lambda entry: REFERENCES.index(entry.preset)):
        of_section.setdefault(entry.section, entry)
    general = next(iter(of_section.values()), entries[0])
    others = [None if entry.calibration else of_section.get(entry.section, general) for entry in entries]
    return [None if other is entry else other for entry, other in zip(entries, others)]


def _columns(entries: Sequence[Entry], references: Sequence[Entry | None], columns: Sequence[Column], asked: int) -> list[list[TableCell]]:
    """The cells of every column; all means and differences are estimated together."""
    places = {id(entry): place for place, entry in enumerate(entries)}
    pairs = [None if other is None else places[id(other)] for other in references]
    values = [[values_of(entry, column.metric, entries) for entry in entries] for column in columns]
    gaps = [[line[place][:0] if other is None else less(line[place], line[other]) for place, other in enumerate(pairs)] for line in values]
    estimated = estimates([one for lines in zip(values, gaps) for line in lines for one in line])
    parts, cells = [None if entry.calibration else entry.section for entry in entries], []
    for place, column in enumerate(columns):
        here = estimated[2 * place * len(entries) : 2 * (place + 1) * len(entries)]
        cells.append(marked(here[: len(entries)], here[len(entries) :], parts, asked, column.lower))
    return cells


def values_of(entry: Entry, metric: str, entries: Sequence[Entry]) -> pd.Series:
    """Measured values by prompt and seed; no speeds if the rows were made on several devices, or were rendered."""
    about = metrics.KNOWN.get(metric)
    if about is None or not about.fact:
        return entry.values(metric)
    told = not entry.calibration and (not about.of_device or len(_devices(entries)) == 1)
    return entry.values(metric if told else "")


def _devices(entries: Sequence[Entry]) -> list[str]:
    """Devices on which the generated videos of the rows were made."""
    own = [entry.asked["device"].dropna().unique() for entry in entries if not entry.calibration]
    return list(dict.fromkeys(str(device) for devices in own for device in devices))


def _speeds_told(entries: Sequence[Entry]) -> str:
    """A table's note on its speeds: device and denoising steps; or why it has none."""
    devices = _devices(entries)
    if len(devices) != 1:
        return (
            f"FPS: a dash, for these videos were made on {' and '.join(devices) or 'an unknown device'}; only speeds of one device compare."
        )
    name = next(name for name, fact in metrics.COSTS.items() if fact == "denoising_steps")
    steps = sorted({step for entry in entries if not entry.calibration for step in entry.values(name)})
    words = f"FPS: pixel frames a second of these runs on {devices[0]}, by the network and its cache, without texts and codec"
    return f"{words}; {', '.join(f'{step:g}' for step in steps)} denoising steps." if steps else f"{words}."


def marked(
    means: Sequence[Estimate | None], gaps: Sequence[Estimate | None], parts: Sequence[str | None], asked: int, lower: bool = False
) -> list[TableCell]:
    """The cells of a column, with their ranks and differences.

    Args:
        means: of each row.
        gaps: differences of the rows to their references; their p values are corrected over all of them.
        parts: the part of the table in which a row is ranked; None for rows that are not ranked. A part's only row is not ranked.
        asked: number of videos of a full mean; others are marked and not ranked.
        lower: whether less is better.
    """
    full = [None if mean is None or mean.videos < asked else -mean.mean if lower else mean.mean for mean in means]
    places: list[int | None] = [None] * len(means)
    for part in set(parts) - {None}:
        rows = [row for row, name in enumerate(parts) if name == part and full[row] is not None]
        for row, place in zip(rows, ranks([full[row] for row in rows], DECIMALS) if len(rows) > 1 else ()):
            places[row] = place
    chances = holm([None if gap is None else chance(gap) for gap in gaps])
    tests = sum(p is not None for p in chances)
    corrected = [None if gap is None else Gap(gap, p, detectable(gap, tests)) for gap, p in zip(gaps, chances)]
    few = [mean is not None and mean.videos < asked for mean in means]
    return [TableCell(*cell) for cell in zip(means, few, places, corrected)]


def _row_order(entry: Entry) -> tuple[Any, ...]:
    """By preset, then by settings, numbers before words."""
    values = entry.settings.values()
    return entry.preset, [(isinstance(v, str), v if isinstance(v, (int, float)) else 0, str(v)) for v in values]


def _common(group: Comparable, groups: Sequence[Comparable]) -> str:
    """Unusual settings that all rows share: values other than the defaults, and the version of the prompts' texts."""
    first, *others = (entry.settings for entry in group.entries.values())
    shared = {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}
    odd = [f"{key}={value}" for key, value in shared.items() if not key.startswith("method.") and value != DEFAULTS.get(key)]
    if any(not agree(group.prompts, other.prompts) for other in groups):
        content = repr(sorted(group.prompts.items())).encode()
        odd.append(f"prompts={hashlib.blake2b(content, digest_size=4).hexdigest()}")
    return ", ".join(odd)


def _scorer(group: Comparable) -> str:
    """The scorer's label with its networks and options; random weights are always named."""
    key = group.scorer.settings
    weights, words = key.get("eval.weights"), [group.scorer.label]
    if key.get("task.borders", "blocks") != "blocks":
        words.append("scenes cut where the prompt's seconds end, not where blocks do")
    if not isinstance(weights, Mapping):
        return ", ".join(words)
    networks = weights["networks"] if isinstance(weights.get("networks"), Mapping) else {}
    words += [f"networks {hashlib.blake2b(repr(sorted(networks.items())).encode(), digest_size=4).hexdigest()}"]
    if any(str(identity).lstrip("['").startswith("random") for identity in networks.values()):
        words.append("RANDOM WEIGHTS, these numbers say nothing")
    if (metrics.kind_of(group.task.name) == "long" or key.get("eval.vbench.long_for") == "all") and weights.get("firsts"):
        words.append(f"clips compared by {weights['firsts'].replace('_', ' and ')}")
    return ", ".join(words)


def _row(entry: Entry, group: Comparable, cells: Sequence[TableCell]) -> TableRow:
    """A table row; its variant has the method's settings that differ within its preset, and other settings that differ between any rows."""
    method = entry.run.spec.method
    every = [other.settings for other in group.entries.values()]
    like = [other.settings for other in group.entries.values() if other.preset == entry.preset]
    words = []
    for key, value in entry.settings.items():
        others = like if key.startswith("method.") else every
        if len({repr(other.get(key)) for other in others}) > 1:
            words.append(f"{key.removeprefix('method.settings.')}={value}")
    weights = "" if entry.calibration else entry.weights
    done, failed, unscored, absent = (entry.count(status) for status in ("done", "failed", "unscored", "missing"))
    row = TableRow(method.label, method.name, ", ".join(words), done, tuple(cells), entry.section, weights, backbone=entry.backbone)
    runs = tuple(run.place.run for run in entry.runs)
    row = dataclasses.replace(row, failed=failed, absent=absent, unscored=unscored, runs=runs)
    return dataclasses.replace(row, dead=entry.dead, damaged=len(entry.damaged), pixel_codes=entry.pixel_codes)
