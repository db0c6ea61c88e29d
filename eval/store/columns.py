"""Numbers of many videos by column: one array for each metric instead of one dictionary for each video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.store.records import Outcome, UnitRecord, Version, decoder
from eval.store.runs import Asked, Run, settle

Wishes = tuple[Run, Sequence[Asked]]
"""A run and all that was asked of it under one way of scoring, oldest first."""
Floats = NDArray[np.float64]
STATUS = ("missing", "unscored", "failed", "done")
"""What became of a video that was asked for; of several outcomes of one the last here counts. unscored: it is there, has no scores
of this kind, and nobody has tried to score it. failed: it was tried, and only errors came of it."""
MISSING, UNSCORED, FAILED, DONE = range(len(STATUS))
FACTS = (
    "latents_sha256", "blocks", "fps", "fps_dit", "block_ms", "block_ms_p95", "switch_block_ms", "generate_s", "decode_s", "score_s",
    "dur_s", "process_peak_mb", "host", "device",
)  # fmt: skip
"""Fields of a record that a table of videos has beside metrics, if it is asked for facts; `TEXTS` of them are no numbers."""
TEXTS = ("latents_sha256", "host", "device")
FILES = {"video": "video", "trace": "trace", "scores": "scores_file"}
"""Kinds of side files and the columns that hold their paths."""


@dataclass
class Finished:
    """What is done of a run under one way of scoring, by column, in the order of time.

    units, attempts: [done], the unit and whose record it is. metrics: [done] by name, NaN where there is no number; of all names
    that some unit has, be it without a number. failures, conflicts: as of `eval.store.runs.Settled`. unscored: units that are
    not done and whose video is there. records: of the units, if they were asked for.
    """

    units: list[str]
    attempts: list[str]
    metrics: dict[str, Floats]
    failures: Mapping[str, int] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    unscored: frozenset[str] = frozenset()
    records: Sequence[UnitRecord] = ()


def finished(run: Run, scores: str | None, facts: bool = False) -> Finished:
    """What is done of a run.

    Args:
        scores: id of the way of scoring; None accepts a video however it was scored.
        facts: whether whole records are wanted.
    """
    if not facts and scores is not None:
        known = _plain(run, scores)
        if known is not None:
            return known
    settled = settle(run.lines(UnitRecord if facts else Outcome), scores)
    records = list(settled.done.values())
    names = dict.fromkeys(name for record in records for name in record.metrics)
    metrics = {name: np.array([record.metrics.get(name) for record in records], np.float64) for name in names}
    attempts = [record.attempt for record in records]
    unscored = frozenset(settled.made - settled.done.keys())
    whole = [record for record in records if isinstance(record, UnitRecord)]
    return Finished(list(settled.done), attempts, metrics, settled.failures, settled.conflicts, unscored, whole)


def _plain(run: Run, scores: str) -> Finished | None:
    """The same of a run with one file of records, all of them ok, of one way of scoring, of the same metrics and each of a unit of its
    own, which most are; None of any other. A million records take seconds, as no record becomes a dictionary."""
    paths = run.record_files()
    if len(paths) != 1:
        return None
    with open(paths[0], "rb") as file:
        content = file.read()
    try:
        names = tuple(decoder(Outcome).decode(content[: content.index(b"\n")]).metrics)
        lines = _typed(names, scores).decode_lines(content)
    except (msgspec.DecodeError, ValueError):  # torn, an error, scored otherwise, or of other metrics
        return None
    units, times = [line.unit for line in lines], [line.t for line in lines]
    if len(set(units)) < len(units) or times != sorted(times):
        return None
    shape, numbers = (len(lines), len(names)), chain.from_iterable(map(_values(len(names)), [line.metrics for line in lines]))
    try:
        array = np.fromiter(numbers, np.float64, len(lines) * len(names)).reshape(shape)
    except TypeError:  # some are not finite
        array = np.array([_values(len(names))(line.metrics) for line in lines], np.float64).reshape(shape)
    attempt = paths[0].rpartition("/")[2].removesuffix(".jsonl")
    return Finished(units, [attempt] * len(lines), {name: array[:, place] for place, name in enumerate(names)})


@lru_cache(maxsize=64)
def _typed(names: tuple[str, ...], scores: str) -> msgspec.json.Decoder[Any]:
    """A decoder of outcomes that are ok, scored this way, and have these metrics and no other."""
    fields = [(f"m{place}", float | None) for place in range(len(names))]
    renamed = {f"m{place}": name for place, name in enumerate(names)}
    numbers = msgspec.defstruct("Numbers", fields, rename=renamed, forbid_unknown_fields=True, gc=False)
    kept: list[tuple[str, Any] | tuple[str, Any, Any]] = [("unit", str), ("t", float), ("metrics", numbers)]
    kept += [("status", Literal["ok"]), ("scores", Literal[scores]), ("v", Version, 1)]
    return msgspec.json.Decoder(msgspec.defstruct("Line", kept, gc=False))


@lru_cache(maxsize=64)
def _values(count: int) -> Callable[[Any], tuple[float | None, ...]]:
    """What takes the numbers of a line's metrics."""
    if count == 1:
        return lambda numbers: (numbers.m0,)
    return attrgetter(*(f"m{place}" for place in range(count))) if count else lambda numbers: ()


