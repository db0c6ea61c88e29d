"""Reading a run store: runs, what was asked of them, and their records. No torch; nothing is ever written here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple

from echo.files import content_digest
from echo.refusals import nearest_of
from eval.store.records import (
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
    """A wish as a store has it. name: of its file, which sorts by time; of a sweep's wishes the sweep's."""

    name: str

    @classmethod
    def of(cls, wish: AskedFile, name: str) -> Asked:
        """A wish with its name."""
        return cls(scores=wish.scores, scorer=wish.scorer, task=wish.task, units=wish.units, prompts=wish.prompts, name=name)


class RunPlace(NamedTuple):
    """Where a run stands in a store."""

    backbone: str
    task: str
    method: str
    seed: int
    run: str

    def __str__(self) -> str:
        """Its folder, from the folder `runs` on."""
        return f"{self.backbone}/{self.task}/{self.method}/seed={self.seed}/{self.run}"

    @classmethod
    def of(cls, path: str | Path) -> RunPlace:
        """The place of a run's folder, by the last five parts of its path."""
        backbone, task, method, seed, run = str(path).split("/")[-5:]
        return cls(backbone, task, method, int(seed.removeprefix("seed=")), run)


@dataclass
class Settled(Generic[Line]):
    """What the records of a run say in the end."""

    done: dict[str, Line] = field(default_factory=dict)  # unit id -> first ok record
    failures: dict[str, int] = field(default_factory=dict)  # unit id -> error records, units that are done left out
    conflicts: list[str] = field(default_factory=list)  # units computed twice with different outcomes
    made: set[str] = field(default_factory=set)  # unit ids of videos that are there, however scored
    spoilt: dict[str, str] = field(default_factory=dict)  # unit ids of those done -> what is wrong with a file, where it was looked at
    damaged: list[DamagedLine] = field(default_factory=list)  # those of units that are done left out: they were made again


@dataclass(frozen=True)
class Run:
    """A run of a store."""

    store: Path
    place: RunPlace

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
        return os.path.exists(f"{self.path}/run.json")

    @cached_property
    def spec(self) -> Spec:
        """What it is."""
        path = self.path / "run.json"
        return decoded(path.read_bytes(), Spec, path)

    @property
    def calibration(self) -> bool:
        """Whether it was rendered: said by its policy, whatever the preset is called."""
        return bool(self.spec.key.pixels.get("method.policy") == RENDER)

    def asked(self) -> list[Asked]:
        """All wishes, oldest first."""
        paths = sorted((self.path / "asked").glob("*.json"))
        return [Asked.of(decoded(path.read_bytes(), AskedFile, path), path.stem) for path in paths]

    def attempts(self) -> dict[str, Provenance]:
        """Provenance of every start by its name, oldest first; a damaged file says nothing."""
        return {path.stem: self.attempt(path.stem) for path in sorted((self.path / "attempts").glob("*.json"))}

    def attempt(self, name: str) -> Provenance:
        """Provenance of a start; an empty one where its file is gone or damaged."""
        path = self.path / "attempts" / f"{name}.json"
        try:
            return decoded(path.read_bytes(), Provenance, path)
        except (OSError, DamagedFile):
            return Provenance()

    def side(self, record: UnitRecord, kind: str) -> Path | None:
        """Path of a file of a unit, for example its "scores"; None if the record names none."""
        name = record.files.get(kind)
        return None if name is None else self.units / name

    def record_files(self) -> list[str]:
        """Paths of its files of records, in the order of their names."""
        try:
            return sorted(entry.path for entry in os.scandir(f"{self.path}/records") if entry.name.endswith(".jsonl"))
        except FileNotFoundError:
            return []

    def records(self) -> list[UnitRecord]:
        """All whole records in the order of their time; damaged lines, and one torn by a crash, are passed over.

        Raises:
            UnknownVersion: for a record that a newer version of this project wrote.
            DamagedFile: for one that is none.
        """
        return self.lines(UnitRecord)[0]

    def lines(self, kind: type[Line]) -> tuple[list[Line], list[DamagedLine]]:
        """All whole records, as far as a kind of them says, and damaged lines; see `records`."""
        lines, damaged = list[Line](), list[DamagedLine]()
        for path in self.record_files():
            with open(path, "rb") as file:
                records, others = lines_of(file.read(), kind, Path(path))
            lines += records
            damaged += others
        for record in lines:
            record.v = VERSION
        return sorted(lines, key=lambda record: record.t), damaged

    def settled(self, scores: str | None) -> Settled[UnitRecord]:
        """Which units are done under a way of scoring, and whose files are no longer as they were written, by their sizes.

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
        """What is wrong with files of units, by their names: those that are not there, or not as the last record of each says.

        contents: whether they are read, to see what no size tells.
        """
        last = dict[str, tuple[int | None, str | None]]()
        for record in records:
            if record.ok:
                last |= {name: (record.sizes.get(kind), record.digests.get(kind)) for kind, name in record.files.items()}
        try:
            there = {entry.name: entry.stat().st_size for entry in os.scandir(self.units) if entry.name in last}
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
    """The first of a record's files with which something is wrong (`Run.amiss`), and what; empty where nothing is."""
    return next((f"{name} {wrong[name]}" for name in record.files.values() if name in wrong), "")


