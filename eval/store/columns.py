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

from eval.metrics import derived
from eval.store.reading import content_of
from eval.store.records import UNREADABLE, DamagedLine, Outcome, Score, UnitRecord, Version, at_once, decoder, whole_lines
from eval.store.runs import Asked, Run, settle

Wishes = tuple[Run, Sequence[Asked]]
"""A run and all that was asked of it under one way of scoring, oldest first."""
Floats = NDArray[np.float64]
Values = Sequence[Any] | Floats
STATUS = ("missing", "unscored", "failed", "done")
"""What became of a video that was asked for; of several outcomes of one the last here counts. unscored: it is there, has no scores
of this kind, and nobody has tried to score it. failed: it was tried, and only errors came of it."""
MISSING, UNSCORED, FAILED, DONE = range(len(STATUS))
FACTS = (
    "latents_sha256", "blocks", "fps", "fps_dit", "denoising_steps", "attended_frames", "kept_frames", "block_ms", "block_ms_p95",
    "switch_block_ms", "generate_s", "decode_s", "score_s", "dur_s", "process_peak_mb", "host", "device",
)  # fmt: skip
"""Fields of a record that a table of videos has beside metrics, if it is asked for facts; `TEXTS` of all facts are no numbers."""
TEXTS = ("latents_sha256", "host", "device", "spoilt")
FILES = {"video": "video", "trace": "trace", "scores": "scores_file"}
"""Kinds of side files and the columns that hold their paths."""
CATEGORIES = ("text", "run", "attempt", "pixel_code")
"""Columns of few different texts."""
ASKED = ("prompt", "seed", "status")
"""Columns that every video has."""
RESERVED = {*FACTS, *TEXTS, *FILES.values(), *CATEGORIES, *ASKED, "dead", "unit"}
"""What no metric is called."""


@dataclass
class Finished:
    """What is done of a run under one way of scoring, by column, in the order of time.

    units, attempts, pixel_codes: [done], the unit, whose record it is, and of what code. metrics: [done] by name, NaN where there is no
    number; of all names that some unit has, be it without a number. failures, conflicts, damaged, spoilt: as of
    `eval.store.runs.Settled`. unscored: units that are not done and whose video is there. dead: units whose video shows nothing, or
    nothing that moves. records: if they were asked for.
    """

    units: list[str]
    attempts: list[str]
    pixel_codes: list[str]
    metrics: dict[str, Floats]
    failures: Mapping[str, int] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    unscored: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    damaged: Sequence[DamagedLine] = ()
    spoilt: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[UnitRecord] = ()

    def status(self, unit: str) -> int:
        """What became of a unit that is not done."""
        return FAILED if unit in self.failures else UNSCORED if unit in self.unscored else MISSING


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
    settled = run.settled(scores) if facts else settle(*run.lines(Outcome), scores)
    records = list(settled.done.values())
    names = dict.fromkeys(name for record in records for name in record.metrics if name not in RESERVED)
    metrics = {name: np.array([record.metrics.get(name) for record in records], np.float64) for name in names}
    attempts, codes = ([getattr(record, name) for record in records] for name in ("attempt", "pixel_code"))
    unscored = frozenset(settled.made - settled.done.keys())
    whole = [record for record in records if isinstance(record, UnitRecord)]
    dead = frozenset(record.unit for record in records if record.dead)
    rest = (dead, settled.damaged, settled.spoilt, whole)
    return Finished(list(settled.done), attempts, codes, metrics, settled.failures, settled.conflicts, unscored, *rest)


def _plain(run: Run, scores: str) -> Finished | None:
    """The same of a run with one file of records, all of them ok, of one way of scoring, of the same metrics and each of a unit of its
    own, which most are; None of any other. A million records take seconds, as no record becomes a dictionary."""
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
    if lines is None:  # damaged, an error, scored otherwise, of other metrics, or of other code
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
    whose = ([attempt] * len(lines), [first.pixel_code] * len(lines))
    return Finished(units, *whose, {name: array[:, place] for place, name in enumerate(names)})


