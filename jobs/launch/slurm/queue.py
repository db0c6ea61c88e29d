"""What SLURM says of jobs, and a clean environment to submit from. What it says is news for people, never the truth of results."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INHERITED = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SUBMITIT_", "PMI_", "PMIX_")
"""Beginnings of variables of an outer job, which would reach into the inner ones: wrong cores, wrong memory, wrong node."""
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")
CARDS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""Cards that an outer job was given."""
VIEWS = ("SQUEUE_", "SACCT_")
"""Beginnings of variables by which people choose what those commands show them."""
WAIT_S = 60


class Unreachable(Exception):
    """SLURM gave no answer; one line."""


@dataclass(frozen=True)
class QueueEntry:
    """A job in the queue."""

    state: str
    reason: str
    node: str


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    """Without the variables of an outer job, for as long as the block lasts."""
    outer = "SLURM_JOB_ID" in os.environ
    gone = [name for name in os.environ if name.startswith(INHERITED) and name not in KEPT or outer and name in CARDS]
    kept = {name: os.environ.pop(name) for name in gone}
    try:
        yield
    finally:
        os.environ.update(kept)


def ask(words: Sequence[str]) -> str:
    """What a command of SLURM prints. Raises Unreachable."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(VIEWS)}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"{words[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Unreachable(f"{words[0]}: {said[-1].removeprefix(f'{words[0]}: ') if said else f'exit status {done.returncode}'}")
    return done.stdout


def queue() -> dict[str, QueueEntry]:
    """The user's jobs that wait, run or end, each task of an array by itself (`<array>_<task>`), hidden ones too. Raises Unreachable."""
    entries = {}
    for line in ask(["squeue", "-h", "-a", "-r", "-u", str(os.getuid()), "-o", "%i|%T|%r|%N"]).splitlines():
        name, state, reason, node = line.split("|", 3)
        entries[name] = QueueEntry(state, reason, node)
    return entries


def most_in_array() -> int:
    """Tasks that one array may have. Raises Unreachable."""
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask(["scontrol", "show", "config"]), flags=re.M)
    return max(1, int(limit[1])) if limit else 1001


def ending(name: str) -> tuple[str, str]:
    """State and exit code (`status:signal`) of a job that has ended, as far as SLURM still knows."""
    with contextlib.suppress(Unreachable):
        lines = ask(["sacct", "-n", "-X", "-P", "-o", "State,ExitCode", "-j", name]).splitlines()
        if lines and "|" in lines[-1]:
            state, code = lines[-1].split("|", 1)
            return state, code
    with contextlib.suppress(Unreachable):
        lines = ask(["scontrol", "-o", "show", "job", name]).splitlines()
        fields = dict(re.findall(r"(\S+?)=(\S*)", lines[0])) if lines else {}
        return fields.get("JobState", "?"), fields.get("ExitCode", "?")
    return "?", "?"
