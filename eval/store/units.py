"""Scores of many units by column: one array for each metric instead of one dictionary for each unit.

A million units of a dozen metrics are a hundred megabytes here, and gigabytes as dictionaries. `eval.stats.statistics` takes either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Unit = tuple[str, int]
"""Prompt id and seed."""
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Frame:
    """Which units there are, ordered by prompt, then by seed, each once.

    prompts: their ids, ascending. prompt: [n], index of each unit's. seed: [n].
    """

    prompts: tuple[str, ...]
    prompt: Numbers
    seed: Numbers

    def units(self) -> Iterator[Unit]:
        """All units in order."""
        yield from ((self.prompts[prompt], int(seed)) for prompt, seed in zip(self.prompt, self.seed))

    @cached_property
    def starts(self) -> Numbers:
        """[prompts that have units], the first unit of each."""
        return np.flatnonzero(np.diff(self.prompt, prepend=-1)).astype(np.int64)

    @cached_property
    def counts(self) -> Floats:
        """[prompts that have units], how many units each has."""
        return np.diff(self.starts, append=len(self.prompt)).astype(np.float64)

    @cached_property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(np.unique(self.seed))

    def of(self, rows: Numbers) -> Frame:
        """Some of the units, by ascending position."""
        return Frame(self.prompts, self.prompt[rows], self.seed[rows])


@dataclass(frozen=True, eq=False)
class Values:
    """One number for each unit of a frame, all finite."""

    frame: Frame
    array: Floats
    minus: dict[int, tuple[Values, Values]] = field(default_factory=dict)  # by id of what was taken off, which is kept beside
    known: dict[str, float] = field(default_factory=dict)  # what was computed of it

    @classmethod
    def of(cls, values: Mapping[Unit, float]) -> Values:
        """From a number by unit."""
        units = sorted(values)
        frame = _frame_of([prompt for prompt, _ in units], [seed for _, seed in units])
        return cls(frame, np.array([values[unit] for unit in units], float))

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def sums(self) -> Floats:
        """[prompts that have units], of a prompt's numbers."""
        return np.add.reduceat(self.array, self.frame.starts) if len(self) else np.zeros(0)

    def less(self, other: Values) -> Values:
        """The paired difference, over the units of both."""
        found = self.minus.get(id(other))
        if found is None:
            here, there, frame = _shared(self.frame, other.frame)
            found = self.minus[id(other)] = (Values(frame, self.array[here] - other.array[there]), other)
        return found[0]


class Scores(Mapping[Unit, Mapping[str, float | None]]):
    """All metrics of all units of a table's row; of a unit that comes again the last counts."""

    def __init__(self) -> None:
        self._parts: list[tuple[Sequence[str], int, dict[str, Floats]]] = []
        self._names: set[str] = set()
        self._cache: dict[str, Values] = {}
        self._whole: tuple[Frame, Numbers] | None = None
        self._known: dict[Unit, tuple[int, int]] | None = None

    def add(self, prompts: Sequence[str], seed: int, metrics: Mapping[str, Floats], names: Iterable[str] | None = None) -> None:
        """Units of one run.

        Args:
            prompts: ids.
            seed: of all of them.
            metrics: [prompts] by name, NaN where a number is not there.
            names: of the metrics that some of the units have, be it without a number; all by default.
        """
        self._parts.append((prompts, seed, dict(metrics)))
        self._names |= set(metrics if names is None else names)
        self._cache.clear()
        self._whole = self._known = None

    @property
    def names(self) -> set[str]:
        """Of all metrics that some unit has."""
        return set(self._names)

    def column(self, metric: str) -> Values:
        """One metric, units without a number left out; the same object for the same metric, so that differences are taken once."""
        found = self._cache.get(metric)
        if found is None:
            found = self._cache[metric] = self._column(metric)
        return found

    def _column(self, metric: str) -> Values:
        frame, rows = self._frame
        parts = [metrics.get(metric) for _, _, metrics in self._parts]
        filled = [np.full(len(prompts), np.nan) if part is None else part for part, (prompts, *_) in zip(parts, self._parts)]
        array = np.concatenate(filled)[rows] if filled else np.zeros(0)
        there = np.flatnonzero(~np.isnan(array))
        return Values(frame, array) if len(there) == len(array) else Values(frame.of(there), array[there])

    @property
    def _frame(self) -> tuple[Frame, Numbers]:
        """The units, and where each stands among the parts."""
        if self._whole is None:
            prompts = [prompt for part, *_ in self._parts for prompt in part]
            seeds = np.repeat(np.array([seed for _, seed, _ in self._parts], np.int64), [len(part) for part, *_ in self._parts])
            names = sorted(set(prompts))
            index = {name: place for place, name in enumerate(names)}
            codes = np.fromiter(map(index.__getitem__, prompts), np.int64, len(prompts))
            order = np.lexsort((seeds, codes))
            codes, seeds = codes[order], seeds[order]
            last = np.append((np.diff(codes) != 0) | (np.diff(seeds) != 0), True)[: len(codes)]
            self._whole = Frame(tuple(names), codes[last], seeds[last]), order[last]
        return self._whole

    def __len__(self) -> int:
        return len(self._frame[1])

    def __iter__(self) -> Iterator[Unit]:
        return self._frame[0].units()

    def __contains__(self, unit: object) -> bool:
        return unit in self._places

    @property
    def _places(self) -> dict[Unit, tuple[int, int]]:
        """Part and row of each unit."""
        if self._known is None:
            parts = enumerate(self._parts)
            self._known = {(prompt, seed): (part, row) for part, (prompts, seed, _) in parts for row, prompt in enumerate(prompts)}
        return self._known

    def __getitem__(self, unit: Unit) -> Mapping[str, float | None]:
        part, row = self._places[unit]
        found = {name: float(array[row]) for name, array in self._parts[part][2].items()}
        return {name: None if np.isnan(value) else value for name, value in found.items()}


def _frame_of(prompts: Sequence[str], seeds: Sequence[int]) -> Frame:
    """Of units in order."""
    names = tuple(dict.fromkeys(prompts))
    index = {name: place for place, name in enumerate(names)}
    return Frame(names, np.array([index[prompt] for prompt in prompts], np.int64), np.array(seeds, np.int64))


def _shared(some: Frame, other: Frame) -> tuple[Numbers | slice, Numbers | slice, Frame]:
    """Where the units of both stand in either, and they as a frame."""
    if some.prompts == other.prompts and np.array_equal(some.prompt, other.prompt) and np.array_equal(some.seed, other.seed):
        return slice(None), slice(None), some
    index = {name: place for place, name in enumerate(some.prompts)}
    prompts = np.array([index.get(name, -1) for name in other.prompts], np.int64)[other.prompt]
    base = 1 + max((int(frame.seed.max()) for frame in (some, other) if len(frame.seed)), default=0)
    _, here, there = np.intersect1d(some.prompt * base + some.seed, prompts * base + other.seed, assume_unique=True, return_indices=True)
    known = prompts[there] >= 0
    return here[known], there[known], some.of(here[known])
