"""Tables 4 and 5: mean opinions of people, from a file of ratings.

    python -m eval.tables.command table4 ratings=FILE.csv

A line is one rating: `rater,task,video,method,criterion,rating`. `video` names what all methods were shown for (its prompt), so
that ratings of two methods can be paired; `seed` and `backbone` may be further columns. Ratings are whole, 1 (worst) to 5 (best).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo.refusals import nearest
from eval import metrics
from eval.metrics import Column
from eval.stats.agreement import Agreement, krippendorff, paired, two_way
from eval.stats.statistics import detectable, holm, ranks
from eval.tables import captions
from eval.tables.build import REFERENCES
from eval.tables.grid import DECIMALS, Cell, Gap, Grid, Row
from eval.tables.meta import columns as told_columns

TABLES = ("table4", "table5")
TITLES = {"table4": "User study, long video (Table 4)", "table5": "User study, interactive video (Table 5)"}
TASKS = {"table4": ("long60", "long120", "long"), "table5": ("smooth", "hard", "recall", "interactive")}
CRITERIA = tuple(metrics.criteria())
"""Of the paper's user study, in its order; others of a file stand behind."""
NEEDED = ("rater", "task", "video", "method", "criterion", "rating")
POINTS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Rating:
    """One rating. video: its task, name and seed, the same for all methods."""

    rater: str
    task: str
    video: str
    method: str
    criterion: str
    points: int
    seed: str = ""
    backbone: str = ""

    @property
    def shown(self) -> str:
        """What all methods were shown for."""
        return f"{self.task}/{self.video}/{self.seed}"


def read(path: Path) -> list[Rating]:
    """Ratings of a file. Raises ValueError in one line for a file or a line that is none, and for a rating that is there twice."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        names = reader.fieldnames or ()
        lacking = [name for name in NEEDED if name not in names]
        if lacking:
            raise ValueError(f"ratings={path}: no column {lacking[0]}; the first line names {','.join(NEEDED)}")
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise ValueError(f"ratings={path}: column {twice[0] or 'without a name'} is there twice; each is named once")
        found = [(reader.line_num, _rating(path, reader.line_num, row, len(names))) for row in reader]  # blank lines count, and say nothing
    except csv.Error as error:
        raise ValueError(f"ratings={path}, line {reader.line_num}: {error}; lines of {','.join(NEEDED)} are taken") from None
    seen: dict[Rating, int] = {}
    for number, one in found:
        key = Rating(one.rater, one.task, one.video, one.method, one.criterion, 0, one.seed, one.backbone)
        if key in seen:
            raise ValueError(f"ratings={path}, line {number}: {one.rater} rated this in line {seen[key]}; each rates a video once")
        seen[key] = number
    return [one for _, one in found]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"ratings={path}: {error.strerror}; give a file whose first line is {','.join(NEEDED)}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = error.object[error.start], error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"ratings={path}, line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def _rating(path: Path, number: int, row: Mapping[str | None, Any], columns: int) -> Rating:
    more = row.get(None)
    if more:
        rule = "a value with a comma in it stands in quotes"
        raise ValueError(f"ratings={path}, line {number}: {columns + len(more)} values for {columns} columns; {rule}")
    values = {name: (row.get(name) or "").strip() for name in (*NEEDED, "seed", "backbone")}
    empty = next((name for name in NEEDED if not values[name]), None)
    if empty:
        raise ValueError(f"ratings={path}, line {number}: {empty} is empty")
    known = [task for tasks in TASKS.values() for task in tasks]
    if values["task"] not in known:
        raise ValueError(f"ratings={path}, line {number}: task {values['task']}: nearest is {nearest(values['task'], known)}")
    if values["rating"] not in map(str, POINTS):
        raise ValueError(f"ratings={path}, line {number}: rating {values['rating']}: a whole number from 1 (worst) to 5 (best)")
    return Rating(points=int(values.pop("rating")), **values)


def table(name: str, ratings: str, scorer: str = "") -> tuple[list[Grid], dict[str, Any]]:
    """A table and what stands behind it.

    Args:
        name: one of `TABLES`.
        ratings: path of a file of ratings.
        scorer: label of the scorer whose scores the ratings were simulated from; "" for ratings by people.

    Raises:
        ValueError: as `read` does, and where there are no ratings of this table.
    """
    if not ratings:
        raise ValueError(f"{name}: people's ratings; give ratings=FILE.csv with {','.join(NEEDED)}")
    path = Path(ratings)
    every = read(path)
    own = [rating for rating in every if rating.task in TASKS[name]]
    if not own:
        raise ValueError(f"ratings={path}: no rating of {' or '.join(TASKS[name])}, which {name} is of")
    agreements = {criterion: agreement(own, criterion) for criterion in criteria(own)}
    grid = grid_of(name, own, agreements, scorer)
    behind = {
        "v": 1,
        "table": name,
        "title": TITLES[name],
        "caption": captions.caption(grid),
        "notes": captions.notes(grid),
        "ratings": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "simulated": bool(scorer)},
        "columns": told_columns(grid.columns),
        "agreement": {criterion: _plain(found) for criterion, found in agreements.items() if found},
        "statistics": {"interval": "two-way clustered by rater and video", "agreement": "Krippendorff's alpha, ordinal"},
    }
    return [grid], behind


def criteria(ratings: Sequence[Rating]) -> list[str]:
    """What was asked, in the paper's order."""
    there = list(dict.fromkeys(rating.criterion for rating in ratings))
    return [name for name in CRITERIA if name in there] + [name for name in there if name not in CRITERIA]


