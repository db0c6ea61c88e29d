"""Progress of a store: units that are done, running, failed or missing.

The grid has a line per method and task and a column per seed; the time that is left follows. All of it is read from the store; no
scheduler is asked.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TypeVar

from echo.files import RESULTS
from echo.refusals import Unfinished, nearest
from eval.store.reading import content_of, hearing, names_in
from eval.store.records import DamagedFile, UnitRecord
from eval.store.rows import last_asked
from eval.store.runs import Asked, Run, Settled, existing, known, sweeps
from jobs.store.claims import Claims
from jobs.store.speeds import newest_units

T = TypeVar("T")
TAIL = 4
"""Last lines of a traceback that are shown."""
SEEDS = 12
"""Most columns of seeds; with more seeds a line shows their sum."""


@dataclass
class Cell:
    """Counts of units of one seed in a line. done + running + failed + missing = asked."""

    asked: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0

    @property
    def missing(self) -> int:
        """Number of units that are neither done, running nor failed."""
        return self.asked - self.done - self.running - self.failed

    @property
    def text(self) -> str:
        """The cell in words."""
        return " ".join([f"{self.done}/{self.asked}", *(f"{n}{c}" for n, c in ((self.running, "r"), (self.failed, "f")) if n)])

    def __add__(self, other: Cell) -> Cell:
        """The sum of both cells' counts."""
        return Cell(*(getattr(self, name) + getattr(other, name) for name in ("asked", "done", "running", "failed")))


@dataclass
class Line:
    """A method on a backbone over a task."""

    backbone: str
    task: str
    method: str
    cells: dict[int, Cell] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)  # living processes that have claimed its units
    pixel_codes: Counter[str] = field(default_factory=Counter)  # digest of the code that made the pixels -> finished videos

    @property
    def total(self) -> Cell:
        """The sum over all seeds."""
        return sum(self.cells.values(), Cell())

    @cached_property
    def unit_s(self) -> list[float]:
        """Seconds of the line's newest finished units over all seeds, from the last record of each."""
        return [unit.seconds for unit in newest_units(self.runs)]


def wishes(store: Path, experiment: str) -> list[tuple[Run, Asked]]:
    """The last request of every run of the newest pixel version, or all requests of an experiment's last commands.

    Raises ValueError in one line if there is none.
    """
    if experiment:
        swept = {sweep.experiment for sweep in sweeps(store) if sweep.experiment}
        known("experiment=", [experiment], swept, f"store {store} was never asked for it")
        own = sorted((sweep for sweep in sweeps(store) if sweep.experiment == experiment), key=lambda sweep: not sweep.scored)
        return list({run.place: (run, wish) for sweep in own for run, wish in sweep.wishes}.values())  # the last of each run
    return last_asked(store)


def look(run: Run, asked: Asked, settled: Settled[UnitRecord]) -> tuple[Cell, dict[str, int], set[str], set[str]]:
    """A request's counts of units; tries of each failed unit; missing units; workers that have claimed others."""
    units, failures = set(asked.units.values()), settled.failures
    done = units & settled.done.keys() - settled.spoilt.keys()
    open_units = units - done
    running = _claimed(run, lambda claims: claims.holders(open_units)) if open_units else {}
    failed = {unit: count for unit, count in failures.items() if unit in open_units - running.keys()}
    missing = open_units - running.keys() - failed.keys()
    return Cell(len(units), len(done), len(running), len(failed)), failed, missing, set(running.values())


def _claimed(run: Run, question: Callable[[Claims], dict[str, T]]) -> dict[str, T]:
    """The answer of a run's claims; empty for a read-only store, where no worker runs."""
    with contextlib.suppress(OSError):
        return question(Claims(run.path, "status"))
    return {}


def gather(store: Path, experiment: str = "", task: Sequence[str] = (), method: Sequence[str] = ()) -> tuple[list[Line], list[list[str]]]:
    """The grid's lines, and for each failure its title and the last lines of its output. Raises ValueError: one line."""
    tasks, methods = set(task), set(method)
    every = wishes(store, experiment)
    for key, names in (("task", tasks), ("method", methods)):
        known = sorted({getattr(run.place, key) for run, _ in every})
        for name in names - set(known):
            raise ValueError(f"{key}={name}: store {store} has no run of it; nearest is {nearest(name, known or ['none'])}")
    outcome: dict[tuple[str, str, str], Line] = {}
    failures: list[list[str]] = []
    for run, asked in every:
        place = backbone, task, method = run.place[:3]
        if (tasks and task not in tasks) or (methods and method not in methods):
            continue
        line = outcome.setdefault(place, Line(*place))
        settled = run.settled(asked.scores)
        cell, failed, missing, workers = look(run, asked, settled) if (there := run.there) else (Cell(len(asked.units)), {}, set(), set())
        seed = run.place.seed
        line.cells[seed] = line.cells.get(seed, Cell()) + cell
        line.runs.append(run)
        line.workers |= workers
        own = set(asked.units.values())
        line.pixel_codes.update(record.pixel_code or "untold" for unit, record in settled.done.items() if unit in own)
        if cell.done < cell.asked and there:
            title = f"{method} {task} seed={seed}"
            failures += _failures(run, asked, failed, missing, title)
            failures += [
                [f"{title}: {asked_for} was made and is missing", settled.spoilt[unit]]
                for asked_for, unit in asked.units.items()
                if unit in settled.spoilt
            ]
            failures += [[f"{title}: a record was left out", f"{line} is damaged"] for line in settled.damaged]
            if missing and not cell.running:
                failures += _last_words(run, title)
    return [outcome[place] for place in sorted(outcome)], failures


