"""Run stores of made-up scores: only what readers of a store look at, without any job."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from echo.files import write_atomic
from eval.store.records import AskedFile, Provenance, RunKey, Scorer, ScoresFile, Spec, Titled, UnitRecord, encoded, line_of
from eval.store.runs import Run, RunPlace


def put(
    store: Path,
    task: str,
    preset: str,
    values: Mapping[str, Mapping[str, float | None]],
    *,
    seed: int = 0,
    backbone: str = "tiny",
    weights: str | None = "w0",
    scores: str | None = "s0",
    epoch: int = 1,
    at: int = 1,
    settings: Mapping[str, object] | None = None,
    beside: Mapping[str, object] | None = None,
    per_block: Mapping[str, list] | None = None,
    edited: bool = False,
    policy: str | None = None,
) -> Path:
    """One run of one seed: metrics by prompt id. `at`: when it was asked for. Returns the run's folder.

    policy: its name; "render" where the preset's begins so.
    """
    pixels: dict[str, Any] = {"seed": seed, "method.settings": dict(settings or {}), "duration_scale": 1.0, **(beside or {})}
    if policy or preset.startswith("render"):
        pixels["method.policy"] = policy or "render"
    if weights is not None:
        pixels["backbone.weights"] = weights
    name = f"{zlib.crc32(repr((epoch, sorted(pixels.items()), scores)).encode()):08x}"
    run = Run(store, RunPlace(backbone, task, preset, seed, name))
    method = Titled(preset, preset.replace("_", " ").title())
    keep(run.path / "run.json", Spec(name, RunKey(epoch, "sdpa cpu", pixels), Titled(backbone, backbone), method, seed))
    wish = AskedFile(
        scores=scores,
        scorer=Scorer("embedded", "embedded", {}),
        task=Titled(task, task),
        units={prompt: f"u-{prompt}" for prompt in values},
        prompts={prompt: f"d-{prompt}{'-edited' if edited else ''}" for prompt in values},
    )
    keep(run.path / "asked" / f"{at:020d}-0.json", wish)
    keep(run.path / "attempts" / f"{at:020d}-0.json", Provenance())
    run.units.mkdir(parents=True, exist_ok=True)
    for prompt, numbers in values.items():
        files = {"video": f"{prompt}.mp4", "trace": f"{prompt}.trace.jsonl"}
        if scores is not None:
            files["scores"] = f"{prompt}.json"
            blocks = [] if per_block is None else per_block[prompt]
            keep(run.units / files["scores"], ScoresFile(metrics=dict(numbers), per_block=blocks))
        for name in files.values():
            (run.units / name).touch()
        told = {"scores": scores, "t": at, "metrics": dict(numbers), "files": files}
        append(run, UnitRecord(unit=f"u-{prompt}", attempt="a", prompt=prompt, seed=seed, status="ok", latents_sha256="0", **told))
    return run.path


def keep(path: Path, content: msgspec.Struct) -> None:
    """A file of a store as the product writes it."""
    write_atomic(path, encoded(content))


def run_at(folder: Path) -> Run:
    """The run of a folder."""
    return Run(folder.parents[5], RunPlace.of(folder))


def append(run: Run, *records: UnitRecord) -> None:
    """Records of a run, as the attempt that they name writes them."""
    (run.path / "records").mkdir(parents=True, exist_ok=True)
    for record in records:
        with (run.path / "records" / f"{record.attempt}.jsonl").open("ab") as file:
            file.write(line_of(record))


def as_older(line: bytes | str, **changes: object) -> str:
    """A line of records as version 2 wrote it, without a checksum, with some fields changed, or taken out where they are None."""
    record = {key: value for key, value in json.loads(line).items() if key != "crc32"} | {"v": 2} | changes
    return json.dumps({key: value for key, value in record.items() if key not in changes or changes[key] is not None}) + "\n"


def write(path: Path, content: object) -> None:
    """A JSON file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
