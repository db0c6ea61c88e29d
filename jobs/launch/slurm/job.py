"""A SLURM job: it makes everything that is missing of its pieces, and may be started any number of times.

submitit's pickle holds no state, because an administrator's requeue or a lost node restarts the job
from the first pickle; what is left to do is read from the run store.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.launch import local
from jobs.launch.slurm import split
from jobs.spec.plan import Job, prepare
from jobs.store import unwritable
from jobs.store.claims import STALE_S
from jobs.store.folder import RunFolder

FRUITLESS_STARTS = 5
"""A job that was restarted this often without finishing a video will not finish any."""


class Incomplete(Exception):
    """Something is missing at the end of a job, which SLURM then shows as FAILED; a line for each thing."""


class SlurmWork:
    """The callable that submitit runs on a node, and resubmits after a time limit or preemption."""

    def __call__(self, part: JobPart) -> str:
        """Do a job; returns a line for submitit's result file. Raises Incomplete."""
        return part.make()

    def checkpoint(self, part: JobPart) -> Any:
        """Carries no state over, since the run store has the progress."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, part)


@dataclass(frozen=True)
class JobPart:
    """One job of a launch.

    wanted: digests that the configs must still have, see `split.wanted`. configs: pieces as plain values. argv: the user's command line.
    """

    wanted: tuple[str, ...]
    configs: tuple[Mapping[str, Any], ...]
    argv: tuple[str, ...]
    launch: str
    minutes: int

    def make(self) -> str:
        """Make what is missing; a word about it. Raises Incomplete."""
        sys.argv = list(self.argv)
        jobs = self._jobs()
        folders = [RunFolder(job) for job in jobs]
        store = jobs[0].config.store  # of all
        checked = False
        try:
            unwritable.check(store)
            checked = True
            self._fruitful(untried(folders))
            lacks = self._all(jobs, folders)
        except OSError as error:
            if checked and not unwritable.of_store(error):
                raise
            raise Incomplete(f"{unwritable.refusal(store, error)} (on {socket.gethostname()})") from error
        if lacks and ours(folders):
            raise Incomplete("\n".join(lacks))
        return "\n".join(["complete, as far as it is this job's", *lacks])

    def _jobs(self) -> list[Job]:
        try:
            jobs = [prepare(config) for config in self.configs]
        except ValueError as error:
            raise Incomplete(f"{error} (on {socket.gethostname()})") from error
        for job, wanted in zip(jobs, self.wanted, strict=True):
            if split.wanted(job) != wanted:
                raise Incomplete(
                    f"{job.title}: on {socket.gethostname()} this is something else than what was submitted; weights, prompts or "
                    "versions have changed since; give the command again"
                )
        return jobs

    def _all(self, jobs: Sequence[Job], folders: Sequence[RunFolder]) -> list[str]:
        """Make all pieces, and again as long as a pass after a killed process makes progress; returns what is missing then."""
        before = untried(folders)
        while True:
            lacks = local.run(jobs, [dict(config) for config in self.configs], places(jobs), STALE_S)
            left = untried(folders)
            if not left or left >= before:
                return lacks
            before = left

    def _fruitful(self, left: int) -> None:
        """Count starts; too many without a finished video end the job."""
        name = "_".join(os.environ.get(key, "0") for key in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"))
        path = Path(self.launch) / "starts" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"left": left, "host": socket.gethostname()}) + "\n")
        lines = path.read_text(encoding="utf-8").splitlines()
        starts = [json.loads(line)["left"] for line in lines if line.endswith("}")]
        if left and starts[-FRUITLESS_STARTS - 1 :] == [left] * (FRUITLESS_STARTS + 1):
            raise Incomplete(
                f"{FRUITLESS_STARTS} starts ended before one video was finished; launcher.time_minutes={self.minutes} may be too short "
                "for a video, or other jobs evict this one"
            )


def untried(folders: Sequence[RunFolder]) -> int:
    """Number of units that are missing and have not failed, as a kill can leave."""
    left = 0
    for folder in folders:
        failures = folder.reader.settled(folder.job.scores_id).failures
        left += sum(folder.job.unit_id(prompt) not in failures for prompt in folder.unfinished())
    return left


def ours(folders: Sequence[RunFolder]) -> bool:
    """Whether a unit is missing that no other living process has claimed."""
    others = local.held(folders)
    return any((folder.path, folder.job.unit_id(prompt)) not in others for folder in folders for prompt in folder.unfinished())


def places(jobs: Sequence[Job]) -> int | None:
    """Worker processes at a time: as many as the job's cores have threads for; None, which means one per GPU, if GPUs are used."""
    if any(job.config.backbone.parts is not None and job.config.backbone.parts.device == "cuda" for job in jobs):
        return None
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    return max(1, int(cpus) // max(job.config.backbone.threads for job in jobs))