def _failures(run: Run, asked: Asked, failed: Mapping[str, int], missing: set[str], title: str) -> Iterator[list[str]]:
    last = {record.unit: record for record in run.records() if not record.ok} if failed else {}
    for prompt, unit in asked.units.items():
        if unit in failed:
            record = last[unit]
            tail = _tail(run.below(record.trace)) or record.err.splitlines()[-TAIL:]
            yield [f"{title}: {prompt} failed ({failed[unit]} tries)", *tail]
    begun = _claimed(run, lambda claims: claims.abandoned(missing)) if missing else {}
    for prompt, unit in asked.units.items():
        if unit in begun:
            times, who = begun[unit]
            yield [f"{title}: {prompt} was begun and not ended", f"{times} times, at last by {who}, which has died"]


def _last_words(run: Run, title: str) -> Iterator[list[str]]:
    logs = names_in(run.path / "attempts", ".log")
    if logs and (words := _tail(run.path / "attempts" / logs[-1])):
        yield [f"{title}: its last process said", *words]


def _tail(path: Path | None) -> list[str]:
    with contextlib.suppress(OSError, DamagedFile):
        text = content_of(path).decode(errors="replace") if path else ""
        return [line.rstrip() for line in text.splitlines() if line.strip()][-TAIL:]
    return []


def grid(lines: Sequence[Line]) -> list[str]:
    """The lines of the printed table."""
    seeds = sorted({seed for line in lines for seed in line.cells})
    several = len({line.backbone for line in lines}) > 1
    wide = len(seeds) > SEEDS
    names = [f"{len(seeds)} seeds", "of which not complete"] if wide else [f"seed={seed}" for seed in seeds]
    head = ["task", "method", *(["backbone"] if several else []), *names, "left"]
    rows = [head]
    for line in lines:
        cells = _narrow(line) if wide else [line.cells[seed].text if seed in line.cells else "-" for seed in seeds]
        rows.append([line.task, line.method, *([line.backbone] if several else []), *cells, _time(seconds_left(line, lines))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]


def _narrow(line: Line) -> list[str]:
    """All seeds of a line in two cells: their sum, and the seeds that are incomplete."""
    rest = [seed for seed, cell in sorted(line.cells.items()) if cell.done < cell.asked]
    shown = ",".join(map(str, rest[:SEEDS]))
    return [line.total.text, f"{shown} and {len(rest) - SEEDS} more" if len(rest) > SEEDS else shown]


def seconds_left(line: Line, lines: Sequence[Line]) -> float | None:
    """Seconds for one process, from the line's own finished units, else from those of its task and backbone; None if there are none."""
    open_units = line.total.asked - line.total.done
    like = line.unit_s or [s for other in lines if (other.task, other.backbone) == (line.task, line.backbone) for s in other.unit_s]
    return 0.0 if not open_units else open_units * median(like) if like else None


def _time(seconds: float | None) -> str:
    if not seconds:
        return "?" if seconds is None else ""
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def summary(lines: Sequence[Line]) -> str:
    """All counts and the time left, in one line."""
    whole = sum((line.total for line in lines), Cell())
    told = f"{whole.done} of {whole.asked} videos done, {whole.running} running, {whole.failed} failed, {whole.missing} missing"
    left = [seconds_left(line, lines) for line in lines]
    if whole.done == whole.asked:
        return told
    if None in left:
        return f"{told}; time left: unknown, nothing of some line is done yet"
    work_s, hands = sum(filter(None, left)), len({worker for line in lines for worker in line.workers})
    return f"{told}; time left: {_time(work_s)} of one process" + (f", {_time(work_s / hands)} of the {hands} at work" if hands > 1 else "")


def status(
    experiment: str = "", task: Sequence[str] = (), method: Sequence[str] = (), *, store: Path = RESULTS, failed: bool = False
) -> Iterator[str]:
    """Show which units of a store are done, running, failed or missing, and the time that is left.

    A cell is done/asked, then the running (r) and failed (f) units. Asked is what the last command for each run asked for. The exit status
    is 1 while anything is missing.

        echo-harness status
        echo-harness status experiment=table1 --failed

    Args:
        experiment: only requests of this experiment's last commands.
        task: only these tasks.
        method: only these presets.
        store: the run store.
        failed: also the last lines of each traceback, the videos that killed processes were making, and the last output of dead jobs.
    """
    with hearing() as lost:
        lines, failures = gather(existing(store), experiment, task, method)
    if not lines:
        raise ValueError(f"--store {store}: no runs; nothing was asked of it")
    yield from (*grid(lines), "", summary(lines))
    codes = sum((line.pixel_codes for line in lines), Counter[str]())
    if len(codes) > 1:
        told = ", ".join(f"{code} ({videos} videos)" for code, videos in sorted(codes.items()))
        yield f"made by several versions of the code that makes pixels: {told}"
    if lost:
        yield f"not all of it can be read, and what is left out may be more than is missing here: {len(lost)} files or folders"
    for what, *tail in failures if failed else ():
        yield from ("", what, *(f"    {line}" for line in tail))
    if failures and not failed:
        yield "echo-harness status --failed says why" + (f" (--store {store})" if store != RESULTS else "")
    if lost or any(line.total.done < line.total.asked for line in lines):
        raise Unfinished
