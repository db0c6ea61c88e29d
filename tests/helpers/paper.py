"""A run store of made-up records that carries the paper's own numbers and a little noise, written by the product's own writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from baselines.ours import rebased
from data.published import Number, numbers, ours
from eval import metrics
from eval.store.records import Provenance
from jobs.spec import compose
from jobs.spec.plan import Job, prepare
from jobs.store.folder import Attempt, RunFolder, new_attempt, write_sweep

WORDS = ("weights=random", "geometry=tiny", "eval=vbench", "eval.vbench.dimensions=subject_consistency+background_consistency")
PROMPTS, SEEDS, NOISE = 4, (0, 1), 0.001
"""Noise: standard deviation of a video's number beside what its prompt and seed give to all rows; the paper's smallest gap is 0.01."""
BASE = "echo_official"
UNRUN = ("4", "5")
"""Tables of ratings by people."""
Row = tuple[str, str, str]
"""Backbone, preset and task, by our names."""


def definition(task: str, dimension: str) -> str:
    """The name under which VBench's scorer writes a dimension of a task, the usual one of its table."""
    if dimension == "text_alignment":
        return f"{dimension}.clip_b32"
    if metrics.KNOWN[dimension].scopes[task] is metrics.Scope.pairs:
        return f"{dimension}.pair_joined"
    return f"{dimension}.{'vbench_long' if metrics.kind_of(task) == 'long' else 'vbench'}"


def printed(speeds: bool = False) -> Iterator[tuple[Row, Number]]:
    """All scores that a run can have, with its speeds too, by the row that stands for the paper's; Ours is `BASE`."""
    for number in numbers():
        if number.table not in UNRUN and (speeds or number.metric != "fps"):
            (backbone,), (task,) = ours("backbone", number.backbone, number.table), ours("task", number.task, number.table)
            preset, *_ = ours("method", number.method, number.table)
            yield (backbone, rebased(preset, BASE), task), number


def fill(store: Path, other: Mapping[Row, Row] | None = None) -> None:
    """Runs of all rows of Tables 1 to 9b that the paper prints a number of, and their experiments; `other`: rows with another's numbers."""
    own: dict[Row, dict[str, float]] = {}
    fps = {(row[1], row[2]): number.value for row, number in printed(speeds=True) if number.metric == "fps"}
    for row, number in printed():
        own.setdefault(row, {})[definition(row[2], number.metric)] = number.value
    shifts = np.random.default_rng(0).normal(0, 5, (PROMPTS, len(SEEDS)))  # prompts differ far more than methods do
    shifts -= shifts.mean()
    jobs: dict[Row, list[Job]] = {}
    for place, row in enumerate(own):
        values, noise = own[(other or {}).get(row, row)], np.random.default_rng(place + 1)
        jobs[row] = made_jobs(store, row)
        for seed, job in enumerate(jobs[row]):
            folder = RunFolder(job)
            folder.describe()
            attempt = Attempt(folder, new_attempt(), Provenance(gpu={"name": "H100"}))
            facts = {"latents_sha256": "0", "fps_dit": fps.get(row[1:]), "denoising_steps": 4, "attended_frames": 21}
            for index, prompt in enumerate(job.asked):
                told = {name: float(value + shifts[index, seed] + noise.normal(0, NOISE)) for name, value in values.items()}
                attempt.ok(prompt, told, facts)
    for table in dict.fromkeys(number.table for _, number in printed()):
        rows = dict.fromkeys(row for row, number in printed() if number.table == table)
        write_sweep(store, [job for row in rows for job in jobs[row]], f"table{table}")


def made_jobs(store: Path, row: Row) -> list[Job]:
    """A job for each seed of a row, as a command would ask for it."""
    backbone, preset, task = row
    words = (f"backbone={backbone}", f"method={preset}", f"task={task}", f"prompts={PROMPTS}", f"store={store}", *WORDS)
    plain = compose.one(words)
    return [prepare(plain | {"seed": seed}) for seed in SEEDS]
