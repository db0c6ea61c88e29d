"""Whether a store's scores order two rows as the paper does: paired differences and verdicts; pure functions of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd

from baselines.ours import BASES, rebased
from data.published import Claim, backbones, ours, own
from echo.files import Json
from eval import metrics
from eval.stats.agreement import paired
from eval.stats.statistics import Estimate, estimate
from eval.store.rows import Entry, differences
from eval.tables import opinions

AGREE, DISAGREE, UNSURE, MISSING = "agree", "disagree", "can't tell", "missing"
MARKS = {AGREE: "✓", DISAGREE: "✗", UNSURE: "?", MISSING: "–"}
STAND_INS = ours("backbone", "Self-Forcing", "", embedded=True)
"""Backbones on which both rows are compared if a store of the embedded world lacks one row on its own backbone."""

RATERS = "raters"
"""Replaces the backbone in the names of rows that people rated."""

Rows = Mapping[str, Sequence[Entry]]
"""Rows by our task."""


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and the store's verdict.

    task, first, second, metric: our names, rows with their backbones. difference: first minus second; None if the store has
    none. why: what the store lacks, or which row replaces which; may be empty. lacks: rows that are not in the store.
    """

    claim: Claim
    task: str
    first: str
    second: str
    metric: str
    difference: Estimate | None
    verdict: str
    why: str
    lacks: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether one of the rows is the paper's own method."""
        return own(self.claim.first.method, self.claim.table)

    def as_json(self) -> Json:
        """All of it, in plain values."""
        return {
            "metric": self.metric,
            "first": self.first,
            "second": self.second,
            "paper_difference": self.claim.difference,
            "paper_sign": self.claim.sign,
            "difference": numbers(self.difference),
            "verdict": self.verdict,
            "why": self.why,
            "source": self.claim.source,
        }


@dataclass(frozen=True)
class Count:
    """Number of claims by verdict."""

    agree: int
    disagree: int
    unsure: int
    missing: int

    @property
    def share(self) -> float | None:
        """Share of agreeing claims among the decided ones, 0..1; None if none is decided."""
        decided = self.agree + self.disagree
        return self.agree / decided if decided else None

    @property
    def text(self) -> str:
        """In words."""
        share = "" if self.share is None else f" ({100 * self.share:.0f} % of the decided)"
        return f"agree {self.agree}, disagree {self.disagree}{share}, can't tell {self.unsure}, missing {self.missing}"

    def as_json(self) -> Json:
        """All of it, in plain values."""
        share = None if self.share is None else round(self.share, 4)
        return {"agree": self.agree, "disagree": self.disagree, "cant_tell": self.unsure, "missing": self.missing, "share": share}


def judge(sign: int, difference: Estimate | None) -> str:
    """The verdict on a difference whose sign the paper gives; undecided if the interval contains zero or is unknown."""
    if difference is None:
        return MISSING
    if difference.half_width is None or abs(difference.mean) <= difference.half_width:
        return UNSURE
    return AGREE if (difference.mean > 0) == (sign > 0) else DISAGREE


@dataclass(frozen=True)
class _There:
    """A store's rows of a task by name, names of all measured metrics, and whether it is of the embedded world."""

    rows: Mapping[str, Entry]
    measured: frozenset[str]
    embedded: bool

    @classmethod
    def of(cls, rows: Sequence[Entry]) -> _There:
        measured = frozenset(metric for row in rows for metric in row.measured)
        return cls({row.name: row for row in rows}, measured, is_embedded(rows))


def is_embedded(rows: Iterable[Entry]) -> bool:
    """Whether no row is on a backbone of the paper; then the embedded world's counterparts are compared."""
    return not any(row.backbone in backbones() for row in rows)


def find(claims: Iterable[Claim], rows: Rows, base: str = "") -> list[Finding]:
    """The store's finding on every claim whose task, metric and rows have a counterpart here; the others are left out.

    base: which of `BASES` stands for the paper's own method; by default the first whose rows the store has.
    """
    there = {task: _There.of(members) for task, members in rows.items()}
    findings = []
    for claim in claims:
        for task in ours("task", claim.task, claim.table):
            here = there.get(task) or _There.of(())
            pairs = list(_pairs(claim, here.embedded, (base,) if base else BASES))
            for dimension in ours("metric", claim.metric, claim.table, here.embedded)[: len(pairs)]:
                findings.append(_finding(claim, task, metrics.column(task, dimension, here.measured).metric, pairs, here))
    return findings