def _failed_again(record: UnitRecord, settled: Settled[UnitRecord], scores: str | None) -> bool:
    """Whether it is an error of a unit that was done before and whose files are no longer as they were."""
    asked = scores is None or record.scores == scores
    return asked and not record.ok and record.unit in settled.spoilt and record.t >= settled.done[record.unit].t


def settle(records: Iterable[Line], damaged: Iterable[DamagedLine], scores: str | None) -> Settled[Line]:
    """What the records of a run, in the order of time, say in the end: the first ok record of a unit counts.

    Args:
        records: whole ones.
        damaged: lines that were records.
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
    """Runs of a store, in the order of their paths; all of them, or those whose place fits a pattern."""
    for path in sorted(store.glob(f"runs/{pattern}/run.json")):
        yield Run(store, RunPlace.of(path.parent))


def existing(store: Path) -> Path:
    """A store that is there. Raises ValueError in one line for another folder."""
    if not (store / "runs").is_dir():
        raise ValueError(f"--store {store}: no run store; it has no folder runs")
    return store


def known(key: str, values: Iterable[str], there: Iterable[str], lack: str) -> None:
    """Refuse, by a ValueError in one line, a value that a store has nothing of; lack: what it lacks, in words."""
    choices = sorted(there)
    for value in values:
        if value not in choices:
            tail = nearest_of(value, choices) if choices else "it has none at all"
            raise ValueError(f"{key}{value}: {lack}; {tail}")


def tasks(store: Path) -> list[str]:
    """Tasks that a store has runs of."""
    folders = {(path.parent.name, path.name) for path in store.glob("runs/*/*")}
    return sorted({task for backbone, task in folders if next(runs(store, f"{backbone}/{task}/*/seed=*/*"), None)})


@dataclass(frozen=True)
class Sweep:
    """All that one command asked for of one task, which is what its table shows; wishes in the order of the command."""

    name: str
    experiment: str | None
    task: str
    wishes: tuple[tuple[Run, Asked], ...]


def sweeps(store: Path) -> Iterator[Sweep]:
    """The last sweep of every name, in the order of their names."""
    for path in sorted(store.glob("sweeps/*.json")):
        content = decoded(path.read_bytes(), SweepFile, path)
        for before, wish in zip(content.runs, content.runs[1:]):
            if wish.prompts == before.prompts:  # one copy for all runs of a large sweep
                wish.prompts = before.prompts
        wishes = [(Run(store, RunPlace.of(wish.path)), Asked.of(wish, path.stem)) for wish in content.runs]
        yield Sweep(path.stem, content.experiment, content.task, tuple(wishes))


def scores_of(path: Path | None) -> ScoresFile:
    """The content of a file of scores; empty where there is none."""
    return ScoresFile() if path is None or not path.is_file() else decoded(path.read_bytes(), ScoresFile, path)


def scenes_of(path: Path | None) -> list[int]:
    """The scene of each block off a video's trace; empty where there is none."""
    if path is None or not path.is_file():
        return []
    return [decoded(line, TraceLine, path).scene for line in path.read_bytes().splitlines() if line]


def flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings by dotted path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{where}{key}.")
        else:
            yield where + key, value
