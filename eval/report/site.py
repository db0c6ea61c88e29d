"""The leaderboard of several labs, as one folder that opens from disk and from any static host: methods x tasks, down to records.

Rows follow the rule of `eval.store.rows`: for each lab and task the newest comparable rows, one per preset and backbone. Over all labs
these form boards: rows of one task that are comparable with each other, whoever made them. Numbers of different labs are never pooled;
means, intervals and ranks are those of `eval.tables`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import msgspec
import pandas as pd

from data.outgoing import harmless
from echo.files import file_sha256, name_part
from eval.metrics import TASKS, Column
from eval.pages import literal, render
from eval.report.cells import DONE, GONE, VideoCell, cells_of
from eval.report.folder import MARK, Folder, replacing_folder
from eval.store.records import Provenance, encoded
from eval.store.rows import Comparable, Entry, Unit, gather, left_out, newest
from eval.store.runs import Run, known, runs, tasks
from eval.store.submission import Difference, Lab, disagreements, opened
from eval.tables.build import grid_of
from eval.tables.captions import Panel, number, panels
from eval.tables.grid import Grid, TableCell, TableRow


@dataclass(frozen=True)
class BoardRow:
    """A row of a board. page: path of its page below the site's folder."""

    lab: Lab
    entry: Entry
    row: TableRow
    page: str

    @property
    def key(self) -> tuple[bool, str, str, str]:
        """What identifies its line over all boards: whether it is rendered, preset, backbone, lab."""
        return self.row.calibration, self.entry.preset, self.entry.backbone, self.lab.name


@dataclass(frozen=True)
class Board:
    """Comparable rows of one task. name: unique on the page. title: of the task, with what distinguishes it from other boards of the task.

    panel: caption and notes as tables print them.
    """

    name: str
    title: str
    grid: Grid
    rows: list[BoardRow]
    panel: Panel

    def cells(self, key: tuple[bool, str, str, str]) -> tuple[BoardRow | None, Sequence[TableCell | None]]:
        """The row with a key, or None, and its cells, one per column."""
        row = next((row for row in self.rows if row.key == key), None)
        return row, row.row.cells if row else [None] * len(self.grid.columns)


@dataclass(frozen=True)
class UnitView:
    """A video on the page of its row.

    values: its scores as text, one per column. record: its record as JSON, "" if there is none.
    """

    cell: VideoCell
    status: str
    values: list[str]
    video: str
    record: str


@dataclass(frozen=True)
class StartView:
    """A start of a run. file: address of the run's provenance file from the lab's folder."""

    run: Run
    file: str
    attempt: str
    facts: Provenance


@dataclass(frozen=True)
class LabView:
    """A lab. sha256: of its submission, "" for a store. faults: what `verify` finds wrong with its files."""

    lab: Lab
    sha256: str
    faults: list[str]


@dataclass(frozen=True)
class DisputeView:
    """A unit in which two labs disagree, and the pages of both."""

    labs: tuple[Lab, Lab]
    run: Run
    difference: Difference
    pages: tuple[str, str]


@dataclass
class Site:
    """A leaderboard that is being written. folders: each lab's, by its name."""

    folder: Folder
    labs: Sequence[Lab]
    folders: dict[str, Folder] = field(default_factory=dict)
    pages: dict[tuple[str, str], str] = field(default_factory=dict)  # by lab and run's place: the page of its row

    def page(self, lab: Lab, name: str) -> str:
        """Path of a page of a lab below the site's folder."""
        ways = self.folder.ways
        own = f"labs/{name_part(lab.name)}"
        self.folders.setdefault(lab.name, Folder(self.folder.root / own, self.folder.final / own, ways))
        return f"{own}/{name}.html"


