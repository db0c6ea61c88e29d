"""Real multiruns in real processes: killed, resumed, sharded, batched, failing, stopped by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from echo.files import ROOT
from eval.store.runs import runs
from jobs.launch import local
from jobs.launch.pool import COMMAND
from jobs.launch.sweep import carry_out
from jobs.spec.compose import one
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work import events, worker
from jobs.work.worker import work
from tests.helpers.interrupts import hear_interrupts
from tests.helpers.toy import changed, overrides, write_prompts
from tests.helpers.waiting import until

COUNT = 4
SCENE_S = 9.0
LIMIT_S = 600.0
"""Longer than anything takes on a slow machine with much else to do; only what hangs comes to it."""


WAITING = """
import os, time
fsync, write, made = os.fsync, os.write, []

def place(handle):
    return os.readlink(f"/proc/self/fd/{handle}")

def synced(handle):
    fsync(handle)
    made.extend(["one"] if "/records/" in place(handle) else [])

def written(handle, content):
    count = write(handle, content)
    while made and "/claims/" in place(handle) and os.path.exists(os.environ["WAIT_WHILE"]):
        time.sleep(0.01)
    return count

os.fsync, os.write = synced, written
"""
"""A job that has recorded one video takes the next and then stands still for as long as the file WAIT_WHILE is there.

So it can be killed in the midst of its work, however fast or slow it and its killer are.
"""


def words(toy: Path, store: Path, *more: str) -> list[str]:
    kept = [word for word in overrides(toy, COUNT, SCENE_S) if not word.startswith("store=")]
    return [sys.executable, "run.py", *kept, f"store={store}", *more]


def start(toy: Path, store: Path, *more: str, wait_while: Path | None = None) -> subprocess.Popen[str]:
    """A command as a terminal starts it; whoever runs the tests in the background has interrupts ignored, and that is inherited.

    wait_while: its jobs stand still, each in its second video, until this file is gone.
    """
    told: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if wait_while is not None:
        folder = wait_while.with_name(f"{wait_while.name}-python")
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(WAITING, encoding="utf-8")
        wait_while.touch()
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        told["env"] = os.environ | {"PYTHONPATH": path, "WAIT_WHILE": str(wait_while)}
    return subprocess.Popen(words(toy, store, *more), cwd=ROOT, text=True, preexec_fn=hear_interrupts, **told)


def finish(toy: Path, store: Path, *more: str, status: int = 0) -> str:
    done = subprocess.run(words(toy, store, *more), cwd=ROOT, text=True, capture_output=True, timeout=LIMIT_S)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def records(store: Path) -> list[dict]:
    return [record for run in runs(store) for record in run.records()]


def latents(store: Path) -> dict[tuple[str, int], str]:
    """Hash of each video's latents by (prompt, seed)."""
    return {(r.prompt, r.seed): r.latents_sha256 for r in records(store) if r.status == "ok"}


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    """Hashes of all units of an undisturbed multirun."""
    store = tmp_path_factory.mktemp("whole")
    finish(toy, store, "seed=0,1", "-m")
    found = latents(store)
    assert len(found) == 2 * COUNT and len(set(found.values())) == 2 * COUNT
    return found


@pytest.mark.slow
def test_killed_three_times_and_resumed(toy, tmp_path, uninterrupted):
    """Twice the command and once a worker die by kill -9, and with them their jobs; every unit is there once, bit for bit."""
    store, wait_while = tmp_path / "store", tmp_path / "wait"
    for kill in range(3):
        before = len(records(store))
        process = start(toy, store, "seed=0,1", "-m", "max_workers=1", wait_while=wait_while)
        until(lambda seen=before, command=process: len(records(store)) > seen or command.poll() is not None)
        assert process.poll() is None, process.communicate()
        workers = children(process.pid)
        workers += [job for worker in workers for job in children(worker)]
        os.kill(workers[0] if kill == 2 else process.pid, signal.SIGKILL)
        until(lambda pids=tuple(workers): not any(map(alive, pids)))
        wait_while.unlink()
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == (1 if kill == 2 else -signal.SIGKILL)
        assert len(latents(store)) < 2 * COUNT, "the kill came too late to prove anything"
    finish(toy, store, "seed=0,1", "-m")
    units = Counter(record.unit for record in records(store))
    assert set(units.values()) == {1} and len(units) == 2 * COUNT
    assert latents(store) == uninterrupted
    for run in runs(store):
        assert all((run.path / "units" / name).exists() for record in run.records() for name in record.files.values())


