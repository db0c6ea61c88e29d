"""A sweep as SLURM jobs, through submitit: divided into jobs, submitted as arrays, and waited for.

The run store decides what is missing and what is done; SLURM is only asked whether jobs are still pending or running. Every launch has
a folder `<store>/slurm/<time>-<random>`, with submitit's files, the jobs' logs and `launch.json`, from which a later command knows
what is already submitted.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from echo.files import ROOT, write_atomic
from echo.settings import build
from eval.store.reading import names_in, read
from eval.store.records import Count
from jobs.launch import local
from jobs.launch.slurm import queue as slurm_queue
from jobs.launch.slurm import split
from jobs.launch.slurm import wait as slurm_wait
from jobs.launch.slurm.job import JobPart, SlurmWork, untried
from jobs.launch.slurm.split import Piece
from jobs.spec.config import Plain, at_least
from jobs.spec.plan import Job
from jobs.store.folder import RunFolder
from jobs.work.progress import say
from jobs.work.scratch import SCRATCH

ENDLESS = 10000
"""Number of time limits after which submitit would give up; jobs count their own fruitless starts instead."""
ALWAYS = (
    f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
    "export SLURM_OPEN_MODE=append",  # a restarted job keeps the log of its first start
    'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi',  # SLURM 22.05 forgets it
)


class LaunchFile(msgspec.Struct):
    """A launch's record of its submitted jobs. jobs: pieces by a job's name: run, title, shard, requested prompts, units."""

    jobs: dict[str, list[tuple[str, str, str | None, Count, Count]]]


@dataclass(frozen=True)
class SlurmSettings:
    """The launcher's settings: `conf/hydra/launcher/slurm.yaml`, `conf/launcher/*.yaml` and `launcher.x=y`."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gpus: int
    cpus: int
    memory_gb: float | None
    time_minutes: int
    warn_seconds: int
    max_parallel: int | None
    units_per_job: int | None
    target_minutes: float
    wait: bool
    poll_seconds: float
    extra: Mapping[str, Any]
    setup: tuple[str, ...] = ()
    gpu_type: str | None = None
    max_queued: int | None = None
    python: str | None = None
    scratch: str | None = None

    def __post_init__(self) -> None:
        least = {"gpus": 0, "cpus": 1, "time_minutes": 1, "warn_seconds": 1, "max_parallel": 1, "units_per_job": 1, "max_queued": 1}
        for name, bound in least.items():
            at_least(f"launcher.{name}", getattr(self, name), bound)
        for name in ("memory_gb", "target_minutes", "poll_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"launcher.{name}={value}: it is above 0")
        if self.gpu_type and not self.gpus:
            raise ValueError(f"launcher.gpu_type={self.gpu_type}: of launcher.gpus=0 cards; nearest is launcher.gpus=1")
        if self.warn_seconds >= 60 * self.time_minutes:
            raise ValueError(
                f"launcher.warn_seconds={self.warn_seconds}: jobs of launcher.time_minutes={self.time_minutes} would be told to end when "
                f"they begin; nearest is {60 * self.time_minutes - 1}"
            )
        if self.units_per_job is None and self.target_minutes > self.time_minutes:
            raise ValueError(
                f"launcher.target_minutes={self.target_minutes:g}: SLURM ends jobs after launcher.time_minutes={self.time_minutes}; "
                f"nearest is {self.time_minutes}"
            )


def settings(values: Mapping[str, Any]) -> SlurmSettings:
    """The launcher's settings from plain values. Raises ValueError in one line for a wrong one."""
    lines, extra = values.get("setup") or [], values.get("extra") or {}
    if not isinstance(extra, Mapping):
        raise ValueError(f"launcher.extra={extra}: names and values are expected, for example launcher.extra={{reservation:NAME}}")
    if not isinstance(lines, Sequence) or isinstance(lines, str) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"launcher.setup={lines}: a list of lines of shell is expected, for example launcher.setup=['module load cuda']")
    return build(SlurmSettings, {**values, "setup": lines, "extra": extra}, "launcher.")


