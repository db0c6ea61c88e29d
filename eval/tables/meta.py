"""A table's `<table>.meta.json`: units, definitions, hashes and commits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from echo.files import Json
from eval.definitions import RULES
from eval.metrics import Column
from eval.stats.statistics import ALPHA, LEVEL, POWER, RESAMPLES
from eval.store.rows import Comparable, Entry, asked_of
from eval.store.runs import flat
from eval.tables import captions
from eval.tables.grid import Grid, TableRow

STATISTICS = {
    "mean": "over videos",
    "interval": "percentile bootstrap over k prompts with all their seeds, times t over normal quantile and sqrt(k / (k - 1))",
    "level": LEVEL,
    "resamples": RESAMPLES,
    "generator_seed": 0,
    "difference": "paired by prompt and seed; p of the t statistic that the interval has",
    "correction": "Holm over the rows of a column",
    "alpha": ALPHA,
    "power": POWER,
    "rank": "of the printed mean within a backbone; equal prints share a place",
}


@dataclass(frozen=True)
class MadeGrid:
    """A grid of one task and its rows."""

    grid: Grid
    group: Comparable


def meta(name: str, title: str, made: Sequence[MadeGrid]) -> Json:
    """The content of a table's `.meta.json`, the same from the same store.

    Args:
        name: of the table.
        title: of the table.
        made: its parts.
    """
    return {"v": 1, "table": name, "title": title, "statistics": STATISTICS, "blocks": [_part(one.grid, one.group) for one in made]}


def _part(grid: Grid, group: Comparable) -> Json:
    return {
        "task": grid.task,
        "caption": captions.caption(grid),
        "notes": captions.notes(grid),
        "rule": grid.rule,
        "scorer": msgspec.to_builtins(group.scorer),
        "settings": grid.settings,
        "backbones": {entry.section: _backbone(entry) for entry in group.entries.values() if not entry.calibration},
        "prompts": dict(sorted(group.prompts.items())),
        "prompts_digest": digest(sorted(group.prompts.items())),
        "seeds": sorted(asked_of(group.entries.values()).unique("seed").tolist()),
        "videos_asked": grid.videos,
        "columns": columns(grid.columns),
        "rows": [_row(row) for row in grid.rows],
        "commits": commits(group.entries.values()),
        "conflicts": group.conflicts,
        **({"damaged": group.damaged} if group.damaged else {}),
    }


def columns(shown: Iterable[Column]) -> list[Json]:
    """Name, unit, direction and definition of each."""
    return [
        {
            "dimension": column.dimension,
            "metric": column.metric,
            "unit": column.unit,
            "best": "lowest" if column.lower else "highest",
            "definition": RULES[column.kind].words if column.kind in RULES else column.kind or "one definition only",
        }
        for column in shown
    ]


def _row(row: TableRow) -> Json:
    if row.source:
        return {"preset": row.preset, "published": row.source} | ({"foreign": True, "videos": row.videos} if row.videos else {})
    facts = ("preset", "variant", "videos", "failed", "absent", "unscored", "reference", "reference_section")
    dead = {name: count for name in ("dead", "damaged") if (count := getattr(row, name))}
    dead |= {"pixel_codes": row.pixel_codes} if row.pixel_codes else {}
    whole = {"backbone": row.section, "weights": row.weights} | {key: getattr(row, key) for key in facts} | dead
    return whole | {"runs": sorted(row.runs)}


def _backbone(entry: Entry) -> Json:
    """Everything that identifies the network: digests of its files, precision and so on."""
    pixels = entry.run.spec.key.pixels
    return {key.removeprefix("backbone."): value for key, value in flat(pixels) if key.startswith("backbone.")}


def commits(entries: Iterable[Entry]) -> dict[str, int]:
    """Number of attempts behind the numbers by commit; "-changed" marks uncommitted changes."""
    codes = [start.code for entry in entries for start in entry.starts()]
    names = [(code.commit or "unknown") + ("-changed" if code.dirty else "") for code in codes]
    return dict(sorted(Counter(names).items()))


def digest(content: object) -> str:
    """A short hash of plain values."""
    return hashlib.blake2b(repr(content).encode(), digest_size=10).hexdigest()