def test_nobody_listens_any_more(plain, tmp_path):
    """A killed command closes both pipes, in either order; the worker leaves, and no video counts as failed."""
    config = plain | {"store": str(tmp_path)}
    worker = subprocess.Popen(COMMAND, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker.stdout.close()
    worker.stdin.write(events.line(events.JobOrder(config=config, attempt=new_attempt(), argv=[], log=str(tmp_path / "log"))))
    worker.stdin.flush()
    assert worker.wait(LIMIT_S) == 4, (tmp_path / "log").read_text(encoding="utf-8")
    worker.stdin.close()
    assert not [record for record in records(tmp_path) if record.status != "ok"], "the job may have made some before its worker spoke"


@pytest.mark.slow
def test_shards_meet_in_one_store(toy, tmp_path, uninterrupted):
    """Both parts at the same time, as two machines would."""
    parts = [start(toy, tmp_path, "seed=0,1", f"shard={part}/2", "-m") for part in (1, 2)]
    for part in parts:
        told = part.communicate(timeout=LIMIT_S)
        assert part.returncode == 0, told
    assert all(len(run.records()) > len(next((run.path / "records").iterdir()).read_bytes().splitlines()) for run in runs(tmp_path))
    assert latents(tmp_path) == uninterrupted and len(records(tmp_path)) == 2 * COUNT


def test_complete_run_starts_no_process(toy, tmp_path):
    def config(count: int) -> dict:
        return one(words(toy, tmp_path, f"prompts={count}")[2:])

    def make(count: int) -> None:
        assert work(prepare(config(count)), new_attempt(), [], config(count), lambda event: None) == 0

    make(1)
    carry_out([config(1)], [None])
    assert len(attempts(tmp_path)) == len(records(tmp_path)) == 1
    make(2)
    assert len(records(tmp_path)) == 2


@pytest.fixture
def batches(monkeypatch) -> list[tuple[int, int]]:
    """Of each batch that is made: its prompts, and those of them that are asked for."""
    seen: list[tuple[int, int]] = []
    made = worker.blocks

    def watched(job, backbone, group, wanted):
        seen.append((len(group), len(wanted)))
        return made(job, backbone, group, wanted)

    monkeypatch.setattr(worker, "blocks", watched)
    return seen


def in_parts(config: dict[str, Any], store: Path) -> None:
    """A third of three prompts, then another, then the rest, two at a time."""
    for settings in ({"prompts": 1}, {"shard": "1/2"}, {}):
        own = config | {"batch": 2, "store": str(store)} | settings
        assert work(prepare(own), new_attempt(), [], own, lambda event: None) == 0
    assert len(records(store)) == 3


def test_a_batch_takes_what_is_asked_for_and_changes_no_byte(plain, tmp_path, batches):
    """The same names and latents as one by one, and nothing is made for a prompt that nobody wants."""
    in_parts(plain, tmp_path / "parts")
    assert batches == [(1, 1)] * 3
    for size in (1, 2):
        store = tmp_path / str(size)
        config = plain | {"batch": size, "store": str(store)}
        assert work(prepare(config), new_attempt(), [], config, lambda event: None) == 0
        assert latents(store) == latents(tmp_path / "parts")
        assert {record.unit for record in records(store)} == {record.unit for record in records(tmp_path / "parts")}
    assert batches[-2:] == [(2, 2), (1, 1)]


@pytest.mark.slow
def test_part_of_a_batch_is_computed_in_the_whole_batch(tmp_path, batches):
    """With parts, which prompts share a batch is fixed by the set; what is asked first changes no bit."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 3, 0.75, ("A red ball.", "A blue ball."))
    words = ["backbone=self_forcing", "weights=random", "geometry=tiny", "method=echo", "task=hard", "eval=none", "batch=2", "prompts=3"]
    config = one([*words, f"task.prompt_set={prompts}"])
    in_parts(config, tmp_path / "parts")
    assert batches == [(2, 1), (1, 1), (2, 1)]
    config |= {"store": str(tmp_path / "whole")}
    assert work(prepare(config), new_attempt(), [], config, lambda event: None) == 0
    assert latents(tmp_path / "parts") == latents(tmp_path / "whole")


def test_one_bad_prompt_is_told_and_the_others_go_on(toy, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 3, 3.0)
    lines = prompts.read_text(encoding="utf-8").splitlines()
    bad = json.loads(lines[1])
    bad["scenes"][0] = "a red bal moving left over a plain meadow"
    prompts.write_text("\n".join([lines[0], json.dumps(bad), lines[2]]) + "\n", encoding="utf-8")
    told = finish(toy, tmp_path / "store", f"task.prompt_set={prompts}", "prompts=3", status=1)
    assert "toy-001 failed (1 of 3 tries)" in told and "'bal'" in told and "Traceback" not in told
    assert sorted(r.prompt for r in records(tmp_path / "store") if r.status == "ok") == ["toy-000", "toy-002"]


def test_unreadable_prompt_takes_nothing_from_its_batch(plain, tmp_path):
    """It fails alone; the others are batched without it, whichever of them are asked first."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 4, 3.0)
    lines = prompts.read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"scenes": ["a purple ball", "a red ball"]})
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def make(store: Path, **settings) -> int:
        config = changed(plain, "task.prompt_set", str(prompts)) | {"batch": 2, "prompts": 4, "store": str(store)} | settings
        return work(prepare(config), new_attempt(), [], config, lambda event: None)

    assert make(tmp_path / "whole") == 1
    assert [make(tmp_path / "parts", prompts=1), make(tmp_path / "parts")] == [0, 1]
    assert latents(tmp_path / "parts") == latents(tmp_path / "whole")
    assert {prompt for prompt, _ in latents(tmp_path / "whole")} == {"toy-000", "toy-002", "toy-003"}