class Launch:
    """All jobs of one command on SLURM.

    sent: whether the last `submit` submitted anything itself.
    """

    def __init__(self, jobs: Sequence[Job], plain: Sequence[Mapping[str, Any]], settings: SlurmSettings) -> None:
        """jobs: checked jobs; plain: their configs. Raises ValueError without SLURM."""
        self._settings = settings
        stores = sorted({job.config.store for job in jobs})
        if len(stores) > 1:
            raise ValueError(f"store={','.join(stores)}: jobs on SLURM share one store; nearest is store={stores[0]}")
        near = re.sub(r"[%\\\n]", "-", place := str(Path(stores[0]).absolute()))
        if near != place:
            rule = "SLURM reads % and \\ in a log's path as its own signs, and logs lie below the store"
            raise ValueError(f"store={place!r}: {rule}; nearest is store={near}")
        runs = ((folder, frozen(config, folder.job)) for folder, config in zip(map(RunFolder, jobs), plain))
        self._runs = list({run[0].piece: run for run in runs}.values())  # equal requests are merged, but not shards and other scores
        self.sent = False
        self.store = Path(jobs[0].config.store).absolute()
        try:
            self._most = slurm_queue.most_in_array()
        except slurm_queue.Unreachable as error:
            raise ValueError(f"hydra/launcher=slurm: no SLURM answers here ({error}); nearest is hydra/launcher=local") from error

    @property
    def folders(self) -> list[RunFolder]:
        """The runs of the command, each once."""
        return [folder for folder, _ in self._runs]

    def submit(self) -> dict[str, Sequence[Piece]]:
        """Submit what is missing and not yet submitted; returns all jobs to wait for, those of earlier commands included, by id.

        Raises SystemExit with sbatch's message if sbatch fails.
        """
        for folder in self.folders:
            folder.describe()
        waiting = self._under_way()
        measure = split.measure([folder.job for folder in self.folders], self._settings.units_per_job, self._settings.target_minutes)
        cuts = []
        for folder, config in self._runs:
            indices = {prompt.id: index for index, prompt in enumerate(folder.job.asked)}
            pieces = [piece for pack in waiting.values() for piece in pack if piece.run == folder.place]
            todo = [prompt for prompt in folder.missing() if not any(piece.covers(indices[prompt.id]) for piece in pieces)]
            if todo:
                cuts += [(folder.job, piece, cost) for piece, cost in split.cut(folder, config, todo, measure)]
        every = split.packed(cuts, measure.most)
        packs = every if self._settings.max_queued is None else every[: max(0, self._settings.max_queued - len(waiting))]
        if waiting:
            theirs = counted(len(waiting), "job")
            say(f"{theirs} of earlier commands on the way to the same videos; not submitted again: {arrays(waiting)}")
        if packs:
            videos = sum(piece.units for pack in packs for piece in pack)
            say(f"{counted(videos, 'video')} in {counted(len(packs), 'job')}; {measure.line}")
        if len(packs) < len(every):
            later = "when these have ended" if self._settings.wait else "when this command is given again"
            say(f"launcher.max_queued={self._settings.max_queued}: {counted(len(every) - len(packs), 'more job')} {later}")
        self.sent = bool(packs)
        return waiting | (self._send(packs) if packs else {})

    def _under_way(self) -> dict[str, Sequence[Piece]]:
        """Queued jobs of earlier launches that work on this command's runs, with their pieces."""
        runs = {folder.place for folder in self.folders}
        try:
            queue = slurm_queue.queue()
        except slurm_queue.Unreachable:
            return {}
        waiting: dict[str, Sequence[Piece]] = {}
        for launch in names_in(self.store / "slurm"):
            kept = read(self.store / "slurm" / launch / "launch.json", LaunchFile)
            for name, pieces in kept.jobs.items() if kept is not None else ():
                own = [Piece(*piece) for piece in pieces if piece[0] in runs] if name in queue else []
                if own:
                    waiting[name] = own
        return waiting

    def _send(self, packs: Sequence[Sequence[Piece]]) -> dict[str, Sequence[Piece]]:
        """Submit arrays of as many jobs as SLURM allows."""
        folder = self.store / "slurm" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        names: dict[str, Sequence[Piece]] = {}
        sent: list[str] = []
        for start in range(0, len(packs), self._most):
            chunk = packs[start : start + self._most]
            try:
                ids = self._array(folder, chunk, sent[-1] if sent and self._settings.max_parallel else None)
            except RuntimeError as error:
                done = f"; jobs {' '.join(sent)} are submitted" if sent else ""
                raise SystemExit(f"hydra/launcher=slurm: sbatch refuses: {_words(error)}{done}") from error
            sent.append(arrays(ids))
            names |= dict(zip(ids, chunk))
            kept = {name: [[p.run, p.title, p.shard, p.asked, p.units] for p in pack] for name, pack in names.items()}
            write_atomic(folder / "launch.json", json.dumps({"v": 1, "argv": sys.argv, "jobs": kept}).encode())
        say(f"submitted {'array' if len(packs) > 1 else 'job'} {arrays(names)}; logs: {folder}")
        return names

    def _array(self, folder: Path, packs: Sequence[Sequence[Piece]], after: str | None) -> list[str]:
        import submitit

        chosen = self._settings
        parts = [self._part(pack, folder) for pack in packs]
        with slurm_queue.clean_environment():
            executor = submitit.SlurmExecutor(folder, max_num_timeout=ENDLESS, python=chosen.python)
            executor.update_parameters(**parameters(chosen, len(packs)), **({"dependency": f"afterany:{after}"} if after else {}))
            return [job.job_id for job in executor.map_array(SlurmWork(), parts)]

    def _part(self, pack: Sequence[Piece], folder: Path) -> JobPart:
        configs = tuple({**piece.config, "store": str(self.store)} for piece in pack)
        return JobPart(tuple(piece.wanted for piece in pack), configs, tuple(sys.argv), str(folder), self._settings.time_minutes)


