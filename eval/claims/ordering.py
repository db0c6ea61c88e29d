"""Where a store orders methods as the paper does, where it does not, and where it can't tell.

    python -m eval.claims.ordering [table1 table2 ...] [store=DIR] [--output docs/data/ordering.json] [--markdown FILE]

For each pair of rows that a table of the paper ranks by a metric: the paired difference of our rows over the same prompts and
seeds, with a 95 % interval whose clusters are the prompts. It agrees or disagrees where the interval lies on one side of zero.
Rows that the store lacks are named. Where an ordering is not met, the variants of `eval.claims.variants` that the store has are tried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.published import claims, note, ours, unmapped
from eval.arguments import answer, parse
from eval.claims import variants, verdicts
from eval.claims.variants import Effect, Trial
from eval.claims.verdicts import AGREE, DISAGREE, MARKS, MISSING, Finding, Rows, count, signed
from eval.store.selection import left_out, rows, tasks

TABLES = ("table1", "table2", "table3", "table6", "table7", "table8", "table9a", "table9b")
KEYS = {"store": "results", "--output": "", "--markdown": ""}
FEW = "†"
LEGEND = (
    "Cells: the paper's difference (first minus second; `>` or `<` where only its words rank the two), ours with half its 95 % interval, "
    "and whether they agree: ✓ they do, ✗ they do not, ? the interval holds zero, – the store lacks it. An asterisk: both rows on the "
    "backbone `tiny`, since the store lacks one on its own. Intervals are not corrected for their number: of twenty pairs that do not "
    "differ, one is decided by chance."
)

Group = tuple[str, str]
"""Table of the paper and our task."""


def groups(findings: Iterable[Finding]) -> dict[Group, list[Finding]]:
    """Findings by table and task, in the order of their first appearance."""
    found: dict[Group, list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.claim.table, finding.task), []).append(finding)
    return {key: found[key] for key in sorted(found, key=lambda key: TABLES.index(f"table{key[0]}"))}


def by_metric(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings by metric, in the order of their first appearance."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.metric, []).append(finding)
    return found


def lacking(findings: Iterable[Finding]) -> list[str]:
    """What the store lacks for the findings, each said once: rows, or metrics that two rows share."""
    missing = [finding for finding in findings if finding.verdict == MISSING]
    rows_of = dict.fromkeys(f"{name} on {finding.task}" for finding in missing for name in finding.lacks)
    return [*rows_of, *dict.fromkeys(finding.why for finding in missing if not finding.lacks)]


def own(findings: Iterable[Finding]) -> list[Finding]:
    """Those in which the paper's own method is one of the two."""
    return [finding for finding in findings if finding.own]


def as_json(findings: Sequence[Finding], trials: Sequence[Trial], effects: Sequence[Effect], there: Rows) -> dict[str, Any]:
    """Everything, in plain values."""
    tables = []
    for (table, task), members in groups(findings).items():
        columns = {metric: count(column).as_json() for metric, column in by_metric(members).items()}
        pairs = [finding.as_json() for finding in members]
        counts = {"count": count(members).as_json(), "count_own": count(own(members)).as_json()}
        tables.append({"table": table, "task": task, **counts, "columns": columns, "pairs": pairs})
    return {
        "v": 1,
        "count": count(findings).as_json(),
        "count_own": count(own(findings)).as_json(),
        "rows": {task: {row.name: len(row.videos) for row in members} for task, members in there.items() if members},
        "tables": tables,
        "trials": [trial.as_json() for trial in trials],
        "effects": [effect.as_json() for effect in effects],
        "unmapped": [{"kind": kind, "table": table, "paper": paper, "why": why} for kind, table, paper, why in unmapped()],
    }


def as_markdown(findings: Sequence[Finding], trials: Sequence[Trial], effects: Sequence[Effect]) -> str:
    """A table for each table and task of the paper, then what the variants say."""
    lines = [_total(findings), "", LEGEND, ""]
    for (table, task), members in groups(findings).items():
        lines += [f"### Table {table}, `{task}`", "", f"{count(members).text}.", ""]
        if any(finding.verdict != MISSING for finding in members):
            lines += [*_pairs(members), ""]
        lines += [f"Note: {text}." for text in _notes(members)] + [""] * bool(_notes(members))
        lines += [f"Lacking: {'; '.join(lacking(members))}.", ""] if lacking(members) else []
    lines += _tried(trials) + _changed(effects)
    return "\n".join(lines).rstrip() + "\n"


def _total(findings: Sequence[Finding]) -> str:
    return f"All pairs: {count(findings).text}. Pairs with the paper's own method: {count(own(findings)).text}."


def _short(name: str) -> str:
    """A row's name as printed: its backbone is told where it is not the usual one."""
    backbone, _, preset = name.partition("/")
    return preset if backbone == verdicts.STAND_IN else f"{preset} ({backbone})"


def _pairs(members: Sequence[Finding]) -> list[str]:
    columns = by_metric(members)
    lines = ["| first − second | " + " | ".join(f"`{metric}`" for metric in columns) + " |", "|---|" + "---:|" * len(columns)]
    pairs = dict.fromkeys((finding.first, finding.second) for finding in members)
    cells = {(f.first, f.second, f.metric): _cell(f) for f in members}
    for first, second in pairs:
        found = [cells.get((first, second, metric), "") for metric in columns]
        lines.append(f"| {_short(first)} − {_short(second)} | " + " | ".join(found) + " |")
    shares = [f"{found.agree} ✓ {found.disagree} ✗ {found.unsure} ?" for found in map(count, columns.values())]
    return [*lines, "| *count* | " + " | ".join(shares) + " |"]