def test_a_video_that_fails_takes_nothing_from_its_batch(plain, tmp_path, monkeypatch):
    """The others are made one by one, and the blocks of what failed are taken back from those that were reported."""
    made = worker.blocks

    def broken(job, backbone, group, wanted):
        for part in made(job, backbone, group, wanted):
            if part.index == 1 and "toy-001" in [prompt.id for prompt in wanted]:
                raise ValueError("block 1: no number")
            yield part

    def make(store: Path) -> tuple[dict[str, str | None], int]:
        config = changed(plain, "task.prompt_set", str(alike)) | {"batch": 3, "store": str(store)}
        told: list[events.Event] = []
        failed = work(prepare(config), new_attempt(), [], config, told.append)
        ends = {event.prompt: event.error for event in told if isinstance(event, events.UnitEnded)}
        assert failed == sum(error is not None for error in ends.values())
        return ends, sum(event.count for event in told if isinstance(event, events.BlocksMade))

    alike = write_prompts(tmp_path / "prompts.jsonl", 3, 0.75)
    ends, count = make(tmp_path / "whole")
    assert set(ends.values()) == {None}
    monkeypatch.setattr(worker, "blocks", broken)
    error = "ValueError: block 1: no number"
    assert make(tmp_path / "parts") == ({"toy-000": None, "toy-001": error, "toy-002": None}, count * 2 // 3)
    assert latents(tmp_path / "parts") == {key: value for key, value in latents(tmp_path / "whole").items() if key[0] != "toy-001"}


@pytest.mark.slow
def test_dead_job_hides_nothing(toy, tmp_path):
    """A job whose process dies is named with its last words; the other job's videos are all there."""
    store, wait_while = tmp_path / "store", tmp_path / "wait"
    process = start(toy, store, "seed=0,1", "-m", "max_workers=1", wait_while=wait_while)
    until(lambda: len(records(store)) >= 1)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    wait_while.unlink()
    _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "seed=0: its process was killed by signal 9" in told and "videos are missing; the same command goes on" in told
    assert sum(record.seed == 1 for record in records(store)) == COUNT


@pytest.mark.slow
def test_every_job_is_a_fresh_process_of_a_worker_that_outlives_it(toy, tmp_path):
    """The first of two jobs is killed: it alone is the loss, and the next comes from the same worker."""
    store, wait_while = tmp_path / "store", tmp_path / "wait"
    process = start(toy, store, "seed=0,1", "-m", "max_workers=1", wait_while=wait_while)
    until(lambda: len(records(store)) >= 1)
    (worker,) = children(process.pid)
    (job,) = children(worker)
    assert [attempt["pid"] for attempt in attempts(store)] == [job] != [worker]
    os.kill(job, signal.SIGKILL)
    until(lambda: any(record.seed == 1 for record in records(store)))
    assert children(process.pid) == [worker] and job not in children(worker)
    wait_while.unlink()
    _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1 and "seed=0: its process was killed by signal 9" in told
    assert len({attempt["pid"] for attempt in attempts(store)}) == len(attempts(store)) >= 2
    assert sum(record.seed == 1 for record in records(store)) == COUNT


def attempts(store: Path) -> list[dict]:
    return [json.loads(path.read_bytes()) for path in sorted(store.glob("runs/*/*/*/*/*/attempts/*.json"))]


@pytest.mark.slow
def test_interrupt_ends_the_workers(toy, tmp_path):
    store = tmp_path / "store"
    process = start(toy, store, "seed=0,1,2,3", "-m", "max_workers=1", wait_while=tmp_path / "wait")
    until(lambda: len(records(store)) >= 1)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130 and "Traceback" not in told and "the same command goes on" in told
    assert workers and not any(map(alive, workers))


@pytest.mark.slow
@pytest.mark.parametrize(("pieces", "count"), [("shard=1/2,2/2", COUNT), ("prompts=1,2", 2)])
def test_pieces_of_a_run_in_one_sweep_are_all_made(toy, tmp_path, pieces, count):
    finish(toy, tmp_path, pieces, "-m")
    assert len(records(tmp_path)) == len(latents(tmp_path)) == count


def test_equal_runs_of_a_sweep_are_one(toy, tmp_path):
    finish(toy, tmp_path, "method.drift_gate_lambda=2,2.0", "prompts=1", "-m")
    assert len(records(tmp_path)) == 1


def test_unit_that_failed_too_often_is_left_alone_until_more_tries_are_allowed(plain, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 1, 3.0, ["a purple ball", "a red ball"])
    base = changed(changed(plain, "task.prompt_set", str(prompts)), "store", str(tmp_path / "store")) | {"prompts": 1}
    counts = []
    for allowed in (1, 1, 2):
        config = base | {"max_tries": allowed}
        work(prepare(config), new_attempt(), [], config, lambda event: None)
        counts.append(len(records(tmp_path / "store")))
    assert counts == [1, 1, 2]
    (line,) = local.run([prepare(base | {"max_tries": 2})], [base], 1)
    assert "failed (2 of 2 tries; max_tries=3 tries again): ValueError" in line and "'purple'" in line
