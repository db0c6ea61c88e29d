"""How long the tables of a million videos take, from a store of made-up records.

    python -m tests.load.million [records=1000000] [prompts=250] [store=DIR] [--output FILE.json]

writes ten methods x five tasks x as many seeds as it takes and makes all tables in a fresh process, whose seconds and peak memory are
told. A store that is given is kept and used again; else it is taken away in the end.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echo.files import ROOT, digest
from eval.arguments import answer, parse
from eval.protocol import TASKS
from eval.store.origin import origin

METHODS = tuple(f"method{index}" for index in range(9)) + ("echo",)
METRICS = (
    "world.recall_fidelity", "world.leakage", "world.half_life_blocks", "proxy.text_alignment", "aesthetic_quality", "imaging_quality",
    "subject_consistency", "background_consistency", "motion_smoothness", "temporal_flickering", "dynamic_degree",
)  # fmt: skip
SCORES = digest("made up")
KEYS = {"records": "1000000", "prompts": "250", "store": "", "--output": ""}
CHILD = """
import json, resource, sys, time
from pathlib import Path
start = time.monotonic()
from eval.tables import command as tables
imported, before = time.monotonic(), time.process_time()
tables.make(Path(sys.argv[1]))
print(json.dumps({
    "wall_s": round(time.monotonic() - imported, 2), "processor_s": round(time.process_time() - before, 2),
    "import_s": round(imported - start, 2), "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
}))
"""


def write(store: Path, records: int, prompts: int) -> int:
    """Write a store of made-up records, as workers write them but without waiting for the disk; how many there are."""
    seeds = max(1, records // (len(TASKS) * len(METHODS) * prompts))
    ids = {f"prompt-{index:04d}": digest(index) for index in range(prompts)}
    rng = random.Random(0)
    for task in TASKS:
        wishes = []
        for method in METHODS:
            wishes += [_run(store, task, method, seed, ids, rng) for seed in range(seeds)]
        content = {"v": 1, "experiment": None, "task": task, "runs": wishes}
        (store / "sweeps").mkdir(exist_ok=True)
        (store / "sweeps" / f"{task}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return seeds * len(TASKS) * len(METHODS) * prompts


def _run(store: Path, task: str, method: str, seed: int, ids: dict[str, str], rng: random.Random) -> dict[str, Any]:
    """One run of one seed; what a sweep keeps of it."""
    pixels = {"seed": seed, "method.settings": {"name": method}, "backbone.weights": "0" * 32, "duration_scale": 1.0, "task": task}
    key = {"epoch": 1, "kernel": "sdpa cpu", "pixels": pixels}
    run = digest(key)
    folder = store / "runs" / "made_up" / task / method / f"seed={seed}" / run
    for name in ("records", "asked", "attempts"):
        (folder / name).mkdir(parents=True)
    names = {"backbone": {"name": "made_up", "label": "made up"}, "method": {"name": method, "label": method}}
    (folder / "run.json").write_text(json.dumps({"v": 1, "run": run, "key": key, "seed": seed, **names}), encoding="utf-8")
    units = {prompt: digest([run, prompt]) for prompt in ids}
    scorer = {"name": "made_up", "label": "made up", "key": {}}
    wish = {"scores": SCORES, "scorer": scorer, "task": {"name": task, "label": task}, "units": units, "prompts": ids}
    (folder / "asked" / f"{seed:020d}-0.json").write_text(json.dumps({"v": 1, **wish}), encoding="utf-8")
    attempt, level, lines = f"{seed:020d}-00000000", METHODS.index(method), []
    for time_s, (prompt, unit) in enumerate(units.items()):
        metrics = {name: round(50 + level + rng.gauss(0, 10), 6) for name in METRICS}
        files = {"video": f"{prompt}.mp4", "trace": f"{prompt}.trace.jsonl", "scores": f"{prompt}.json"}
        record = {
            "v": 2, "unit": unit, "run": run, "scores": SCORES, "attempt": attempt, "prompt": prompt, "seed": seed, "status": "ok",
            "t": 1.7e9 + time_s, "host": "node", "device": "card", "metrics": metrics, "flags": [], "latents_sha256": unit * 3,
            "blocks": 80, "files": files, "fps": 20.0, "fps_dit": 21.0, "generate_s": 48.0, "decode_s": 2.0, "score_s": 1.0, "dur_s": 49.0,
        }  # fmt: skip
        lines.append(json.dumps(record))
    (folder / "attempts" / f"{attempt}.json").write_text(json.dumps({"code": {"commit": "made up", "dirty": False}}), encoding="utf-8")
    (folder / "records" / f"{attempt}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"path": folder.relative_to(store / "runs").as_posix(), **wish}


def tables_of(store: Path) -> tuple[dict[str, float], dict[str, bytes]]:
    """All tables of a store by a fresh process: what it took, and the files."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(store)], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), {path.name: path.read_bytes() for path in sorted((store / "tables").iterdir())}


def measure(store: Path, records: int, prompts: int) -> dict[str, Any]:
    """Write, unless it is there, and make tables."""
    start = time.monotonic()
    count = sum(1 for _ in store.glob("runs/*/*/*/*/*/run.json")) * prompts or write(store, records, prompts)
    found: dict[str, Any] = {"records": count, "prompts": prompts, "write_s": round(time.monotonic() - start, 1)}
    found["tables"], _ = tables_of(store)
    return found


def _command(words: Sequence[str]) -> list[str]:
    given, _ = parse(words, KEYS)
    for name in ("records", "prompts"):
        if not given[name].isdecimal() or int(given[name]) < 2:
            raise ValueError(f"{name}={given[name]}: a whole number, at least 2")
    store = Path(given["store"] or tempfile.mkdtemp())
    try:
        found = measure(store.absolute(), int(given["records"]), int(given["prompts"]))
    finally:
        if not given["store"]:
            shutil.rmtree(store)
    if given["--output"]:
        content = {"origin": origin("tests.load.million", words), **found}
        Path(given["--output"]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [f"{key}: {value}" for key, value in found.items()]


if __name__ == "__main__":
    sys.exit(answer(_command, sys.argv[1:]))
