"""Made-up raters of a store's videos, to fill Tables 4 and 5 where no people were asked: `python -m tests.helpers.raters [store=DIR]`.

Better scores get more points; a rater has a strictness of their own, and each rating its noise. The tables are written to
`<store>/tables` and say of themselves that their raters are simulated, and whose scores they follow.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval import metrics
from eval.store.rows import Entry, gather, sources
from eval.tables import opinions
from eval.tables.command import save
from eval.tables.published import published

EXPERIMENTS = {"table4": "table1", "table5": "table2"}
RATERS, VIDEOS = 18, 6
"""Of the paper's study, each kind of video."""


def simulate(name: str, store: Path) -> tuple[Path, str]:
    """Write ratings for a table from a store's scores; the file, and the scorer's label. Raises ValueError where there are no scores."""
    there = [source for source in sources(store) if source.task in opinions.TASKS[name]]
    there = [source for source in there if source.experiment == EXPERIMENTS[name]] or there
    if not there:
        raise ValueError(f"store={store}: no scores; make some with python run.py experiment={EXPERIMENTS[name]} -m")
    generator = np.random.default_rng(0)
    strictness = generator.normal(0, 0.4, RATERS)
    lines, scorers = [], dict[str, None]()
    for source in there:
        group, *_ = gather(source.wishes)
        scorers[group.scorer.label] = None
        entries = [entry for entry in group.entries.values() if not entry.calibration]
        units = sorted(set.intersection(*(set(entry.asked.index[entry.asked["status"] == "done"]) for entry in entries)))
        first_seed = min((seed for _, seed in units), default=0)
        units = [unit for unit in units if unit[1] == first_seed][:VIDEOS]
        for criterion in opinions.CRITERIA:
            for entry, points in zip(entries, _points(entries, units, source.task, criterion)):
                noise = strictness[:, None] + generator.normal(0, 0.6, (RATERS, len(units)))
                ratings = np.clip(np.rint(points[None] + noise), 1, 5).astype(int)
                for rater, row in enumerate(ratings):
                    for (prompt, seed), rating in zip(units, row):
                        lines.append([f"simulated-{rater:02d}", source.task, prompt, seed, entry.section, entry.preset, criterion, rating])
    path = store / "tables" / f"{name}-ratings-simulated.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rater", "task", "video", "seed", "backbone", "method", "criterion", "rating"])
        writer.writerows(lines)
    return path, " and ".join(scorers)


def _points(entries: Sequence[Entry], units: Sequence[tuple[str, int]], task: str, criterion: str) -> NDArray[np.float64]:
    """Points that a rater without strictness or noise would give, [methods, videos]: 3.3, and 0.7 for each spread above the mean."""
    names = set().union(*(entry.metrics for entry in entries))
    dimension = "imaging_quality" if criterion == "video_quality" else criterion
    metric = next(column.metric for column in metrics.columns(task, names) if column.dimension == dimension)
    scores = np.array([entry.values(metric).reindex(units).fillna(0.0) for entry in entries], dtype=float)
    return np.asarray(3.3 + 0.7 * (scores - scores.mean()) / (scores.std() or 1.0))


def write(name: str, store: Path, compare: bool = False) -> list[str]:
    """Write a table of simulated ratings in all its forms; the line that names them. compare: with the paper's rows."""
    path, scorer = simulate(name, store)
    grids, behind = opinions.table(name, str(path), scorer)
    return save(store / "tables", name, [published(grid, name) for grid in grids] if compare else grids, behind)


if __name__ == "__main__":
    folder = Path(next((word.removeprefix("store=") for word in sys.argv[1:] if word.startswith("store=")), "results"))
    print("\n".join(line for name in opinions.TABLES for line in write(name, folder)))
