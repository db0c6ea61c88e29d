"""Waiting for SLURM jobs by the progress in the run store, and a table of failures."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jobs.launch.slurm import queue as slurm_queue
from jobs.launch.slurm.queue import QueueEntry
from jobs.launch.slurm.split import Piece
from jobs.store.folder import RunFolder

LINE_EVERY_S = 15.0
LAUNCH_FAILED = "launch failed requeued held"
RELEASES = 3
"""Releases per job; a job that is held more often has another reason than a bad node."""
ROWS = 40
"""Rows of the table of failures."""
STUCK = ("Held", "held", "Never", "BadConstraints", "Limit", "Invalid", "NotAvail", "Down", "DOWN", "Inactive")
"""Parts of SLURM's reasons for pending that may not resolve by waiting."""
OWN_LIMIT = "JobArrayTaskLimit"
"""The reason of `launcher.max_parallel`: other jobs of the array run first."""


def wait(store: Path, folders: Sequence[RunFolder], jobs: Mapping[str, Sequence[Piece]], poll_s: float) -> None:
    """Wait until every unit is done or none of the jobs is pending or running; then print failures. poll_s: seconds between polls."""
    units = sum(len(folder.job.mine) for folder in folders)
    begun = said = time.monotonic()
    first: int | None = None
    absent, said_once = 0, set[str]()
    while True:
        clock = time.monotonic()
        left = sum(len(folder.unfinished()) for folder in folders)
        first = left if first is None else first
        living = _living(jobs, said_once)
        absent = absent + 1 if living is not None and not living else 0
        if not left or absent > 1:  # a job between two states may be missing from one answer
            break
        if living and time.monotonic() - said >= LINE_EVERY_S:
            said = time.monotonic()
            _say(_line(units, left, first, living.values(), said - begun))
        time.sleep(max(poll_s, 10 * (time.monotonic() - clock)))  # a large store takes a while to read
    _say(f"{units - left}/{units} videos, {time.monotonic() - begun:.0f} s passed, {'all there' if not left else 'no job is left'}")
    if left:
        for line in failures(store, folders, jobs):
            _say(line)


def _living(jobs: Mapping[str, Sequence[Piece]], said_once: set[str]) -> dict[str, QueueEntry] | None:
    """The jobs that are in the queue; None if SLURM does not answer. Prints notices once."""
    try:
        queue = slurm_queue.queue()
    except slurm_queue.Unreachable as error:
        if "silent" not in said_once:
            _say(f"SLURM does not answer ({error}); still waiting")
        said_once.add("silent")
        return None
    said_once.discard("silent")
    living = {name: queue[name] for name in jobs if name in queue}
    for name in [name for name, entry in living.items() if entry.reason == LAUNCH_FAILED]:
        _release(name, said_once)
    waiting = {entry.reason: name for name, entry in living.items() if entry.state == "PENDING" and entry.reason != OWN_LIMIT}
    stuck = {reason: name for reason, name in waiting.items() if any(word in reason for word in STUCK)}
    for reason in stuck.keys() - said_once:
        said_once.add(reason)
        _say(f"job {stuck[reason]} waits, and SLURM says why: {reason}")
    return living


def _release(name: str, said_once: set[str]) -> None:
    """Release a job that SLURM holds because its node failed while starting it."""
    times = sum(f"{name} released {time}" in said_once for time in range(RELEASES))
    if times < RELEASES:
        said_once.add(f"{name} released {times}")
        _say(f"job {name} could not be started on its node and is held; it is released")
        with contextlib.suppress(slurm_queue.Unreachable):
            slurm_queue.ask(["scontrol", "release", name])


def _line(units: int, left: int, first: int, living: Iterable[QueueEntry], passed_s: float) -> str:
    states = [entry.state for entry in living]
    running = sum(state != "PENDING" for state in states)
    made = first - left
    end = f"{passed_s / made * left:.0f} s left" if made else "time left unknown"
    return f"{units - left}/{units} videos, jobs: {running} running, {len(states) - running} waiting, {passed_s:.0f} s passed, {end}"


def failures(store: Path, folders: Sequence[RunFolder], jobs: Mapping[str, Sequence[Piece]]) -> list[str]:
    """A table of the jobs with missing units: SLURM's state of each, and its last output."""
    missing: dict[str, set[int]] = {}
    for folder in folders:
        lacking = {prompt.id for prompt in folder.unfinished()}
        indices = {index for index, prompt in enumerate(folder.job.asked) if prompt.id in lacking}
        missing.setdefault(folder.place, set()).update(indices)
    rows = []
    for name, pieces in jobs.items():
        lacks = [sum(map(piece.covers, missing.get(piece.run, ()))) for piece in pieces]
        if sum(lacks):
            title = next(piece.title for piece, count in zip(pieces, lacks) if count)
            more = f" and {len(pieces) - 1} more" if len(pieces) > 1 else ""
            rows.append((name, sum(lacks), title + more))
    if not rows:
        return []
    table = [("job", "state", "exit", "missing", "runs", "last words")]
    table += [(name, *slurm_queue.ending(name), str(count), title, last_words(store, name)) for name, count, title in rows[:ROWS]]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[5]]).rstrip() for row in table]
    return lines + ([f"and {len(rows) - ROWS} more jobs"] if len(rows) > ROWS else [])


def last_words(store: Path, name: str) -> str:
    """The first line of a job's last error message, or the last line of its log."""
    for path in store.glob(f"slurm/*/{name}_0_log.err"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        own = [line.partition("Incomplete: ")[2] for line in lines if "Incomplete: " in line]
        rest = [line for line in lines if not line.startswith("srun: ")]
        return (own or rest or lines or ["it said nothing"])[-1]
    return "no log"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
