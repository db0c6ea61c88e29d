"""Which number of the store a column shows, by which definition, and what a reader must know of it.

A dimension may be measured by several definitions, told by how a metric's name ends: `subject_consistency.vbench_long` is not
`subject_consistency.vbench`. A column shows one of them, the same in every row, and says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from echo.refusals import nearest_of
from eval.protocol import TASKS, Scope
from eval.tables.grid import Column

LONG = (
    "aesthetic_quality",
    "background_consistency",
    "imaging_quality",
    "subject_consistency",
    "motion_smoothness",
    "temporal_flickering",
    "dynamic_degree",
    "text_alignment",
)
"""Columns of the paper's Table 1, then the dimension that only Table 2 has."""
INTERACTIVE = (
    "text_alignment",
    "subject_consistency",
    "background_consistency",
    "aesthetic_quality",
    "imaging_quality",
    "motion_smoothness",
    "temporal_flickering",
    "dynamic_degree",
)
"""Columns of the paper's Table 2, then the dimensions that only Table 1 has."""
WORLD = ("recall_fidelity", "leakage", "half_life_blocks")
"""Columns that only the embedded world has; they stand first, where anything was measured."""
ORDER = {"long60": LONG, "long120": LONG, "smooth": INTERACTIVE, "hard": INTERACTIVE, "recall": INTERACTIVE}
CONSISTENCY = ("subject_consistency", "background_consistency")


@dataclass(frozen=True)
class Rule:
    """A definition: what it is of, and in words; `cuts`: it says itself over which stretches it goes."""

    words: str
    cuts: bool = False


RULES = {
    "vbench_long": Rule(
        "VBench-Long: mean over clips of 2 s; subject and background consistency are half the clips' own, half that between clips, "
        "mapped by VBench-Long's table",
        cuts=True,
    ),
    "vbench": Rule("VBench's plain formulas"),
    "pair_mean": Rule("consistency of a pair: mean cosine across it"),
    "pair_joined": Rule("consistency of a pair: VBench's plain formula on the two scenes joined end to end"),
    "clip_b32": Rule("text alignment: 100 x cosine of CLIP ViT-B/32"),
    "clip_l14": Rule("text alignment: 100 x cosine of CLIP ViT-L/14"),
    "viclip": Rule("text alignment: 100 x cosine of ViCLIP"),
    "vbench_text_alignment": Rule("text alignment: mean of CLIP's and ViCLIP's cosine x 100, as in VBench's competitions"),
}
"""By how the metric's name ends, in the order in which a table's caption tells them."""
TEXT = ("clip_b32", "clip_l14", "viclip", "vbench_text_alignment")
SCOPES = {
    Scope.segments: "scene by scene",
    Scope.pairs: "on each recalled scene with the one that it recalls (4-1, 5-2, 6-3)",
    Scope.whole: "over the whole video",
}


def check(rules: Sequence[str]) -> None:
    """Refuse, by a ValueError in one line, a definition that there is not."""
    for rule in rules:
        if rule not in RULES:
            raise ValueError(f"rule={rule}: no such definition; {nearest_of(rule, RULES)}")


def columns(task: str, names: Iterable[str], rules: Sequence[str] = (), wanted: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of a table.

    Args:
        task: its task.
        names: metrics that any row has.
        rules: definitions that come before the usual ones.
        wanted: dimensions and their order; the task's own by default. Those of the embedded world stand before them.
    """
    there = set(names)
    world = [Column(dimension, "world") for dimension in WORLD if f"world.{dimension}" in there]
    usual = wanted or ORDER.get(task, INTERACTIVE)
    return (*world, *(_column(task, dimension, there, rules) for dimension in usual))


def _column(task: str, dimension: str, there: set[str], rules: Sequence[str]) -> Column:
    """The first definition that was measured; the dimension alone where none was."""
    if dimension == "text_alignment":
        usual: tuple[str, ...] = TEXT
    else:
        paired = TASKS.get(task, {}).get(dimension) is Scope.pairs
        plain = ("vbench_long", "vbench") if task.startswith("long") else ("vbench", "vbench_long")
        usual = ("pair_mean", "pair_joined", *plain) if paired else plain
    candidates = (Column(dimension, kind) for kind in (*rules, *usual, "", "proxy"))
    return next((column for column in candidates if column.metric in there), Column(dimension, ""))


def rule_of(task: str, shown: Sequence[Column]) -> str:
    """How the columns of a task are scored, in words: stretches first, definitions then."""
    scopes = TASKS.get(task)
    kinds = {column.kind for column in shown}
    told = [rule.words for kind, rule in RULES.items() if kind in kinds]
    if scopes is None:
        return "; ".join(told)
    stretches: list[str] = []
    for scope, words in SCOPES.items():
        here = [
            column.dimension.replace("_", " ")
            for column in shown
            if scopes.get(column.dimension) is scope and not (column.kind in RULES and RULES[column.kind].cuts)
        ]
        if here and scope is Scope.whole:
            stretches.append(f"{'all else' if stretches else 'all'} {words}")
        elif here:
            stretches.append(f"{' and '.join(here)} {words}")
    if any(scopes.get(column.dimension) is Scope.pairs and column.kind == "proxy" for column in shown):
        told.append(RULES["pair_mean"].words)
    return "; ".join([", ".join(stretches), *told] if stretches else told)


def unit(column: Column) -> str:
    """Of a column's numbers."""
    if column.kind == "opinion":
        return "points, 1 (worst) to 5 (best)"
    if column.dimension == "half_life_blocks":
        return "blocks of 0.75 s"
    return "100 x cosine" if column.kind in TEXT else "percent, 0 to 100"
