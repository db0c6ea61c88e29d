"""Reading a run store: runs, their requests, and their records. It needs no torch and writes nothing."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple

from echo.files import content_digest, inside
from echo.refusals import PART, nearest_of
from eval.store.reading import content_of, leave_out, names_in, read
from eval.store.records import (
    PLACE,
    RENDER,
    VERSION,
    AskedFile,
    DamagedFile,
    DamagedLine,
    Line,
    Provenance,
    ScoresFile,
    Spec,
    SweepFile,
    TraceLine,
    UnitRecord,
    decoded,
    lines_of,
)  # fmt: skip


class Asked(AskedFile, kw_only=True):
    """A request in a store. name: of its file, which sorts by time; for a sweep's requests, the sweep's name."""

    name: str

    @classmethod
    def of(cls, wish: AskedFile, name: str) -> Asked:
        """A request with its name."""
        return cls(scores=wish.scores, scorer=wish.scorer, task=wish.task, units=wish.units, prompts=wish.prompts, name=name)


class RunPlace(NamedTuple):
    """A run's place in a store."""

    backbone: str
    task: str
    method: str
    seed: int
    run: str

    def __str__(self) -> str:
        """Its folder below the folder `runs`."""
        return f"{self.backbone}/{self.task}/{self.method}/seed={self.seed}/{self.run}"

    @classmethod
    def of(cls, path: str | Path) -> RunPlace:
        """The place of a run's folder, from the last five parts of its path. Raises DamagedFile for any other folder."""
        parts = str(path).split("/")[-5:]
        seed = parts[-2].removeprefix("seed=") if re.match(f"{PLACE}\\Z", "/".join(parts)) else ""
        if parts[-2:-1] == [f"seed={seed}"] and seed.isdecimal() and seed.isascii() and len(seed) < 20:
            return cls(parts[0], parts[1], parts[2], int(seed), parts[4])
        raise DamagedFile(f"{path}: no folder of a run, which is called BACKBONE/TASK/METHOD/seed=N/RUN")


@dataclass
class Settled(Generic[Line]):
    """The outcome of all records of a run."""

    done: dict[str, Line] = field(default_factory=dict)  # unit id -> first ok record
    failures: dict[str, int] = field(default_factory=dict)  # unit id -> number of error records, without units that are done
    conflicts: list[str] = field(default_factory=list)  # units computed twice with different outcomes
    made: set[str] = field(default_factory=set)  # unit ids of videos that exist, however scored
    spoilt: dict[str, str] = field(default_factory=dict)  # id of a unit that is done -> what is wrong with a file, if files were checked
    damaged: list[DamagedLine] = field(default_factory=list)  # without those of units that are done, since these were made again