def leaderboard(words: Sequence[str], task: Sequence[str], out: Path, ways: str) -> list[str]:
    """Write the leaderboard of submissions and stores, complete or not at all; returns the lines to print.

    Raises ValueError in one line for a damaged submission, for a task that no lab has, and where `replacing_folder` does.
    """
    with ExitStack() as stack:
        labs = _named(stack.enter_context(opened(Path(word))) for word in words)
        if ways == "relative" and any(lab.path.is_file() for lab in labs):
            raise ValueError("--videos relative: videos of a submission lie nowhere else; nearest is --videos link")
        known("task=", task, {name for lab in labs for name in tasks(lab.store)}, "no lab has runs of it")
        with replacing_folder(out) as part:
            site = Site(Folder(part, out, ways), labs)
            every = list(_boards(site, task))
            if not every:
                raise ValueError(f"{' '.join(words)}: no scores")
            disputes = [one for pair in combinations(labs, 2) for one in _disputes(site, *pair)]
            for board in every:
                for row in board.rows:
                    _write_row(site, board, row)
            _write_index(site, every, disputes)
    count = sum(len(board.rows) for board in every)
    lines = [f"leaderboard: {out / 'index.html'} ({number(len(labs), 'lab')}, {number(len(every), 'board')}, {number(count, 'row')})"]
    return lines + [f"labs disagree in {number(_units(disputes), 'unit')}, listed at its end"] * bool(disputes)


def _named(labs: Iterable[Lab]) -> list[Lab]:
    """Labs with unique names."""
    made: dict[str, Lab] = {}
    for lab in labs:
        like = sum(name_part(lab.name).casefold() == name_part(other.name.partition(" (")[0]).casefold() for other in made.values())
        name = f"{lab.name} ({like + 1})" if like else lab.name
        made[name] = replace(lab, name=name)
    return list(made.values())


def _boards(site: Site, only: Sequence[str]) -> Iterable[Board]:
    """Boards, tasks in the order of the paper."""
    names = {name for lab in site.labs for name in tasks(lab.store) if not only or name in only}
    for task in sorted(names, key=lambda name: (TASKS.index(name) if name in TASKS else len(TASKS), name)):
        own = [(lab, entry) for lab in site.labs for entry in newest(lab.store, task)]
        groups = gather(part for _, entry in own for part in entry.parts)
        for place, group in enumerate(groups, 1):
            yield _board(site, name_part(task) + (f"-{place}" if place > 1 else ""), group, groups, own)


def _board(site: Site, name: str, group: Comparable, groups: Sequence[Comparable], own: Sequence[tuple[Lab, Entry]]) -> Board:
    """A board: the rows of a comparable group, separated by lab."""
    members = {(run.path, wishes[-1].scores) for entry in group.entries.values() for run, wishes in entry.parts}
    rows = list[tuple[Lab, Entry]]()
    for lab, entry in own:
        parts = [part for part in entry.parts if (part[0].path, part[1][-1].scores) in members]
        if parts:
            whole = len(parts) == len(entry.parts)
            rows.append((lab, entry if whole else Entry(entry.run, entry.settings, entry.weights, parts, entry.newest, entry.older)))
    sections = list(dict.fromkeys(entry.section for _, entry in rows))
    rows.sort(key=lambda row: (row[1].calibration, sections.index(row[1].section), row[1].preset, row[0].name))
    entries = {(lab.name, entry.name, repr(entry.settings)): entry for lab, entry in rows}
    grid, empty = grid_of(replace(group, entries=entries), groups, unreadable=left_out(entries.values())).measured()
    pages = [site.page(lab, ".".join(map(name_part, (name, entry.backbone, entry.preset)))) for lab, entry in rows]
    made = [BoardRow(*row, line, page) for row, line, page in zip(rows, grid.rows, pages)]
    for one in made:
        for run in one.entry.runs:
            site.pages.setdefault((one.lab.name, str(run.place)), one.page)
    title = grid.title if len(groups) == 1 else f"{grid.title} ({grid.scorer}{f', {grid.settings}' if grid.settings else ''}, {name})"
    panel = panels(grid)[0]
    return Board(name, title, grid, made, replace(panel, notes=[*panel.notes, *empty]))


def _disputes(site: Site, one: Lab, other: Lab) -> Iterable[DisputeView]:
    """Units in which two labs disagree, with links."""
    for run, difference in disagreements(one, other):
        pages = tuple(site.pages.get((lab.name, str(run.place)), "") for lab in (one, other))
        yield DisputeView((one, other), run, difference, (pages[0], pages[1]))