def table(parts: Iterable[Wishes], facts: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """What became of the videos that were asked of some runs, which may share prompts and seeds.

    Args:
        parts: the runs, and what was asked of each.
        facts: whether paths, hashes and speeds are wanted too.

    Returns:
        A row for each video, by prompt and seed, and units that were computed twice with different outcomes. Of a video that several
        runs were asked for the best outcome counts, and of several such the last run's.

        Index: prompt and seed, ascending. Columns: `status` (category, one of `STATUS`), `text` (category, digest of the prompt as
        asked for), `run`, `attempt` (category; whose number it is, "" where nothing is done), then a float64 for each metric that any
        video has, be it without a number: NaN where there is none. With facts also `unit`, the columns of `FILES` (str, paths) and
        `FACTS` (float64 but for `TEXTS`, which are str); NaN where nothing is done.
    """
    codes = {name: _Codes() for name in ("prompt", "text", "run", "attempt")}
    pieces, conflicts = list[_Piece](), list[str]()
    for run, wishes in parts:
        outcome = finished(run, wishes[-1].scores, facts)
        pieces.append(_piece(run, wishes, outcome, codes))
        conflicts += outcome.conflicts
    prompts, prompt = codes["prompt"].ascending(_joined([piece.codes["prompt"] for piece in pieces], np.int32))
    seeds, seed = np.unique(_joined([piece.seeds for piece in pieces], np.int64), return_inverse=True)
    status = _joined([piece.status for piece in pieces], np.int8)
    order = np.lexsort((status, seed, prompt))  # stable: later runs come later
    last = np.append((np.diff(prompt[order]) != 0) | (np.diff(seed[order]) != 0), True)[: len(order)]
    kept = order[last]
    columns: dict[str, Any] = {"status": pd.Categorical.from_codes(status[kept], list(STATUS))}
    for name in ("text", "run", "attempt"):
        columns[name] = pd.Categorical.from_codes(
            _joined([piece.codes[name] for piece in pieces], np.int32)[kept], list(codes[name].places)
        )
    for name in dict.fromkeys(name for piece in pieces for name in piece.metrics):
        columns[name] = _joined([piece.column(name) for piece in pieces], np.float64)[kept]
    if facts:
        columns |= {name: series.iloc[kept].array for name, series in _facts(pieces).items()}
    index = pd.MultiIndex([prompts, seeds], [prompt[kept], seed[kept]], names=["prompt", "seed"], verify_integrity=False)
    return pd.DataFrame(columns, index=index), conflicts


class _Codes:
    """Texts as numbers; the same sequence is looked up once."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self._known: dict[tuple[str, ...], NDArray[np.int32]] = {}

    def of(self, texts: Iterable[str]) -> NDArray[np.int32]:
        """[texts], the number of each."""
        key = tuple(texts)
        if len(key) > 1 and len(set(key)) == 1:
            return self.of(key[:1]).repeat(len(key))
        if key not in self._known:
            self._known[key] = np.array([self.places.setdefault(text, len(self.places)) for text in key], np.int32)
        return self._known[key]

    def ascending(self, codes: NDArray[np.int32]) -> tuple[list[str], NDArray[np.int32]]:
        """All texts in order, and numbers that say which of these each is."""
        texts = sorted(self.places)
        rank = np.zeros(len(texts), np.int32)
        rank[[self.places[text] for text in texts]] = np.arange(len(texts))
        return texts, rank[codes]


@dataclass
class _Piece:
    """What became of the videos that were asked of one run. rows: [asked], where each stands among those done, -1 for others."""

    run: Run
    outcome: Finished
    units: list[str]
    codes: dict[str, NDArray[np.int32]]
    status: NDArray[np.int8]
    rows: NDArray[np.int64]
    whole: bool

    @property
    def metrics(self) -> Iterable[str]:
        """Names of metrics that some unit has."""
        return self.outcome.metrics

    @property
    def seeds(self) -> NDArray[np.int64]:
        """[asked], all the run's."""
        return np.full(len(self.units), self.run.place.seed, np.int64)

    def column(self, name: str) -> Floats:
        """[asked], of one metric."""
        values = self.outcome.metrics.get(name)
        if values is None or not len(values):
            return np.full(len(self.units), np.nan)
        return values if self.whole else np.where(self.rows >= 0, values[self.rows], np.nan)


def _piece(run: Run, wishes: Sequence[Asked], outcome: Finished, codes: Mapping[str, _Codes]) -> _Piece:
    units, texts = wishes[0].units, wishes[0].prompts
    for wish in wishes[1:]:  # the text of a prompt may have changed; the last wish counts
        units, texts = units | wish.units, texts | wish.prompts
    asked = list(units.values())
    whole = asked == outcome.units
    if whole:
        rows, status = np.arange(len(asked)), np.full(len(asked), DONE, np.int8)
        attempts = outcome.attempts
    else:
        place = {unit: row for row, unit in enumerate(outcome.units)}
        rows = np.array([place.get(unit, -1) for unit in asked], np.int64)
        status = np.array([_status(unit, bool(row >= 0), outcome) for unit, row in zip(asked, rows)], np.int8)
        attempts = [outcome.attempts[row] if row >= 0 else "" for row in rows]
    told = {"prompt": units, "text": texts.values() if texts.keys() == units.keys() else [texts.get(prompt, "") for prompt in units]}
    numbers = {name: codes[name].of(words) for name, words in told.items()} | {"attempt": codes["attempt"].of(attempts)}
    numbers["run"] = codes["run"].of([run.place.run]).repeat(len(asked))
    return _Piece(run, outcome, asked, numbers, status, rows, whole)


def _status(unit: str, done: bool, outcome: Finished) -> int:
    return DONE if done else FAILED if unit in outcome.failures else UNSCORED if unit in outcome.unscored else MISSING


def _facts(pieces: Sequence[_Piece]) -> dict[str, pd.Series]:
    """[asked of all], names of units, paths of files, hashes and speeds of the videos that are done."""
    rows = [(piece, piece.outcome.records[row] if row >= 0 else None) for piece in pieces for row in piece.rows]
    found = {"unit": pd.Series([unit for piece in pieces for unit in piece.units], dtype="str")}
    for kind, name in FILES.items():
        paths = [None if record is None else piece.run.side(record, kind) for piece, record in rows]
        found[name] = pd.Series([None if path is None else str(path) for path in paths], dtype="str")
    for name in FACTS:
        values = [None if record is None else getattr(record, name) for _, record in rows]
        found[name] = pd.Series(values, dtype="str" if name in TEXTS else "float64")
    return found


def _joined(arrays: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, kind)