@dataclass(frozen=True)
class Run:
    """A run of a store."""

    store: Path
    place: RunPlace
    unreadable: dict[str, None] = field(default_factory=dict, compare=False, repr=False)
    """A line per file that was left out so far because it cannot be read."""

    @cached_property
    def path(self) -> Path:
        """Its folder."""
        return self.store / "runs" / str(self.place)

    @cached_property
    def units(self) -> Path:
        """The folder of its videos, traces and scores."""
        return self.path / "units"

    @property
    def exists(self) -> bool:
        """Whether it was begun."""
        return os.path.lexists(f"{self.path}/run.json")

    @property
    def there(self) -> bool:
        """Whether it was begun; with a warning, False if its run.json is damaged or has another seed."""
        try:
            return bool(self.spec)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except DamagedFile as error:
            self.leave_out(f"{error}; the run is left out")
            return False

    @cached_property
    def spec(self) -> Spec:
        """Content of run.json. Raises DamagedFile if it is damaged or has another seed, and FileNotFoundError if the run was not begun."""
        path = self.path / "run.json"
        spec = decoded(content_of(path), Spec, path)
        if spec.seed != self.place.seed:
            raise DamagedFile(f"{path}: is of seed={spec.seed}, which its folder is not called")
        return spec

    def leave_out(self, line: str) -> None:
        """Record a line about an unreadable file, and warn."""
        self.unreadable[line] = None
        leave_out(line)

    @property
    def calibration(self) -> bool:
        """Whether it was rendered, decided by its policy and not by the preset's name."""
        return bool(self.spec.key.pixels.get("method.policy") == RENDER)

    def asked(self) -> list[Asked]:
        """All requests, oldest first."""
        folder = self.path / "asked"
        wishes = {name: read(folder / name, AskedFile, self.leave_out) for name in names_in(folder, ".json", self.leave_out)}
        return [Asked.of(wish, name.removesuffix(".json")) for name, wish in wishes.items() if wish is not None]

    def attempts(self) -> dict[str, Provenance]:
        """Provenance of every start by its name, oldest first; damaged files are left out."""
        names = names_in(self.path / "attempts", ".json", self.leave_out)
        return {name.removesuffix(".json"): self.attempt(name.removesuffix(".json")) for name in names}

    def attempt(self, name: str) -> Provenance:
        """Provenance of a start; an empty one if its file is gone or damaged."""
        path = self.below(f"attempts/{name}.json")
        return (path and read(path, Provenance, self.leave_out)) or Provenance()

    @property
    def prompt_set(self) -> str:
        """The file of its prompts, from its last start that names one; empty if none does."""
        return next((start.prompt_set for start in reversed(self.attempts().values()) if start.prompt_set), "")

    def below(self, name: str) -> Path | None:
        """The path of a file in its folder; None, with a warning, for a name that leads out of it."""
        try:
            return inside(self.path, name)
        except ValueError as error:
            self.leave_out(f"{error}; it is left out")
            return None

    @cached_property
    def _links(self) -> frozenset[str] | None:
        """Names of links in its folder of videos; None if the folder itself is a link."""
        if os.path.islink(self.units):
            return None
        with contextlib.suppress(OSError), os.scandir(self.units) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
        return frozenset()

    def side(self, record: UnitRecord, kind: str) -> Path | None:
        """Path of a file of a unit, for example its "scores"; None if the record names none, or one that leads out of the run."""
        name, links = record.files.get(kind), self._links
        if name is None:
            return None
        leads = links is None or name in links or "/" in name or "\0" in name or name in ("", ".", "..")
        return self.below(f"units/{name}") if leads else self.units / name

    def record_files(self) -> list[str]:
        """Sorted paths of its files of records."""
        return [f"{self.path}/records/{name}" for name in names_in(f"{self.path}/records", ".jsonl", self.leave_out)]

    def records(self) -> list[UnitRecord]:
        """All complete records in the order of their time; damaged lines, and one torn by a crash, are skipped.

        Raises:
            UnknownVersion: a newer version of this project wrote a record.
        """
        return self.lines(UnitRecord)[0]

    def lines(self, kind: type[Line]) -> tuple[list[Line], list[DamagedLine]]:
        """All complete records, with the fields of `kind`, and damaged lines; see `records`."""
        lines, damaged = list[Line](), list[DamagedLine]()
        for path in self.record_files():
            try:
                records, others = lines_of(content_of(path), kind, Path(path))
            except FileNotFoundError:
                continue
            except DamagedFile as error:
                self.leave_out(f"{error}; its records are left out")
                continue
            lines += records
            damaged += others
        for record in lines:
            record.v = VERSION
        return sorted(lines, key=lambda record: record.t), damaged

    def settled(self, scores: str | None) -> Settled[UnitRecord]:
        """Units that are done under a way of scoring, and those whose files have other sizes than recorded.

        scores: None accepts a video however it was scored.
        """
        records, damaged = self.lines(UnitRecord)
        settled = settle(records, damaged, scores)
        wrong = self.amiss(records)
        settled.spoilt = {unit: why for unit, record in settled.done.items() if (why := first_amiss(record, wrong))}
        again = Counter(record.unit for record in records if _failed_again(record, settled, scores))
        settled.failures |= again
        return settled

    def amiss(self, records: Iterable[UnitRecord], contents: bool = False) -> dict[str, str]:
        """File name -> what is wrong with it: it is missing, or it differs from the last record of it.

        contents: whether to read the files, for differences that sizes do not show.
        """
        last = dict[str, tuple[int | None, str | None]]()
        for record in records:
            if record.ok:
                last |= {name: (record.sizes.get(kind), record.digests.get(kind)) for kind, name in record.files.items()}
        try:
            every = (entry for entry in os.scandir(self.units) if entry.name in last and entry.is_file(follow_symlinks=False))
            there = {entry.name: entry.stat().st_size for entry in every}
        except FileNotFoundError:
            there = {}
        wrong = dict[str, str]()
        for name, (size, digest) in last.items():
            if name not in there:
                wrong[name] = "is gone"
            elif size not in (None, there[name]):
                wrong[name] = f"has {there[name]} bytes, {size} were written"
            elif contents and digest not in (None, content_digest(self.units / name)):
                wrong[name] = "is not what was written"
        return wrong


def first_amiss(record: UnitRecord, wrong: Mapping[str, str]) -> str:
    """The first of a record's files that is wrong by `Run.amiss`, and how; empty if all are right."""
    return next((f"{name} {wrong[name]}" for name in record.files.values() if name in wrong), "")


def _failed_again(record: UnitRecord, settled: Settled[UnitRecord], scores: str | None) -> bool:
    """Whether it is an error of a unit that was done before and whose files have changed since."""
    asked = scores is None or record.scores == scores
    return asked and not record.ok and record.unit in settled.spoilt and record.t >= settled.done[record.unit].t