@lru_cache(maxsize=64)
def _typed(names: tuple[str, ...], scores: str, code: str) -> Any:
    """The kind of outcomes that are ok, not dead, scored this way, of this code, and have these metrics and no other."""
    fields = [(f"m{place}", Score | None) for place in range(len(names))]
    renamed = {f"m{place}": name for place, name in enumerate(names)}
    numbers = msgspec.defstruct("Numbers", fields, rename=renamed, forbid_unknown_fields=True, gc=False)
    kept: list[tuple[str, Any] | tuple[str, Any, Any]] = [("unit", str), ("t", Score), ("metrics", numbers)]
    kept += [("pixel_code", Literal[code])] * bool(code)
    kept += [("status", Literal["ok"]), ("scores", Literal[scores]), ("v", Version, 1), ("dead", Literal[""], "")]
    kept += [("pixel_code", Literal[""], "")] * (not code)
    return msgspec.defstruct("Line", kept, gc=False)


@lru_cache(maxsize=64)
def _values(count: int) -> Callable[[Any], tuple[float | None, ...]]:
    """What takes the numbers of a line's metrics."""
    if count == 1:
        return lambda numbers: (numbers.m0,)
    return attrgetter(*(f"m{place}" for place in range(count))) if count else lambda numbers: ()


def table(parts: Iterable[Wishes], facts: bool = False) -> tuple[pd.DataFrame, list[str], list[DamagedLine]]:
    """What became of the videos that were asked of some runs, which may share prompts and seeds.

    Args:
        parts: the runs, and what was asked of each.
        facts: whether paths, hashes and speeds are wanted too.

    Returns:
        A row for each video, by prompt and seed, units that were computed twice with different outcomes, and lines of records that are
        damaged and left out. Of a video that several runs were asked for the best outcome counts, and of several such the last run's.

        Index: prompt and seed, ascending. Columns: `status` (category, one of `STATUS`), `text` (category, digest of the prompt as
        asked for), `run`, `attempt`, `pixel_code` (category; whose number it is, "" where nothing is done), `dead` (bool), then a float64
        for each metric that any video has, be it without a number, and for each that is made of these: NaN where there is none. With facts
        also `unit`, the columns of `FILES` (str, paths), `spoilt` (str, what is wrong with a file) and `FACTS` (float64 but for `TEXTS`,
        which are str); NaN where nothing is done, or nothing wrong.
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
    """What became of the videos that were asked of one run, by column of its table."""
    units, prompts = wishes[0].units, wishes[0].prompts
    for wish in wishes[1:]:  # the text of a prompt may have changed; the last wish counts
        units, prompts = units | wish.units, prompts | wish.prompts
    asked, texts = list(units.values()), [prompts.get(prompt, "") for prompt in units]
    piece: dict[str, Values] = {"prompt": list(units), "seed": [run.place.seed] * len(asked), "text": texts}
    piece["run"] = [run.place.run] * len(asked)
    if asked == outcome.units:  # as of most runs
        rows: Sequence[int] = range(len(asked))
        piece |= {"status": [DONE] * len(asked), "attempt": outcome.attempts, "pixel_code": outcome.pixel_codes, **outcome.metrics}
    else:
        places = {unit: row for row, unit in enumerate(outcome.units)}
        rows = [places.get(unit, -1) for unit in asked]
        piece["status"] = [DONE if row >= 0 else outcome.status(unit) for unit, row in zip(asked, rows)]
        for name, own in (("attempt", outcome.attempts), ("pixel_code", outcome.pixel_codes)):
            piece[name] = [own[row] if row >= 0 else "" for row in rows]
        piece |= {name: np.append(values, np.nan)[rows] for name, values in outcome.metrics.items()}
    piece["dead"] = [unit in outcome.dead for unit in asked] if outcome.dead else [False] * len(asked)
    if not facts:
        return piece
    piece["spoilt"] = [outcome.spoilt.get(unit) for unit in asked]
    return piece | _facts(run, asked, [outcome.records[row] if row >= 0 else None for row in rows])


def _facts(run: Run, units: Sequence[str], records: Sequence[UnitRecord | None]) -> dict[str, Values]:
    """Names of units, paths of files, hashes and speeds of the videos that are done."""
    paths = {name: [record and run.side(record, kind) for record in records] for kind, name in FILES.items()}
    columns: dict[str, Values] = {"unit": units}
    columns |= {name: [None if path is None else str(path) for path in own] for name, own in paths.items()}
    return columns | {name: [getattr(record, name, None) for record in records] for name in FACTS}
