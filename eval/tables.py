"""The tables of a store, made from the store alone.

    python -m eval.tables [store=DIR] [task=NAME,NAME] [experiment=NAME]
    python -m eval.tables speed [bench=FILE]

A table holds what one command asked for: its rows, prompts and seeds, as kept in `<store>/sweeps/`. It is named after its
task, or `<experiment>-<task>` where experiment= was given; the last command of a name counts. This makes them all again,
or those of some tasks or of one experiment. A task that no sweep tells of gets one table of all that was ever asked of it.
The second form is of what `python -m jobs.bench` measured (`eval.speed`).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from eval import speed
from eval.arguments import answer, parse
from eval.compacted import scored
from eval.forms import as_csv, as_latex, as_markdown, as_text
from eval.grid import CALIBRATION, DECIMALS, Cell, Column, Gap, Grid, Row
from eval.records import Asked, Run, flat, runs, sweeps
from eval.statistics import Difference, difference, estimate, holm, prime, ranks
from eval.units import Scores, Unit, Values

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
REFERENCES = ("echo", "longlive_echo")
"""Presets that the other rows are compared with; without any of them it is the first row."""
DEFAULTS = {"backbone.dtype": "float32", "backbone.threads": 1, "batch": 1, "duration_scale": 1.0, "noise.repeat_initial": False}
"""Settings of a run beside its method's; other values than these are always told."""
ORDER = {"long60": LONG, "long120": LONG, "smooth": INTERACTIVE, "hard": INTERACTIVE, "recall": INTERACTIVE}

Wishes = tuple[Run, Sequence[Asked]]
"""A run and all that was asked of it under one way of scoring, oldest first."""


@dataclass(frozen=True)
class Source:
    """What one table is made of."""

    name: str
    task: str
    experiment: str | None
    wishes: tuple[Wishes, ...]
    ordered: bool = True  # rows in the order of the command; else by name


@dataclass
class Entry:
    """All that one row is made of, gathered over its runs (one a seed)."""

    run: Run
    settings: dict[str, Any]
    weights: str = ""
    asked: set[Unit] = field(default_factory=set)
    metrics: Scores = field(default_factory=Scores)

    @property
    def preset(self) -> str:
        return str(self.run.spec["method"]["name"])

    @property
    def calibration(self) -> bool:
        """Whether it was rendered."""
        return self.run.calibration

    @property
    def section(self) -> str:
        """Label of its backbone, or that it has none."""
        return CALIBRATION if self.calibration else str(self.run.spec["backbone"]["label"])

    def values(self, column: Column) -> Values:
        """What was measured of a dimension."""
        return self.metrics.column(column.metric)


@dataclass
class Block:
    """Rows that may be compared: same task, way of scoring and texts of the prompts; of each backbone one version."""

    task: dict[str, str]
    scorer: dict[str, Any]
    newest: str = ""
    weights: dict[str, str] = field(default_factory=dict)  # name of a backbone -> digest of its weights
    conflicts: list[str] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)  # prompt id -> digest of its content
    entries: dict[tuple[str, str, str], Entry] = field(default_factory=dict)


def make(store: Path, names: Sequence[str] | None = None, styled: bool = False) -> list[str]:
    """Write `<store>/tables/<name>.{tex,csv,md}` and return the lines to show.

    Args:
        store: the run store.
        names: which tables; all by default.
        styled: whether the lines may carry terminal colours.
    """
    lines: list[str] = []
    found = {source.name: source for source in sources(store)}
    for source in found.values() if names is None else [found[name] for name in names]:
        blocks = gather(source.wishes)
        grids = [grid_of(block, blocks, source.ordered) for block in blocks]
        folder = store / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        for ending, content in (("tex", as_latex(grids)), ("csv", as_csv(grids)), ("md", as_markdown(grids))):
            (folder / f"{source.name}.{ending}").write_text(content, encoding="utf-8")
        for block, grid in zip(blocks, grids):
            lines += [as_text(grid, styled), *(f"warning: not reproduced: {line}" for line in block.conflicts), ""]
        lines.append(f"table: {folder / source.name}.md, .csv, .tex")
    return lines


def sources(store: Path) -> list[Source]:
    """Every table that a store can make, in the order of their names."""
    found: dict[str, Source] = {}
    for sweep in sweeps(store):
        there = [(Run(path), [wish]) for path, wish in sweep.wishes if (path / "run.json").exists()]
        if there:
            found[sweep.name] = Source(sweep.name, sweep.task, sweep.experiment, tuple(there))
    told = {source.task for source in found.values()}
    rest: dict[str, list[Wishes]] = {}
    for run in runs(store):
        if run.path.parts[-4] in told:
            continue
        for wishes in _by_scores(run.asked()):
            if wishes[-1].task["name"] not in told:
                rest.setdefault(wishes[-1].task["name"], []).append((run, wishes))
    found |= {task: Source(task, task, None, tuple(wishes), ordered=False) for task, wishes in rest.items()}
    return [found[name] for name in sorted(found)]


