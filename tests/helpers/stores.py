"""Run stores of made-up scores: only what readers of a store look at, without any job."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path


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
    pixels = {"seed": seed, "method.settings": dict(settings or {}), "duration_scale": 1.0, **(beside or {})}
    if policy or preset.startswith("render"):
        pixels["method.policy"] = policy or "render"
    if weights is not None:
        pixels["backbone.weights"] = weights
    key = {"epoch": epoch, "kernel": "sdpa cpu", "pixels": pixels}
    name = f"{zlib.crc32(repr((epoch, sorted(pixels.items()), scores)).encode()):08x}"
    folder = store / "runs" / backbone / task / preset / f"seed={seed}" / name
    spec = {"v": 1, "run": name, "key": key, "seed": seed, "backbone": {"name": backbone, "label": backbone}}
    spec["method"] = {"name": preset, "label": preset.replace("_", " ").title()}
    wish = {
        "scores": scores,
        "scorer": {"name": "embedded", "label": "embedded", "key": {}},
        "task": {"name": task, "label": task},
        "units": {prompt: f"u-{prompt}" for prompt in values},
        "prompts": {prompt: f"d-{prompt}{'-edited' if edited else ''}" for prompt in values},
    }
    lines = []
    for prompt, numbers in values.items():
        files = {"video": f"{prompt}.mp4", "trace": f"{prompt}.trace.jsonl"}
        if scores is not None:
            files["scores"] = f"{prompt}.json"
            content: dict[str, object] = {"v": 1, "metrics": dict(numbers)}
            if per_block is not None:
                content["per_block"] = per_block[prompt]
            write(folder / "units" / files["scores"], content)
        record = {"unit": f"u-{prompt}", "prompt": prompt, "seed": seed, "status": "ok", "scores": scores, "attempt": "a", "t": at}
        lines.append(json.dumps(record | {"metrics": dict(numbers), "latents_sha256": "0", "files": files}))
    write(folder / "run.json", spec)
    write(folder / "asked" / f"{at:020d}-0.json", wish)
    write(folder / "attempts" / f"{at:020d}-0.json", {})
    (folder / "records").mkdir(parents=True, exist_ok=True)
    (folder / "records" / "a.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def write(path: Path, content: object) -> None:
    """A JSON file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
