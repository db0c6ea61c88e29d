"""Whether a store's scores order two rows as the paper does: paired differences and verdicts; pure functions of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.published import OWN, Claim, Side, ours
from echo.files import Json
from eval.stats.statistics import Estimate, estimate
from eval.store.rows import Entry, differences

AGREE, DISAGREE, UNSURE, MISSING = "agree", "disagree", "can't tell", "missing"
MARKS = {AGREE: "✓", DISAGREE: "✗", UNSURE: "?", MISSING: "–"}
STAND_IN = "tiny"
"""The backbone on which both rows are looked for where the store lacks one on its own."""

Rows = Mapping[str, Sequence[Entry]]
"""Rows by our task."""


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and what the store says of it.

    task, first, second, metric: our names, rows with their backbones. difference: first minus second; None where the store has
    none. why: what the store lacks, or what stands in for what; empty if nothing. lacks: rows that are not in the store.
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
        return self.first.partition("/")[2] in OWN

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
    """How many claims have which verdict."""

    agree: int
    disagree: int
    unsure: int
    missing: int

    @property
    def share(self) -> float | None:
        """Agreeing ones among those that the store decides, 0..1; None where it decides none."""
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
    """The verdict on a difference whose sign the paper gives; an interval that holds zero, or an unknown one, decides nothing."""
    if difference is None:
        return MISSING
    if difference.half_width is None or abs(difference.mean) <= difference.half_width:
        return UNSURE
    return AGREE if (difference.mean > 0) == (sign > 0) else DISAGREE


def find(claims: Iterable[Claim], rows: Rows) -> list[Finding]:
    """What the store says to every claim whose task, metric and rows have a counterpart here; the others are left out."""
    findings = []
    for claim in claims:
        task, metric = ours("task", claim.task, claim.table), ours("metric", claim.metric, claim.table)
        if task and metric and (first := _ours(claim.first, claim.table)) and (second := _ours(claim.second, claim.table)):
            findings.append(_finding(claim, task, metric, (first, second), {row.name: row for row in rows.get(task, ())}))
    return findings


def _ours(side: Side, table: str) -> str | None:
    """`backbone/preset` that stands for a row of the paper; None if there is no counterpart."""
    backbone, preset = ours("backbone", side.backbone, table), ours("method", side.method, table)
    return None if backbone is None or preset is None else f"{backbone}/{preset}"


def _finding(claim: Claim, task: str, metric: str, named: tuple[str, str], rows: Mapping[str, Entry]) -> Finding:
    """A pair that the store lacks may stand on the stand-in, where Echo's ablations of the long-tuned backbone are those of Echo."""
    others = tuple(f"{STAND_IN}/{name.partition('/')[2]}" for name in named)
    plain = tuple(name.replace("/longlive_echo", "/echo") for name in others)
    pair = next((pair for pair in (named, others, plain) if all(name in rows for name in pair)), named)
    why = "" if pair == named else f"on {STAND_IN}"
    lacks = tuple(name for name in dict.fromkeys(pair) if name not in rows)
    difference = None if lacks else compare(rows[pair[0]], rows[pair[1]], metric)
    if lacks:
        why = f"no {' and no '.join(lacks)} on {task}"
    elif difference is None:
        why = f"no shared videos with {metric} of {pair[0]} and {pair[1]} on {task}"
    return Finding(claim, task, pair[0], pair[1], metric, difference, judge(claim.sign, difference), why, lacks)


def compare(first: Entry, second: Entry, metric: str) -> Estimate | None:
    """Paired difference, first minus second, over shared prompts and seeds, prompts being the clusters; None without any."""
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
