"""Records of a run by column, one array for each metric."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.store.runs import Run, Settled

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
    """What is done of a run under a way of scoring."""
    return _from_records(run.settled(scores))


def _from_records(settled: Settled) -> Scored:
    done = settled.done
    names = dict.fromkeys(name for record in done.values() for name in record.metrics)
    metrics = {name: np.array([_number(record.metrics.get(name)) for record in done.values()]) for name in names}
    attempts = [record.attempt for record in done.values()]
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
