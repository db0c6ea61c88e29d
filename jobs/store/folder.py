"""Writing to a run store: atomically, and never into another attempt's files. `eval.store.runs` reads it.

A kill loses only the unit in progress, because a unit's files are renamed into place before the
record that names them is appended, and every attempt appends to a file of its own.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from echo.files import content_digest, make_folder, name_part, sync_folder, write_atomic
from echo.scene import Prompt, prompt_digest
from eval.store.reading import content_of
from eval.store.records import (
    AskedFile,
    DamagedFile,
    Provenance,
    RunKey,
    Scorer,
    Spec,
    SweepEntry,
    SweepFile,
    Titled,
    UnitRecord,
    encoded,
    line_of,
)
from eval.store.runs import UNSCORED, Run, RunPlace
from jobs.spec.plan import Job
from jobs.store.claims import Claims
from jobs.store.provenance import pixel_code
from jobs.store.unwritable import StoreGone

ERROR_CHARACTERS = 4000
T = TypeVar("T")


def new_attempt() -> str:
    """A unique name that sorts by time."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


def _bytes_of(path: Path) -> bytes:
    with contextlib.suppress(OSError, DamagedFile):
        return content_of(path)
    return b""


class RunFolder:
    """The folder of one run."""

    def __init__(self, job: Job) -> None:
        config = job.config
        self.job = job
        place = RunPlace(config.backbone.name, config.task.name, config.method.name, config.seed, job.run_id)
        self.reader = Run(Path(config.store), place)
        self.place = str(place)
        self.path = self.reader.path

    def describe(self) -> None:
        """Write run.json, unless it is complete, and this command's request as the newest one; equal requests are kept once."""
        job, config = self.job, self.job.config
        try:
            _ = self.reader.spec
        except (FileNotFoundError, NotADirectoryError, DamagedFile):
            backbone = Titled(config.backbone.name, config.backbone.label)
            method = Titled(config.method.name, job.policy.label or config.method.name)
            spec = Spec(job.run_id, RunKey(**job.run_key), backbone, method, config.seed)
            write_atomic(self.path / "run.json", msgspec.json.format(encoded(spec), indent=1))
        content = encoded(self.wish())
        wishes = self.reader.asked()
        last = wishes[-1].name if wishes else ""
        same = [wish.name for wish in wishes if _bytes_of(self.path / "asked" / f"{wish.name}.json") == content]
        if not same or same[-1] != last:
            name = new_attempt()
            if name < last and last[:20].isdecimal():  # by a clock that was ahead: the newest request counts
                name = f"{int(last[:20]) + 1:020d}{name[20:]}"
            write_atomic(self.path / "asked" / f"{name}.json", content)
            for before in same:  # alternating commands leave two requests
                (self.path / "asked" / f"{before}.json").unlink(missing_ok=True)

    def wish(self) -> AskedFile:
        """This command's request: units, scoring, and names for people."""
        job, config = self.job, self.job.config
        return AskedFile(
            scores=job.scores_id,
            scorer=Scorer(config.eval.name, config.eval.label, job.scores_key),
            task=Titled(config.task.name, config.task.label),
            units={prompt.id: job.unit_id(prompt) for prompt in job.asked},
            prompts={prompt.id: prompt_digest(prompt, config.duration_scale) for prompt in job.asked},
        )

    @property
    def piece(self) -> tuple[str, str | None, str | None, int]:
        """The requested part of the run, since shards and other numbers of prompts share its folder."""
        return self.place, self.job.scores_id, self.job.config.shard, len(self.job.asked)

    def missing(self) -> tuple[Prompt, ...]:
        """The prompts of this job's shard without a finished unit that are to be tried."""
        settled = self.reader.settled(self.job.scores_id)
        whole, limit = settled.done.keys() - settled.spoilt.keys(), self.job.config.max_tries
        return tuple(
            prompt for prompt in self.job.mine if (unit := self.job.unit_id(prompt)) not in whole and settled.failures.get(unit, 0) < limit
        )

    def unfinished(self) -> tuple[Prompt, ...]:
        """The prompts of this job's shard without a finished unit with undamaged files."""
        settled = self.reader.settled(self.job.scores_id)
        whole = settled.done.keys() - settled.spoilt.keys()
        return tuple(prompt for prompt in self.job.mine if self.job.unit_id(prompt) not in whole)

    def again(self) -> list[str]:
        """Damaged files and records for which prompts of this job's shard are made again, a line for each."""
        settled = self.reader.settled(self.job.scores_id)
        units = {self.job.unit_id(prompt): prompt.id for prompt in self.job.mine}
        spoilt = [f"{self.job.title}: {units[unit]} is made again: {why}" for unit, why in settled.spoilt.items() if unit in units]
        return spoilt + [f"{self.job.title}: {line} is damaged and left out" for line in settled.damaged]

    def side(self, prompt: Prompt, ending: str) -> Path:
        """Path of a unit's file, for example its video."""
        return self.path / "units" / f"{name_part(prompt.id)}-{self.job.unit_id(prompt)[:8]}{ending}"


