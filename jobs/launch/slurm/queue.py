"""State of jobs according to SLURM, and a clean environment to submit from. SLURM's answers never decide about results."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INHERITED = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SUBMITIT_", "PMI_", "PMIX_")
"""Prefixes of variables of an outer job, which would give inner jobs wrong cores, memory or nodes."""
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")
CARDS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""Variables for the GPUs of an outer job."""
VIEWS = ("SQUEUE_", "SACCT_")
"""Prefixes of variables with which users change the output of those commands."""
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
    """Remove the variables of an outer job within the block."""
    outer = "SLURM_JOB_ID" in os.environ
    gone = [name for name in os.environ if name.startswith(INHERITED) and name not in KEPT or outer and name in CARDS]
    kept = {name: os.environ.pop(name) for name in gone}
    try:
        yield
    finally:
        os.environ.update(kept)


def ask(words: Sequence[str]) -> str:
    """Output of a SLURM command. Raises Unreachable if it fails."""
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
    """The user's pending, running and ending jobs, each array task separately (`<array>_<task>`), hidden ones too. Raises Unreachable."""
    entries = {}
    for line in ask(["squeue", "-h", "-a", "-r", "-u", str(os.getuid()), "-o", "%i|%T|%r|%N"]).splitlines():
        name, state, reason, node = line.split("|", 3)
        entries[name] = QueueEntry(state, reason, node)
    return entries


def most_in_array() -> int:
    """Largest number of tasks of an array. Raises Unreachable."""
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask(["scontrol", "show", "config"]), flags=re.M)
    return max(1, int(limit[1])) if limit else 1001


def ending(name: str) -> tuple[str, str]:
    """State and exit code (`status:signal`) of an ended job, as far as SLURM still knows them."""
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
