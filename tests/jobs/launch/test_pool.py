"""How jobs are given to workers: one worker for unlike jobs, a free one that has died, a report torn in mid-write."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from echo.backbone.checkpoints import lora
from echo.backbone.load import load
from eval.store.runs import runs
from jobs.launch import local, pool
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work import models, worker
from jobs.work.progress import Progress
from tests.helpers.toy import changed, write_backbone

FAKE = """
import json, os, signal, sys
for line in sys.stdin:
    order = json.loads(line)
    open(order["config"]["done"], "a").write(order["config"]["name"] + " " + str(os.getpid()) + "\\n")
    what = order["config"]["what"]
    if what.startswith("exit"):
        sys.stderr.write("libgomp: Out of memory\\n")
        os._exit(int(what[-1]))
    if what.startswith("end"):
        sys.stdout.write('{"kind": "jobended", "status": ' + what[-1] + '}\\n')
        sys.stdout.flush()
        continue
    torn = what in ("tear", "die in mid-write")
    sys.stdout.write('{"kind": "blocksmade", "cou' if torn else '{"kind": "jobended", "status": 0}\\n')
    sys.stdout.write("\\n" if what == "tear" else "")
    sys.stdout.flush()
    if what == "leave":
        os._exit(0)
    if what == "die in mid-write":
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""A worker that does as it is told and writes down what it did."""


class Patient(pool.Pool):
    """Continues after a job only when a leaving worker has ended, so that its end is in the queue and not yet read."""

    def _ended(self, worker: pool.Worker, status: int, died: bool = False) -> None:
        leaves = worker.folder is not None and worker.folder.path.name == "leave"
        super()._ended(worker, status, died)
        if leaves:
            worker.process.wait(300)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Lets a pool of one place do named things; returns who did what, as (thing, process), and why jobs died, by thing."""
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", FAKE))

    def do(*things: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
        backbone = SimpleNamespace(threads=1, frames_per_block=3)
        waiting = []
        for thing in things:
            job = SimpleNamespace(title=thing, config=SimpleNamespace(backbone=backbone))
            folder = SimpleNamespace(path=tmp_path / thing, job=job)
            waiting.append((folder, {"what": thing, "name": thing.replace(" ", "_"), "done": str(tmp_path / "done")}))
        patient = Patient(Progress(1, 1), 1)
        deaths: list[dict[Path, str]] = []
        thread = threading.Thread(target=lambda: deaths.append(patient.work(waiting)), daemon=True)
        thread.start()
        thread.join(300)
        assert deaths, "it hangs"
        done = [tuple(line.split()) for line in (tmp_path / "done").read_text(encoding="utf-8").splitlines()]
        return done, {path.name: death for path, death in deaths[0].items()}

    return do


def test_a_worker_does_one_job_after_the_other(work):
    done, deaths = work("first", "second")
    assert [name for name, _ in done] == ["first", "second"] and len({process for _, process in done}) == 1 and not deaths


def test_a_free_worker_that_died_gets_no_order(work):
    done, deaths = work("leave", "next")
    assert [name for name, _ in done] == ["leave", "next"] and len({process for _, process in done}) == 2
    assert not deaths, "the job of the dead worker was over, the next was never its own"


@pytest.mark.parametrize("thing", ["die in mid-write", "tear"])
def test_a_torn_report_is_the_end_of_its_worker(work, thing):
    """`tear`: the worker itself lives on, and nothing that it says can be believed any more."""
    done, deaths = work(thing, "next")
    assert [name for name, _ in done] == [thing.replace(" ", "_"), "next"] and len({process for _, process in done}) == 2
    assert list(deaths) == [thing] and "was killed by signal 9" in deaths[thing]


@pytest.mark.parametrize("status", [0, 1, 3])
def test_no_exit_status_is_swallowed(work, status):
    """A library may end a process with 1, as one of OpenMP does without memory, or with 0: of the worker, or of its job."""
    _, deaths = work(f"exit {status}", "next")
    assert list(deaths) == [f"exit {status}"]
    assert deaths[f"exit {status}"].startswith(f"its process ended with status {status}; last words: libgomp: Out of memory (log: ")
    _, deaths = work("end 6", "end 0", "end 1")
    assert deaths == {"end 1": "its process ended with status 1; it said nothing"}, "6: units failed, which each of them tells"


def test_one_worker_for_other_weights_and_additions_draws_what_each_alone_would(plain, tmp_path, monkeypatch):
    """Path 1: one process for all three jobs. Path 2: each here, with empty shelves."""
    first, second = (write_backbone(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    made = lora.attach(load(str(first)).model, 2, seed=3)
    with torch.no_grad():
        for addition in made.values():
            addition.up.normal_(std=0.2, generator=torch.Generator().manual_seed(4))
    save_file(lora.tensors_of(made), tmp_path / "lora.safetensors")

    def configs(store: Path) -> list[dict]:
        base = changed(plain, "store", str(store)) | {"prompts": 1, "duration_scale": 0.5}
        given = ((first, None), (first, str(tmp_path / "lora.safetensors")), (second, None))
        return [changed(changed(base, "backbone.weights", str(path)), "backbone.lora", added) for path, added in given]

    processes = []
    start = pool.Pool._start
    monkeypatch.setattr(pool.Pool, "_start", lambda *given: processes.append(given) or start(*given))
    together, alone = configs(tmp_path / "together"), configs(tmp_path / "alone")
    assert local.run([prepare(config) for config in together], together, 1) == [] and len(processes) == 1
    for config in alone:
        models._backbone.cache_clear()
        assert worker.work(prepare(config), new_attempt(), [], config, lambda event: None) == 0
    found, expected = ({run.path.name: hashes(run) for run in runs(tmp_path / name)} for name in ("together", "alone"))
    assert found == expected and len({json.dumps(one) for one in found.values()}) == 3


def hashes(run) -> list[str]:
    return [record.latents_sha256 for record in run.records() if record.status == "ok"]
