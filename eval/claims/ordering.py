"""Where a store orders methods as the paper does, where it does not, and where it is undecided, as lines, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from baselines.ours import OURS
from data.published import claims, note, ours, unmapped
from echo.files import RESULTS, Json
from echo.refusals import nearest_of
from eval.claims import variants, verdicts
from eval.claims.variants import Effect, Trial
from eval.claims.verdicts import AGREE, DISAGREE, MARKS, MISSING, Finding, Rows, count, judge, signed
from eval.store.rows import left_out, newest
from eval.store.runs import existing, tasks
from eval.tables import opinions
from eval.tables.text import markdown, markdown_table

TABLES = ("table1", "table2", "table3", *opinions.TABLES, "table6", "table7", "table8", "table9a", "table9b")
FEW = "†"
USUAL = (*verdicts.STAND_INS, *ours("backbone", "Self-Forcing", ""))
"""Backbones that are not printed after a row's name."""
LEGEND = (
    "Cells: the paper's difference (first minus second; `>` or `<` where only its words rank the two), ours with half its 95 % interval, "
    "and whether they agree: ✓ they do, ✗ they do not, ? the interval holds zero, – the store lacks it. An asterisk: both rows on the "
    "backbone of Self-Forcing, since the store lacks one on its own. Intervals are not corrected for their number: of twenty pairs that do "
    "not differ, one is decided by chance."
)