def agreement(ratings: Sequence[Rating], criterion: str) -> Agreement | None:
    """How far raters agree in one criterion; the interval is over what was shown."""
    units: dict[tuple[str, str], list[int]] = {}
    for rating in ratings:
        if rating.criterion == criterion:
            units.setdefault((rating.shown, f"{rating.backbone}/{rating.method}"), []).append(rating.points)
    return krippendorff(units, POINTS)


def grid_of(name: str, ratings: Sequence[Rating], agreements: Mapping[str, Agreement | None], scorer: str = "") -> Grid:
    """Rows are methods in the order of the file, columns are criteria; `scorer` is whose scores simulated ratings are of."""
    columns = tuple(Column(criterion, "opinion") for criterion in criteria(ratings))
    methods = list(dict.fromkeys((rating.backbone, rating.method) for rating in ratings))
    backbones = list(dict.fromkeys(backbone for backbone, _ in methods))
    methods.sort(key=lambda pair: backbones.index(pair[0]))
    reference = next((pair for pair in methods if pair[1] in REFERENCES), methods[0])
    given = {(rating.backbone, rating.method, rating.criterion): dict[tuple[str, str], float]() for rating in ratings}
    for rating in ratings:
        given[rating.backbone, rating.method, rating.criterion][rating.rater, rating.shown] = rating.points
    raters, shown = {rating.rater for rating in ratings}, {rating.shown for rating in ratings}
    asked = len({(rating.rater, rating.shown) for rating in ratings})
    cells = [_column([given.get((*pair, column.dimension), {}) for pair in methods], methods, reference, asked) for column in columns]
    rows = []
    for index, (backbone, method) in enumerate(methods):
        rated = len({key for column in columns for key in given.get((backbone, method, column.dimension), {})})
        against = ("", "") if (backbone, method) == reference else (reference[1], reference[0])
        row = tuple(column[index] for column in cells)
        one = Row(method, method, "", rated, row, backbone, reference=against[0], reference_section=against[1], unscored=asked - rated)
        rows.append(one)
    people = f"{len(raters)} simulated raters, no people (noise on the scores of: {scorer})" if scorer else f"{len(raters)} raters"
    seeds, videos = {rating.seed for rating in ratings}, {(rating.task, rating.video) for rating in ratings}
    spread = f"clustered by rater and by video: {len(raters)} raters, {len(videos)} prompts with {len(seeds)} seeds each".replace(
        "1 seeds", "1 seed"
    )
    return Grid(
        task="-".join(dict.fromkeys(rating.task for rating in ratings)),
        title=TITLES[name],
        backbones=tuple((backbone or "not told by the ratings", "-") for backbone in backbones),
        scorer=people,
        settings="",
        prompts=len(shown),
        seeds=len(seeds),
        videos=asked,
        columns=columns,
        rows=tuple(rows),
        rule="each rater gives each video 1 (worst) to 5 (best) points in each criterion",
        interval=f"Mean opinion ± 95 % interval, {spread}",
        pairing=f"of the same rater for the same prompt, paired, with its 95 % interval, {spread}",
        remarks=(_agreed(agreements),),
    )


def _column(
    given: Sequence[Mapping[tuple[str, str], float]], methods: Sequence[tuple[str, str]], reference: tuple[str, str], asked: int
) -> list[Cell]:
    """One criterion of all methods: means, places within a backbone, differences."""
    means = [two_way(values) for values in given]
    gaps = [None if pair == reference else paired(values, given[methods.index(reference)]) for pair, values in zip(methods, given)]
    chances = holm([None if gap is None else gap.p for gap in gaps])
    tests = sum(gap is not None and gap.p is not None for gap in gaps)
    places: list[int | None] = [None] * len(methods)
    for backbone in {pair[0] for pair in methods}:
        rows = [index for index, pair in enumerate(methods) if pair[0] == backbone]
        if len(rows) > 1:
            found = ranks([one.mean if (one := means[row]) is not None and one.videos == asked else None for row in rows], DECIMALS)
            for row, place in zip(rows, found):
                places[row] = place
    cells = []
    for mean, gap, p, place in zip(means, gaps, chances, places):
        told = None if gap is None else Gap(gap.estimate, p, detectable(gap.estimate, tests))
        cells.append(Cell(mean, mean is not None and mean.videos < asked, place, told))
    return cells


def _plain(found: Agreement) -> dict[str, float | None]:
    """For JSON, which has no NaN."""
    return {key: None if math.isnan(value) else value for key, value in vars(found).items()}


def _agreed(agreements: Mapping[str, Agreement | None]) -> str:
    words = [
        f"{name.replace('_', ' ')} {found.alpha:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else f"{name.replace('_', ' ')} unknown"
        for name, found in agreements.items()
    ]
    scale = "Krippendorff's alpha, ordinal; 1 is perfect, 0 chance; 95 % interval over videos"
    return f"Agreement between raters ({scale}): {', '.join(words)}."
