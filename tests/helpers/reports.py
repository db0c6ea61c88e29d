"""A small store that a report can be made of: made-up scores, real videos and the traces of real policies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from baselines.registry import make
from echo.cache.policy import plans
from echo.geometry import Geometry
from echo.scene import Prompt, SceneStart, Script, Transition, prompt_digest
from eval.store.records import AskedFile, CodeState, Provenance, ScoresFile, UnitRecord, decoded
from jobs.work.video import VideoWriter
from tests.helpers.stores import append, keep, put, run_at

GEOMETRY = Geometry(layers=1, heads=1, head_dim=6, grid_height=1, grid_width=1)
METHODS = {"echo": ("echo", {"recall_frame": {"base_weight": 0.9}}), "self_forcing": ("self_forcing", {}), "render_truth": ("render", {}),
           "infinity_rope": ("infinity_rope", {"window_frames": 21, "sink_frames": 0, "flush_frames": 2, "cut_position": 45}),
           "rolling_sink": ("rolling_sink", {}), "longlive": ("longlive", {})}  # fmt: skip
THREE = ("echo", "self_forcing", "render_truth")


@dataclass(frozen=True)
class Shape:
    """Of a video: so many scenes of so many blocks each. The default fills the window."""

    scenes: int = 2
    each: int = 9

    @property
    def blocks(self) -> int:
        """All blocks."""
        return self.scenes * self.each

    @property
    def script(self) -> Script:
        """The first scene, and smooth changes to the others."""
        return Script(tuple(SceneStart(self.each * k, Transition.smooth if k else None) for k in range(self.scenes)), self.blocks)


SHORT = Shape()
BLOCKS = SHORT.blocks


def prompts(path: Path, count: int, text: str = "a red ball", shape: Shape = SHORT) -> list[Prompt]:
    """A prompt set of videos of a shape."""
    words, duration_s = ["", *["then "] * (shape.scenes - 1)], 0.75 * shape.each
    made = [
        Prompt(f"p{index:02d}", tuple(f"{word}{text} {index}" for word in words), (duration_s,) * shape.scenes, ("",) * shape.scenes)
        for index in range(count)
    ]
    lines = [json.dumps({"id": p.id, "scenes": p.scenes, "durations": p.durations_s, "tags": p.tags}) for p in made]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


def film(path: Path, frames: int, shift: int = 0) -> Path:
    """A video of 32 x 32 px whose every frame says its number: eight bars, black or white, are its bits."""
    bits = (np.arange(frames)[:, None] + shift >> np.arange(8)) & 1
    bars = np.repeat(bits.astype(np.uint8) * 255, 4, axis=1)
    with VideoWriter(path, fps=16, height_px=32, crf=10) as writer:
        writer.write(np.broadcast_to(bars[:, None, :, None], (frames, 32, 32, 3)))
    return path


def trace(preset: str, shape: Shape = SHORT) -> list[dict]:
    """The lines of the trace that a policy leaves of a video of a shape."""
    policy, settings = METHODS[preset]
    if policy == "render":
        return [{"block": b, "scene": b // shape.each, "keys": [], "queries": []} for b in range(shape.blocks)]
    return [plan.as_json() for plan in plans(make(policy, settings), shape.script, GEOMETRY)]


def store(
    folder: Path,
    count: int = 3,
    seeds: Sequence[int] = (0, 1),
    text: str = "a red ball",
    methods: Sequence[str] = THREE,
    task: str = "smooth",
    shape: Shape = SHORT,
    films: Mapping[str, Path] | None = None,
) -> Path:
    """Runs of a few methods on a task, scored, each with a video, a trace and scores of scenes and blocks.

    films: the video of each method; without them all have the same small one.
    """
    made, source = prompts(folder / "prompts.jsonl", count, text, shape), folder / "film.mp4"
    if films is None and not source.exists():
        film(source, 12 * shape.blocks)
    for place, preset in enumerate(methods):
        for seed in seeds:
            values = {p.id: {"proxy.imaging_quality": 90.0 - place + index + seed / 4} for index, p in enumerate(made)}
            policy, settings = METHODS[preset]
            run = put(
                folder, task, preset, values, seed=seed, settings=settings, beside={"method.policy": policy}, at=place * 10 + seed + 1
            )
            describe(run, made, folder / "prompts.jsonl")
            fill(run, [p.id for p in made], preset, films[preset] if films else source, shape)
    return folder


def describe(run: Path, made: Sequence[Prompt], prompt_set: Path) -> None:
    """What an attempt says of itself, and the digests of the prompts."""
    for path in (run / "attempts").glob("*.json"):
        path.unlink()
    facts = Provenance(
        code=CodeState("c0ffee" * 6 + "abcd"), host="vm", cpu="a processor", python="3.11.2", packages={"torch": "2.13.0"},
        argv=["run.py", "task=smooth"], config={"task": {"prompt_set": str(prompt_set)}},
    )  # fmt: skip
    keep(run / "attempts" / "01795389471214966212-735a2d6b.json", facts)
    for path in (run / "asked").glob("*.json"):
        wish = decoded(path.read_bytes(), AskedFile, path)
        keep(path, msgspec.structs.replace(wish, prompts={p.id: prompt_digest(p) for p in made}))


def fill(run: Path, names: Sequence[str], preset: str, source: Path, shape: Shape = SHORT) -> None:
    """Videos (all the same file), traces, and scores of all scenes and blocks."""
    size, lines = 12 * shape.each, "".join(json.dumps(line) + "\n" for line in trace(preset, shape))
    for name in names:
        (run / "units" / f"{name}.mp4").unlink(missing_ok=True)
        (run / "units" / f"{name}.mp4").hardlink_to(source)
        (run / "units" / f"{name}.trace.jsonl").write_text(lines, encoding="utf-8")
        path = run / "units" / f"{name}.json"
        blocks = [{"place_right": int(b % 5 > 0), "subject_right": 1, "quality": 80.0 + b} for b in range(shape.blocks)]
        scenes = [{"start": size * i, "end": size * (i + 1), "proxy.imaging_quality": 91.25 + i} for i in range(shape.scenes)]
        scenes[1] |= {"recall": {"fidelity": 75.5, "hue": 60.0}, "leakage": [0.5, None, 0.0, 0.25]}
        scores = decoded(path.read_bytes(), ScoresFile, path)
        keep(
            path,
            msgspec.structs.replace(scores, segments=[(one["start"], one["end"]) for one in scenes], per_segment=scenes, per_block=blocks),
        )


def ask_more(run: Path, names: Sequence[str]) -> None:
    """Ask a run for prompts that it has nothing of."""
    for path in (run / "asked").glob("*.json"):
        wish = decoded(path.read_bytes(), AskedFile, path)
        units, prompts = ({name: f"{letter}-{name}" for name in names} for letter in "ud")
        keep(path, msgspec.structs.replace(wish, units=wish.units | units, prompts=wish.prompts | prompts))


def fail(run: Path, name: str, message: str) -> None:
    """A record of a failed video, and its traceback."""
    (run / "errors").mkdir(exist_ok=True)
    (run / "errors" / "x.txt").write_text(f"Traceback\n{message}\n", encoding="utf-8")
    told = {"err": message, "trace": "errors/x.txt", "metrics": {}}
    record = UnitRecord(unit=f"u-{name}", prompt=name, seed=0, status="error", scores="s0", attempt="a", t=9, **told)
    append(run_at(run), record)


def film_only(run: Path, name: str, like: str) -> None:
    """A record of a video that nobody has scored: that of another prompt."""
    record = next(record for record in run_at(run).records() if record.prompt == like)
    append(run_at(run), msgspec.structs.replace(record, unit=f"u-{name}", prompt=name, scores=None, metrics={}))


def cost(run: Path, attended: float, kept_mb: float, fps: float) -> None:
    """Say what a run's videos took."""
    records = list(run_at(run).records())
    for path in (run / "records").glob("*.jsonl"):
        path.unlink()
    for record in records:
        append(run_at(run), msgspec.structs.replace(record, attended_frames=attended, kept_mb=kept_mb, fps_dit=fps, device="cpu"))
