"""Per-video scores of other tools: VBench's `*_eval_results.json`, and CSV with one row per video with its method, prompt and seed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from data.sets.columns import records
from echo.files import read_json, read_text
from echo.refusals import nearest_of, shown

NAMES = {"label": ("label", "method", "arm", "model", "preset"), "prompt": ("prompt", "prompt_id", "id"), "seed": ("seed",)}
"""Names of columns of methods, prompts and seeds."""


def read(path: Path, metric: str) -> dict[str, pd.Series]:
    """Scores by method, each indexed by prompt and seed, in the file's own unit.

    Args:
        path: VBench's results, of one method named after the file; or a CSV.
        metric: a dimension of VBench, or a column.

    Raises:
        ValueError: in one line with the file's line, for a file without the metric, or a value that is not a number.
    """
    if path.suffix == ".json":
        return {path.name: _vbench(path, metric)}
    rows: dict[str, dict[tuple[str, int], float]] = {}
    for where, row in records(path):
        assert isinstance(row, dict)
        columns = {kind: next((name for name in names if name in row), None) for kind, names in NAMES.items()}
        if columns["label"] is None or columns["prompt"] is None:
            raise ValueError(f"{path}: columns {', '.join(row)}; one of {NAMES['label']} and one of {NAMES['prompt']} are needed")
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
