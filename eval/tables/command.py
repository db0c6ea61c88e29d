"""The tables of a store.

A table holds the rows, prompts and seeds of its commands, as recorded in `<store>/sweeps/`; the last command of an experiment and a
task counts. The tasks of an experiment are parts of one table; a table of only some tasks is named `<experiment>-<task>`. A task
without a sweep gets one table of everything that was ever requested for it. Each table is `.tex`, `.csv`, `.md` and `.meta.json`.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from baselines.presets import choices
from echo.files import RESULTS, inside
from eval.metrics import TASKS, chosen
from eval.store.rows import Source, gather, sources
from eval.store.runs import existing, known
from eval.tables import opinions
from eval.tables.build import Look, grid_of, look_of, merged
from eval.tables.foreign import with_foreign
from eval.tables.grid import Grid
from eval.tables.latex import as_latex
from eval.tables.meta import MadeGrid, meta
from eval.tables.published import published
from eval.tables.text import as_csv, as_markdown, as_summary, as_text


@dataclass(frozen=True)
class TableOptions:
    """Options besides names. compare: whether to add published numbers. rules: preferred definitions. output: a folder
    for the files; the store's `tables` by default. width: of a summary in characters; None shows the table.
    columns: instead of the task's own. foreign: scores of other systems, added as rows."""

    compare: bool = False
    rules: tuple[str, ...] = ()
    styled: bool = False
    output: Path | None = None
    width: int | None = None
    columns: tuple[str, ...] = ()
    foreign: tuple[Path, ...] = ()


def make(store: Path, names: Sequence[str] | None = None, styled: bool = False, width: int | None = None) -> list[str]:
    """Write `<store>/tables/<name>.{tex,csv,md,meta.json}` and return the lines to show.

    Args:
        store: the run store.
        names: names of sweeps (`table2-hard` selects all of `table2`) or of experiments; all by default.
        styled: whether the lines may contain terminal colours.
        width: of the terminal, for a summary of each table; None for the whole table.

    Raises:
        ValueError: for a name that the store has no scores of.
    """
    groups = grouped(sources(store))
    owners = {source.name: name for name, group in groups.items() for source in group} | {name: name for name in groups}
    known("", names or (), owners, f"store {store} has no scores of it, or has them no longer")
    chosen = list(groups) if names is None else list(dict.fromkeys(owners[name] for name in names))
    return _write(store, {name: groups[name] for name in chosen}, TableOptions(styled=styled, width=width))


def grouped(sources_there: Iterable[Source]) -> dict[str, list[Source]]:
    """Sources of one table: all tasks of an experiment, or one task without."""
    groups: dict[str, list[Source]] = {}
    for source in sources_there:
        groups.setdefault(source.experiment or source.name, []).append(source)
    return groups


def _write(store: Path, groups: Mapping[str, Sequence[Source]], wanted: TableOptions) -> list[str]:
    lines: list[str] = []
    looks = {name: look_of(group[0].experiment, wanted.rules) for name, group in groups.items()}
    if wanted.columns:
        looks = {name: replace(look, dimensions=wanted.columns) for name, look in looks.items()}
    for name, group in groups.items():
        made = [one for source in in_order(group) for one in made_of(source, looks[name], wanted.compare)]
        if wanted.foreign:
            made = [replace(made[0], grid=with_foreign(made[0].grid, made[0].group, wanted.foreign)), *made[1:]]
        for one in made:
            warnings = [f"not reproduced: {line}" for line in one.group.conflicts]
            warnings += [f"damaged and left out: {line}; the command that made it makes it again" for line in one.group.damaged]
            text = as_text(one.grid, wanted.styled) if wanted.width is None else as_summary(one.grid, wanted.styled, wanted.width)
            lines += [text, *(f"warning: {line}" for line in warnings), ""]
        grids = combined(looks[name].title, [one.grid for one in made])
        lines += _kept(store, wanted.output, name, grids, meta(name, looks[name].title, made))
    return lines


def _kept(store: Path, output: Path | None, name: str, grids: Sequence[Grid], behind: Mapping[str, object]) -> list[str]:
    """Like `save`; for a read-only store, a line that says so."""
    try:
        return save(output or inside(store, "tables"), name, grids, behind)
    except OSError as error:
        if output is not None or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return [f"not kept: {error.filename}: {error.strerror}; --output DIR keeps them elsewhere"]