def _units(disputes: Sequence[DisputeView]) -> int:
    return len({(one.run.place, one.difference.unit) for one in disputes})


def _write_row(site: Site, board: Board, row: BoardRow) -> None:
    """Write the page of a row: every video with its scores and its record, every start, all settings."""
    folder, entry = site.folders[row.lab.name], row.entry
    units = [
        UnitView(cell, _status(row.lab, cell), [_value(entry.asked, unit, column) for column in board.grid.columns], *_sides(cell, folder))
        for unit, cell in sorted(cells_of(entry).items())
    ]
    starts = [StartView(run, *about) for run in entry.runs for about in _starts(run, folder)]
    settings = {name: value for name, value in entry.settings.items() if value is not None}
    page = render("site_row.html", lab=row.lab, board=board, row=row.row, units=units, starts=starts, settings=settings, full=entry.name)
    site.folder.write(row.page, page)


def _status(lab: Lab, cell: VideoCell) -> str:
    """What became of a video, and why; a video that was not submitted is not missing."""
    return DONE if cell.status == GONE and not lab.videos else ": ".join(filter(None, (cell.status, cell.note)))


def _value(table: pd.DataFrame, unit: Unit, column: Column) -> str:
    """A score of a video as text with six digits, of which its record has the rest; "" if there is none."""
    value = table[column.metric].get(unit) if column.metric in table else None
    return "" if value is None or value != value else f"{value:.6g}"


def _sides(cell: VideoCell, folder: Folder) -> tuple[str, str]:
    """Address of a cell's video from its lab's folder, and its record."""
    video = "" if cell.video is None else folder.video(cell.video)
    return video, "" if cell.record is None else msgspec.json.format(encoded(cell.record), indent=1).decode()


def _starts(run: Run, folder: Folder) -> Iterable[tuple[str, str, Provenance]]:
    name, starts = folder.provenance(run)
    return [(name, attempt, facts) for attempt, facts in starts.items()]


def _faults(lab: Lab) -> list[str]:
    """What `verify` finds, one line each, with paths below the lab's store."""
    return [line.removeprefix(f"{lab.path}/") for run in runs(lab.store) for line in lab.faults(run)[0]]


def _write_index(site: Site, boards: Sequence[Board], disputes: Sequence[DisputeView]) -> None:
    keys = sorted({row.key: row.row for board in boards for row in reversed(board.rows)}.items())
    scores = {column.dimension: column for board in boards for column in board.grid.columns}
    labs = [LabView(lab, file_sha256(lab.path) if lab.path.is_file() else "", _faults(lab)) for lab in site.labs]
    disputed = {row.key for one in disputes for board in boards for row in board.rows if row.page in one.pages}
    page = render(
        "site.html", boards=boards, lines=keys, scores=scores, labs=labs, disputes=disputes, disputed=disputed, units=_units(disputes)
    )
    site.folder.write("index.html", page)
    site.folder.write("leaderboard.csv", _as_csv(boards))
    site.folder.write(MARK, literal({"v": 1, "boards": [board.title for board in boards], "labs": [lab.name for lab in site.labs]}) + "\n")


def _as_csv(boards: Sequence[Board]) -> str:
    """Every number of the leaderboard, one per line."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    about_row = ["task", "board", "scorer", "backbone", "preset", "variant", "lab"]
    lines.writerow([*about_row, "metric", "mean", "half_width", "videos", "prompts", "seeds", "page"])
    for board in boards:
        for row in board.rows:
            about = [board.grid.task, board.name, board.grid.scorer, row.entry.backbone, row.entry.preset, row.row.variant, row.lab.name]
            for column, cell in zip(board.grid.columns, row.row.cells):
                if one := cell.estimate:
                    half = "" if one.half_width is None else one.half_width
                    numbers = [column.metric, one.mean, half, one.videos, one.prompts, one.seeds, row.page]
                    lines.writerow([harmless(value) for value in [*about, *numbers]])
    return text.getvalue()
