"""Numbers of many videos by column: one array per metric instead of one dictionary per video."""

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

from eval.metrics import COSTS, derived
from eval.store.reading import content_of
from eval.store.records import UNREADABLE, DamagedLine, Outcome, Score, UnitRecord, Version, at_once, decoder, whole_lines
from eval.store.runs import Asked, Run, settle

Wishes = tuple[Run, Sequence[Asked]]
"""A run and all its requests under one way of scoring, oldest first."""
Floats = NDArray[np.float64]
Values = Sequence[Any] | Floats
STATUS = ("missing", "unscored", "failed", "done")
"""Status of a requested video; of several outcomes the one that is last in this tuple counts. unscored: it exists without scores of this
kind, and nobody has tried to score it. failed: it was tried, and every try ended in an error."""
MISSING, UNSCORED, FAILED, DONE = range(len(STATUS))
FACTS = (
    "latents_sha256", "blocks", "fps", "fps_dit", "denoising_steps", "attended_frames", "kept_frames", "kept_mb", "block_ms",
    "block_ms_p95", "switch_block_ms", "generate_s", "decode_s", "score_s", "dur_s", "process_peak_mb", "host", "device",
)  # fmt: skip
"""Fields of a record that a table of videos has besides metrics, if facts are requested; those in `TEXTS` are not numbers."""
TEXTS = ("latents_sha256", "host", "device", "spoilt")
FILES = {"video": "video", "trace": "trace", "scores": "scores_file"}
"""Kinds of side files and the columns that hold their paths."""
CATEGORIES = ("text", "run", "attempt", "pixel_code")
"""Columns with few distinct texts."""
ASKED = ("prompt", "seed", "status")
"""Columns that every video has."""
RESERVED = {*FACTS, *TEXTS, *FILES.values(), *CATEGORIES, *ASKED, "dead", "unit"}
"""Names that no metric may have."""


@dataclass
class Finished:
    """Finished units of a run under one way of scoring, by column, in the order of time.

    units, attempts, pixel_codes, devices: [done], the unit, the attempt that recorded it, its code and what made it. metrics: [done]
    by name, for every name that some unit has, NaN where there is no number; costs (`eval.metrics.COSTS`) are among them. failures,
    conflicts, damaged, spoilt: those of `eval.store.runs.Settled`. unscored: units that are not done but whose video exists. dead: units
    whose video shows nothing, or nothing that moves. records: only if requested.
    """

    units: list[str]
    attempts: list[str]
    pixel_codes: list[str]
    devices: list[str | None]
    metrics: dict[str, Floats]
    failures: Mapping[str, int] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    unscored: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    damaged: Sequence[DamagedLine] = ()
    spoilt: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[UnitRecord] = ()

    def status(self, unit: str) -> int:
        """Index in `STATUS` of a unit that is not done."""
        return FAILED if unit in self.failures else UNSCORED if unit in self.unscored else MISSING


def finished(run: Run, scores: str | None, facts: bool = False) -> Finished:
    """Finished units of a run.

    Args:
        scores: id of the way of scoring; None accepts any.
        facts: whether to return whole records.
    """
    if not facts and scores is not None:
        known = _plain(run, scores)
        if known is not None:
            return known
    settled = run.settled(scores) if facts else settle(*run.lines(Outcome), scores)
    records = list(settled.done.values())
    names = dict.fromkeys(name for record in records for name in record.metrics if name not in RESERVED)
    metrics = {name: np.array([record.metrics.get(name) for record in records], np.float64) for name in names}
    metrics |= _costs(records)
    attempts, codes, devices = ([getattr(record, name) for record in records] for name in ("attempt", "pixel_code", "device"))
    unscored = frozenset(settled.made - settled.done.keys())
    whole = [record for record in records if isinstance(record, UnitRecord)]
    dead = frozenset(record.unit for record in records if record.dead)
    rest = (dead, settled.damaged, settled.spoilt, whole)
    return Finished(list(settled.done), attempts, codes, devices, metrics, settled.failures, settled.conflicts, unscored, *rest)