def write_sweep(store: Path, jobs: Sequence[Job], experiment: str | None) -> list[str]:
    """Record a command's request in the store, so that its tables can be made again.

    Jobs without scores replace no table: those of an experiment are recorded under a name of their own
    until the same is requested with scores.

    Returns the tables' names: `<task>`, or `<experiment>-<task>`.
    """
    by_task: dict[tuple[str, bool], list[Job]] = {}
    for job in jobs:
        if job.scores_id is not None or experiment:
            by_task.setdefault((job.config.task.name, job.scores_id is not None), []).append(job)
    names = []
    for (task, scored), members in sorted(by_task.items(), key=lambda item: not item[0][1]):
        name = f"{experiment}-{task}" if experiment else task
        unscored = store / "sweeps" / f"{name}{UNSCORED}.json"
        if scored:
            names.append(name)
            unscored.unlink(missing_ok=True)
        wishes = [SweepEntry(path=folder.place, **msgspec.structs.asdict(folder.wish())) for folder in map(RunFolder, members)]
        content = msgspec.json.encode(SweepFile(experiment, task, wishes))
        write_atomic(store / "sweeps" / f"{name}.json" if scored else unscored, msgspec.json.format(content, indent=1))
    return names


class Attempt:
    """One start of a job: its provenance, and its own file of records."""

    def __init__(self, folder: RunFolder, name: str, provenance: Provenance) -> None:
        self.folder = folder
        self.name = name
        self.claims = Claims(folder.path, name)
        self._provenance = provenance
        write_atomic(folder.path / "attempts" / f"{name}.json", msgspec.json.format(encoded(provenance), indent=1))
        path = folder.path / "records" / f"{name}.jsonl"
        make_folder(path.parent)
        self._clear()
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            sync_folder(path.parent)
        except OSError:
            os.close(self._handle)
            raise

    def _clear(self) -> None:
        """Remove temporary files of killed processes."""
        with contextlib.suppress(FileNotFoundError):
            parts = [entry for entry in os.scandir(self.folder.reader.units) if entry.name.startswith(".")]
            living = self.claims.holders(self.claims.starts())  # queried afterwards: a living process claims a unit before writing
            for part in parts:
                if not any(f"-{unit[:8]}." in part.name for unit in living):
                    Path(part.path).unlink(missing_ok=True)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *_: object) -> None:
        """Release the file and the units; records are already on disk."""
        self.claims.release(self.claims.held)
        os.close(self._handle)

    def hopeful_first(self, groups: Iterable[tuple[T, Sequence[Prompt]]]) -> list[tuple[T, Sequence[Prompt]]]:
        """Batches in the order to try them: those with unfinished starts come last, so that they block no other."""
        starts, unit = self.claims.starts(), self.folder.job.unit_id
        return sorted(groups, key=lambda row: max(starts.get(unit(prompt), 0) for prompt in row[1]))

    def take(self, prompts: Sequence[Prompt], left: Callable[[Sequence[Prompt]], Sequence[Prompt]] | None = None) -> list[Prompt]:
        """Claim the prompts that are still to be done and that no other process has claimed; returns them.

        left: returns which prompts are to be done, called after claiming; by default those without a finished unit.
        """
        unit = self.folder.job.unit_id
        own = [prompt for prompt in prompts if self.claims.take(unit(prompt))]
        still = (self.folder.missing() if left is None else left(own)) if own else ()
        self.release([prompt for prompt in own if prompt not in still])
        return [prompt for prompt in own if prompt in still]

    def holds(self, prompt: Prompt) -> bool:
        """Whether a prompt is claimed."""
        return self.folder.job.unit_id(prompt) in self.claims.held

    def release(self, prompts: Sequence[Prompt]) -> None:
        """Release claimed prompts."""
        self.claims.release(map(self.folder.job.unit_id, prompts))

    def filmed(self, prompt: Prompt, facts: Mapping[str, Any]) -> None:
        """Record a finished video without scores; see `ok`."""
        if not self._lost(prompt):
            self._append(prompt, "ok", {**self._measured(facts), "scores": None})

    def ok(self, prompt: Prompt, metrics: Mapping[str, float | None], facts: Mapping[str, Any]) -> bool:
        """Record a finished unit; returns whether it was still this attempt's. Call it after all files of the unit are in place.

        Args:
            prompt: the unit's prompt.
            metrics: score by name; one that is not finite is stored as null and flagged.
            facts: `latents_sha256`, durations, speeds and names of files; sizes and digests of those that were made before.
        """
        finite = {name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()}
        flags = sorted(name for name, value in finite.items() if value is None)
        if self._lost(prompt):
            return False  # this process paused for so long that another has taken over
        self._append(prompt, "ok", {"metrics": finite, "flags": flags, **self._measured(facts)})
        return True

    def _measured(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Facts of a unit, with size and digest of each new file."""
        sizes, digests = dict(facts.get("sizes", {})), dict(facts.get("digests", {}))
        for kind, name in facts.get("files", {}).items():
            if kind not in digests:
                path = self.folder.reader.units / name
                sizes[kind], digests[kind] = path.stat().st_size, content_digest(path)
        return {**facts, "sizes": sizes, "digests": digests}

    def error(self, prompt: Prompt, message: str, trace: str) -> None:
        """Record a failed unit, with its traceback in a file, unless another process has claimed it by now."""
        if self._lost(prompt):
            return
        name = f"{self.folder.job.unit_id(prompt)}-{self.name}.txt"
        write_atomic(self.folder.path / "errors" / name, trace.encode())
        self._append(prompt, "error", {"err": message[:ERROR_CHARACTERS], "trace": f"errors/{name}"})

    def _lost(self, prompt: Prompt) -> bool:
        """Whether another process has claimed a unit by now. Raises StoreGone if the store is gone."""
        self._there()
        return self.claims.lost(self.folder.job.unit_id(prompt))

    def _there(self) -> Path:
        """The file of records. Raises StoreGone if it was replaced or deleted; it is not created again."""
        path = self.folder.path / "records" / f"{self.name}.jsonl"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.stat(path), os.fstat(self._handle)):
                return path
        raise StoreGone(path)

    def _append(self, prompt: Prompt, status: Literal["ok", "error"], rest: Mapping[str, Any]) -> None:
        job = self.folder.job
        own: dict[str, Any] = {"unit": job.unit_id(prompt), "run": job.run_id, "prompt": prompt.id, "seed": job.config.seed}
        start = {"attempt": self.name, "host": self._provenance.host, "device": self._provenance.device, "scores": job.scores_id}
        start["pixel_code"] = pixel_code()
        content = line_of(UnitRecord(**{"metrics": {}, **own, **start, **rest}, status=status, t=round(time.time(), 3)))
        path = self._there()
        written = os.write(self._handle, content)
        if written < len(content):  # the disk is full: remove the partial line, so that no later record is appended to it
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(self._handle)
