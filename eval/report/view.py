"""A report's plain values for the template: tables, the index of cells, drift, missing videos, provenance."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from echo.cache.kinds import Kind
from echo.scene import FPS, FRAMES_PER_BLOCK, TagMeaning
from eval.figures import style
from eval.figures.drift import FIRST, drifts
from eval.metrics import COSTS, KNOWN, READING_FRAMES, READING_S, READINGS, Column
from eval.protocol import pairs_of
from eval.report.cells import ABSENT, DONE, Method, ReportPart, VideoCell
from eval.report.folder import Folder
from eval.store.records import Provenance
from eval.store.runs import Run
from eval.tables.build import values_of
from eval.tables.captions import Panel, panels
from eval.tables.grid import Grid

CHARTS = tuple(name for name in COSTS if KNOWN[name].trails)
"""Costs against which scores are drawn: those that every table shows."""
BOUNDS = ("oracle", "oracle_cache", "forget")
"""Presets that bound the others and do not compete for the best score."""
WINDOW = 9
"""Blocks of the moving mean of drift curves, the same as in `eval.figures.drift`."""


@dataclass(frozen=True)
class Lack:
    """A requested video that failed or is dead or missing, or all missing ones of a row. where: its traceback in the folder, or ""."""

    task: str
    method: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    what: str
    note: str = ""
    where: str = ""


@dataclass(frozen=True)
class GridView:
    """A grid for the template: the columns that have a number, and the panels."""

    title: str
    columns: Sequence[Column]
    means: Panel
    differences: list[Panel]
    headline: str


def headline(grid: Grid) -> str:
    """The best and the worst method by the first column of measures, and the oracle's mean; "" for fewer than two rows."""
    shown = grid.measured()[0]
    means = [(row.cells[0].estimate.mean, row) for row in shown.rows if not row.calibration and row.cells and row.cells[0].estimate]
    ranked = [row for _, row in sorted(means, key=lambda pair: pair[0], reverse=bool(means) and not shown.columns[0].lower)]
    own = [row for row in ranked if row.preset not in BOUNDS]
    if len(own) < 2:
        return ""
    first, last = (f"{row.label} {' ± '.join(filter(None, row.cells[0].printed(False)[:2]))}" for row in (own[0], own[-1]))
    most = next((f"; {row.label} {row.cells[0].printed(False).mean}" for row in ranked if row.preset == BOUNDS[0]), "")
    about, kind = shown.columns[0].about, shown.columns[0].kind
    return f"{grid.title}, {about.label}{f' ({kind})' if kind else ''}: {first}, against {last}{most}."


def table(grid: Grid) -> GridView:
    """A grid on the page, with the same texts as in every other format of the table; columns without a number are named below it."""
    shown, left_out = grid.measured()
    means, *differences = panels(shown)
    return GridView(grid.title, shown.columns, replace(means, notes=[*means.notes, *left_out]), differences, headline(grid))