def save(folder: Path, name: str, grids: Sequence[Grid], behind: Mapping[str, object]) -> list[str]:
    """Write a table in all its formats; returns the line that names the files."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"tex": as_latex(grids), "csv": as_csv(grids), "md": as_markdown(grids), "meta.json": json.dumps(behind, indent=1) + "\n"}
    for ending, content in contents.items():
        inside(folder, f"{name}.{ending}").write_text(content, encoding="utf-8")
    return [f"table: {folder / name}.md, .csv, .tex, .meta.json"]


def in_order(group: Sequence[Source]) -> list[Source]:
    """Tasks in the order of the paper, then others."""
    order = list(TASKS)
    return sorted(group, key=lambda source: (order.index(source.task) if source.task in order else len(order), source.name))


def made_of(source: Source, look: Look, compare: bool = False) -> list[MadeGrid]:
    """The grids of a source, the newest first, and the rows of each; `compare`: with published rows."""
    groups = gather(source.wishes)
    grids = [grid_of(group, groups, source.ordered, look, source.unreadable) for group in groups]
    return [MadeGrid(published(grid, source.experiment) if compare else grid, group) for grid, group in zip(grids, groups)]


def combined(title: str, grids: Sequence[Grid]) -> list[Grid]:
    """Merge grids of different tasks with the same scorer and settings into one table; others stay separate.

    The first grid of each task (the one requested last) is in the first table.
    """
    groups: list[list[Grid]] = []
    for grid in grids:
        like = (grid.scorer, grid.settings)
        fitting = (g for g in groups if (g[0].scorer, g[0].settings) == like and all(other.task != grid.task for other in g))
        group = next(fitting, None)
        if group is None:
            groups.append([grid])
        else:
            group.append(grid)
    return [merged(title, group) for group in groups]


def tables(
    names: Sequence[str] = (),
    /,
    task: Sequence[str] = (),
    experiment: str = "",
    compare: Literal["", "published"] = "",
    rule: Sequence[str] = (),
    ratings: str = "",
    columns: Sequence[str] = (),
    foreign: Sequence[str] = (),
    *,
    store: Path = RESULTS,
    output: Path | None = None,
) -> list[str]:
    """Make the tables of a store as .tex, .csv, .md and .meta.json.

        echo-harness tables table2 compare=published
        echo-harness tables --store results
        echo-harness tables table4 table5 ratings=ratings.csv
        echo-harness tables memflow columns=memflow --output results/tables/memflow
        echo-harness tables recall foreign=results/foreign/longlive,theirs_eval_results.json --output results/tables/beside

    Args:
        names: experiments (table2), tasks that were run without one, or table4 and table5 with ratings=; by default all of the store.
        task: only these tasks.
        experiment: only this experiment.
        compare: published puts the paper's printed numbers below the matching rows.
        rule: definitions that are preferred to the usual ones (docs/vbench.md).
        columns: columns instead of the table's own: names of scores (frozen_time,looping), or of sets of them: memflow (MemFlow's
            interactive table), repeats, coherence, memory.
        foreign: scores of other systems, added as rows to one task's table: folders that `echo-harness score` wrote, VBench's
            *_eval_results.json, or CSVs of per-video scores (docs/vbench.md).
        ratings: of people for tables 4 and 5: a CSV that `echo-harness study collect` wrote.
        store: the run store.
        output: the folder of the files; STORE/tables by default.
    """
    others = tuple(Path(one) for one in foreign)
    wanted = TableOptions(compare == "published", tuple(rule), sys.stdout.isatty(), output, columns=chosen(columns), foreign=others)
    people = [name for name in names if name in opinions.TABLES]
    lines = [line for name in people for line in _opinions(name, ratings, store, wanted)]
    if ratings and not people:
        raise ValueError(f"ratings={ratings}: which table; nearest is {opinions.TABLES[0]} of {', '.join(opinions.TABLES)}")
    rest = [name for name in names if name not in people]
    return lines if people and not rest else lines + _of_store(store, rest, task, experiment, wanted)


def _opinions(name: str, ratings: str, store: Path, wanted: TableOptions) -> list[str]:
    grids, behind = opinions.table(name, ratings)
    if wanted.compare:
        grids = [published(grid, name) for grid in grids]
    return [*(as_text(grid, wanted.styled) for grid in grids), "", *_kept(store, wanted.output, name, grids, behind)]


def _of_store(store: Path, names: Sequence[str], only: Sequence[str], experiment: str, wanted: TableOptions) -> list[str]:
    there = sources(existing(store))
    if not there:
        raise ValueError(f"--store {store}: no scores")
    groups = grouped(there)
    lack = f"store {store} has no scores of it"
    unmade = next((name for name in names if name in choices("experiment") and name not in groups), None)
    if unmade:
        raise ValueError(f"{unmade}: {lack}; python run.py experiment={unmade} -m makes them")
    known("", names, [*groups, *opinions.TABLES], lack)
    known("task=", only, {source.task for source in there}, lack)
    known("experiment=", filter(None, [experiment]), {source.experiment for source in there if source.experiment}, lack)
    chosen: dict[str, list[Source]] = {}
    for name, group in groups.items():
        if names and name not in names or experiment not in ("", group[0].experiment):
            continue
        parts = [source for source in group if not only or source.task in only]
        if parts:
            chosen[name if len(parts) == len(group) else "-".join((name, *(source.task for source in parts)))] = parts
    if not chosen:
        asked = " ".join(names) or f"experiment={experiment}"
        raise ValueError(f"--store {store}: {asked} has no scores of task={','.join(only)}")
    if wanted.foreign and len(made := [source for parts in chosen.values() for source in parts]) > 1:
        rule = "one table of one task is meant, as tables recall or tables table2 task=recall"
        raise ValueError(f"foreign={wanted.foreign[0]}: {rule}; these are of {', '.join(source.name for source in made)}")
    return _write(store, chosen, wanted)
