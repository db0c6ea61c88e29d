"""The tables of a store, one file a task, made from the store alone.

    python -m eval.tables [store=DIR] [task=NAME,NAME]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.grid import DECIMALS, Cell, Column, Grid, Row, as_csv, as_latex, as_markdown, as_text
from eval.records import Asked, Run, runs
from eval.statistics import estimate, ranks

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
ORDER = {"long60": LONG, "long120": LONG, "smooth": INTERACTIVE, "hard": INTERACTIVE, "recall": INTERACTIVE}

Unit = tuple[str, int]


@dataclass
class Entry:
    """All that one row is made of, gathered over its runs (one a seed)."""

    run: Run
    settings: dict[str, Any]
    asked: set[Unit] = field(default_factory=set)
    metrics: dict[Unit, Mapping[str, float | None]] = field(default_factory=dict)


@dataclass
class Block:
    """Rows that may be compared: same task, backbone and way of scoring."""

    task: dict[str, str]
    scorer: dict[str, Any]
    backbone: dict[str, str]
    weights: str
    newest: str = ""
    conflicts: list[str] = field(default_factory=list)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)


def make(store: Path, tasks: Sequence[str] | None = None, styled: bool = False) -> list[str]:
    """Write `<store>/tables/<task>.{tex,csv,md}` and return the lines to show.

    Args:
        store: the run store.
        tasks: which tasks; all that the store has scores of by default.
        styled: whether the lines may carry terminal colours.
    """
    blocks = gather(store)
    lines: list[str] = []
    for task in tasks if tasks is not None else sorted({block.task["name"] for block in blocks}):
        mine = [block for block in blocks if block.task["name"] == task]
        if not mine:
            continue
        grids = [_grid(block) for block in mine]
        folder = store / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        for ending, content in (("tex", as_latex(grids)), ("csv", as_csv(grids)), ("md", as_markdown(grids))):
            (folder / f"{task}.{ending}").write_text(content, encoding="utf-8")
        for block, grid in zip(mine, grids):
            lines += [as_text(grid, styled), *(f"warning: not reproduced: {line}" for line in block.conflicts), ""]
        lines.append(f"table: {folder / task}.md, .csv, .tex")
    return lines


def gather(store: Path) -> list[Block]:
    """All scored runs of a store in blocks, the block that was asked for last first."""
    blocks: dict[tuple[Any, ...], Block] = {}
    for run in runs(store):
        spec = run.spec
        common, own = _split(spec["key"]["pixels"])
        for scores, wishes in _by_scores(run.asked()).items():
            last = wishes[-1]
            key = (last.task["name"], spec["backbone"]["name"], spec["key"]["epoch"], repr(common), scores)
            block = blocks.setdefault(key, Block(last.task, last.scorer, spec["backbone"], common["backbone.weights"][:8]))
            block.newest = max(block.newest, last.name)
            entry = block.entries.setdefault((spec["method"]["name"], repr(own)), Entry(run, own))
            block.conflicts += [f"{spec['method']['name']} {line}" for line in _fill(entry, run, spec["seed"], scores, wishes)]
    return sorted(blocks.values(), key=lambda block: block.newest, reverse=True)


def _split(pixels: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What rows of a block share, and what tells rows apart, both flat and in order; the seed is neither."""
    flat = dict(sorted(_flat(pixels)))
    common = {key: value for key, value in flat.items() if key.startswith("backbone.")}
    return common, {key: value for key, value in flat.items() if key not in common and key != "seed"}


def _flat(tree: Mapping[str, Any], where: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield where + key, value


def _by_scores(asked: Iterable[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for wish in asked:
        if wish.scores is not None:
            found.setdefault(wish.scores, []).append(wish)
    return found


def _fill(entry: Entry, run: Run, seed: int, scores: str, wishes: Sequence[Asked]) -> list[str]:
    """Add a run to its row; returns units that were computed twice with different outcomes."""
    settled = run.settled(scores)
    done = settled.done
    units: dict[str, str] = {}
    for wish in wishes:
        units |= wish.units  # the text of a prompt may have changed; the last wish counts
    for prompt, unit in units.items():
        entry.asked.add((prompt, seed))
        if unit in done:
            entry.metrics[prompt, seed] = done[unit]["metrics"]
    return settled.conflicts


def _grid(block: Block) -> Grid:
    entries = [block.entries[key] for key in sorted(block.entries, key=_row_order(block))]
    asked = set().union(*(entry.asked for entry in entries))
    columns = tuple(_column(dimension, entries) for dimension in ORDER.get(block.task["name"], INTERACTIVE))
    table = [[_cell(entry, column, asked) for column in columns] for entry in entries]
    for index in range(len(columns)):
        places = ranks([_ranked(line[index]) for line in table], DECIMALS)
        if sum(place is not None for place in places) > 1:
            for line, place in zip(table, places):
                line[index] = Cell(line[index].estimate, line[index].fewer, place)
    return Grid(
        task=block.task["name"],
        title=block.task["label"],
        backbone=block.backbone["label"],
        weights=block.weights,
        scorer=block.scorer["label"],
        prompts=len({prompt for prompt, _ in asked}),
        seeds=len({seed for _, seed in asked}),
        videos=len(asked),
        columns=columns,
        rows=tuple(_row(entry, block, cells) for entry, cells in zip(entries, table)),
    )


def _row_order(block: Block) -> Any:
    def order(key: tuple[str, str]) -> tuple[Any, ...]:
        settings = block.entries[key].settings
        return key[0], [(isinstance(v, str), v if isinstance(v, (int, float)) else 0, str(v)) for v in settings.values()]

    return order


def _row(entry: Entry, block: Block, cells: Sequence[Cell]) -> Row:
    method = entry.run.spec["method"]
    like = [other.settings for (name, _), other in block.entries.items() if name == method["name"]]
    differing = [key for key in entry.settings if len({repr(other.get(key)) for other in like}) > 1]
    variant = ", ".join(f"{key.removeprefix('method.settings.')}={entry.settings[key]}" for key in differing)
    return Row(method["label"], method["name"], variant, len(entry.metrics), tuple(cells))


def _column(dimension: str, entries: Sequence[Entry]) -> Column:
    names = {name for entry in entries for metrics in entry.metrics.values() for name in metrics}
    return Column(dimension, dimension not in names and f"proxy.{dimension}" in names)


def _cell(entry: Entry, column: Column, asked: set[Unit]) -> Cell:
    name = ("proxy." if column.proxy else "") + column.dimension
    values = {unit: value for unit, metrics in entry.metrics.items() if (value := metrics.get(name)) is not None}
    found = estimate(values)
    return Cell(found, found is not None and found.videos < len(asked), None)


def _ranked(cell: Cell) -> float | None:
    return None if cell.estimate is None or cell.fewer else cell.estimate.mean


def main(words: Sequence[str]) -> int:
    """Command line: `store=DIR` and `task=NAME,NAME`, both optional."""
    given = {"store": "results", "task": ""}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in given:
            print(f"{word}: not understood; store=DIR and task=NAME,NAME are", file=sys.stderr)
            return 1
        given[key] = value
    store = Path(given["store"])
    if not (store / "runs").is_dir():
        print(f"store={store}: no run store; it has no folder runs", file=sys.stderr)
        return 1
    lines = make(store, given["task"].split(",") if given["task"] else None, sys.stdout.isatty())
    print("\n".join(lines) if lines else f"store={store}: no scores")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
