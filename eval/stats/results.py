"""Per-video scores: folders that `echo-harness score` wrote, VBench's `*_eval_results.json`, and CSV with one row per video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pandas as pd

from data.sets.columns import records
from echo.files import inside, read_json, read_text
from echo.refusals import brief, first_line, nearest_of, shown
from eval.store.records import Count, Score

Content = TypeVar("Content")
NAMES = {"label": ("label", "method", "arm", "model", "preset"), "prompt": ("prompt", "prompt_id", "id"), "seed": ("seed",)}
"""Names of columns of methods, prompts and seeds."""
SUMMARY: Final = "scores.json"
"""The summary of a folder of scores; a file for each video is beside it."""


class ScoredUnit(msgspec.Struct):
    """Scores of a video, as far as they are read here. text: digest of its prompt, "" for none."""

    prompt: str
    seed: Count
    text: str
    metrics: dict[str, Score | None]


class ScoredFolder(msgspec.Struct):
    """Summary of a folder of scores, as far as it is read here. label: the system's name. identity: networks and versions."""

    label: str
    task: str
    videos: dict[str, str]
    identity: dict[str, Any]


def scored(folder: Path) -> tuple[ScoredFolder, list[ScoredUnit]]:
    """A folder that `echo-harness score` wrote, and its videos. Raises ValueError in one line that names the unreadable file."""
    summary = _decoded(folder / SUMMARY, ScoredFolder)
    units = [_decoded(inside(folder, f"{name}.json"), ScoredUnit) for name in summary.videos]
    doubled = [unit for unit, count in Counter((one.prompt, one.seed) for one in units).items() if count > 1]
    if doubled:
        raise ValueError(f"{folder}: prompt {shown(doubled[0][0])} with seed {doubled[0][1]} stands twice")
    return summary, units


def _decoded(path: Path, kind: type[Content]) -> Content:
    try:
        return msgspec.convert(read_json(read_text(path), str(path)), kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {first_line(error)}; the same `echo-harness score` command writes it anew") from None


def metrics(path: Path) -> list[str]:
    """What `read` can be asked for: metrics of a folder, dimensions of VBench's results, columns of a CSV. Raises ValueError."""
    if path.is_dir():
        return list(dict.fromkeys(name for unit in scored(path)[1] for name, value in unit.metrics.items() if value is not None))
    if path.suffix == ".json":
        content = read_json(read_text(path), str(path))
        return list(content) if isinstance(content, dict) else []
    _, row = next(records(path), ("", {}))
    return [name for name in row if not any(name in names for names in NAMES.values())] if isinstance(row, dict) else []


def read(path: Path, metric: str) -> dict[str, pd.Series]:
    """Scores by method, each indexed by prompt and seed, in the file's own unit.

    Args:
        path: a folder of scores; VBench's results, of one method named after the file; or a CSV.
        metric: a name in a store, a dimension of VBench, or a column.

    Raises:
        ValueError: in one line with the file's line, for a file without the metric, or a value that is not a number.
    """
    if path.is_dir():
        summary, units = scored(path)
        values = {(one.prompt, one.seed): value for one in units if (value := one.metrics.get(metric)) is not None}
        if not values:
            raise ValueError(f"{path}: metric={metric}: no video has it; {nearest_of(metric, metrics(path))}")
        return {summary.label: _series(values)}
    if path.suffix == ".json":
        return {path.name: _vbench(path, metric)}
    rows: dict[str, dict[tuple[str, int], float]] = {}
    for where, row in records(path):
        assert isinstance(row, dict)
        columns = {kind: next((name for name in names if name in row), None) for kind, names in NAMES.items()}
        if columns["label"] is None or columns["prompt"] is None:
            raise ValueError(f"{path}: columns {brief(', '.join(row))}; one of {NAMES['label']} and one of {NAMES['prompt']} are needed")
        if metric not in row:
            raise ValueError(f"{path}: metric={metric}: no such column; {nearest_of(metric, row)}")
        seed = row[columns["seed"]] if columns["seed"] else "0"
        if not re.fullmatch(r"\d{1,18}", seed.strip()):
            raise ValueError(f"{where}: seed {shown(seed)} is no whole number")
        unit = row[columns["prompt"]].strip(), int(seed)
        own = rows.setdefault(row[columns["label"]].strip(), {})
        if unit in own:
            raise ValueError(f"{where}: prompt {shown(unit[0])} with seed {unit[1]} stands twice")
        own[unit] = _number(row[metric], where, metric)
    return {label: _series(own) for label, own in rows.items()}


def _vbench(path: Path, metric: str) -> pd.Series:
    """A dimension of VBench's results by the videos' names: `PROMPT-NUMBER`, or the whole name as a prompt."""
    content = read_json(read_text(path), str(path))
    if not isinstance(content, dict) or metric not in content:
        raise ValueError(f"{path}: metric={metric}: no such dimension; {nearest_of(metric, content if isinstance(content, dict) else [])}")
    videos = content[metric][1] if isinstance(content[metric], list) and len(content[metric]) > 1 else None
    if not isinstance(videos, list) or not videos:
        raise ValueError(f"{path}: {metric} is [mean, videos] in VBench's results; it has no videos")
    scores: dict[tuple[str, int], float] = {}
    for number, video in enumerate(videos, 1):
        where = f"{path}: {metric}, video {number}"
        if not isinstance(video, Mapping) or not isinstance(video.get("video_path"), str):
            raise ValueError(f"{where}: {shown(video)} has no video_path")
        stem = re.split(r"[/\\]", video["video_path"])[-1].rpartition(".")[0]
        drawn = re.fullmatch(r"(.+)-(\d{1,9})", stem)
        scores[(drawn[1], int(drawn[2])) if drawn else (stem, 0)] = _number(video.get("video_results"), where, "video_results")
    return _series(scores)


def _number(value: object, where: str, name: str) -> float:
    try:
        score = float(value)  # type: ignore[arg-type]  # VBench writes true for a video that moves
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {name} {shown(value)} is no number") from None
    if score != score or abs(score) == float("inf"):
        raise ValueError(f"{where}: {name} {shown(value)} is no number")
    return score


def _series(scores: Mapping[tuple[str, int], float]) -> pd.Series:
    index = pd.MultiIndex.from_tuples(list(scores), names=["prompt", "seed"])
    return pd.Series(list(scores.values()), index, dtype="float64").sort_index()