def gather(wishes: Iterable[Wishes]) -> list[Block]:
    """Runs in blocks of those that may be compared, the block that was asked for last first."""
    blocks: dict[tuple[Any, ...], list[Block]] = {}
    for run, asked in wishes:
        spec, last = run.spec, asked[-1]
        settings = dict(sorted(flat(spec["key"]["pixels"])))
        files = settings.pop("backbone.weights"), settings.pop("backbone.lora", None)
        weights, name = "+".join(digest[:8] for digest in files if digest), spec["backbone"]["name"]
        settings.pop("seed")
        prompts: dict[str, str] = {}
        for wish in asked:
            prompts |= wish.prompts
        like = blocks.setdefault((last.task["name"], spec["key"]["epoch"], last.scores), [])
        fitting = (b for b in like if _agree(b.prompts, prompts) and b.weights.get(name, weights) == weights)
        block = next(fitting, None)
        if block is None:
            block = Block(last.task, last.scorer)
            like.append(block)
        block.prompts |= prompts
        block.weights[name] = weights
        block.newest = max(block.newest, last.name)
        entry = block.entries.setdefault((name, spec["method"]["name"], repr(settings)), Entry(run, settings, weights))
        block.conflicts += [f"{spec['method']['name']} {line}" for line in _fill(entry, run, spec["seed"], asked)]
    return sorted((block for like in blocks.values() for block in like), key=lambda block: block.newest, reverse=True)


