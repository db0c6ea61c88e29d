"""What a store holds, as blocks of rows that may be compared: one task, one way of scoring, one text of each prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from eval.metrics import Column
from eval.store.compacted import scored
from eval.store.records import Scorer, Titled
from eval.store.runs import Asked, Run, flat, runs, sweeps
from eval.store.units import Scores, Unit, Values
from eval.tables.grid import CALIBRATION

Wishes = tuple[Run, Sequence[Asked]]
"""A run and all that was asked of it under one way of scoring, oldest first."""


@dataclass(frozen=True)
class Source:
    """What one table is made of."""

    name: str
    task: str
    experiment: str | None
    wishes: tuple[Wishes, ...]
    ordered: bool = True  # rows in the order of the command; else by name


@dataclass
class Entry:
    """All that one row is made of, gathered over its runs (one a seed)."""

    run: Run
    settings: dict[str, Any]
    weights: str = ""
    asked: set[Unit] = field(default_factory=set)
    metrics: Scores = field(default_factory=Scores)
    failed: set[Unit] = field(default_factory=set)  # tried, and only errors came of it
    unscored: set[Unit] = field(default_factory=set)  # the video is there, and nobody has tried to score it this way
    runs: list[Run] = field(default_factory=list)
    attempts: set[tuple[Path, str]] = field(default_factory=set)  # run folder and name of every attempt that a number is of

    @property
    def preset(self) -> str:
        return self.run.spec.method.name

    @property
    def calibration(self) -> bool:
        """Whether it was rendered."""
        return self.run.calibration

    @property
    def section(self) -> str:
        """Label of its backbone, or that it has none."""
        return CALIBRATION if self.calibration else self.run.spec.backbone.label

    def values(self, column: Column) -> Values:
        """What was measured of a dimension."""
        return self.metrics.column(column.metric)


@dataclass
class Block:
    """Rows that may be compared: same task, way of scoring and texts of the prompts; of each backbone one version."""

    task: Titled
    scorer: Scorer
    newest: str = ""
    weights: dict[str, str] = field(default_factory=dict)  # name of a backbone -> digest of its weights
    conflicts: list[str] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)  # prompt id -> digest of its content
    entries: dict[tuple[str, str, str], Entry] = field(default_factory=dict)


def sources(store: Path) -> list[Source]:
    """Every table that a store can make, in the order of their names."""
    found: dict[str, Source] = {}
    for sweep in sweeps(store):
        there = [(run, [wish]) for run, wish in sweep.wishes if run.exists]
        if there:
            found[sweep.name] = Source(sweep.name, sweep.task, sweep.experiment, tuple(there))
    told = {source.task for source in found.values()}
    rest: dict[str, list[Wishes]] = {}
    for run in runs(store):
        if run.place.task in told:
            continue
        for wishes in _by_scores(run.asked()):
            if wishes[-1].task.name not in told:
                rest.setdefault(wishes[-1].task.name, []).append((run, wishes))
    found |= {task: Source(task, task, None, tuple(wishes), ordered=False) for task, wishes in rest.items()}
    return [found[name] for name in sorted(found)]


def gather(wishes: Iterable[Wishes]) -> list[Block]:
    """Runs in blocks of those that may be compared, the block that was asked for last first."""
    blocks: dict[tuple[Any, ...], list[Block]] = {}
    for run, asked in wishes:
        spec, last = run.spec, asked[-1]
        settings = dict(sorted(flat(spec.key.pixels)))
        files = settings.pop("backbone.weights"), settings.pop("backbone.lora", None)
        weights, name = "+".join(digest[:8] for digest in files if digest), spec.backbone.name
        settings.pop("seed")
        prompts: dict[str, str] = {}
        for wish in asked:
            prompts |= wish.prompts
        like = blocks.setdefault((last.task.name, spec.key.epoch, last.scores), [])
        fitting = (b for b in like if agree(b.prompts, prompts) and b.weights.get(name, weights) == weights)
        block = next(fitting, None)
        if block is None:
            block = Block(last.task, last.scorer)
            like.append(block)
        block.prompts |= prompts
        block.weights[name] = weights
        block.newest = max(block.newest, last.name)
        entry = block.entries.setdefault((name, spec.method.name, repr(settings)), Entry(run, settings, weights))
        block.conflicts += [f"{spec.method.name} {line}" for line in _fill(entry, run, spec.seed, asked)]
    return sorted((block for like in blocks.values() for block in like), key=lambda block: block.newest, reverse=True)


def agree(some: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Whether no prompt has one text here and another there; an edited prompt set is never mixed with the old one."""
    return some == others or all(others.get(prompt, content) == content for prompt, content in some.items())


def _by_scores(asked: Iterable[Asked]) -> list[list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for wish in asked:
        if wish.scores is not None:
            found.setdefault(wish.scores, []).append(wish)
    return list(found.values())


def _fill(entry: Entry, run: Run, seed: int, wishes: Sequence[Asked]) -> list[str]:
    """Add a run to its row; returns units that were computed twice with different outcomes."""
    found = scored(run, wishes[-1].scores or "")
    units: dict[str, str] = {}
    for wish in wishes:
        units |= wish.units  # the text of a prompt may have changed; the last wish counts
    prompts, rows = found.of(units)
    entry.asked.update(zip(units, repeat(seed)))
    entry.metrics.add(prompts, seed, {name: array[rows] for name, array in found.metrics.items()}, found.names)
    entry.attempts.update(zip(repeat(run.path), {found.attempts[row] for row in rows.tolist()}))
    if found.failures:
        entry.failed.update((prompt, seed) for prompt, unit in units.items() if unit in found.failures)
    entry.unscored.update((prompt, seed) for prompt, unit in (units.items() if found.unscored else ()) if unit in found.unscored)
    entry.runs.append(run)
    return found.conflicts