class CellState(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of a cell whose video is missing, failed or otherwise not normal. data: the name that loads it, if there is a video."""

    status: str
    note: str
    data: str | None = None


@dataclass(frozen=True)
class PromptIndex:
    """A prompt of a part. borders: starts of scenes, in readings of 12 pixel frames. texts, how: texts and transitions of the scenes, if
    they are known. first: for a recalled scene, the number of its first showing, paired as in the scores."""

    id: str
    borders: list[float]
    texts: list[str]
    how: list[str]
    first: dict[int, int]


@dataclass(frozen=True)
class MethodIndex:
    """A row of a part. more: what distinguishes it from rows with the same label. size: of its videos, in pixels."""

    id: str
    label: str
    more: str
    calibration: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class PartIndex:
    """A part on the page before any cell is loaded. cells: by method, prompt and seed. frames: length of the longest video."""

    id: str
    title: str
    prompts: list[PromptIndex]
    seeds: list[int]
    methods: list[MethodIndex]
    cells: list[list[list[str | CellState | None]]]
    frames: int


def index(part: ReportPart, title: str, folder: Folder) -> PartIndex:
    """The index of a part; also writes its cells."""
    cells = [[[_entry(method.cells.get((p, s)), folder) for s in part.seeds] for p in part.prompts] for method in part.methods]
    every = [entry for rows in cells for row in rows for entry in row]
    names = [entry.data if isinstance(entry, CellState) else entry for entry in every]
    longest = max((folder.lengths[name] for name in names if name), default=1)
    prompts = [_prompt(part, prompt, folder) for prompt in part.prompts]
    methods = [_method(method, part.methods, folder) for method in part.methods]
    return PartIndex(part.name, title, prompts, part.seeds, methods, cells, longest)


def _entry(cell: VideoCell | None, folder: Folder) -> str | CellState | None:
    """The name that loads a cell; the state of one whose video is not there or not scored; None if nothing was requested."""
    if cell is None:
        return None
    if cell.video is None:
        return CellState(cell.status, cell.note)
    return folder.cell(cell) if cell.status == DONE else CellState(cell.status, cell.note, folder.cell(cell))


def _method(method: Method, others: Sequence[Method], folder: Folder) -> MethodIndex:
    row = method.row
    backbones = {other.row.section for other in others if not other.row.calibration}
    twins = [other for other in others if other.row.label == row.label]
    words = [row.section] if len(backbones) > 1 and not row.calibration else []
    words += [row.preset] if len({other.row.preset for other in twins}) > 1 else []
    words += [row.variant] if row.variant else []
    cells = [cell for one in (method, *others) for cell in one.cells.values()]  # a row without videos takes the others' shape
    shape = next((shape for cell in cells if (shape := folder.shape(cell))), None)
    return MethodIndex(method.name, row.label, ", ".join(words), row.calibration, (shape.width, shape.height) if shape else (16, 9))


def _prompt(part: ReportPart, name: str, folder: Folder) -> PromptIndex:
    """A prompt of a part; starts of scenes are read from the first trace that there is."""
    videos = (cell for method in part.methods for (prompt, _), cell in method.cells.items() if prompt == name and cell.video)
    traced = ((trace[1].borders, cell.run.spec.frames_per_block) for cell in videos if (trace := folder.trace(cell)))
    borders, size = next(traced, ((0,), FRAMES_PER_BLOCK))
    prompt = part.texts.get(name)
    ways = prompt.transitions(TagMeaning.enter) if prompt else ()
    how = [str(way.value) if way else "" for way in ways]
    first: dict[int, int] = {}
    with suppress(ValueError):  # unpaired scenes have no first showing
        first = dict(pairs_of(part.task, len(borders), prompt.recalls if prompt else ()))
    marks = [border * size / FRAMES_PER_BLOCK for border in borders]
    return PromptIndex(name, marks, list(prompt.scenes) if prompt else [], how, first)


@dataclass(frozen=True)
class DriftView:
    """Curves of a method, given by its index in the part, and their numbers of videos and prompts.

    curves: by reading, its `mean` and the `half` width of its band, null if nothing was measured.
    """

    method: int
    videos: int
    prompts: int
    curves: dict[str, dict[str, list[float | None]]]


def drift(part: ReportPart) -> list[DriftView]:
    """Curves of a part's methods with their bands, computed like those of `eval.figures.drift`; empty if no scores have block readings."""
    entries = [method.entry for method in part.methods]
    drifting, _ = drifts(entries, WINDOW)
    lines = []
    for one in sorted(drifting, key=lambda one: entries.index(one.row)):
        curves = {name: {"mean": _plain(curve.mean), "half": _plain(curve.half_width)} for name, curve in one.curves.items()}
        first = one.curves[FIRST]
        lines.append(DriftView(entries.index(one.row), first.videos, first.prompts, curves))
    return lines


def _plain(values: Any) -> list[float | None]:
    return [round(value, 2) if value == value else None for value in map(float, values)]


class PartScores(msgspec.Struct, frozen=True):
    """Scores of a part and costs of its methods, by metric; null if there is none.

    metrics: scores of its videos, by method, prompt and seed like `PartIndex.cells`.
    means: means of its methods with the half width of the 95 % interval, the same as in the table.
    costs: costs of its methods, by the metric of a fact.
    """

    metrics: dict[str, list[list[list[float | None]]]]
    means: dict[str, list[tuple[float, float | None] | None]]
    costs: dict[str, list[float | None]]


def scores(part: ReportPart) -> PartScores:
    """Data of the table of prompts and the charts of costs: the metrics of the part's own columns."""
    names = [column.metric for column in part.grid.measured()[0].columns]
    places = {column.metric: place for place, column in enumerate(part.grid.columns)}

    def value(method: Method, prompt: str, seed: int, name: str) -> float | None:
        cell = method.cells.get((prompt, seed))
        return cell.record.metrics.get(name) if cell is not None and cell.record is not None else None

    values = {name: [[[value(m, p, s, name) for s in part.seeds] for p in part.prompts] for m in part.methods] for name in names}
    there = {name: rows for name, rows in values.items() if any(one is not None for m in rows for p in m for one in p)}
    cells = {name: [method.row.cells[places[name]].estimate for method in part.methods] for name in there}
    means = {name: [None if one is None else (one.mean, one.half_width) for one in row] for name, row in cells.items()}
    return PartScores(there, means, {name: [_cost(part, method, name) for method in part.methods] for name in CHARTS})


def _cost(part: ReportPart, method: Method, name: str) -> float | None:
    """The mean of a fact over a method's videos, by the rule of the tables' columns; None if there is none."""
    mean = float(values_of(method.entry, name, [other.entry for other in part.methods]).mean())
    return mean if math.isfinite(mean) else None


def lacks(part: ReportPart, title: str, folder: Folder) -> Iterator[Lack]:
    """All requested videos that are not there or not scored; videos that were not made are one entry per row."""
    for method in part.methods:
        label = ", ".join(filter(None, (method.row.label, "" if method.row.calibration else method.row.section, method.row.variant)))
        absent: dict[int, list[str]] = {}
        for (prompt, seed), cell in sorted(method.cells.items()):
            if cell.status == ABSENT:
                absent.setdefault(seed, []).append(prompt)
            elif cell.status != DONE:
                yield Lack(title, label, (prompt,), (seed,), cell.status, cell.note, folder.traceback(cell))
        for prompts in dict.fromkeys(map(tuple, absent.values())):
            seeds = tuple(seed for seed, prompts_there in sorted(absent.items()) if tuple(prompts_there) == prompts)
            yield Lack(title, label, prompts, seeds, ABSENT)


@dataclass(frozen=True)
class StartLine:
    """A start of a run: its most important facts; the rest is in its file."""

    run: str
    file: str
    method: str
    backbone: str
    task: str
    seed: int
    attempt: str
    facts: Provenance

    @property
    def began(self) -> str:
        """Time of the start, from its name; "" if the name has none."""
        nanoseconds = self.attempt.partition("-")[0]
        began = int(nanoseconds) / 1e9 if nanoseconds.isdecimal() and len(nanoseconds) == 20 else 0.0
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(began)) if began > 1e9 else ""

    @property
    def versions(self) -> str:
        """Versions of Python and packages."""
        return ", ".join(f"{key} {value}" for key, value in {"python": self.facts.python, **self.facts.packages}.items() if value)