def by_table(findings: Iterable[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """Findings by table of the paper and our task, in the order of the tables."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.claim.table, finding.task), []).append(finding)
    return {key: groups[key] for key in sorted(groups, key=lambda key: TABLES.index(f"table{key[0]}"))}


def by_metric(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings by metric, in the order of their first appearance."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.metric, []).append(finding)
    return groups


def lacking(findings: Iterable[Finding]) -> list[str]:
    """What the store lacks for the findings, each once: rows, or metrics that two rows share."""
    missing = [finding for finding in findings if finding.verdict == MISSING]
    rows_of = dict.fromkeys(f"{name} on {finding.task}" for finding in missing for name in finding.lacks)
    return [*rows_of, *dict.fromkeys(finding.why for finding in missing if not finding.lacks)]


def own(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in which one row is the paper's own method."""
    return [finding for finding in findings if finding.own]


def as_json(findings: Sequence[Finding], trials: Sequence[Trial], effects: Sequence[Effect], there: Rows) -> Json:
    """Everything, in plain values."""
    tables = []
    for (table, task), members in by_table(findings).items():
        columns = {metric: count(column).as_json() for metric, column in by_metric(members).items()}
        pairs = [finding.as_json() for finding in members]
        counts = {"count": count(members).as_json(), "count_own": count(own(members)).as_json()}
        tables.append({"table": table, "task": task, **counts, "columns": columns, "pairs": pairs})
    return {
        "v": 1,
        "count": count(findings).as_json(),
        "count_own": count(own(findings)).as_json(),
        "rows": {task: {row.name: row.count("done") for row in members} for task, members in there.items() if members},
        "tables": tables,
        "trials": [trial.as_json() for trial in trials],
        "effects": [effect.as_json() for effect in effects],
        "unmapped": [{"kind": kind, "table": table, "paper": paper, "why": why} for kind, table, paper, why in unmapped(_embedded(there))],
    }


def _embedded(there: Rows) -> bool:
    """Whether all tasks of a store are of the embedded world."""
    return verdicts.is_embedded(row for members in there.values() for row in members)


def as_markdown(findings: Sequence[Finding], trials: Sequence[Trial], effects: Sequence[Effect]) -> str:
    """A table for each table and task of the paper, then the variants' results."""
    lines = [_total(findings), "", LEGEND, ""]
    for (table, task), members in by_table(findings).items():
        lines += [f"### Table {table}, `{task}`", "", f"{count(members).text}.", ""]
        if any(finding.verdict != MISSING for finding in members):
            lines += [*_pairs(members), ""]
        lines += _notes(members)
        lines += [f"Lacking: {'; '.join(lacking(members))}.", ""] if lacking(members) else []
    lines += _tried([trial for trial in trials if trial.finding.verdict == DISAGREE]) + _changed(effects)
    return "\n".join(lines).rstrip() + "\n"


def _total(findings: Sequence[Finding]) -> str:
    return f"All pairs: {count(findings).text}. Pairs with the paper's own method: {count(own(findings)).text}."


def _short(name: str) -> str:
    """A row's name as printed, followed by its backbone if that is not the usual one."""
    backbone, _, preset = name.partition("/")
    return preset if backbone in USUAL else f"{preset} ({backbone})"


def _pair(finding: Finding) -> str:
    return f"{_short(finding.first)} − {_short(finding.second)}"


def _pairs(members: Sequence[Finding]) -> list[str]:
    columns = by_metric(members)
    cells: dict[str, dict[str, str]] = {}
    for finding in members:
        cells.setdefault(_pair(finding), {})[finding.metric] = ", ".join(_cell(finding))
    body = [markdown([pair, *(by.get(metric, "") for metric in columns)]) for pair, by in cells.items()]
    shares = [f"{each.agree} ✓ {each.disagree} ✗ {each.unsure} ?" for each in map(count, columns.values())]
    return [*markdown_table(["first − second"], [f"`{metric}`" for metric in columns]), *body, markdown(["*count*", *shares])]


def _cell(finding: Finding) -> tuple[str, str]:
    """The paper's difference and the store's."""
    claim = finding.claim
    paper = (">" if claim.sign > 0 else "<") if claim.difference is None else f"{claim.difference:+.2f}"
    mark = MARKS[finding.verdict] + ("\\*" if finding.verdict != MISSING and finding.why else "")
    text = " ".join(part for part in (signed(finding.difference), mark) if part)
    return paper, f"**{text}**" if finding.verdict in (AGREE, DISAGREE) else text


def _notes(members: Iterable[Finding]) -> list[str]:
    """Notes on our names where needed, followed by an empty line; empty without notes."""
    lines: dict[str, None] = {}
    for finding in members:
        for side in (finding.claim.first, finding.claim.second):
            said = note("method", side.method, finding.claim.table)
            if said and finding.verdict != MISSING:
                names = " or ".join(f"`{name}`" for name in ours("method", side.method, finding.claim.table))
                lines[f"Note: {names} stands for “{side.method}”: {said}."] = None
    return [*lines, ""] if lines else []


def _tried(trials: Sequence[Trial]) -> list[str]:
    """Disagreements, with a column for each variant that the store has."""
    swaps = list(dict.fromkeys(trial.reason for trial in trials))
    rows: dict[int, tuple[Finding, dict[str, str]]] = {}
    for trial in trials:
        few = "" if trial.unswapped == trial.finding.verdict else FEW
        _, cells = rows.setdefault(id(trial.finding), (trial.finding, {}))
        cells[trial.reason.variant] = f"{signed(trial.difference)} {MARKS[trial.verdict]}{few}"
    lines = ["### Disagreements with one row swapped for a variant", ""]
    lines += markdown_table(["table, task", "pair", "metric"], ["paper", "as it is", *(f"`{swap.variant}`" for swap in swaps)])
    for finding, cells in rows.values():
        place = (f"{finding.claim.table}, {finding.task}", _pair(finding), f"`{finding.metric}`")
        lines.append(markdown([*place, *_cell(finding), *(cells.get(swap.variant, "") for swap in swaps)]))
    few = f"{FEW}: over the videos that the variant has, the rows as they are do not disagree either."
    marked = any(FEW in cell for _, cells in rows.values() for cell in cells.values())
    return [*lines, "", *([few, ""] if marked else []), *_explained(swaps), ""] if trials else []


def _changed(effects: Sequence[Effect]) -> list[str]:
    columns = sorted({metric for effect in effects for metric in effect.by_metric})
    lines = ["### What a variant changes by itself (variant minus base)", ""]
    lines += markdown_table(["task", "variant", "base"], [f"`{metric}`" for metric in columns])
    for effect in effects:
        cells = [signed(effect.by_metric.get(metric)) for metric in columns]
        decided = [judge(1, effect.by_metric.get(metric)) in (AGREE, DISAGREE) for metric in columns]
        where = effect.task if effect.backbone in verdicts.STAND_INS else f"{effect.task}, {effect.backbone}"
        names = (where, f"`{effect.reason.variant}`", f"`{effect.reason.base}`")
        lines.append(markdown([*names, *(f"**{cell}**" if sure else cell for cell, sure in zip(cells, decided))]))
    bold = "Bold: the interval does not hold zero."
    return [*lines, "", bold, "", *_explained(dict.fromkeys(effect.reason for effect in effects))] if effects else []


def _explained(reasons: Iterable[variants.Reason]) -> list[str]:
    return [f"- `{reason.variant}` for `{reason.base}`: {reason.text}." for reason in reasons]


def summary(findings: Sequence[Finding]) -> list[str]:
    """Lines for a terminal."""
    lines = []
    for (table, task), members in by_table(findings).items():
        lines.append(f"table {table} {task}: {count(members).text}")
        for metric, column in by_metric(members).items():
            lines.append(f"  {metric}: {count(column).text}")
        lines += [f"  lacking: {', '.join(lacking(members))}"] if lacking(members) else []
    return [*lines, _total(findings)]


def ordering(
    names: Sequence[str] = (),
    /,
    ours: Literal["", "echo", "official", "paper"] = "",
    ratings: str = "",
    *,
    store: Path = RESULTS,
    output: Path | None = None,
    markdown: Path | None = None,
) -> list[str]:
    """Say where a store orders methods as the paper does, where it does not, and where it is undecided.

        echo-harness claims ordering table2 --output docs/data/ordering.json --markdown docs/data/ordering.md

    Args:
        names: tables of the paper, table1 to table9b; all by default, or those of raters with ratings=.
        ours: the preset that stands for the paper's own method, with its ablations; by default the first whose rows the store has.
        ratings: of people, for tables 4 and 5: a CSV that `echo-harness study collect` wrote.
        store: the run store.
        output: also write everything into this JSON.
        markdown: also write tables, with what variants change, into this file.
    """
    base = OURS.get(ours, "")
    rated = [name for name in opinions.TABLES if name in names or not names]
    if not ratings and set(rated) & set(names):
        raise ValueError(f"{rated[0]}: people's ratings; give ratings=FILE.csv with {','.join(opinions.NEEDED)}")
    findings, trials, effects, there = _compared(names, store, base)
    if ratings:
        people = verdicts.rated([claim for claim in claims() if f"table{claim.table}" in rated], opinions.read(Path(ratings)), base)
        findings = [*findings, *people]
    content = json.dumps(as_json(findings, trials, effects, there), indent=1, ensure_ascii=False) + "\n"
    for path, text in ((output, content), (markdown, as_markdown(findings, trials, effects))):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [*summary(findings), *(f"{task}: {line}" for task, task_rows in there.items() for line in left_out(task_rows))]


def swapped(names: Sequence[str] = (), /, *, store: Path = RESULTS) -> list[str]:
    """Say what changes if a method is swapped for a variant: orderings that differ from the paper's, then all scores.

        echo-harness claims variants table2

    Args:
        names: tables of the paper, table1 to table9b; all by default.
        store: the run store.
    """
    _, trials, effects, _ = _compared(names, store)
    return [*_tried(trials), *_changed(effects)] or ["the store has no variant of any method"]


def _compared(names: Sequence[str], store: Path, base: str = "") -> tuple[list[Finding], list[Trial], list[Effect], Rows]:
    """A store's findings on the paper's claims and on variants."""
    for name in names:
        if name not in TABLES:
            raise ValueError(f"{name}: no such table; {nearest_of(name, TABLES)}")
    there = {task: newest(store, task, texts=False) for task in tasks(existing(store))}
    findings = verdicts.find([claim for claim in claims() if not names or f"table{claim.table}" in names], there, base)
    return findings, variants.trials(findings, there), variants.effects(there), there
