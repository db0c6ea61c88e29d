"""Kills a sweep at random moments and counts the damage: `python -m tests.load.stress [--kills 100] [--seed 0] [--folder DIR]`.

Commands and their worker processes are killed by kill -9, each at a random moment, and started again until the number of kills is
reached; whenever a sweep is complete, the next one begins in a fresh store. Then every store is compared with an undisturbed sweep.
Prints one JSON line; the exit status is 1 if a video is lost, a record is torn, or a video was made twice or differently.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from echo.files import ROOT
from eval.store.runs import runs
from jobs.store.claims import Claims

SWEEP = ("method=echo,infinity_rope", "task=hard", "seed=0,1,2", "prompts=4", "duration_scale=0.1", "max_workers=2")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.stress", description="Kill a sweep at random moments; count the damage.")
    parser.add_argument("--kills", type=int, default=100, help="kills that must have struck (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--folder", type=Path, help="where to keep the stores; a temporary folder by default")
    options = parser.parse_args(argv)
    if options.kills < 1:
        parser.error(f"--kills {options.kills}: it is at least 1; nearest is 1")
    with tempfile.TemporaryDirectory() as place:
        found = stress(options.kills, random.Random(options.seed), options.folder or Path(place))
    print(json.dumps(found))
    return int(any(found[name] for name in ("lost", "torn", "double", "different")))


def stress(kills: int, chance: random.Random, folder: Path) -> dict[str, Any]:
    """The damage of `kills` kills, as counts by name."""
    calm, begun = folder / "undisturbed", time.monotonic()
    if start(calm).wait():
        raise SystemExit("the undisturbed sweep fails by itself")
    longest_s = time.monotonic() - begun  # from a start or kill to the next kill
    expected = outcomes(calm)
    damage: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    stores = midway = 0
    told: dict[str, Any] = {}
    with tqdm(total=kills, unit="kill", disable=not sys.stderr.isatty()) as bar:
        while struck.total() < kills:
            stores += 1
            store = folder / f"{stores:03d}"
            while struck.total() < kills:
                victims = disturb(store, chance, kills - struck.total(), longest_s)
                midway += victims.pop("midway", 0)
                struck += victims
                bar.update(victims.total())
                if not victims:
                    break  # it was faster than all kills, so it is complete
            while start(store).wait():
                damage["unfinished"] += 1
                if damage["unfinished"] > kills:
                    break
            damage += compare(store, expected)
            counts = {name: damage[name] for name in ("lost", "torn", "double", "different")}
            told = {"kills": struck.total(), "midway": midway, "of": dict(struck), "stores": stores}
            told |= {"videos": stores * len(expected), **counts}
            sys.stderr.write(json.dumps(told) + "\n")
    return told


def start(store: Path) -> subprocess.Popen[bytes]:
    """Start the sweep."""
    words = [sys.executable, "run.py", *SWEEP, f"store={store}", "-m"]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def disturb(store: Path, chance: random.Random, most: int, longest_s: float) -> Counter[str]:
    """Start the command, kill its workers and at last the command itself.

    Returns:
        Counts of kills by victim, empty if it ended before the first kill; `midway`: kills while a video was being made.
    """
    command = start(store)
    struck: Counter[str] = Counter()
    while struck.total() - struck["midway"] < most:
        try:
            command.wait(chance.uniform(0, longest_s))
            return struck
        except subprocess.TimeoutExpired:
            workers = children(command.pid)
        kind = chance.choice(("worker", "worker", "command", "all"))
        victims = {"worker": workers and [chance.choice(workers)], "command": [command.pid]}.get(kind, [command.pid, *workers])
        busy = making(store)
        if sum(map(kill, victims)):  # each of them, and one event
            struck += Counter([kind, "midway"] if busy else [kind])
        if kind != "worker":
            break
    command.wait()
    return struck


def making(store: Path) -> bool:
    """Whether a living process is making a video of a store."""
    claims = [Claims(run.path, "stress") for run in runs(store)]
    return any(claim.holders(claim.starts()) for claim in claims)


def kill(process: int) -> bool:
    """Kill a process by kill -9; returns whether it existed."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def children(process: int) -> list[int]:
    """Living child processes (workers) of a process, and their children (jobs)."""
    try:
        own = [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []
    return own + [pid for one in own for pid in children(one)]


def outcomes(store: Path) -> dict[str, tuple[str, str]]:
    """Hash of the latents and the scores of every finished unit, by its id; the first record counts."""
    found: dict[str, tuple[str, str]] = {}
    for run in runs(store):
        for record in run.records():
            if record.status == "ok":
                found.setdefault(record.unit, (record.latents_sha256, json.dumps(record.metrics, sort_keys=True)))
    return found


def compare(store: Path, expected: dict[str, tuple[str, str]]) -> Counter[str]:
    """Counts of differences from an undisturbed store, by kind."""
    found, damage = outcomes(store), Counter[str]()
    damage["lost"] = len(expected.keys() - found.keys())
    damage["different"] = sum(found[unit] != expected[unit] for unit in found.keys() & expected.keys())
    for run in runs(store):
        records = run.records()
        damage["double"] += sum(count - 1 for count in Counter(r.unit for r in records if r.status == "ok").values())
        damage["lost"] += sum(not (run.path / "units" / name).exists() for r in records for name in r.files.values())
        lines = sum(len(path.read_bytes().splitlines()) for path in (run.path / "records").glob("*.jsonl"))
        damage["torn"] += lines - len(records)
    return damage


if __name__ == "__main__":
    sys.exit(main())
