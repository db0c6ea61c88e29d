"""A run store as pandas tables, in three lines of a notebook:

    from eval.store import frame
    videos = frame.videos("results")
    videos[videos.task == "recall"].groupby("preset")["world.recall_fidelity"].mean()

The rule of `eval.store.rows` selects the runs: for each task the newest comparable rows, the same as in its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from eval.metrics import COSTS, READING_FRAMES
from eval.store.columns import FACTS, FILES, table
from eval.store.records import ScoresFile
from eval.store.rows import Comparable, Entry, gather, parts_of
from eval.store.runs import scores_of, tasks

CATEGORIES = ("task", "backbone", "preset", "label", "policy", "settings", "scorer", "status", "text", "run", "attempt", "pixel_code")
"""Columns with few distinct texts, of dtype `category`."""
LAST = ("unit", *FILES.values(), "spoilt", *FACTS)
"""Facts, which follow the metrics."""


def videos(store: str | Path, *, scored: bool = True, every: bool = False, facts: bool = True) -> pd.DataFrame:
    """All requested videos, a row each.

    Args:
        store: the run store.
        scored: whether only requests with scores count; otherwise videos count however they were scored.
        every: whether to include older versions of the code, weights, ways of scoring and texts of prompts.
        facts: whether to include paths, hashes and speeds, which take most of the time for many videos.

    Returns:
        task, backbone, preset, label, policy, settings (of the method, in words), scorer: category.
        prompt: str. seed, epoch (version of the code that makes pixels), group (0 for the newest rows that may be compared): int64.
        calibration: bool, whether it was rendered instead of generated. status: category, "done", "failed" (every try ended in an error),
        "unscored" (it exists without these scores) or "missing". text (digest of the prompt), run, attempt, pixel_code (digest of the code
        that made it): category. dead: bool, whether each of its frames has one colour, or all frames are the same.
        A column per metric of the store: float64, NaN where there is no number.
        With facts: unit: str. video, trace, scores_file: str, paths. spoilt: str, what is wrong with one of these.
        latents_sha256, host, device: str. blocks, fps, fps_dit (pixel frames per second, with all work and without the codec),
        denoising_steps, attended_frames, kept_frames (latent frames, maximum over blocks), kept_mb (10^6 bytes), block_ms, block_ms_p95,
        switch_block_ms, generate_s, decode_s, score_s, dur_s, process_peak_mb: float64. All of these are NaN for a video
        that is not done.
    """
    parts = []
    for task in tasks(Path(store)):
        groups = gather(parts_of(Path(store), task, scored))
        for number, group in enumerate(groups if every else groups[:1]):
            parts += [_videos(group, number, entry, facts) for entry in group.entries.values()]
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*CATEGORIES, "prompt", "seed", *LAST])
    last = [name for name in LAST if name in whole]
    return whole[[*(name for name in whole if name not in LAST), *last]].astype(dict.fromkeys(CATEGORIES, "category"))


def _videos(group: Comparable, number: int, entry: Entry, facts: bool) -> pd.DataFrame:
    beside = [*COSTS, *([] if facts else ["device"])]  # facts say the same
    rows = table(entry.parts, facts)[0].drop(columns=beside, errors="ignore").reset_index()
    settings = {key.removeprefix("method.settings."): value for key, value in entry.settings.items() if key.startswith("method.settings.")}
    names = {
        "task": group.task.name, "backbone": entry.backbone, "preset": entry.preset, "label": entry.label,
        "policy": str(entry.settings.get("method.policy", "")), "settings": ", ".join(f"{key}={value}" for key, value in settings.items()),
        "scorer": group.scorer.label, "epoch": entry.run.spec.key.epoch, "calibration": entry.calibration, "group": number,
    }  # fmt: skip
    whole = pd.concat([pd.DataFrame(names, rows.index), rows], axis=1)
    return whole.astype(dict.fromkeys(("prompt", "status", "text", "run", "attempt", "pixel_code"), "str"))


def segments(store: str | Path) -> pd.DataFrame:
    """All scenes of scored videos, a row each: task, backbone, preset, prompt, seed, `scene` (int64, from 0), then the scorer's values
    for the scene: `start`, `end` (pixel frames) and its metrics, float64."""
    return _sides(videos(store), lambda side: side.per_segment, "scene")


def blocks(store: str | Path) -> pd.DataFrame:
    """All blocks of scored videos that were read, a row each; such a block has 12 pixel frames on every backbone. Columns: task, backbone,
    preset, prompt, seed, `block` (int64, from 0), `scene` (the block's scene, from its scores), then the embedded scorer's readings of
    the block, for example `place_right` and `quality`, float64."""
    return _sides(videos(store), _placed, "block")


def _placed(side: ScoresFile) -> list[dict[str, float | None]]:
    """Readings of blocks, each with its scene, -1 if no scene contains the block; a scene's last block may have fewer frames."""
    lengths = [(row.get("start"), row.get("end")) for row in side.per_segment]
    counts = [math.ceil((end - start) / READING_FRAMES) if type(start) is type(end) is int else 0 for start, end in lengths]
    scenes = [scene for scene, count in enumerate(counts) for _ in range(min(count, len(side.per_block)))]
    return [{"scene": scene} | line for scene, line in zip(scenes + [-1] * len(side.per_block), side.per_block)]


KEYS = ["task", "backbone", "preset", "settings", "prompt", "seed"]
"""Columns that identify a video."""


def readings(entry: Entry) -> pd.DataFrame:
    """Blocks of a row's scored videos: index prompt, seed and block, a float64 column per reading."""
    parts = {
        unit: pd.DataFrame(lines).astype("float64")
        for unit, path in entry.videos["scores_file"].dropna().items()
        if (lines := scores_of(Path(path)).per_block)
    }
    return pd.concat(parts, names=["prompt", "seed", "block"]) if parts else pd.DataFrame()


def _sides(there: pd.DataFrame, lines_of: Callable[[ScoresFile], Sequence[Mapping[str, object]]], number: str) -> pd.DataFrame:
    """Lines of the scores files of some videos, each with the columns that identify its video, and its number in column `number`."""
    values = [
        dict(zip(KEYS, names)) | {number: place} | dict(line)
        for *names, path in there[[*KEYS, "scores_file"]].dropna().itertuples(index=False, name=None)
        for place, line in enumerate(lines_of(scores_of(Path(path))))
    ]
    return pd.DataFrame(values, columns=None if values else [*KEYS, number])