def _plain(run: Run, scores: str) -> Finished | None:
    """Fast path of `finished` for most runs: one file of records, all ok, each of another unit, with one way of scoring and the same
    metrics; None for any other run. A million records take seconds, since no record becomes a dictionary."""
    paths = run.record_files()
    if len(paths) != 1:
        return None
    try:
        content = content_of(paths[0])
        first = decoder(Outcome).decode(content[: content.index(b"\n")])
    except (OSError, ValueError, *UNREADABLE):  # DamagedFile too
        return None
    names = tuple(first.metrics)
    lines = None if RESERVED & set(names) else at_once(whole_lines(content), _typed(names, scores, first.pixel_code))
    if lines is None:  # damaged, an error, or with another scorer, other metrics or other code
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
    whose = ([attempt] * len(lines), [first.pixel_code] * len(lines), [line.device for line in lines])
    return Finished(units, *whose, {name: array[:, place] for place, name in enumerate(names)} | _costs(lines))


def _costs(lines: Sequence[Any]) -> dict[str, Floats]:
    """Costs that some of these outcomes have, by the names of their metrics: [lines], NaN where there is none."""
    columns = {name: np.array([getattr(line, fact) for line in lines], np.float64) for name, fact in COSTS.items()}
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


@lru_cache(maxsize=64)
def _typed(names: tuple[str, ...], scores: str, code: str) -> Any:
    """The type of outcomes that are ok and not dead, with these scores, this code, and exactly these metrics."""
    fields = [(f"m{place}", Score | None) for place in range(len(names))]
    renamed = {f"m{place}": name for place, name in enumerate(names)}
    numbers = msgspec.defstruct("Numbers", fields, rename=renamed, forbid_unknown_fields=True, gc=False)
    kept: list[tuple[str, Any] | tuple[str, Any, Any]] = [("unit", str), ("t", Score), ("metrics", numbers)]
    kept += [("pixel_code", Literal[code])] * bool(code)
    kept += [("status", Literal["ok"]), ("scores", Literal[scores]), ("v", Version, 1), ("dead", Literal[""], "")]
    kept += [("pixel_code", Literal[""], "")] * (not code)
    kept += [("device", str | None, None), *((fact, Score | None, None) for fact in COSTS.values())]
    return msgspec.defstruct("Line", kept, gc=False)


@lru_cache(maxsize=64)
def _values(count: int) -> Callable[[Any], tuple[float | None, ...]]:
    """A function that takes the numbers out of a line's metrics."""
    if count == 1:
        return lambda numbers: (numbers.m0,)
    return attrgetter(*(f"m{place}" for place in range(count))) if count else lambda numbers: ()