def _agree(some: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Whether no prompt has one text here and another there; an edited prompt set is never mixed with the old one."""
    return some == others or all(others.get(prompt, content) == content for prompt, content in some.items())


def _by_scores(asked: Iterable[Asked]) -> list[list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for wish in asked:
        if wish.scores is not None:
            found.setdefault(wish.scores, []).append(wish)
    return list(found.values())


def _fill(entry: Entry, run: Run, seed: int, wishes: Sequence[Asked]) -> list[str]:
    """Add a run to its row; returns units that were computed twice with different outcomes."""
    found = scored(run, wishes[-1].scores or "")
    units: dict[str, str] = {}
    for wish in wishes:
        units |= wish.units  # the text of a prompt may have changed; the last wish counts
    prompts, rows = found.of(units)
    entry.asked.update(zip(units, repeat(seed)))
    entry.metrics.add(prompts, seed, {name: array[rows] for name, array in found.metrics.items()}, found.names)
    return found.conflicts


def grid_of(block: Block, blocks: Sequence[Block], ordered: bool = True) -> Grid:
    """The table of a block.

    Args:
        block: its rows.
        blocks: all blocks of the same table, from which it must be told.
        ordered: rows in the order in which they were asked for; else by name.
    """
    entries = _in_sections([block.entries[key] for key in (block.entries if ordered else sorted(block.entries, key=_row_order(block)))])
    asked = set().union(*(entry.asked for entry in entries))
    columns = _columns(block.task["name"], entries)
    references = _references(entries)
    prime(_all_values(entries, references, columns))
    table = [[_cell(entry, column, asked) for column in columns] for entry in entries]
    for index, column in enumerate(columns):
        for line, place, gap in zip(table, _places(entries, table, index, column), _gaps(entries, references, column)):
            line[index] = dataclasses.replace(line[index], rank=place, gap=gap)
    rows = [_row(entry, block, cells) for entry, cells in zip(entries, table)]
    told = {id(entry): (row.name, row.section) for entry, row in zip(entries, rows)}
    pairs = [told.get(id(other), ("", "")) for other in references]
    backbones = {entry.section: entry.weights for entry in entries if not entry.calibration}
    return Grid(
        task=block.task["name"],
        title=block.task["label"],
        backbones=tuple((backbones or {"none": "-"}).items()),
        scorer=block.scorer["label"],
        settings=_common(block, blocks),
        prompts=len({prompt for prompt, _ in asked}),
        seeds=len({seed for _, seed in asked}),
        videos=len(asked),
        columns=columns,
        rows=tuple(dataclasses.replace(row, reference=name, reference_section=where) for row, (name, where) in zip(rows, pairs)),
    )


def _all_values(entries: Sequence[Entry], references: Sequence[Entry | None], columns: Sequence[Column]) -> Iterator[Values]:
    """Every score and every difference of a table."""
    for column in columns:
        for entry, other in zip(entries, references):
            yield entry.values(column)
            if other is not None:
                yield entry.values(column).less(other.values(column))


def _in_sections(entries: Sequence[Entry]) -> list[Entry]:
    """Backbones in the order of their first row, calibration last."""
    sections = list(dict.fromkeys(entry.section for entry in entries))
    return sorted(entries, key=lambda entry: (entry.calibration, sections.index(entry.section)))


def _columns(task: str, entries: Sequence[Entry]) -> tuple[Column, ...]:
    """The task's dimensions, behind those that only the embedded world has."""
    names = set().union(*(entry.metrics.names for entry in entries))
    world = [Column(dimension, "world") for dimension in WORLD if f"world.{dimension}" in names]
    order = ORDER.get(task, INTERACTIVE)
    return (*world, *(Column(name, "proxy" if name not in names and f"proxy.{name}" in names else "") for name in order))


def _references(entries: Sequence[Entry]) -> list[Entry | None]:
    """For each row the one that it is compared with: of its own backbone, else of the first that has one; None for that one itself."""
    of_section: dict[str, Entry] = {}
    for entry in entries:
        if entry.preset in REFERENCES:
            of_section.setdefault(entry.section, entry)
    general = next(iter(of_section.values()), entries[0])
    found = [None if entry.calibration else of_section.get(entry.section, general) for entry in entries]
    return [None if other is entry else other for entry, other in zip(entries, found)]


def _places(entries: Sequence[Entry], table: Sequence[Sequence[Cell]], index: int, column: Column) -> list[int | None]:
    """Ranks of one column, each backbone by itself; calibration rows and a backbone's only row have none."""
    places: list[int | None] = [None] * len(entries)
    for section in {entry.section for entry in entries if not entry.calibration}:
        rows = [row for row, entry in enumerate(entries) if entry.section == section]
        means = [_ranked(table[row][index]) for row in rows]
        found = ranks([mean if mean is None or not column.lower else -mean for mean in means], DECIMALS)
        if sum(place is not None for place in found) > 1:
            for row, place in zip(rows, found):
                places[row] = place
    return places


def _gaps(entries: Sequence[Entry], references: Sequence[Entry | None], column: Column) -> list[Gap | None]:
    """Differences of one column to the rows' references, the p values corrected over all of them."""
    found: list[Difference | None] = [
        None if other is None else difference(entry.values(column), other.values(column)) for entry, other in zip(entries, references)
    ]
    chances = holm([None if one is None else one.p for one in found])
    return [None if one is None else Gap(one.estimate, p) for one, p in zip(found, chances)]


def _row_order(block: Block) -> Any:
    def order(key: tuple[str, str, str]) -> tuple[Any, ...]:
        settings = block.entries[key].settings
        return key[1], [(isinstance(v, str), v if isinstance(v, (int, float)) else 0, str(v)) for v in settings.values()]

    return order


def _common(block: Block, blocks: Sequence[Block]) -> str:
    """What all rows share and a reader would not expect: settings off their defaults, and which texts the prompts have."""
    first, *others = (entry.settings for entry in block.entries.values())
    shared = {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}
    odd = [f"{key}={value}" for key, value in shared.items() if not key.startswith("method.") and value != DEFAULTS.get(key)]
    if any(not _agree(block.prompts, other.prompts) for other in blocks):
        content = repr(sorted(block.prompts.items())).encode()
        odd.append(f"prompts={hashlib.blake2b(content, digest_size=4).hexdigest()}")
    return ", ".join(odd)


def _row(entry: Entry, block: Block, cells: Sequence[Cell]) -> Row:
    """A row's variant: settings of its method that differ between rows of its preset, other settings that differ between any rows."""
    method = entry.run.spec["method"]
    every = [other.settings for other in block.entries.values()]
    like = [other.settings for other in block.entries.values() if other.preset == entry.preset]
    words = []
    for key, value in entry.settings.items():
        others = like if key.startswith("method.") else every
        if len({repr(other.get(key)) for other in others}) > 1:
            words.append(f"{key.removeprefix('method.settings.')}={value}")
    weights = "" if entry.calibration else entry.weights
    return Row(method["label"], method["name"], ", ".join(words), len(entry.metrics), tuple(cells), entry.section, weights)


def _cell(entry: Entry, column: Column, asked: set[Unit]) -> Cell:
    found = estimate(entry.values(column))
    return Cell(found, found is not None and found.videos < len(asked), None)


def _ranked(cell: Cell) -> float | None:
    return None if cell.estimate is None or cell.fewer else cell.estimate.mean


def main(words: Sequence[str]) -> int:
    """Command line: `store=DIR`, `task=NAME,NAME` and `experiment=NAME`, all optional; or `speed` and what `eval.speed` takes."""
    if words[:1] == ["speed"]:
        return answer(speed.command, words[1:])
    return answer(_command, words)


def _command(words: Sequence[str]) -> list[str]:
    given, _ = parse(words, {"store": "results", "task": "", "experiment": ""})
    store = Path(given["store"])
    if not (store / "runs").is_dir():
        raise ValueError(f"store={store}: no run store; it has no folder runs")
    found = sources(store)
    if not found:
        raise ValueError(f"store={store}: no scores")
    tasks = given["task"].split(",") if given["task"] else sorted({source.task for source in found})
    for task in tasks:
        _known("task", task, {source.task for source in found}, store)
    if given["experiment"]:
        _known("experiment", given["experiment"], {source.experiment for source in found if source.experiment}, store)
    names = [s.name for s in found if s.task in tasks and given["experiment"] in ("", s.experiment)]
    if not names:
        raise ValueError(f"store={store}: experiment={given['experiment']} has no scores of task={given['task']}")
    return make(store, names, sys.stdout.isatty())


def _known(key: str, value: str, there: Iterable[str], store: Path) -> None:
    choices = sorted(there)
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1, 0)
        tail = f"nearest is {near[0]} of {', '.join(choices)}" if near else f"the store has no {key} at all"
        raise ValueError(f"{key}={value}: store {store} has no scores of it; {tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
