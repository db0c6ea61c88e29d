"""A store of small true videos for rating pages, each of one colour that tells its method and prompt, and raters who answer by rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from eval.store.records import Provenance
from eval.study.order import order_of
from tests.helpers.stores import keep, put

METHODS = {
    "long60": ("self_forcing", "echo", "render_truth"),
    **dict.fromkeys(("smooth", "hard", "recall"), ("self_forcing_recache", "echo", "longlive")),
}
COLOURS = {"self_forcing": 40, "self_forcing_recache": 80, "echo": 120, "longlive": 160, "render_truth": 200}
"""Brightness of a method's videos; a prompt adds its number, four for each."""
BLOCKS, SIZE = 2, 48


def film(path: Path, level: int, *, size: int = SIZE, frames: int = 12 * BLOCKS, title: str = "") -> Path:
    """An H.264 video at 16 frames a second; a bar moves over a plain of one brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=16, options={"crf": "10", "preset": "ultrafast"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.metadata["handler_name"] = title
        for index in range(frames):
            frame = np.full((size, size, 3), level, np.uint8)
            frame[:, index : index + 2] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def level_of(path: Path) -> int:
    """The brightness that `film` gave a video, to a few steps."""
    with av.open(str(path)) as container:
        return round(float(next(container.decode(video=0)).to_ndarray(format="rgb24")[-8:, -8:].mean()))


def prompts_of(task: str, count: int) -> list[str]:
    """Ids of a task's prompts."""
    return [f"{task}-{index:03d}" for index in range(count)]


def store(folder: Path, count: int = 4, lacking: tuple[tuple[str, str, str], ...] = (), methods: dict = METHODS, seed: int = 0) -> Path:
    """Runs of every task, `count` prompts each; `lacking`: (task, method, prompt) without a video."""
    for task, names in methods.items():
        every = prompts_of(task, count)
        texts = 1 if task.startswith("long") else BLOCKS
        records = [
            {
                "id": prompt,
                "scenes": [f"scene {n} of {prompt}: a </script> & <b>ball</b>" for n in range(texts)],
                "durations": [1.5 / texts] * texts,
                "tags": [""] * texts,
            }
            for prompt in every
        ]
        prompt_set = folder / "prompts" / f"{task}.jsonl"
        prompt_set.parent.mkdir(parents=True, exist_ok=True)
        prompt_set.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        for method in names:
            there: dict[str, dict[str, float]] = {prompt: {} for prompt in every if (task, method, prompt) not in lacking}
            run = put(folder / "store", task, method, there, seed=seed, backbone="tiny_long" if method == "longlive" else "tiny")
            keep(run / "attempts" / "a.json", Provenance(config={"task": {"prompt_set": str(prompt_set)}}))
            for index, prompt in enumerate(every):
                film(run / "units" / f"{prompt}.mp4", COLOURS[method] + 4 * index, title=f"{method} {prompt}")
                lines = [json.dumps({"block": block, "scene": min(block, texts - 1), "keys": [["echo", 0]]}) for block in range(BLOCKS)]
                (run / "units" / f"{prompt}.trace.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "store"


def tasks_of(key: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Task -> group -> videos of a key."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, group in key["groups"].items():
        found.setdefault(group["task"], {})[name] = list(group["videos"])
    return found


def answers(key: dict[str, Any], rater: str, points: Callable[[str, str, str], int], **changes: object) -> dict[str, Any]:
    """What the page would write; `points(group, video, criterion)` gives each rating."""
    groups = {
        name: {
            "opened": "2026-01-01T00:00:00.000Z",
            "spent_s": 2.0,
            "played_s": 2,
            "ratings": {
                video: {criterion: [group.get("check") or points(group, shown, criterion), 1.0] for criterion in key["criteria"]}
                for video, shown in group["videos"].items()
            },
        }
        for name, group in key["groups"].items()
    }
    made = {"v": 1, "study": key["study"], "page": key["page"], "rater": rater, "started": "a", "saved": "2026-01-01T01:00:00.000Z"}
    return made | {"complete": True, "order": order_of(rater, tasks_of(key)), "groups": groups} | changes
