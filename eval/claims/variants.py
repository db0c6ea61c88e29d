"""Cheap tests of why the store orders two rows unlike the paper: one row is swapped for a variant.

A variant differs from its base in one respect. If the verdict changes when the base is swapped for it, the respect is a reason;
if not, it is none. `conf/experiment/reasons.yaml` runs the variants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from echo.files import Json
from eval.claims.verdicts import DISAGREE, UNSURE, Finding, Rows, compare, judge, numbers
from eval.stats.statistics import Estimate, estimate
from eval.store.rows import differences


@dataclass(frozen=True)
class Reason:
    """base, variant: presets. text: what the variant does differently."""

    base: str
    variant: str
    text: str


REASONS = (
    Reason("echo", "echo_recall_fused", "recall frame fused from all candidates (blend 0), not 0.9 of the first frame"),
    Reason("echo", "echo_decay_paper", "old memory fades as the paper's text says, after hard cuts too"),
    Reason("echo", "echo_decay_tiled", "smooth memory fades by the released code's tiled discrepancy"),
    Reason("echo", "echo_pool_18", "rolling anchors from a pool of 18 frames, not 12"),
    Reason("echo", "echo_no_jump", "no jump of the temporal index at hard cuts and recalls"),
    Reason("echo", "echo_paper", "all settings as the paper's text says"),
    Reason("echo", "echo_official", "all settings as released"),
    Reason("longlive_echo", "longlive_echo_recall_fused", "recall frame fused from all candidates (blend 0), not 0.9 of the first frame"),
    Reason("self_forcing_recache", "self_forcing", "no recache at a switch"),
    Reason("longlive", "longlive_keep", "no recache at a switch"),
    Reason("infinity_rope", "infinity_rope_official", "window of 6 with frame 0 pinned, as released"),
    Reason("infinity_rope", "forget", "nothing kept at a switch, not the two newest frames"),
)


@dataclass(frozen=True)
class Trial:
    """A finding with one of its rows swapped for a variant.

    difference, verdict: with the variant. unswapped: the verdict without the variant, over the videos that the variant has too, which
    may be fewer; if it differs from the finding's, the variant tests nothing.
    """

    finding: Finding
    reason: Reason
    difference: Estimate
    verdict: str
    unswapped: str

    def as_json(self) -> Json:
        """All of it, in plain values."""
        pair = {name: getattr(self.finding, name) for name in ("task", "metric", "first", "second", "verdict")}
        swap = {"swapped": self.reason.base, "for": self.reason.variant, "difference": numbers(self.difference)}
        verdicts = {"verdict_then": self.verdict, "verdict_unswapped_same_videos": self.unswapped}
        return {"table": self.finding.claim.table} | pair | swap | verdicts


@dataclass(frozen=True)
class Effect:
    """Effect of a variant: variant minus base, by metric."""

    task: str
    backbone: str
    reason: Reason
    by_metric: dict[str, Estimate]

    def as_json(self) -> Json:
        """All of it, in plain values."""
        by_metric = {metric: numbers(difference) for metric, difference in self.by_metric.items()}
        names = {"task": self.task, "backbone": self.backbone, "base": self.reason.base, "variant": self.reason.variant}
        return names | {"by_metric": by_metric}


def effects(rows: Rows, reasons: Sequence[Reason] = REASONS) -> list[Effect]:
    """Paired differences variant minus base for every task and backbone with both, for every metric that both have."""
    changed = []
    for task in sorted(rows):
        named = {row.name: row for row in rows[task]}
        for backbone, reason in product(sorted({row.backbone for row in rows[task]}), reasons):
            base, variant = (named.get(f"{backbone}/{preset}") for preset in (reason.base, reason.variant))
            if base and variant:
                shared = sorted({*base.measured} & {*variant.measured})
                by_metric = {metric: d for metric in shared if (d := compare(variant, base, metric)) is not None}
                changed.append(Effect(task, backbone, reason, by_metric))
    return changed


def trials(findings: Iterable[Finding], rows: Rows, reasons: Sequence[Reason] = REASONS) -> list[Trial]:
    """Every finding that disagrees or is undecided, with each variant of either row that the store has."""
    tried = []
    for finding, reason in product([one for one in findings if one.verdict in (DISAGREE, UNSURE)], reasons):
        named, pair = {row.name: row for row in rows[finding.task]}, (finding.first, finding.second)
        first, second = swapped = tuple(_swapped(name, reason) for name in pair)
        if swapped == pair or first == second or not all(name in named for name in swapped):
            continue
        with_variant = differences(named[first], named[second], finding.metric)
        as_it_is = differences(named[finding.first], named[finding.second], finding.metric)
        difference = estimate(with_variant)
        if difference is not None:
            unswapped = judge(finding.claim.sign, estimate(as_it_is[as_it_is.index.isin(with_variant.index)]))
            tried.append(Trial(finding, reason, difference, judge(finding.claim.sign, difference), unswapped))
    return tried


def _swapped(name: str, reason: Reason) -> str:
    backbone, _, preset = name.partition("/")
    return f"{backbone}/{reason.variant}" if preset == reason.base else name
