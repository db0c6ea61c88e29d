"""Rows of other systems beside ours, from folders of `echo-harness score` and from their own files of per-video scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd

from echo.refusals import nearest_of
from echo.scene import Prompt
from eval.metrics import Column
from eval.stats import results
from eval.stats.statistics import estimates
from eval.store.rows import Comparable, Entry, prompts_of
from eval.tables.build import marked, references
from eval.tables.grid import Grid, TableCell, TableRow
from eval.vbench.naming import by_text

SECTION: Final = "other systems"
"""Section of a table with their rows."""


def with_foreign(grid: Grid, group: Comparable, paths: Sequence[Path]) -> Grid:
    """A grid with a row below ours for each system of some files, and differences to the reference of our rows.

    Means and differences are over the prompts in common (without any, means are over all). Seeds of a prompt are averaged first, because
    no other system has our noise. Raises ValueError in one line for a file without scores of the table, or of another task.
    """
    entries = list(group.entries.values())
    reference = next(filter(None, references(entries)), entries[0])
    beside = next(row for row in grid.rows if row.runs == tuple(run.place.run for run in reference.runs))
    rows, remarks, series = list[TableRow](), list[str](), list[list[tuple[pd.Series, pd.Series]]]()
    for path in paths:
        told = _told(path, group)
        for label, own in _systems(path, grid).items():
            known = _ours(path, own, reference)
            series.append([_paired(own.get(column), known, reference.values(column.metric)) for column in grid.columns])
            common, videos = len(set(known.values())), max(map(len, own.values()))
            pair = (beside.name if common else "", beside.section)
            rows.append(TableRow(label, label, "(foreign)", videos, (), SECTION, "", *pair, source=str(path)))
            remarks.append(f"Foreign, {label}: {told}; {common} of {grid.prompts} prompts in common")
    cells = list[list[TableCell]]()
    for place, column in enumerate(grid.columns):
        pairs = [one[place] for one in series]
        means, gaps = estimates([own for own, _ in pairs]), estimates([gap for _, gap in pairs])
        cells.append(marked(means, gaps, [None] * len(rows), grid.prompts, column.lower))
    filled = tuple(replace(row, cells=own) for row, own in zip(rows, zip(*cells)))
    note = f"{'. '.join(remarks)}. Not ranked; differences are over means of prompts, without the same noise."
    return replace(grid, rows=(*grid.rows, *filled), remarks=(*grid.remarks, note))


def _systems(path: Path, grid: Grid) -> dict[str, dict[Column, pd.Series]]:
    """Scores of each system of a file by the table's columns, in their units. Raises ValueError for none."""
    there, systems = results.metrics(path), dict[str, dict[Column, pd.Series]]()
    for column in grid.columns:
        name = next((one for one in (column.metric, column.dimension, column.about.short) if one in there), None)
        for label, values in results.read(path, name).items() if name else ():
            shares = not path.is_dir() and values.abs().max() <= 1
            systems.setdefault(label, {})[column] = 100 * values if shares else values
    if not systems:
        wanted = [column.metric for column in grid.columns]
        raise ValueError(f"foreign={path}: none of the table's scores ({', '.join(wanted)}) is in it; {nearest_of(wanted[0], there)}")
    return systems


def _ours(path: Path, own: Mapping[Column, pd.Series], reference: Entry) -> dict[str, str]:
    """Their prompt -> the same prompt's id here: equal ids, and equal texts if both have them; otherwise their name is the text."""
    texts: Mapping[str, str] = dict(zip(reference.asked.index.get_level_values(0), reference.asked["text"].astype("str")))
    said = {unit.prompt: unit.text for unit in results.scored(path)[1]} if path.is_dir() else {}
    prompts: Sequence[Prompt] = [prompt for prompt in prompts_of(reference.run.prompt_set) if prompt.id in texts]
    known = dict[str, str]()
    for name in dict.fromkeys(str(name) for values in own.values() for name in values.index.get_level_values(0)):
        if name in texts:
            known |= {name: name} if said.get(name, texts[name]) == texts[name] else {}
        elif len(named := by_text(name, prompts)) == 1:
            known[name] = named[0].id
    return known


def _paired(values: pd.Series | None, known: Mapping[str, str], ours: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Their means by prompt, over common prompts if there are any, and their differences to ours; index prompt and seed 0."""
    if values is None:
        return ours[:0], ours[:0]
    names = values.index.get_level_values(0)
    theirs = values.groupby(names.map(lambda name: known.get(name, None if known else name))).mean()
    return _units(theirs), _units((theirs - ours.groupby(level=0).mean()).dropna())


def _units(means: pd.Series) -> pd.Series:
    """Means of prompts, ascending, as scores of seed 0."""
    ordered = means.sort_index()
    return ordered.set_axis(pd.MultiIndex.from_product([ordered.index.astype("object"), [0]], names=["prompt", "seed"]))


def _told(path: Path, group: Comparable) -> str:
    """Source of a system's numbers, and whether the table's networks made them. Raises ValueError for a folder of another task."""
    if not path.is_dir():
        return f"per-video scores as {path.name} has them, by a definition that it does not say (numbers up to 1 are taken as shares)"
    summary = results.scored(path)[0]
    if summary.task != group.task.name:
        raise ValueError(f"foreign={path}: scored as task={summary.task}, the table is of task={group.task.name}")
    weights = group.scorer.settings.get("eval.weights")
    ours = weights.get("networks", {}) if isinstance(weights, Mapping) else {}
    theirs = summary.identity.get("networks", {})
    other = [name for name in theirs if name in ours and list(theirs[name]) != list(ours[name])]
    return "videos scored here, by " + (f"other weights or versions of {', '.join(other)}" if other else "the same networks")
