"""The numbers that the Echo-Forcing paper prints, its orderings in words, and our names for its names.

`published.csv` holds the numbers with their sources, `published_claims.csv` orderings that the paper states without a number,
`published_names.csv` the names: an empty `ours` means no counterpart here, for the reason in the note. Backbones and
metrics of the embedded world have a column of their own.
`published_speed.csv` holds reported speeds, of other code and other machines.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KINDS = ("backbone", "task", "metric", "method")
APART = ("2",)
"""Tables whose rows the paper ranks only within a backbone."""
OWN = ("echo", "longlive_echo", "echo_lambda_2")
"""Our names of the paper's own method, which comes first in a pair."""
WORLDS = ("backbone", "metric")
"""Kinds of names that differ in the embedded world."""


@dataclass(frozen=True)
class Number:
    """One printed value in the paper's own names; `value` is as printed, and higher is better (fps has no direction here)."""

    table: str
    task: str
    backbone: str
    method: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Speed:
    """A reported speed; `ours` None without a counterpart here, `fps` None if the source has no number, `block_ms` as printed.

    Frames are of 832x480 at 16 a second, without text encoding and decoding unless the remark says otherwise.
    """

    method: str
    ours: str | None
    fps: float | None
    block_ms: str
    hardware: str
    remark: str
    source: str


@dataclass(frozen=True)
class Side:
    """A row of a table, by the paper's names."""

    backbone: str
    method: str


@dataclass(frozen=True)
class Claim:
    """The paper ranks two rows of a table by a metric.

    first, second: the paper's own method, if it is one of them, is first. difference: first minus second as printed; None
    if the paper has only words.
    sign: 1 if the first is better in the paper, else -1.
    """

    table: str
    task: str
    metric: str
    first: Side
    second: Side
    difference: float | None
    sign: int
    source: str


@lru_cache(maxsize=1)
def numbers() -> tuple[Number, ...]:
    """All printed values, in the order of the file."""
    return tuple(Number(**{**row, "value": float(row["value"])}) for row in _rows("published.csv"))  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def speeds() -> tuple[Speed, ...]:
    """Every reported speed: the paper's own, once for each method of its Table 1, then those of other reports."""
    printed = {n.method: n for n in numbers() if n.metric == "fps"}  # the paper prints the same for 60 s and 120 s
    paper = [
        Speed(n.method, preset, n.value, "", "H100", "Table 1", f"Echo-Forcing (arXiv 2605.16003), {n.source}")
        for n in printed.values()
        for preset in ours("method", n.method, n.table)[-1:]  # the released one of several
    ]
    rows = _rows("published_speed.csv")
    others = [Speed(**{**row, "ours": row["ours"] or None, "fps": float(row["fps"]) if row["fps"] else None}) for row in rows]  # type: ignore[arg-type]
    return (*paper, *others)


@lru_cache(maxsize=1)
def _names() -> Mapping[tuple[str, str, str], Mapping[str, str]]:
    return {(row["kind"], row["table"], row["paper"]): row for row in _rows("published_names.csv")}


def ours(kind: str, paper: str, table: str, embedded: bool = False) -> tuple[str, ...]:
    """Our names for the paper's, the usual one first; empty without a counterpart. For another base: `baselines.ours.rebased`.

    Args:
        kind: one of `KINDS`.
        paper: the paper's name.
        table: the paper's table, since a name may mean different things in different tables.
        embedded: whether to return the embedded world's counterpart.

    Raises:
        KeyError: for a name that the table of names lacks.
    """
    names = _names()
    row = names.get((kind, table, paper)) or names.get((kind, "", paper))
    if row is None:
        raise KeyError(f"{kind} {paper!r} of Table {table} is not in published_names.csv")
    return tuple(row["embedded" if embedded and kind in WORLDS else "ours"].split())


def backbones(embedded: bool = False) -> frozenset[str]:
    """Our names of all backbones in the paper, or of their counterparts in the embedded world."""
    return frozenset(name for n in numbers() if n.backbone for name in ours("backbone", n.backbone, n.table, embedded))


def own(method: str, table: str) -> bool:
    """Whether a row is the paper's own method."""
    return any(preset in OWN for preset in ours("method", method, table))


def note(kind: str, paper: str, table: str) -> str:
    """The note on a name's counterpart, or an empty string."""
    names = _names()
    return (names.get((kind, table, paper)) or names.get((kind, "", paper)) or {"note": ""})["note"]


def unmapped(embedded: bool) -> list[tuple[str, str, str, str]]:
    """(kind, table or empty, the paper's name, reason) for every name without a counterpart."""
    return [(*key, row["note"]) for key, row in _names().items() if not ours(key[0], key[2], key[1], embedded)]


def claims() -> list[Claim]:
    """Every pair of rows that the paper ranks, by each metric, from its numbers and then from its words; ties are left out."""
    columns: dict[tuple[str, str, str], dict[Side, Number]] = {}
    for number in numbers():
        columns.setdefault((number.table, number.task, number.metric), {})[Side(number.backbone, number.method)] = number
    ranked = [claim for (table, task, metric), column in columns.items() for claim in _pairs(table, task, metric, column)]
    return ranked + [_told(row) for row in _rows("published_claims.csv")]


def _pairs(table: str, task: str, metric: str, column: Mapping[Side, Number]) -> Iterable[Claim]:
    for some, other in itertools.combinations(column, 2):
        first, second = (other, some) if own(other.method, table) else (some, other)
        difference = round(column[first].value - column[second].value, 6)
        if difference and (table not in APART or first.backbone == second.backbone):
            sources = dict.fromkeys((column[first].source, column[second].source))
            yield Claim(table, task, metric, first, second, difference, 1 if difference > 0 else -1, "; ".join(sources))


def _told(row: Mapping[str, str]) -> Claim:
    above, below = Side(row["backbone"], row["above"]), Side(row["backbone"], row["below"])
    turned = own(below.method, row["table"])
    first, second = (below, above) if turned else (above, below)
    return Claim(row["table"], row["task"], row["metric"], first, second, None, -1 if turned else 1, row["source"])


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
