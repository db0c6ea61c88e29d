"""One small sweep on SLURM, and what tests do to it while it runs."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo.files import ROOT
from eval.store.records import UnitRecord
from eval.store.runs import runs
from tests.helpers.interrupts import hear_interrupts
from tests.helpers.waiting import until

UNITS = 12
PROMPTS = 6


def words(store: Path, *more: str) -> list[str]:
    """The command: six prompts, two seeds."""
    sweep = ["method=echo", "task=hard", "seed=0,1", f"prompts={PROMPTS}", "duration_scale=0.1", f"store={store}"]
    return [sys.executable, "run.py", *sweep, *more, "-m"]


def start(store: Path, *more: str) -> subprocess.Popen[str]:
    """The sweep on SLURM, begun."""
    given = {"units_per_job": 6, "poll_seconds": 0.5, "time_minutes": 60} | {
        word.removeprefix("launcher.").partition("=")[0]: word.partition("=")[2] for word in more
    }
    chosen = [f"launcher.{key}={value}" for key, value in given.items()]
    command, pipe = words(store, "hydra/launcher=slurm", *chosen), subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, text=True, preexec_fn=hear_interrupts, stdout=pipe, stderr=pipe)


def finish(command: subprocess.Popen[str], status: int = 0, limit_s: float = 300) -> str:
    """Everything that a command says, after it has ended as it should."""
    out, err = command.communicate(timeout=limit_s)
    assert command.returncode == status, out + err
    return out + err


def slurm(*command: str, check: bool = True) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout.strip()


def records(store: Path) -> list[UnitRecord]:
    """Of all runs of a store."""
    return [record for run in runs(store) for record in run.records()]


def attempts(store: Path) -> dict[str, dict[str, Any]]:
    """What is kept of each attempt, by its name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in store.glob("runs/*/*/*/*/*/attempts/*.json")}


def latents(store: Path) -> dict[tuple[str, int], str | None]:
    """Hash of each video's latents by prompt and seed."""
    return {(r.prompt, r.seed): r.latents_sha256 for r in records(store) if r.status == "ok"}


def tables(store: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of all tables, without speeds, which no two runs share."""
    files = {path.name: csv.DictReader(path.read_text(encoding="utf-8").splitlines()) for path in (store / "tables").glob("*.csv")}
    return {name: [{key: row[key] for key in row if not key.startswith("run_fps")} for row in rows] for name, rows in files.items()}


def running() -> list[str]:
    """Ids of the jobs that run now."""
    return slurm("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").split()


@dataclass(frozen=True)
class Maker:
    """A process that makes videos, and the job that it belongs to, as squeue names it."""

    pid: int
    job: str

    def state(self) -> str:
        """As the kernel has it: T is stopped; Z where it is dead or was never there."""
        try:
            return _stat(self.pid)[1]
        except FileNotFoundError:
            return "Z"

    def kill_job(self) -> None:
        """Kill it and its parents up to the daemon that started the job, the first of them first, so that nobody begins another."""
        pids = [self.pid]
        while _stat(parent := int(_stat(pids[-1])[2]))[0] != "slurmstepd":
            pids.append(parent)
        for pid in reversed(pids):
            with suppress(ProcessLookupError):  # it has left with its parent
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """Name, state, parent and so on of a process."""
    before, _, after = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
    return [before.partition("(")[2], *after.split()]


@contextmanager
def held(store: Path) -> Iterator[list[Maker]]:
    """Every process that makes videos, stopped when the first video is there: those with something left. They go on at the end.

    However fast or slow the machine, what a test does meanwhile falls into the middle of the work.
    """
    until(lambda: records(store) and running())
    makers = {}
    for name, attempt in attempts(store).items():
        names = attempt["slurm"]
        array = (names.get("array_job_id"), names.get("array_task_id"))
        makers[name] = Maker(attempt["pid"], "_".join(array) if None not in array else names["job_id"])
    living = {name: maker for name, maker in makers.items() if maker.state() != "Z"}
    _signal(living.values(), signal.SIGSTOP)
    try:
        until(lambda: all(maker.state() in "TZ" for maker in living.values()))
        made = Counter(record.attempt for record in records(store))
        working = [maker for name, maker in living.items() if made[name] < PROMPTS]
        assert working, "too late to disturb anything"
        yield working
    finally:
        _signal(living.values(), signal.SIGCONT)


def _signal(makers: Iterable[Maker], number: int) -> None:
    for maker in makers:
        with suppress(ProcessLookupError):
            os.kill(maker.pid, number)


@contextmanager
def closed() -> Iterator[None]:
    """The default partition starts nothing until the end."""
    slurm("scontrol", "update", "partitionname=low", "state=down")
    try:
        yield
    finally:
        slurm("scontrol", "update", "partitionname=low", "state=up")


def restarts(store: Path) -> int:
    """How often jobs of a store were started again, by what SLURM says."""
    names = [name for path in store.glob("slurm/*/launch.json") for name in json.loads(path.read_text(encoding="utf-8"))["jobs"]]
    shown = [slurm("scontrol", "-o", "show", "job", name) for name in names]
    return sum(int(count) for line in shown for count in re.findall(r"\bRestarts=(\d+)", line))