def settle(records: Iterable[Line], damaged: Iterable[DamagedLine], scores: str | None) -> Settled[Line]:
    """The outcome of a run's records in the order of time: the first ok record of a unit counts.

    Args:
        records: complete records.
        damaged: damaged lines.
        scores: id of the way of scoring; None accepts a video however it was scored.
    """
    result = Settled[Line]()
    latents: dict[str, str] = {}
    for record in records:
        unit, ok = record.unit, record.status == "ok"
        if ok and latents.setdefault(unit, record.latents_sha256) != record.latents_sha256:
            result.conflicts.append(f"{record.prompt} seed={record.seed}: other latents in attempt {record.attempt}")
        if ok:
            result.made.add(unit)
        if scores is not None and record.scores != scores:
            continue
        if not ok:
            result.failures[unit] = result.failures.get(unit, 0) + 1
        elif unit not in result.done:
            result.done[unit] = record
        elif result.done[unit].metrics != record.metrics:
            result.conflicts.append(f"{record.prompt} seed={record.seed}: other scores in attempt {record.attempt}")
    for unit in result.done:
        result.failures.pop(unit, None)
    result.damaged = [line for line in damaged if line.unit not in result.done]
    return result


def runs(store: Path, pattern: str = "*/*/*/seed=*/*") -> Iterator[Run]:
    """Runs of a store whose place matches a pattern, sorted by path. Unreadable ones are left out."""
    folders = [f"{store}/runs"]
    for wanted in pattern.split("/"):
        folders = [f"{folder}/{name}" for folder in folders for name in fnmatch.filter(names_in(folder), wanted)]
    for folder in folders:
        try:
            os.lstat(f"{folder}/run.json")
        except (FileNotFoundError, NotADirectoryError):  # a foreign folder, or a run that was not begun
            continue
        except OSError:
            pass  # the reader of run.json warns
        try:
            run = Run(store, RunPlace.of(folder))
        except DamagedFile as error:
            leave_out(f"{error}; it is left out")
            continue
        if run.there:
            yield run


def existing(store: Path) -> Path:
    """The path of an existing store. Raises ValueError in one line for any other folder, and for one that may not be read."""
    try:
        os.listdir(store / "runs")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"--store {store}: no run store; it has no folder runs") from None
    except OSError as error:
        raise ValueError(f"--store {store}: {store / 'runs'} cannot be read ({error.strerror})") from None
    return store


def known(key: str, values: Iterable[str], there: Iterable[str], lack: str) -> None:
    """Raise ValueError in one line for a value that is not in `there`. lack: what the store lacks, in words."""
    choices = sorted(there)
    for value in values:
        if value not in choices:
            tail = nearest_of(value, choices) if choices else "it has none at all"
            raise ValueError(f"{key}{value}: {lack}; {tail}")


def tasks(store: Path) -> list[str]:
    """Tasks of a store's runs."""
    return sorted({run.place.task for run in runs(store)})


UNSCORED = "-unscored"
"""Ending of the name of an experiment's sweep that requested videos without scores after its last sweep with scores, if any."""


@dataclass(frozen=True)
class Sweep:
    """All requests of one command for one task, which its table shows, in the order of the command."""

    name: str
    experiment: str | None
    task: str
    wishes: tuple[tuple[Run, Asked], ...]

    @property
    def scored(self) -> bool:
        """Whether it requested scores, so that it has a table."""
        return any(wish.scores is not None for _, wish in self.wishes)


def sweeps(store: Path) -> Iterator[Sweep]:
    """The last sweep of every name, sorted by name."""
    for path in (store / "sweeps" / name for name in names_in(store / "sweeps", ".json")):
        content = read(path, SweepFile, lost="its table")
        if content is None or not re.match(PART, path.stem):
            continue
        for before, wish in zip(content.runs, content.runs[1:]):
            if wish.prompts == before.prompts:  # share one copy among all runs of a large sweep
                wish.prompts = before.prompts
        wishes = [(Run(store, RunPlace.of(wish.path)), Asked.of(wish, path.stem)) for wish in content.runs]
        yield Sweep(path.stem, content.experiment, content.task, tuple(wishes))


def scores_of(path: Path | None) -> ScoresFile:
    """The content of a file of scores; empty if there is none or, with a warning, if it is damaged."""
    return (path and read(path, ScoresFile)) or ScoresFile()


def traced(path: Path) -> list[TraceLine]:
    """The lines of a video's trace, one per block. Raises FileNotFoundError and DamagedFile."""
    return [decoded(line, TraceLine, path) for line in content_of(path).splitlines() if line]


def scenes_of(path: Path | None) -> list[int]:
    """The scene of each block, from a video's trace; empty if there is no trace or, with a warning, if it is damaged."""
    try:
        scenes = [line.scene for line in traced(path)] if path else []
        if path and not scenes:
            raise DamagedFile(f"{path}: it is empty")
        return scenes
    except (FileNotFoundError, NotADirectoryError):
        return []
    except DamagedFile as error:
        leave_out(f"{error}; it is left out")
        return []


def flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings by dotted path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{where}{key}.")
        else:
            yield where + key, value
