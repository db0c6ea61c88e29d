"""Tables 4 and 5: mean opinions of people, from a file with one rating per line: `rater,task,video,method,criterion,rating`.

`video` is the prompt, which all methods share, so that ratings of two methods can be paired; `seed` and `backbone` may be
further columns. Ratings are integers from 1 (worst) to 5 (best).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from echo.files import Json
from echo.refusals import nearest
from eval import metrics
from eval.metrics import Column
from eval.stats.agreement import Agreement, krippendorff, paired, two_way
from eval.tables import captions
from eval.tables.build import REFERENCES, marked
from eval.tables.grid import Grid, TableRow
from eval.tables.meta import columns as told_columns

TABLES = ("table4", "table5")
TITLES = {"table4": "User study, long video (Table 4)", "table5": "User study, interactive video (Table 5)"}
TASKS = {"table4": ("long60", "long120", "long"), "table5": ("smooth", "hard", "recall", "interactive")}
CRITERIA = tuple(metrics.criteria())
"""Criteria of the paper's user study, in its order; others of a file follow."""
NEEDED = ("rater", "task", "video", "method", "criterion", "rating")
EXTRA = ("seed", "backbone")
POINTS = (1, 2, 3, 4, 5)


def read(path: Path) -> pd.DataFrame:
    """Ratings of a file. Raises ValueError in one line for an invalid file or line, and for a duplicate rating.

    Columns: the file's, str ("" for a missing seed or backbone); `points`, int64; `shown`, str: task, video and seed, which
    all methods share.
    """
    text = _text(path)
    between = max(",;\t", key=text.partition("\n")[0].count)  # spreadsheets use the separator of their language
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between)
    try:
        names = reader.fieldnames or ()
        lacking = [name for name in NEEDED if name not in names]
        if lacking:
            raise ValueError(f"ratings={path}: no column {lacking[0]}; the first line names {','.join(NEEDED)}")
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise ValueError(f"ratings={path}: column {twice[0] or 'without a name'} is there twice; each is named once")
        # blank lines are skipped but counted
        ratings = [(reader.line_num, _rating(path, reader.line_num, row, len(names))) for row in reader]
    except csv.Error as error:
        raise ValueError(f"ratings={path}, line {reader.line_num}: {error}; lines of {','.join(NEEDED)} are taken") from None
    lines: dict[tuple[str, ...], int] = {}
    for number, rating in ratings:
        first = lines.setdefault(tuple(rating[name] for name in (*NEEDED[:-1], *EXTRA)), number)
        if first != number:
            raise ValueError(f"ratings={path}, line {number}: {rating['rater']} rated this in line {first}; each rates a video once")
    table = pd.DataFrame([rating for _, rating in ratings], columns=[*NEEDED, *EXTRA])
    return table.assign(points=table["rating"].astype("int64"), shown=table["task"] + "/" + table["video"] + "/" + table["seed"])


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would block
            raise ValueError(f"ratings={path}: no file; give a file whose first line is {','.join(NEEDED)}")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"ratings={path}: {error.strerror}; give a file whose first line is {','.join(NEEDED)}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = error.object[error.start], error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"ratings={path}, line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def _rating(path: Path, number: int, row: Mapping[str | None, Any], columns: int) -> dict[str, str]:
    more = row.get(None)
    if more:
        rule = "a value with a comma in it stands in quotes"
        raise ValueError(f"ratings={path}, line {number}: {columns + len(more)} values for {columns} columns; {rule}")
    values = {name: (row.get(name) or "").strip() for name in (*NEEDED, *EXTRA)}
    empty = next((name for name in NEEDED if not values[name]), None)
    if empty:
        raise ValueError(f"ratings={path}, line {number}: {empty} is empty")
    known = [task for tasks in TASKS.values() for task in tasks]
    if values["task"] not in known:
        raise ValueError(f"ratings={path}, line {number}: task {values['task']}: nearest is {nearest(values['task'], known)}")
    if values["rating"] not in map(str, POINTS):
        raise ValueError(f"ratings={path}, line {number}: rating {values['rating']}: a whole number from 1 (worst) to 5 (best)")
    return values


def table(name: str, ratings: str, scorer: str = "") -> tuple[list[Grid], Json]:
    """A table and its meta data.

    Args:
        name: one of `TABLES`.
        ratings: path of a file of ratings.
        scorer: label of the scorer whose scores the ratings were simulated from; "" for ratings by people.

    Raises:
        ValueError: like `read`, and if there are no ratings of this table.
    """
    if not ratings:
        raise ValueError(f"{name}: people's ratings; give ratings=FILE.csv with {','.join(NEEDED)}")
    path = Path(ratings)
    every = read(path)
    own = every[every["task"].isin(TASKS[name])]
    if own.empty:
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
        "agreement": {criterion: _plain(alpha) for criterion, alpha in agreements.items() if alpha},
        "statistics": {"interval": "two-way clustered by rater and video", "agreement": "Krippendorff's alpha, ordinal"},
    }
    return [grid], behind