def _cell(finding: Finding) -> str:
    claim = finding.claim
    paper = (">" if claim.sign > 0 else "<") if claim.difference is None else f"{claim.difference:+.2f}"
    mark = MARKS[finding.verdict] + ("\\*" if finding.verdict != MISSING and finding.why else "")
    text = " ".join(part for part in (signed(finding.difference), mark) if part)
    return f"{paper}, **{text}**" if finding.verdict in (AGREE, DISAGREE) else f"{paper}, {text}"


def _notes(members: Iterable[Finding]) -> list[str]:
    found: dict[str, None] = {}
    for finding in members:
        for side in (finding.claim.first, finding.claim.second):
            said = note("method", side.method, finding.claim.table)
            if said and finding.verdict != MISSING:
                found[f"`{ours('method', side.method, finding.claim.table)}` stands for “{side.method}”: {said}"] = None
    return list(found)


def _tried(trials: Sequence[Trial]) -> list[str]:
    """Disagreements again, a column for each variant that the store has."""
    shown = [trial for trial in trials if trial.finding.verdict == DISAGREE]
    if not shown:
        return []
    swaps = list(dict.fromkeys(trial.reason for trial in shown))
    found: dict[int, tuple[Finding, dict[str, str]]] = {}
    for trial in shown:
        _, cells = found.setdefault(id(trial.finding), (trial.finding, {}))
        few = "" if trial.unswapped == trial.finding.verdict else FEW
        cells[trial.reason.variant] = f"{signed(trial.difference)} {MARKS[trial.verdict]}{few}"
    lines = ["### Disagreements with one row swapped for a variant", "", "| table, task | pair | metric | paper | as it is |"]
    lines[-1] += "".join(f" `{swap.variant}` |" for swap in swaps)
    lines.append("|---|---|---|---:|---:|" + "---:|" * len(swaps))
    for finding, cells in found.values():
        head, _, rest = _cell(finding).partition(", ")
        pair = " − ".join(map(_short, (finding.first, finding.second)))
        line = f"| {finding.claim.table}, {finding.task} | {pair} | `{finding.metric}` | {head} | {rest} |"
        lines.append(line + "".join(f" {cells.get(swap.variant, '')} |" for swap in swaps))
    told = [f"{FEW}: over the videos that the variant has, the rows as they are do not disagree either.", ""]
    return [
        *lines,
        "",
        *(told if any(FEW in cell for _, cells in found.values() for cell in cells.values()) else []),
        *_explained(swaps),
        "",
    ]


def _changed(effects: Sequence[Effect]) -> list[str]:
    if not effects:
        return []
    columns = sorted({metric for effect in effects for metric in effect.by_metric})
    lines = ["### What a variant changes by itself (variant minus base)", "", "| task | variant | base |"]
    lines[-1] += "".join(f" `{metric}` |" for metric in columns)
    lines.append("|---|---|---|" + "---:|" * len(columns))
    for effect in effects:
        cells = []
        for metric in columns:
            difference = effect.by_metric.get(metric)
            decided = difference is not None and difference.half_width is not None and abs(difference.mean) > difference.half_width
            cells.append(f"**{signed(difference)}**" if decided else signed(difference))
        names = [f"`{effect.reason.variant}`", f"`{effect.reason.base}`"]
        where = effect.task if effect.backbone == verdicts.STAND_IN else f"{effect.task}, {effect.backbone}"
        lines.append(f"| {where} | {' | '.join(names)} | " + " | ".join(cells) + " |")
    return [*lines, "", "Bold: the interval does not hold zero.", "", *_explained(dict.fromkeys(effect.reason for effect in effects))]


def _explained(found: Iterable[variants.Reason]) -> list[str]:
    return [f"- `{reason.variant}` for `{reason.base}`: {reason.text}." for reason in found]


def summary(findings: Sequence[Finding]) -> list[str]:
    """Lines for a terminal."""
    lines = []
    for (table, task), members in groups(findings).items():
        lines.append(f"table {table} {task}: {count(members).text}")
        for metric, column in by_metric(members).items():
            lines.append(f"  {metric}: {count(column).text}")
        lines += [f"  lacking: {', '.join(lacking(members))}"] if lacking(members) else []
    return [*lines, _total(findings)]


def main(words: Sequence[str]) -> int:
    """Command line; see the module's docstring."""
    return answer(_command, words)


def _command(words: Sequence[str]) -> list[str]:
    given, names = parse(words, KEYS, TABLES)
    store = Path(given["store"])
    if not (store / "runs").is_dir():
        raise ValueError(f"store={store}: no run store; it has no folder runs")
    there = {task: rows(store, task) for task in tasks(store)}
    wanted = [claim for claim in claims() if not names or f"table{claim.table}" in names]
    findings = verdicts.find(wanted, there)
    _write(given, findings, variants.trials(findings, there), variants.effects(there), there)
    return [*summary(findings), *(f"{task}: {line}" for task, found in there.items() for line in left_out(found))]


def _write(given: Mapping[str, str], findings: Sequence[Finding], trials: Sequence[Trial], effects: Sequence[Effect], there: Rows) -> None:
    content = json.dumps(as_json(findings, trials, effects, there), indent=1, ensure_ascii=False) + "\n"
    for flag, text in (("--output", content), ("--markdown", as_markdown(findings, trials, effects))):
        if given[flag]:
            Path(given[flag]).parent.mkdir(parents=True, exist_ok=True)
            Path(given[flag]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
