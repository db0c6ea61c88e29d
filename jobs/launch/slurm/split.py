"""Division of units into cluster jobs: shards that need no coordination, packed up to the requested length of a job."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from echo.files import digest
from echo.scene import Prompt
from jobs.spec import identity
from jobs.spec.config import parse_shard
from jobs.spec.plan import Job
from jobs.store.folder import RunFolder
from jobs.store.speeds import block_s

UNMEASURED_UNITS = 16
"""Units per job while this store has no speed of its backbone."""


@dataclass(frozen=True)
class Piece:
    """A shard of a run: its config as plain values, and its missing units at the time of the division.

    run: its `RunFolder.place`. wanted: see `wanted`.
    """

    run: str
    title: str
    shard: str | None
    asked: int  # number of prompts, from the first of the set
    units: int
    config: Mapping[str, Any] = field(default_factory=dict)
    wanted: str = ""

    def covers(self, index: int) -> bool:
        """Whether the prompt at an index of its set is this piece's."""
        part, whole = (1, 1) if self.shard is None else parse_shard(self.shard)
        return index < self.asked and identity.shard_of(index, whole) == part


@dataclass(frozen=True)
class Measure:
    """Cost of a unit, and the largest cost of a job."""

    cost: Callable[[Job, Prompt], float]
    most: float
    line: str  # for people


def wanted(job: Job) -> str:
    """Digest of what a job makes: it changes with prompts, weights and scorers."""
    return digest([job.run_id, job.scores_id, [job.unit_id(prompt) for prompt in job.asked]])


def measure(jobs: Sequence[Job], units_per_job: int | None, target_minutes: float) -> Measure:
    """Length of a launch's jobs: `units_per_job` videos each or, with None, as many as fill the target by the store's measured speeds."""
    if units_per_job is not None:
        return Measure(lambda job, prompt: 1.0, units_per_job, f"at most {units_per_job} a job")
    speeds = {}
    for job in jobs:
        key = job.config.store, job.config.backbone.name, job.config.method.name, job.pace
        if key not in speeds:
            speeds[key] = block_s(*key)
    if not all(speeds.values()):
        unknown = ", ".join(sorted({key[1] for key, speed in speeds.items() if not speed}))
        line = f"at most {UNMEASURED_UNITS} a job: this store has no speed of backbone {unknown} yet (launcher.units_per_job=N chooses)"
        return Measure(lambda job, prompt: 1.0, UNMEASURED_UNITS, line)

    def cost(job: Job, prompt: Prompt) -> float:
        speed = speeds[job.config.store, job.config.backbone.name, job.config.method.name, job.pace]
        assert speed is not None
        return speed * job.blocks(prompt)

    return Measure(cost, 60 * target_minutes, f"jobs of {target_minutes:g} minutes, by the speeds measured in this store")


def cut(folder: RunFolder, config: Mapping[str, Any], todo: Sequence[Prompt], measure: Measure) -> list[tuple[Piece, float]]:
    """Shards of a run that make the prompts `todo`, as few as the measure allows, with their costs, without empty ones."""
    job = folder.job
    part, whole = (1, 1) if job.config.shard is None else parse_shard(job.config.shard)
    indices = {prompt.id: index for index, prompt in enumerate(job.asked)}
    costs = {indices[prompt.id]: measure.cost(job, prompt) for prompt in todo}
    least = max(1, math.ceil(sum(costs.values()) / measure.most - 1e-9))
    for count in range(least, max(least, len(job.asked)) + 1):
        sums: dict[int, float] = {}
        for index, cost in costs.items():
            shard = identity.shard_of(index, whole * count)
            sums[shard] = sums.get(shard, 0.0) + cost
        if max(sums.values(), default=0.0) <= measure.most + 1e-9 or count >= len(job.asked):
            break
    pieces, content = [], wanted(job)
    for shard, cost in sorted(sums.items()):
        name = job.config.shard if count == 1 else f"{shard}/{whole * count}"
        units = sum(identity.shard_of(index, whole * count) == shard for index in costs)
        piece = Piece(folder.place, job.title, name, len(job.asked), units, {**config, "shard": name}, content)
        pieces.append((piece, cost))
    return pieces


def packed(cuts: Sequence[tuple[Job, Piece, float]], most: float) -> list[list[Piece]]:
    """Jobs: consecutive pieces until a job is full; all pieces of a job have one backbone, which is loaded once."""
    jobs: list[list[Piece]] = []
    last: tuple[object, float] = (None, 0.0)
    for job, piece, cost in sorted(cuts, key=lambda row: row[0].config.backbone.name):
        kind = dataclasses.astuple(job.config.backbone)
        fits = last[0] == kind and last[1] + cost <= most + 1e-9
        if fits and piece.run not in [other.run for other in jobs[-1]]:
            jobs[-1].append(piece)
            last = kind, last[1] + cost
        else:
            jobs.append([piece])
            last = kind, cost
    return jobs