def _pairs(claim: Claim, embedded: bool, bases: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of `backbone/preset` that may stand for the rows of a claim, the usual ones first; empty without a counterpart."""
    sides = (claim.first, claim.second)
    places = [ours("backbone", side.backbone, claim.table, embedded) for side in sides]
    presets = [ours("method", side.method, claim.table) for side in sides]
    pairs = [(names, base) for names in product(*presets) for base in bases]
    for (first, second), base in sorted(pairs, key=lambda pair: bases.index(pair[1])):
        for some, other in zip(*places, strict=True):  # both of one world
            yield f"{some}/{rebased(first, base)}", f"{other}/{rebased(second, base)}"


def _stand_ins(pair: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """The pair on each of `STAND_INS`, also with Echo's ablations in place of the long-tuned backbone's, which are the same there."""
    for backbone in STAND_INS:
        first, second = (f"{backbone}/{name.partition('/')[2]}" for name in pair)
        yield first, second
        yield first.replace("/longlive_echo", "/echo"), second.replace("/longlive_echo", "/echo")


def _finding(claim: Claim, task: str, metric: str, pairs: Sequence[tuple[str, str]], there: _There) -> Finding:
    """The finding on the first pair that the store has, on their own backbones or, in the embedded world, on one of `STAND_INS`."""
    rows = there.rows
    others = [other for pair in pairs for other in _stand_ins(pair)] if there.embedded else []
    pair = next((pair for pair in (*pairs, *others) if all(name in rows for name in pair)), None)
    pair = pair or min(pairs, key=lambda names: sum(name not in rows for name in names))
    why = "" if pair in pairs else f"on {pair[0].partition('/')[0]}"
    lacks = tuple(name for name in dict.fromkeys(pair) if name not in rows)
    difference = None if lacks else compare(rows[pair[0]], rows[pair[1]], metric)
    if lacks:
        why = f"no {' and no '.join(lacks)} on {task}"
    elif difference is None:
        why = f"no shared videos with {metric} of {pair[0]} and {pair[1]} on {task}"
    return Finding(claim, task, pair[0], pair[1], metric, difference, judge(claim.sign, difference), why, lacks)


def rated(claims: Iterable[Claim], ratings: pd.DataFrame, base: str = "") -> list[Finding]:
    """Findings on claims of Tables 4 and 5 by people's ratings (`eval.tables.opinions.read`), paired by rater and video."""
    findings = []
    for claim in claims:
        own = ratings[(ratings["criterion"] == claim.metric) & ratings["task"].isin(opinions.TASKS.get(f"table{claim.table}", ()))]
        points = {name: rows.set_index(["rater", "shown"])["points"] for name, rows in own.groupby(["backbone", "method"], sort=False)}
        there = {f"{RATERS}/{method}": values for (_, method), values in reversed(points.items())}  # of several backbones the first
        sides = product(*(ours("method", side.method, claim.table) for side in (claim.first, claim.second)))
        pairs = [(pair, one) for pair in sides for one in ((base,) if base else BASES)]
        names = [tuple(f"{RATERS}/{rebased(name, one)}" for name in pair) for pair, one in pairs]
        if not names:
            continue
        first, second = next((pair for pair in names if set(pair) <= there.keys()), names[0])
        lacks = tuple(name for name in (first, second) if name not in there)
        difference = None if lacks else paired(there[first], there[second])
        why = f"no ratings of {' and '.join(lacks)}" if lacks else "" if difference else f"nobody rated both {first} and {second}"
        metric = metrics.Column(claim.metric, "opinion").metric
        findings.append(Finding(claim, claim.task, first, second, metric, difference, judge(claim.sign, difference), why, lacks))
    return findings


def compare(first: Entry, second: Entry, metric: str) -> Estimate | None:
    """Paired difference, first minus second, over shared prompts and seeds, clustered by prompt; None without any."""
    return estimate(differences(first, second, metric))


def count(findings: Iterable[Finding]) -> Count:
    """Verdicts counted."""
    counter = Counter(finding.verdict for finding in findings)
    return Count(*(counter[verdict] for verdict in MARKS))


def numbers(difference: Estimate | None) -> dict[str, float | None] | None:
    """An estimate in plain values."""
    if difference is None:
        return None
    half = None if difference.half_width is None else round(difference.half_width, 4)
    size = {"videos": difference.videos, "prompts": difference.prompts, "seeds": difference.seeds}
    return {"mean": round(difference.mean, 4), "half_width": half, **size}


def signed(difference: Estimate | None) -> str:
    """As printed: mean with its sign, and half the interval."""
    if difference is None:
        return ""
    half = "" if difference.half_width is None else f" ± {difference.half_width:.2f}"
    return f"{difference.mean:+.2f}{half}"
