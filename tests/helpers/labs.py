"""Stores of labs as the product itself writes them, of made-up numbers: jobs, attempts and records are real, networks are none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT, write_atomic
from eval.store.records import Provenance, ScoresFile, encoded
from jobs.spec.plan import Job, prepare
from jobs.store.folder import Attempt, RunFolder, new_attempt, write_sweep
from jobs.store.provenance import describe

METRICS = ("world.recall_fidelity", "world.leakage", "proxy.text_alignment")
Unit = tuple[str, str, str, int]
"""Task, method, prompt and seed."""


def number(unit: Unit, metric: str) -> float:
    """A score from 0 to 100, the same wherever it is made."""
    return int(hashlib.sha256(repr((unit, metric)).encode()).hexdigest()[:6], 16) % 10_000 / 100


def metrics_of(unit: Unit) -> dict[str, float]:
    """All scores of a unit."""
    return {metric: number(unit, metric) for metric in METRICS}


@cache
def _composed(task: str, method: str, prompts: int) -> Any:
    words = [f"task={task}", f"method={method}", f"prompts={prompts}", "backbone=tiny"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", words)


described = cache(partial(describe, [], {}))
"""This machine, asked once."""


def lab_store(
    store: Path,
    methods: Sequence[str],
    tasks: Sequence[str] = ("recall",),
    seeds: Sequence[int] = (0, 1),
    prompts: int = 3,
    otherwise: Mapping[Unit, Mapping[str, float]] | None = None,
    leave: Sequence[Unit] = (),
) -> Path:
    """A store of some methods and tasks. otherwise: scores of units that are others here. leave: units that are asked for and not made."""
    by_task: dict[str, list[Any]] = {}
    for task in tasks:
        for method in methods:
            for seed in seeds:
                plain = OmegaConf.to_container(_composed(task, method, prompts), resolve=True)
                assert isinstance(plain, dict)
                config: dict[str, Any] = {str(key): value for key, value in plain.items()} | {"seed": seed, "store": str(store)}
                job = prepare(config)
                by_task.setdefault(task, []).append(job)
                start = msgspec.structs.replace(described(), argv=["run.py", f"store={store}"], config=config)
                _made(job, start, (task, method), otherwise or {}, leave)
    for jobs in by_task.values():
        write_sweep(store, jobs, None)
    return store


def _made(
    job: Job, start: Provenance, about: tuple[str, str], otherwise: Mapping[Unit, Mapping[str, float]], leave: Sequence[Unit]
) -> None:
    folder = RunFolder(job)
    folder.describe()
    with Attempt(folder, new_attempt(), start) as attempt:
        for prompt in attempt.take(folder.missing()):
            unit = (*about, prompt.id, job.config.seed)
            if unit in leave:
                continue
            metrics = metrics_of(unit) | dict(otherwise.get(unit, {}))
            sides = {"video": ".mp4", "trace": ".trace.jsonl", "scores": ".embedded.json"}
            files = {kind: folder.side(prompt, ending) for kind, ending in sides.items()}
            write_atomic(files["video"], f"a film of {unit}".encode())
            write_atomic(files["trace"], b'{"scene":0}\n')
            write_atomic(files["scores"], encoded(ScoresFile(metrics=metrics)))
            latents = hashlib.sha256(repr(unit).encode()).hexdigest()
            attempt.ok(prompt, metrics, {"latents_sha256": latents, "blocks": 1, "files": {k: path.name for k, path in files.items()}})
