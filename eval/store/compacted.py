"""Records as columns: from Parquet where `python -m jobs.store.compact` has folded them, else from the JSON lines, to the same numbers.

    <store>/compact/index.json     for each run: its Parquet file and rows, and the record files that they are made of
    <store>/compact/*.parquet      one for each backbone and task: `COLUMNS`, and a column `m.<metric>` for each metric

The JSON lines stay the truth. A run is read from Parquet only while its record files are those that were folded, by name and
size: records are appended and never changed. pyarrow is imported only where a store has a folder `compact`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eval.store.records import VERSION as RECORDS

if TYPE_CHECKING:
    import pyarrow as pa

    from eval.store.records import Run, Settled

VERSION = 1
COLUMNS = ("unit", "scores", "attempt", "prompt", "seed", "status", "first", "t", "dur_s", "blocks")
"""Of every record. status: whether it is ok. first: whether it is the first ok one of its unit under its way of scoring."""
METRIC = "m."
NEEDED = ("unit", "scores", "attempt", "status", "first")
Floats = NDArray[np.float64]


@dataclass
class Scored:
    """What is done of a run under one way of scoring, by column, in the order of time.

    units, attempts: [done], the unit and whose record it is. metrics: [done] by name, NaN where there is no number.
    names: metrics that some unit has, be it without a number. failures, conflicts: as of `eval.store.records.Settled`.
    unscored: units that are not done and whose video is there.
    """

    units: Sequence[str]
    attempts: Sequence[str]
    metrics: dict[str, Floats]
    names: frozenset[str]
    failures: dict[str, int] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    unscored: set[str] = field(default_factory=set)

    def of(self, units: Mapping[str, str]) -> tuple[list[str], NDArray[np.int64]]:
        """Of wanted units by prompt, the prompts that are done, and where each stands here."""
        if list(units.values()) == self.units:
            return list(units), np.arange(len(self.units))
        place = {unit: row for row, unit in enumerate(self.units)}
        there = {prompt: place[unit] for prompt, unit in units.items() if unit in place}
        return list(there), np.array(list(there.values()), np.int64)


def scored(run: Run, scores: str) -> Scored:
    """What is done of a run under a way of scoring, from wherever it is read fastest."""
    store = run.path.parents[5]
    index = index_of(store)
    place = index.get("/".join(run.path.parts[-5:])) if index else None
    if place is not None and place["plain"] and place["files"] == record_files(run.path):
        with contextlib.suppress(OSError, ValueError):  # gone or damaged; the lines are there
            return _from_parquet(f"{store}/compact/{place['file']}", place, scores)
    return _from_records(run.settled(scores))


def _from_records(settled: Settled) -> Scored:
    done = settled.done
    names = dict.fromkeys(name for record in done.values() for name in record["metrics"])
    metrics = {name: np.array([_number(record["metrics"].get(name)) for record in done.values()]) for name in names}
    attempts = [record["attempt"] for record in done.values()]
    return Scored(list(done), attempts, metrics, frozenset(names), dict(settled.failures), settled.conflicts, settled.made - done.keys())


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def record_files(run: Path) -> dict[str, int]:
    """Bytes of each file of records of a run."""
    try:
        with os.scandir(f"{run}/records") as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl")}
    except FileNotFoundError:
        return {}


def index_of(store: Path) -> dict[str, Any]:
    """Places of the runs that were folded, by path below `runs`; empty where there are none, or of another version.

    That is also one of the records that were folded: what a newer version of this project read is not known here.
    """
    path = f"{store}/compact/index.json"
    try:
        stat = os.stat(path)
    except OSError:
        return {}
    return _index(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _index(path: str, mtime_ns: int, size_bytes: int) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_bytes())
        import pyarrow  # noqa: F401  without it the JSON lines are read
    except (OSError, ValueError, ImportError):
        return {}
    return dict(content["runs"]) if (content.get("v"), content.get("records")) == (VERSION, RECORDS) else {}


@dataclass(frozen=True)
class _Folded:
    """A Parquet file in memory. metrics: by name, with whether a record may lack it."""

    table: pa.Table
    first: NDArray[np.bool_]
    status: NDArray[np.bool_]
    scores: tuple[NDArray[np.int64], list[str | None]]
    attempts: tuple[NDArray[np.int64], list[str]]
    metrics: Mapping[str, tuple[Floats, Any]]


@lru_cache(maxsize=2)  # runs are read in the order of their folders
def _folded(path: str) -> _Folded:
    """The columns that tables need. File names are never used twice, so that what is kept here is never old."""
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(path).names if name in NEEDED or name.startswith(METRIC)]
    table = pq.read_table(path, columns=names).combine_chunks()
    metrics = {}
    for name in names:
        if name.startswith(METRIC):
            column = table.column(name)
            metrics[name.removeprefix(METRIC)] = (column.to_numpy(), column if column.null_count else None)
    first, status = (np.asarray(table.column(name).to_numpy(), dtype=np.bool_) for name in ("first", "status"))
    return _Folded(table, first, status, _coded(table, "scores"), _coded(table, "attempt"), metrics)


def _coded(table: pa.Table, name: str) -> tuple[NDArray[np.int64], list[Any]]:
    """A column of few values as codes and what they stand for; -1 for none."""
    chunk = table.column(name).combine_chunks()
    chunk = chunk.chunk(0) if hasattr(chunk, "chunk") else chunk
    coded = chunk if hasattr(chunk, "indices") else chunk.dictionary_encode()
    return np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64), coded.dictionary.to_pylist()


def _from_parquet(path: str, place: Mapping[str, Any], scores: str) -> Scored:
    folded, start, stop = _folded(path), place["start"], place["stop"]
    codes, known = folded.scores
    wanted = codes[start:stop] == (known.index(scores) if scores in known else -2)
    rows = np.flatnonzero(wanted & folded.first[start:stop])
    units = folded.table.column("unit").slice(start, stop - start).to_pylist()
    done = [units[row] for row in rows] if len(rows) < len(units) else units
    lost = np.flatnonzero(wanted & ~folded.status[start:stop])
    there = np.flatnonzero(~wanted & folded.status[start:stop])  # however scored
    finished, failures = set(done) if len(lost) or len(there) else set(), dict[str, int]()
    for row in lost:
        if units[row] not in finished:
            failures[units[row]] = failures.get(units[row], 0) + 1
    unscored = {units[row] for row in there} - finished
    metrics, names = {}, []
    for name, (array, column) in folded.metrics.items():
        part = array[start:stop][rows]
        if column is None or _any(column.slice(start, stop - start), rows):
            metrics[name] = part
            names.append(name)
    attempts, who = folded.attempts
    return Scored(done, [who[code] for code in attempts[start:stop][rows]], metrics, frozenset(names), failures, [], unscored)


def _any(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> bool:
    """Whether some record of the rows has the metric at all."""
    there = np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)
    return bool(there[rows].any())
