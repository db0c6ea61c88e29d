"""The rows of a task that may be compared with each other, whatever commands made them, and the videos that two rows share.

A store may hold several weights, scorers and settings of one preset. Counted are: the newest way of scoring and version of the
code, the newest weights of each backbone, of settings beside the method's those with most videos, and of several settings of
one preset the newest, which are those that the last table shows. What was left out can be asked for by a store of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.store.records import UnitRecord
from eval.store.runs import Asked, Run, flat, runs

WEIGHTS = ("backbone.weights", "backbone.lora")
"""Settings that name the content of a backbone's files."""

Unit = tuple[str, int]
"""A prompt's id and a seed."""


@dataclass(frozen=True)
class Video:
    """A finished unit. record: its line in the store. digest: the content of its prompt."""

    run: Run
    record: UnitRecord
    digest: str

    def file(self, kind: str) -> Path | None:
        """Path of a side file, for example its scores; None if the record names none."""
        return self.run.side(self.record, kind)


@dataclass
class Row:
    """A preset on a backbone. settings: of its method. beside: other settings that enter its pixels. calibration: no policy made it.

    older: the preset's rows of other settings that gave way to it, newest first.
    """

    backbone: str
    preset: str
    label: str
    settings: dict[str, Any]
    beside: dict[str, Any]
    calibration: bool = False
    newest: str = ""
    videos: dict[Unit, Video] = field(default_factory=dict)
    older: list[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Backbone and preset, for example `tiny/echo`."""
        return f"{self.backbone}/{self.preset}"


@dataclass(frozen=True)
class _Part:
    """What one run has under one way of scoring."""

    run: Run
    wishes: Sequence[Asked]

    @property
    def newest(self) -> str:
        return self.wishes[-1].name

    @property
    def pixels(self) -> dict[str, Any]:
        return dict(flat(self.run.spec.key.pixels))

    @property
    def weights(self) -> tuple[Any, ...]:
        pixels = self.pixels
        return tuple(pixels.get(key) for key in WEIGHTS)

    @property
    def backbone(self) -> str:
        return self.run.spec.backbone.name


def rows(store: Path, task: str, scored: bool = True) -> list[Row]:
    """Rows of a task with at least one video, in the order of their names.

    Args:
        store: the run store.
        task: name of the task.
        scored: whether videos without scores stay out; else videos count however they were scored.

    Returns:
        An empty list where the store has none.
    """
    parts = [part for run in runs(store, f"*/{task}/*/seed=*/*") for part in _parts(run, scored)]
    if not parts:
        return []
    newest = max(parts, key=lambda part: part.newest)
    epoch = newest.run.spec.key.epoch
    parts = [p for p in parts if p.run.spec.key.epoch == epoch and (not scored or p.wishes[-1].scores == newest.wishes[-1].scores)]
    weights = {part.backbone: part.weights for part in sorted(parts, key=lambda part: part.newest) if any(part.weights)}
    found: dict[tuple[str, str, str], Row] = {}
    for part in parts:
        if not any(part.weights) or part.weights == weights[part.backbone]:
            _add(found, part, scored)
    there = _alike([row for row in found.values() if row.videos])
    best: dict[str, Row] = {}
    for row in sorted(there, key=lambda row: (row.newest, len(row.videos)), reverse=True):
        first = best.setdefault(row.name, row)
        if first is not row:
            first.older.append(row)
    return [best[name] for name in sorted(best)]


def left_out(found: Iterable[Row]) -> list[str]:
    """A line for each row that gave way to newer settings of its preset: what it had otherwise, and how many videos it has."""
    lines = []
    for row in found:
        for other in row.older:
            old, new = other.settings | other.beside, row.settings | row.beside
            keys = [key for key in old if old[key] != new.get(key, old[key])] or [key for key in old if key not in new]
            words = ", ".join(f"{key.removeprefix('method.settings.')}={old[key]}" for key in keys)
            lines.append(f"left out, as {row.name} has newer settings: {words or 'fewer settings'} ({len(other.videos)} videos)")
    return lines


def _parts(run: Run, scored: bool) -> list[_Part]:
    by_scores: dict[str | None, list[Asked]] = {}
    for wish in run.asked():
        if wish.scores is not None or not scored:
            by_scores.setdefault(wish.scores if scored else None, []).append(wish)
    return [_Part(run, wishes) for wishes in by_scores.values()]


def _add(found: dict[tuple[str, str, str], Row], part: _Part, scored: bool) -> None:
    """Put the videos of a run into its row."""
    spec, pixels = part.run.spec, part.pixels
    method = {key: value for key, value in pixels.items() if key.startswith("method.")}
    beside = {key: value for key, value in pixels.items() if key not in method and key not in ("seed", *WEIGHTS)}
    key = (f"{part.backbone}/{spec.method.name}", repr(sorted(method.items())), repr(sorted(beside.items())))
    row = found.setdefault(key, Row(part.backbone, spec.method.name, spec.method.label, method, beside, part.run.calibration))
    row.newest = max(row.newest, part.newest)
    units: dict[str, str] = {}
    digests: dict[str, str] = {}
    for wish in part.wishes:
        units |= wish.units
        digests |= wish.prompts
    done = part.run.settled(part.wishes[-1].scores if scored else None).done
    for prompt, unit in units.items():
        if unit in done:
            row.videos[prompt, spec.seed] = Video(part.run, done[unit], digests.get(prompt, ""))


def _alike(found: Sequence[Row]) -> list[Row]:
    """Rows whose settings beside the method's contradict those of most videos nowhere; rendered rows have no say in it."""
    count: dict[str, int] = {}
    for row in found:
        if not row.calibration:
            count[repr(sorted(row.beside.items()))] = count.get(repr(sorted(row.beside.items())), 0) + len(row.videos)
    if not count:
        return list(found)
    most = max(count, key=count.__getitem__)
    chosen = next(row.beside for row in found if repr(sorted(row.beside.items())) == most)
    return [row for row in found if all(chosen.get(key, value) == value for key, value in row.beside.items())]


def differences(first: Row, second: Row, metric: str) -> dict[Unit, float]:
    """First minus second by unit, over the videos of the same prompt (by content) and seed that both have the metric of."""
    found: dict[Unit, float] = {}
    for unit in sorted(first.videos.keys() & second.videos.keys()):
        some, other = first.videos[unit], second.videos[unit]
        one, two = some.record.metrics.get(metric), other.record.metrics.get(metric)
        if some.digest == other.digest and one is not None and two is not None:
            found[unit] = one - two
    return found


def metrics(row: Row) -> set[str]:
    """Names of all metrics that some video of a row has."""
    return {name for video in row.videos.values() for name, value in video.record.metrics.items() if value is not None}


def pick(found: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """Rows of the presets named, in the order of the names; all rows if none is named.

    Raises:
        ValueError: in one line, for a preset that no row has.
    """
    there = list(found)
    if not names:
        return there
    presets = sorted({row.preset for row in there})
    for name in names:
        if name not in presets:
            raise ValueError(f"method={name}: no videos of it here; there are {', '.join(presets) or 'none'}")
    return [row for name in names for row in there if row.preset == name]
