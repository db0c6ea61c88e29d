"""Time of the tables of a million videos, and of the check of their records, from a store of made-up records.

    python -m tests.load.million [--records 1000000] [--prompts 250] [--store DIR] [--output FILE.json]

writes ten methods x five tasks x as many seeds as needed, makes all tables in a fresh process, verifies the store in another, and reports
their seconds and peak memory. There are no videos and no files beside them. A given store is kept and reused; otherwise it is removed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from echo.files import ROOT, digest
from eval.metrics import TASKS
from eval.store.origin import ROOMS, commit
from eval.store.records import (
    AskedFile,
    CodeState,
    Provenance,
    RunKey,
    Scorer,
    Spec,
    SweepEntry,
    SweepFile,
    Titled,
    UnitRecord,
    encoded,
    line_of,
)  # fmt: skip
from eval.store.runs import Run, RunPlace

METHODS = tuple(f"method{index}" for index in range(9)) + ("echo",)
METRICS = (
    "world.recall_fidelity", "world.leakage", "world.half_life_blocks", "proxy.text_alignment", "aesthetic_quality", "imaging_quality",
    "subject_consistency", "background_consistency", "motion_smoothness", "temporal_flickering", "dynamic_degree",
)  # fmt: skip
SCORES = digest("made up")
CHILD = """
import json, sys, time
from pathlib import Path
start = time.monotonic()
from eval.store.runs import runs
from eval.tables import command as tables
from jobs.memory.measured import resident
from eval.store.submission import faults
imported, before = time.monotonic(), time.process_time()
store = Path(sys.argv[2])
if sys.argv[1] == "tables":
    tables.make(store)
else:
    assert not any("damaged" in line for run in runs(store) for line in faults(run, contents=True)[0])
print(json.dumps({
    "wall_s": round(time.monotonic() - imported, 2), "processor_s": round(time.process_time() - before, 2),
    "import_s": round(imported - start, 2), "peak_mb": round(resident("VmHWM") / 2**20),
}))
"""


def write(store: Path, records: int, prompts: int) -> int:
    """Write a store of made-up records, like workers do but without waiting for the disk; returns their number."""
    seeds = max(1, records // (len(TASKS) * len(METHODS) * prompts))
    ids = {f"prompt-{index:04d}": digest(index) for index in range(prompts)}
    rng = random.Random(0)
    for task in TASKS:
        wishes = [_run(store, task, method, seed, ids, rng) for method in METHODS for seed in range(seeds)]
        _keep(store / "sweeps" / f"{task}.json", SweepFile(None, task, wishes))
    return seeds * len(TASKS) * len(METHODS) * prompts


def _run(store: Path, task: str, method: str, seed: int, ids: dict[str, str], rng: random.Random) -> SweepEntry:
    """Write one run of one seed; returns its entry in a sweep."""
    pixels = {"seed": seed, "method.settings": {"name": method}, "backbone.weights": "0" * 32, "duration_scale": 1.0, "task": task}
    key = RunKey(1, "sdpa cpu", pixels)
    run = Run(store, RunPlace("made_up", task, method, seed, digest(msgspec.to_builtins(key))))
    _keep(run.path / "run.json", Spec(run.place.run, key, Titled("made_up", "made up"), Titled(method, method), seed))
    units = {prompt: digest([run.place.run, prompt]) for prompt in ids}
    scorer, wanted = Scorer("made_up", "made up", {}), Titled(task, task)
    wish = AskedFile(scores=SCORES, scorer=scorer, task=wanted, units=units, prompts=ids)
    _keep(run.path / "asked" / f"{seed:020d}-0.json", wish)
    attempt, level, lines = f"{seed:020d}-00000000", METHODS.index(method), []
    for time_s, (prompt, unit) in enumerate(units.items()):
        metrics: dict[str, float | None] = {name: round(50 + level + rng.gauss(0, 10), 6) for name in METRICS}
        record = UnitRecord(
            unit=unit, run=run.place.run, scores=SCORES, attempt=attempt, prompt=prompt, seed=seed, status="ok", t=1.7e9 + time_s,
            host="node", device="card", metrics=metrics, latents_sha256=unit * 3, blocks=80, fps=20.0, fps_dit=21.0, generate_s=48.0,
            files={"video": f"{prompt}.mp4", "trace": f"{prompt}.trace.jsonl", "scores": f"{prompt}.json"}, decode_s=2.0, score_s=1.0,
            dur_s=49.0,
        )  # fmt: skip
        lines.append(line_of(record))
    _keep(run.path / "attempts" / f"{attempt}.json", Provenance(code=CodeState("made up")))
    (run.path / "records").mkdir()
    (run.path / "records" / f"{attempt}.jsonl").write_bytes(b"".join(lines))
    return SweepEntry(path=str(run.place), **msgspec.structs.asdict(wish))


def _keep(path: Path, content: msgspec.Struct) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(content))


def seconds_of(what: str, store: Path) -> dict[str, float]:
    """Make the tables of a store, or verify it, in a fresh process; returns time and memory."""
    done = subprocess.run([sys.executable, "-c", CHILD, what, str(store)], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def measure(store: Path, records: int, prompts: int) -> dict[str, Any]:
    """Write the store unless it exists, and make its tables."""
    start = time.monotonic()
    count = sum(1 for _ in store.glob("runs/*/*/*/*/*/run.json")) * prompts or write(store, records, prompts)
    found: dict[str, Any] = {"records": count, "prompts": prompts, "write_s": round(time.monotonic() - start, 1)}
    return found | {what: seconds_of(what, store) for what in ("tables", "verify")}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000000)
    parser.add_argument("--prompts", type=int, default=250)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    store = given.store or Path(tempfile.mkdtemp())
    try:
        found = measure(store.absolute(), given.records, given.prompts)
    finally:
        if not given.store:
            shutil.rmtree(store)
    if given.output:
        content = {"records": given.records, "prompts": given.prompts, "commit": commit(ROOMS), **found}
        given.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
