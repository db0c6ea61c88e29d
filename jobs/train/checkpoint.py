"""Files of a training: in its folder the checkpoint from which it continues, its log and the commit on which it began.

Beside its weights it writes a record: where, when and on which code they were made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.world import render
from echo.files import replacing
from eval.store.origin import commit
from jobs.store.provenance import cpu

TRAINED_BY = (
    "data/world", "echo/backbone", "echo/sampler.py", "echo/cache", "baselines", "jobs/train", "eval/world/encoder.py",
    "eval/world/calibrate.py", "eval/measures/quality.py", "eval/world/places.py", "eval/world/readings.py",
)  # fmt: skip
"""The code on which trained weights depend."""


def place(folder: Path) -> Path:
    """Path of the checkpoint in a folder."""
    return folder / "checkpoint.pt"


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the checkpoint atomically: a kill leaves the old one or the new one, never a part."""
    with replacing(place(folder)) as part:
        torch.save(dict(state), part)


def resume(folder: Path, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The state from which to continue; None if the folder has no checkpoint.

    Raises:
        ValueError: it was made with other `settings`, which may include the version of the world.
    """
    if not place(folder).exists():
        return None
    state: dict[str, Any] = torch.load(place(folder), map_location=device, weights_only=True)
    theirs = state["settings"] | {"version": state.get("version")}
    differing = [f"{name} {theirs.get(name)} (now {settings[name]})" for name in sorted(settings) if theirs.get(name) != settings[name]]
    if differing:
        raise ValueError(f"checkpoint {place(folder)} was made with {', '.join(differing)}; use the same or another --folder")
    return state


def log(folder: Path, record: Mapping[str, Any]) -> None:
    """Append a line of JSON to the training's log."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def follow(average: Sequence[Tensor], parameters: Sequence[Tensor], step: int, ema: float) -> None:
    """Move averaged weights towards those after `step`, faster at the beginning of a training."""
    decay = min(ema, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average), [parameter.detach() for parameter in parameters], 1 - decay)


def started_at(folder: Path) -> str:
    """The commit on which the training in `folder` was started."""
    note = folder / "commit.txt"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(commit(TRAINED_BY) + "\n", encoding="utf-8")
    return note.read_text(encoding="utf-8").strip()


def describe(device: torch.device | str = "cpu") -> dict[str, str]:
    """Machine, time and code of a training."""
    device = torch.device(device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu()}, {torch.get_num_threads()} thread(s)"
    return {"device": str(device), "hardware": hardware, "torch": torch.__version__, "commit": commit(TRAINED_BY)}


def write_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the provenance of the weights in the same folder."""
    content = {"data_version": render.VERSION} | dict(facts)
    (folder / "provenance.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