def provenance(parts: Sequence[ReportPart], folder: Folder) -> list[StartLine]:
    """A line for every start of every run that the report shows."""
    runs: dict[str, tuple[Run, Method, str]] = {}
    for part in parts:
        for method in part.methods:
            for run in method.entry.runs:
                runs.setdefault(str(run.path), (run, method, part.grid.title))
    lines = []
    for run, method, task in runs.values():
        name, starts = folder.provenance(run)
        about = (run.path.name, name, method.row.label, run.spec.backbone.name, task, run.spec.seed)
        lines += [StartLine(*about, start, facts) for start, facts in (starts or {"?": Provenance()}).items()]
    return lines


def constants() -> dict[str, object]:
    """Constants for the page's script besides the parts: sizes, colours, kinds, measures."""
    kinds = {kind.letter: {"name": kind.words, "colour": kind.colour} for kind in Kind}
    measures = {name: words for name, (words, _) in READINGS.items()}
    costs = {name: {"label": KNOWN[name].label, "lower": KNOWN[name].lower} for name in CHARTS}
    return {"fps": FPS, "reading_frames": READING_FRAMES, "reading_s": READING_S, "kinds": kinds, "measures": measures, "costs": costs,
            "series": list(style.SERIES), "window": WINDOW}  # fmt: skip
