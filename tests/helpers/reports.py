"""A small store that a report can be made of: made-up scores, real videos and the traces of real policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
STARTS = (SceneStart(0), SceneStart(9, Transition.smooth))
BLOCKS = 18
"""Of two scenes of nine blocks each, which fill the window."""


def prompts(path: Path, count: int, text: str = "a red ball") -> list[Prompt]:
    """A prompt set of two scenes."""
    made = [Prompt(f"p{index:02d}", (f"{text} {index}", f"then {text} {index}"), (6.75, 6.75), ("", "")) for index in range(count)]
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


def trace(preset: str) -> list[dict]:
    """The lines of the trace that a policy leaves of two scenes."""
    policy, settings = METHODS[preset]
    if policy == "render":
        return [{"block": b, "scene": int(b >= STARTS[1].block), "keys": [], "queries": []} for b in range(BLOCKS)]
    return [plan.as_json() for plan in plans(make(policy, settings), Script(STARTS, BLOCKS), GEOMETRY)]


def store(
    folder: Path,
    count: int = 3,
    seeds: Sequence[int] = (0, 1),
    text: str = "a red ball",
    methods: Sequence[str] = THREE,
    task: str = "smooth",
) -> Path:
    """Runs of a few methods on a task, scored, each with a video, a trace and scores of scenes and blocks."""
    made, source = prompts(folder / "prompts.jsonl", count, text), folder / "film.mp4"
    if not source.exists():
        film(source, 12 * BLOCKS)
    for place, preset in enumerate(methods):
        for seed in seeds:
            values = {p.id: {"proxy.imaging_quality": 90.0 - place + index + seed / 4} for index, p in enumerate(made)}
            policy, settings = METHODS[preset]
            run = put(
                folder, task, preset, values, seed=seed, settings=settings, beside={"method.policy": policy}, at=place * 10 + seed + 1
            )
            describe(run, made, folder / "prompts.jsonl")
            fill(run, [p.id for p in made], preset, source)
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


def fill(run: Path, names: Sequence[str], preset: str, source: Path) -> None:
    """Videos (all the same file), traces, and scores of two scenes and all blocks."""
    lines = "".join(json.dumps(line) + "\n" for line in trace(preset))
    for name in names:
        (run / "units" / f"{name}.mp4").unlink(missing_ok=True)
        (run / "units" / f"{name}.mp4").hardlink_to(source)
        (run / "units" / f"{name}.trace.jsonl").write_text(lines, encoding="utf-8")
        path = run / "units" / f"{name}.json"
        blocks = [{"place_right": int(b % 5 > 0), "subject_right": 1, "quality": 80.0 + b} for b in range(BLOCKS)]
        scenes = [{"start": 108 * i, "end": 108 * i + 108, "proxy.imaging_quality": 91.25 + i} for i in range(2)]
        scenes[1] |= {"recall": {"fidelity": 75.5, "hue": 60.0}, "leakage": [0.5, None, 0.0, 0.25]}
        scores = decoded(path.read_bytes(), ScoresFile, path)
        keep(path, msgspec.structs.replace(scores, segments=[(0, 108), (108, 216)], per_segment=scenes, per_block=blocks))


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


def cost(run: Path, attended: float, kept: int, fps: float) -> None:
    """Say what a run's videos took."""
    records = list(run_at(run).records())
    for path in (run / "records").glob("*.jsonl"):
        path.unlink()
    for record in records:
        append(run_at(run), msgspec.structs.replace(record, attended_frames=attended, kept_frames=kept, fps_dit=fps, device="cpu"))