def run(jobs: Sequence[Job], plain: Sequence[Mapping[str, Any]], settings: SlurmSettings) -> list[str] | None:
    """Make everything that is missing of checked jobs on SLURM, and again what killed jobs left, as long as that makes progress.

    Returns one line for each missing or failed thing, empty when every unit is done; None if jobs are submitted without waiting.

    Raises:
        ValueError: without SLURM.
        SystemExit: if sbatch fails.
        KeyboardInterrupt: the jobs continue.
    """
    launch = Launch(jobs, plain, settings)
    before = untried(launch.folders)
    names = launch.submit()
    if names and not settings.wait:
        return None
    while names:
        try:
            slurm_wait.wait(launch.store, launch.folders, names, settings.poll_seconds)
        except KeyboardInterrupt:
            say(f"the jobs go on without this command, and the same command waits for them again; scancel {arrays(names)} ends them")
            raise
        left = untried(launch.folders)
        if not left or launch.sent and left >= before:  # if other commands' jobs made no progress, this command submits its own
            break
        before = left
        names = launch.submit()
    return [line for folder in launch.folders for line in local.lacks(folder)]


def frozen(config: Mapping[str, Any], job: Job) -> Plain:
    """A config with `auto` resolved at submission, so that a node names the same run."""
    plain, parts = dict(config), job.config.backbone.parts
    if parts is not None:
        chosen = {"device": parts.device, "text_device": parts.text_device, "kernel": parts.kernel}
        backbone = dict(plain["backbone"])
        plain["backbone"] = backbone | {"parts": dict(backbone["parts"]) | chosen}
    return plain


def parameters(chosen: SlurmSettings, jobs: int) -> Plain:
    """The settings as submitit's parameters, for an array of `jobs` jobs."""
    named: Plain = {
        "job_name": "echo", "partition": chosen.partition, "account": chosen.account, "qos": chosen.qos, "constraint": chosen.constraint,
        "cpus_per_task": chosen.cpus, "time": chosen.time_minutes, "signal_delay_s": chosen.warn_seconds,
        "array_parallelism": chosen.max_parallel or jobs, "nodes": 1, "ntasks_per_node": 1,
        "gpus_per_node": f"{chosen.gpu_type}:{chosen.gpus}" if chosen.gpu_type else chosen.gpus or None,
        "mem": None if chosen.memory_gb is None else f"{round(chosen.memory_gb * 1024)}M",
        "additional_parameters": {"requeue": True, **chosen.extra}, "setup": [*ALWAYS, *_scratch(chosen.scratch), *chosen.setup],
    }  # fmt: skip
    return {key: value for key, value in named.items() if value is not None}


def _scratch(place: str | None) -> tuple[str, ...]:
    """Lines of shell that name a job's scratch disk, as its node knows it, to Python and to a container, which must see it too."""
    bind = 'export APPTAINER_BIND="$ECHO_SCRATCH${APPTAINER_BIND:+,$APPTAINER_BIND}"'
    return () if place is None else (f'export {SCRATCH}="{place}"', bind)


def arrays(names: Iterable[str]) -> str:
    """Ids of some jobs for `scancel`: each array once."""
    return " ".join(dict.fromkeys(name.partition("_")[0] for name in names))


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _words(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("sbatch: error")]
    return (said or lines or ["nothing is said"])[0].removeprefix("sbatch: error: ")
