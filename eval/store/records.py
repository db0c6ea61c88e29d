"""Reading a run store: runs, what was asked of them, and their records. No torch; nothing is ever written here.

<store>/runs/<backbone>/<task>/<method>/seed=<n>/<run id>/
    run.json              what the run is, written once
    asked/<ns>.json       the prompts that a command wanted, and the unit that stands for each
    attempts/<id>.json    one for each start: commit, versions, host, command line (and .log)
    records/<id>.jsonl    appended to by one attempt alone
    errors/               tracebacks
    units/                videos, traces, scores of segments
<store>/sweeps/<table>.json
    the runs, prompts and scores that a command asked for; the last command of that name counts
<store>/compact/
    records as Parquet (`eval.store.compacted`), made anew from the above at any time
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

VERSION = 2
"""Of what is written; whatever is read of an older version is brought up to it, of a newer one refused."""
RENDER = "render"
"""The policy of runs that are rendered, not generated: calibration rows of every table, sheet and figure."""


class UnknownVersion(ValueError):
    """A file of a store that a newer version of this project wrote; one line for people."""


@dataclass(frozen=True)
class Asked:
    """One wish: these prompts, scored this way."""

    name: str
    scores: str | None
    scorer: dict[str, Any]
    task: dict[str, str]
    units: dict[str, str]  # prompt id -> unit id
    prompts: dict[str, str] = field(default_factory=dict)  # prompt id -> digest of the prompt as it stands in its set


@dataclass(frozen=True)
class Sweep:
    """All that one command asked for of one task, which is what its table shows."""

    name: str
    experiment: str | None
    task: str
    wishes: tuple[tuple[Path, Asked], ...]  # run folder and what was wanted of it, in the order of the command


@dataclass
class Settled:
    """What the records of a run say in the end."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # unit id -> first ok record
    failures: dict[str, int] = field(default_factory=dict)  # unit id -> error records, units that are done left out
    conflicts: list[str] = field(default_factory=list)  # units computed twice with different outcomes
    made: set[str] = field(default_factory=set)  # unit ids of videos that are there, however scored


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The content of run.json."""
        return _known(json.loads((self.path / "run.json").read_text(encoding="utf-8")), self.path / "run.json")

    @property
    def calibration(self) -> bool:
        """Whether it was rendered: said by its policy, whatever the preset is called."""
        return bool(self.spec["key"]["pixels"].get("method.policy") == RENDER)

    def asked(self) -> list[Asked]:
        """All wishes, oldest first."""
        return [
            Asked(path.stem, **{k: v for k, v in _known(json.loads(path.read_text(encoding="utf-8")), path).items() if k != "v"})
            for path in sorted((self.path / "asked").glob("*.json"))
        ]

    def records(self) -> list[dict[str, Any]]:
        """All whole records in the order of their time; a line torn by a crash is passed over.

        Raises:
            UnknownVersion: for a record that a newer version of this project wrote; its meaning is not guessed at.
        """
        found = []
        for path in sorted((self.path / "records").glob("*.jsonl")):
            for line in path.read_bytes().splitlines(keepends=True):
                record = _parse(line)
                if record is not None:
                    found.append((record["t"], path.name, upgraded(record, path)))
        return [record for _, _, record in sorted(found, key=lambda row: row[:2])]

    def settled(self, scores: str | None) -> Settled:
        """Which units are done under a way of scoring; the first ok record of a unit counts.

        Args:
            scores: id of the way of scoring; None accepts a video however it was scored.
        """
        result = Settled()
        latents: dict[str, str] = {}
        for record in self.records():
            unit, ok = record["unit"], record["status"] == "ok"
            if ok and latents.setdefault(unit, record["latents_sha256"]) != record["latents_sha256"]:
                result.conflicts.append(f"{record['prompt']} seed={record['seed']}: other latents in attempt {record['attempt']}")
            if ok:
                result.made.add(unit)
            if scores is not None and record["scores"] != scores:
                continue
            if not ok:
                result.failures[unit] = result.failures.get(unit, 0) + 1
            elif unit not in result.done:
                result.done[unit] = record
            elif result.done[unit]["metrics"] != record["metrics"]:
                result.conflicts.append(f"{record['prompt']} seed={record['seed']}: other scores in attempt {record['attempt']}")
        for unit in result.done:
            result.failures.pop(unit, None)
        return result


def runs(store: Path) -> Iterator[Run]:
    """All runs of a store, in the order of their paths."""
    for path in sorted(store.glob("runs/*/*/*/seed=*/*/run.json")):
        yield Run(path.parent)


def flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings by dotted path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{where}{key}.")
        else:
            yield where + key, value


def sweeps(store: Path) -> Iterator[Sweep]:
    """The last sweep of every name, in the order of their names."""
    for path in sorted(store.glob("sweeps/*.json")):
        content = _known(json.loads(path.read_text(encoding="utf-8")), path)
        for before, wish in zip(content["runs"], content["runs"][1:]):
            if wish.get("prompts") == before.get("prompts"):  # one copy for all runs of a large sweep
                wish["prompts"] = before.get("prompts", {})
        wishes = [(store / "runs" / wish.pop("path"), Asked(path.stem, **wish)) for wish in content["runs"]]
        yield Sweep(path.stem, content["experiment"], content["task"], tuple(wishes))


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "unit" in record else None


def upgraded(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """A record as this version writes it. Version 1 did not say where a unit was computed. Raises UnknownVersion."""
    if _known(record, path).get("v") == VERSION:
        return record
    return {"host": None, "device": None} | record | {"v": VERSION}


def _known(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of a file, if its version is one that is read; files without any are of the first. Raises UnknownVersion."""
    version = content.get("v", 1)
    if version not in range(1, VERSION + 1):
        raise UnknownVersion(
            f"{path}: schema version {version} is not known here, versions 1 to {VERSION} are; "
            "a newer version of this project wrote it: update this one, or give another store=DIR"
        )
    return content