def criteria(ratings: pd.DataFrame) -> list[str]:
    """Criteria of the ratings, in the paper's order."""
    there = list(ratings["criterion"].unique())
    return [name for name in CRITERIA if name in there] + [name for name in there if name not in CRITERIA]


def agreement(ratings: pd.DataFrame, criterion: str) -> Agreement | None:
    """Agreement of raters in one criterion; the interval is over videos."""
    own = ratings[ratings["criterion"] == criterion].groupby(["shown", "backbone", "method"])["points"]
    return krippendorff({(shown, f"{backbone}/{method}"): points.tolist() for (shown, backbone, method), points in own}, POINTS)


def grid_of(name: str, ratings: pd.DataFrame, agreements: Mapping[str, Agreement | None], scorer: str = "") -> Grid:
    """Rows are methods in the order of the file, columns are criteria; `scorer`: source of simulated ratings, as in `table`."""
    columns = tuple(Column(criterion, "opinion") for criterion in criteria(ratings))
    raters, shown, seeds = ratings[["rater", "shown", "seed"]].nunique()
    prompts, asked = len(ratings.groupby(["task", "video"])), len(ratings.groupby(["rater", "shown"]))
    people = f"{raters} simulated raters, no people (noise on the scores of: {scorer})" if scorer else f"{raters} raters"
    size = f"{raters} raters, {prompts} prompts with {captions.number(seeds, 'seed')} each"
    return Grid(
        task="-".join(ratings["task"].unique()),
        title=TITLES[name],
        backbones=tuple((backbone or "not told by the ratings", "-") for backbone in ratings["backbone"].unique()),
        scorer=people,
        settings="",
        prompts=int(shown),
        seeds=int(seeds),
        videos=asked,
        columns=columns,
        rows=tuple(_rows(ratings, columns, asked)),
        rule="each rater gives each video 1 (worst) to 5 (best) points in each criterion",
        interval=f"Mean opinion ± 95 % interval, clustered by rater and by video: {size}",
        pairing=f"of the same rater for the same prompt, paired, with its 95 % interval, clustered by rater and by video: {size}",
        remarks=(_agreed(agreements),),
    )


def _rows(ratings: pd.DataFrame, columns: Sequence[Column], asked: int) -> Iterator[TableRow]:
    """A row for each method, grouped by backbone."""
    backbones, pairs = list(ratings["backbone"].unique()), ratings[["backbone", "method"]].drop_duplicates()
    methods = sorted(pairs.itertuples(index=False, name=None), key=lambda pair: backbones.index(pair[0]))
    place = next((index for index, (_, method) in enumerate(methods) if method in REFERENCES), 0)
    every = ratings.set_index(["rater", "shown"])
    points = dict(list(every.groupby(["backbone", "method", "criterion"])["points"]))
    rated = ratings.drop_duplicates(["rater", "shown", "backbone", "method"]).groupby(["backbone", "method"]).size()
    cells = []
    for column in columns:
        own = [points.get((*pair, column.dimension), every["points"][:0]) for pair in methods]
        gaps = [None if index == place else paired(values, own[place]) for index, values in enumerate(own)]
        cells.append(marked([two_way(values) for values in own], gaps, [backbone for backbone, _ in methods], asked))
    for index, (backbone, method) in enumerate(methods):
        section, reference = ("", "") if index == place else methods[place]
        count = int(rated[backbone, method])
        row = TableRow(method, method, "", count, tuple(column[index] for column in cells), backbone, unscored=asked - count)
        yield replace(row, reference=reference, reference_section=section)


def _plain(agreed: Agreement) -> dict[str, float | None]:
    """Plain values for JSON, with None for NaN."""
    return {key: None if math.isnan(value) else value for key, value in vars(agreed).items()}


def _agreed(agreements: Mapping[str, Agreement | None]) -> str:
    words = [
        f"{name.replace('_', ' ')} {one.alpha:.2f} [{one.low:.2f}, {one.high:.2f}]" if one else f"{name.replace('_', ' ')} unknown"
        for name, one in agreements.items()
    ]
    scale = "Krippendorff's alpha, ordinal; 1 is perfect, 0 chance; 95 % interval over videos"
    return f"Agreement between raters ({scale}): {', '.join(words)}."
