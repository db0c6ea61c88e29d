"""A run store as pandas tables, in three lines of a notebook:

    from eval.store import frame
    videos = frame.videos("results")
    videos[videos.task == "recall"].groupby("preset")["world.recall_fidelity"].mean()

Which runs are in them is the rule of `eval.store.rows`: of each task the newest rows that may be compared, as its table shows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from eval.metrics import READING_FRAMES
from eval.store.columns import FACTS, FILES, table
from eval.store.records import ScoresFile
from eval.store.rows import Comparable, Entry, gather, parts_of
from eval.store.runs import scores_of, tasks

CATEGORIES = ("task", "backbone", "preset", "label", "policy", "settings", "scorer", "status", "text", "run", "attempt", "pixel_code")
"""Columns of few different texts, of the dtype `category`."""
LAST = ("unit", *FILES.values(), "spoilt", *FACTS)
"""Facts, which stand behind the metrics."""


def videos(store: str | Path, *, scored: bool = True, every: bool = False, facts: bool = True) -> pd.DataFrame:
    """All videos that were asked for, a row each.

    Args:
        store: the run store.
        scored: whether only what was asked to be scored counts; else videos count however they were scored.
        every: whether older versions of the code, weights, ways of scoring and texts of prompts are wanted too.
        facts: whether paths, hashes and speeds are wanted, which take most of the time where there are many videos.

    Returns:
        task, backbone, preset, label, policy, settings (of the method, in words), scorer: category.
        prompt: str. seed, epoch (version of the code that makes pixels), group (0 for the newest rows that may be compared): int64.
        calibration: bool, whether it was rendered and not generated. status: category, "done", "failed" (tried, only errors came of it),
        "unscored" (it is there, without these scores) or "missing". text (digest of the prompt), run, attempt, pixel_code (of the code
        that made it): category. dead: bool, whether its frames are of one colour each, or all the same.
        A column for each metric of the store: float64, NaN where there is no number.
        With facts: unit: str. video, trace, scores_file: str, paths. spoilt: str, what is wrong with one of these.
        latents_sha256, host, device: str. blocks, fps, fps_dit (pixel frames a second, all included and without the codec),
        denoising_steps, attended_frames, kept_frames (latent, the most of a block), block_ms,
        block_ms_p95, switch_block_ms, generate_s, decode_s, score_s, dur_s, process_peak_mb: float64. All of these NaN where nothing is
        done.
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
    rows = table(entry.parts, facts)[0].reset_index()
    settings = {key.removeprefix("method.settings."): value for key, value in entry.settings.items() if key.startswith("method.settings.")}
    names = {
        "task": group.task.name, "backbone": entry.backbone, "preset": entry.preset, "label": entry.label,
        "policy": str(entry.settings.get("method.policy", "")), "settings": ", ".join(f"{key}={value}" for key, value in settings.items()),
        "scorer": group.scorer.label, "epoch": entry.run.spec.key.epoch, "calibration": entry.calibration, "group": number,
    }  # fmt: skip
    whole = pd.concat([pd.DataFrame(names, rows.index), rows], axis=1)
    return whole.astype(dict.fromkeys(("prompt", "status", "text", "run", "attempt", "pixel_code"), "str"))


def segments(store: str | Path) -> pd.DataFrame:
    """All scenes of the videos that are scored, a row each: task, backbone, preset, prompt, seed, `scene` (int64, from 0), then what its
    scorer says of a scene: `start`, `end` (pixel frames) and its metrics, float64."""
    return _sides(videos(store), lambda side: side.per_segment, "scene")


def blocks(store: str | Path) -> pd.DataFrame:
    """All blocks that are read of the videos that are scored, of 12 pixel frames whatever a backbone's own have, a row each: task,
    backbone, preset, prompt, seed, `block` (int64, from 0), `scene` (that it is of, by its scores), then what the embedded
    scorer reads off a block, for example `place_right` and `quality`, float64."""
    return _sides(videos(store), _placed, "block")


def _placed(side: ScoresFile) -> list[dict[str, float | None]]:
    """Readings of blocks, each with its scene; a scene's last block may be of fewer frames. -1 where no scene has it."""
    lengths = [(row.get("start"), row.get("end")) for row in side.per_segment]
    counts = [math.ceil((end - start) / READING_FRAMES) if type(start) is type(end) is int else 0 for start, end in lengths]
    scenes = [scene for scene, count in enumerate(counts) for _ in range(min(count, len(side.per_block)))]
    return [{"scene": scene} | line for scene, line in zip(scenes + [-1] * len(side.per_block), side.per_block)]


KEYS = ["task", "backbone", "preset", "settings", "prompt", "seed"]
"""Columns that name a video."""


def readings(entry: Entry) -> pd.DataFrame:
    """Blocks of a row's videos that are scored: index prompt, seed and block, a float64 for each thing that is read off a block."""
    parts = {
        unit: pd.DataFrame(lines).astype("float64")
        for unit, path in entry.videos["scores_file"].dropna().items()
        if (lines := scores_of(Path(path)).per_block)
    }
    return pd.concat(parts, names=["prompt", "seed", "block"]) if parts else pd.DataFrame()


def _sides(there: pd.DataFrame, lines_of: Callable[[ScoresFile], list[dict[str, float | None]]], number: str) -> pd.DataFrame:
    """Lines of the scores files of some videos, each with the names of its video and its number."""
    values = [
        dict(zip(KEYS, names)) | {number: place} | line
        for *names, path in there[[*KEYS, "scores_file"]].dropna().itertuples(index=False, name=None)
        for place, line in enumerate(lines_of(scores_of(Path(path))))
    ]
    return pd.DataFrame(values, columns=None if values else [*KEYS, number])
