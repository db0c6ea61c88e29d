"""One small sweep on SLURM, and what tests do to it while it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from eval.records import runs
from jobs.config import ROOT
from tests.interrupts import hear_interrupts

UNITS = 12


def words(store: Path, *more: str) -> list[str]:
    """The command: six prompts, two seeds."""
    sweep = ["method=echo", "task=hard", "seed=0,1", "prompts=6", "duration_scale=0.35", f"store={store}"]
    return [sys.executable, "run.py", *sweep, *more, "-m"]


def start(store: Path, *more: str) -> subprocess.Popen[str]:
    """The sweep on SLURM, begun."""
    given = {"units_per_job": 6, "poll_seconds": 0.5, "time_minutes": 60} | {
        word.removeprefix("launcher.").partition("=")[0]: word.partition("=")[2] for word in more
    }
    chosen = [f"launcher.{key}={value}" for key, value in given.items()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words(store, "hydra/launcher=slurm", *chosen), cwd=ROOT, text=True, preexec_fn=hear_interrupts, **pipes)


def finish(command: subprocess.Popen[str], status: int = 0, limit_s: float = 300) -> str:
    """Everything that a command says, after it has ended as it should."""
    out, err = command.communicate(timeout=limit_s)
    assert command.returncode == status, out + err
    return out + err


def slurm(*command: str, check: bool = True) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout.strip()


def until(condition, limit_s: float = 120) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def records(store: Path) -> list[dict]:
    return [record for run in runs(store) for record in run.records()]


def attempts(store: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in store.glob("runs/*/*/*/*/*/attempts/*.json")]


def latents(store: Path) -> dict[tuple[str, int], str]:
    return {(r["prompt"], r["seed"]): r["latents_sha256"] for r in records(store) if r["status"] == "ok"}


def tables(store: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (store / "tables").glob("*.csv")}


def running() -> list[str]:
    """Ids of the jobs that run now."""
    return slurm("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").split()


def midway(store: Path) -> None:
    """Waits until something is done, something is running and something is left."""
    until(lambda: records(store) and running())
    assert len(records(store)) < UNITS, "too late to disturb anything"


def restarts(store: Path) -> int:
    """How often jobs of a store were started again, by what SLURM says."""
    names = [name for path in store.glob("slurm/*/launch.json") for name in json.loads(path.read_text(encoding="utf-8"))["jobs"]]
    shown = [slurm("scontrol", "-o", "show", "job", name) for name in names]
    return sum(int(count) for line in shown for count in re.findall(r"\bRestarts=(\d+)", line))