def table(parts: Iterable[Wishes], facts: bool = False) -> tuple[pd.DataFrame, list[str], list[DamagedLine]]:
    """Status and numbers of the requested videos of some runs, which may share prompts and seeds.

    Args:
        parts: the runs and their requests.
        facts: whether to include paths, hashes and speeds.

    Returns:
        A row per video, by prompt and seed; units that were computed twice with different outcomes; and damaged lines of records, which
        are left out. If several runs have the same video, the best outcome counts, and among equal ones the last run's.

        Index: prompt and seed, ascending. Columns: `status` (category, one of `STATUS`), `text` (category, digest of the prompt as
        requested), `run`, `attempt`, `pixel_code` (category; the source of the numbers, "" if not done), `device` (str), `dead` (bool),
        then a float64 column per metric that any video has or that is derived from these, NaN where there is no number. With facts also
        `unit`, the columns of `FILES` (str, paths), `spoilt` (str, what is wrong with a file) and `FACTS` (float64, those in `TEXTS`
        str); NaN where nothing is done, or nothing is wrong.
    """
    pieces, conflicts, damaged = list[dict[str, Values]](), list[str](), list[DamagedLine]()
    for run, wishes in parts:
        outcome = finished(run, wishes[-1].scores, facts)
        pieces.append(_piece(run, wishes, outcome, facts))
        conflicts += outcome.conflicts
        damaged += outcome.damaged

    def texts(name: str) -> tuple[NDArray[np.intp], NDArray[Any]]:
        return pd.factorize(np.array(list(chain.from_iterable(piece[name] for piece in pieces)), object), sort=True)

    def numbers(name: str, kind: type[np.generic] = np.float64) -> NDArray[Any]:
        columns = [np.asarray(piece[name], kind) if name in piece else np.full(len(piece["prompt"]), np.nan) for piece in pieces]
        return np.concatenate(columns) if columns else np.zeros(0, kind)

    (prompt, prompts), (seed, seeds) = texts("prompt"), np.unique(numbers("seed", np.int64), return_inverse=True)[::-1]
    status = numbers("status", np.int8)
    order = np.lexsort((status, seed, prompt))  # stable: later runs come later
    last = np.append((np.diff(prompt[order]) != 0) | (np.diff(seed[order]) != 0), True)[: len(order)]
    kept = order[last]
    columns: dict[str, Any] = {"status": pd.Categorical.from_codes(status[kept], list(STATUS))}
    for name in dict.fromkeys((*CATEGORIES, *(name for piece in pieces for name in piece if name not in ASKED))):
        if name in CATEGORIES:
            codes, categories = texts(name)
            columns[name] = pd.Categorical.from_codes(codes[kept], categories)
        elif name in ("unit", *FILES.values(), *TEXTS):
            columns[name] = pd.Series(np.array(list(chain.from_iterable(piece[name] for piece in pieces)), object)[kept], dtype="str")
        else:
            columns[name] = numbers(name, np.bool_ if name == "dead" else np.float64)[kept]
    columns |= derived({name: values for name, values in columns.items() if isinstance(values, np.ndarray)})
    index = pd.MultiIndex([prompts, seeds], [prompt[kept], seed[kept]], names=["prompt", "seed"], verify_integrity=False)
    return pd.DataFrame(columns).set_axis(index), conflicts, damaged


def _piece(run: Run, wishes: Sequence[Asked], outcome: Finished, facts: bool) -> dict[str, Values]:
    """Status and numbers of one run's requested videos, by column of `table`."""
    units, prompts = wishes[0].units, wishes[0].prompts
    for wish in wishes[1:]:  # the text of a prompt may have changed; the last request counts
        units, prompts = units | wish.units, prompts | wish.prompts
    asked, texts = list(units.values()), [prompts.get(prompt, "") for prompt in units]
    piece: dict[str, Values] = {"prompt": list(units), "seed": [run.place.seed] * len(asked), "text": texts}
    piece["run"] = [run.place.run] * len(asked)
    if asked == outcome.units:  # true for most runs
        rows: Sequence[int] = range(len(asked))
        piece |= {"status": [DONE] * len(asked), "attempt": outcome.attempts, "pixel_code": outcome.pixel_codes, **outcome.metrics}
        piece["device"] = outcome.devices
    else:
        places = {unit: row for row, unit in enumerate(outcome.units)}
        rows = [places.get(unit, -1) for unit in asked]
        piece["status"] = [DONE if row >= 0 else outcome.status(unit) for unit, row in zip(asked, rows)]
        for name, own in (("attempt", outcome.attempts), ("pixel_code", outcome.pixel_codes)):
            piece[name] = [own[row] if row >= 0 else "" for row in rows]
        piece["device"] = [outcome.devices[row] if row >= 0 else None for row in rows]
        piece |= {name: np.append(values, np.nan)[rows] for name, values in outcome.metrics.items()}
    piece["dead"] = [unit in outcome.dead for unit in asked] if outcome.dead else [False] * len(asked)
    if not facts:
        return piece
    piece["spoilt"] = [outcome.spoilt.get(unit) for unit in asked]
    return piece | _facts(run, asked, [outcome.records[row] if row >= 0 else None for row in rows])


def _facts(run: Run, units: Sequence[str], records: Sequence[UnitRecord | None]) -> dict[str, Values]:
    """Names of units, paths of files, hashes and speeds of finished videos."""
    paths = {name: [record and run.side(record, kind) for record in records] for kind, name in FILES.items()}
    columns: dict[str, Values] = {"unit": units}
    columns |= {name: [None if path is None else str(path) for path in own] for name, own in paths.items()}
    return columns | {name: [getattr(record, name, None) for record in records] for name in FACTS}
