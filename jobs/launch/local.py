"""Jobs in processes of their own on this machine, several at a time.

A worker gets its orders as lines of its standard input, which is a lifeline too: when this process ends, however it ends,
the input closes and the worker leaves. Workers report as JSON lines; what else they say goes to the attempt's log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from echo.files import ROOT, write_atomic
from echo.scene import Prompt, scene_blocks
from jobs.spec import backbones
from jobs.spec.plan import Job
from jobs.store import unwritable
from jobs.store.claims import Claims
from jobs.store.folder import RunFolder, new_attempt
from jobs.work import score
from jobs.work.progress import Progress

LEAVE_S = 10.0
POLL_S = 0.5
COMMAND = (sys.executable, "-m", "jobs.work.child")


@dataclass
class Worker:
    """A running process and what it was told to do last."""

    process: subprocess.Popen[str]
    threads: int
    card: str | None = None  # the graphics card that it sees, if it works on one
    folder: RunFolder | None = None  # None while it waits for an order
    log: Path = Path()
    open_blocks: int = 0  # blocks of the videos under way, taken back if they fail


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blocks_of(job: Job, prompts: Sequence[Prompt]) -> int:
    """How many blocks a job makes for some prompts."""
    return sum(sum(scene_blocks(prompt.durations_s, job.policy.durations)) for prompt in prompts)


def run(jobs: Sequence[Job], plain: Sequence[dict[str, Any]], max_workers: int | None, patience_s: float = math.inf) -> list[str]:
    """Make all that is missing of some jobs.

    Args:
        jobs: the checked jobs; those that are complete are not started.
        plain: the configs that they came from, for the workers.
        max_workers: processes at a time; None takes as many as the cores have threads for, or one a graphics card.
        patience_s: how long to wait for videos that other living commands are making; what a dead one leaves is made here.

    Returns:
        One line for each thing that is not as asked; empty when every unit is done.

    Raises:
        KeyboardInterrupt: after all workers have left.
    """
    named = {folder.piece: (folder, config) for folder, config in zip(map(RunFolder, jobs), plain)}  # equal ones are one
    folders = [folder for folder, _ in named.values()]
    for folder in folders:
        folder.describe()
    deaths: dict[Path, str] = {}
    while True:
        deaths |= _pass(jobs, list(named.values()), max_workers)
        if not _others_left_some(folders, patience_s):
            break
    return list(dict.fromkeys(line for folder in folders for line in lacks(folder, deaths.get(folder.path))))


def _pass(jobs: Sequence[Job], named: Sequence[tuple[RunFolder, dict[str, Any]]], max_workers: int | None) -> dict[Path, str]:
    """Once through all that is missing; why jobs died, by run folder."""
    waiting = [(folder, config, todo) for folder, config in named if (todo := folder.missing())]
    if not waiting:
        return {}
    blocks = sum(blocks_of(folder.job, todo) for folder, _, todo in waiting)
    cards = backbones.cards([job.config for job in jobs])
    most = len(cards) or max(1, cores() // max(job.config.backbone.threads for job in jobs))
    if not cards and any(job.config.backbone.parts is not None and job.config.geometry == "native" for job in jobs):
        most = 1  # two networks of the true size are more than most machines hold
    places = min(max_workers or most, most) if cards else max_workers or most
    progress = Progress(blocks, sum(len(todo) for *_, todo in waiting))
    texts = _texts([folder.job for folder, *_ in waiting])
    try:
        return _Pool(progress, places, cards, texts).work([(folder, config) for folder, config, _ in waiting])
    finally:
        progress.close()


def held(folders: Sequence[RunFolder]) -> dict[tuple[Path, str], str]:
    """Units that other living processes are at, by run folder and unit id, each with words that name the process."""
    found: dict[tuple[Path, str], str] = {}
    for folder in folders:
        if (folder.path / "claims").is_dir():
            units = [folder.job.unit_id(prompt) for prompt in folder.unfinished()]
            found |= {(folder.path, unit): who for unit, who in Claims(folder.path, new_attempt()).holders(units).items()}
    return found


def _others_left_some(folders: Sequence[RunFolder], patience_s: float) -> bool:
    """Wait for what others are making; True where one of them died or let go, so that there is something to make here."""
    first, end = held(folders), time.monotonic() + patience_s
    now = first
    if first:
        sys.stderr.write(f"{_made_elsewhere(first)}; waiting for it\n")
    while first.keys() & now.keys() and time.monotonic() < end:
        clock = time.monotonic()
        now = held(folders)
        time.sleep(max(POLL_S, 10 * (time.monotonic() - clock)))  # a large store takes a while to read
    missing = {(folder.path, folder.job.unit_id(prompt)) for folder in folders for prompt in (folder.missing() if first else ())}
    return bool(first.keys() & missing - now.keys())


def _made_elsewhere(found: Mapping[tuple[Path, str], str]) -> str:
    number = "1 video is" if len(found) == 1 else f"{len(found)} videos are"
    return f"{number} being made by another command ({next(iter(found.values()))})"


def _texts(jobs: Sequence[Job]) -> Path | None:
    """A file of all texts of a sweep on backbones with a text encoder of gigabytes; None where there is none such."""
    real = [job for job in jobs if job.config.backbone.parts is not None]
    if not real:
        return None
    content = json.dumps(backbones.texts(real)).encode()
    path = Path(backbones.parts_of(real[0].config).text_cache) / f"asked-{hashlib.blake2b(content, digest_size=8).hexdigest()}.json"
    write_atomic(path, content)
    return path


def lacks(folder: RunFolder, death: str | None = None) -> list[str]:
    """A line for each thing of a run that is not as asked, and why its process died if it did."""
    lines = [] if death is None else [f"{folder.job.title}: {death}"]
    missing = folder.unfinished()
    failures = folder.reader.settled(folder.job.scores_id).failures
    made = score.unscored(folder, missing)
    for prompt in missing:
        tries = failures.get(folder.job.unit_id(prompt), 0)
        if tries:
            reason = _last_error(folder, prompt)
            allowed = folder.job.config.max_tries
            again = "" if tries < allowed else f"; max_tries={tries + 1} tries again"
            what = f"{prompt.id} is made, not scored: that" if prompt.id in made else prompt.id
            lines.append(f"{folder.job.title}: {what} failed ({tries} of {allowed} tries{again}): {reason}")
    others = held([folder]) if missing else {}
    if others:
        lines.append(f"{folder.job.title}: {_made_elsewhere(others)}; the same command shows what came of it")
    units = {prompt.id: folder.job.unit_id(prompt) for prompt in missing}
    untried = [name for name, unit in units.items() if not failures.get(unit, 0) and (folder.path, unit) not in others]
    unscored = sum(name in made for name in untried)
    for count, what in ((unscored, "made, not scored"), (len(untried) - unscored, "missing")):
        if count:
            lines.append(f"{folder.job.title}: {count} of {len(folder.job.mine)} videos are {what}; the same command goes on")
    return lines


def _last_error(folder: RunFolder, prompt: Prompt) -> str:
    unit = folder.job.unit_id(prompt)
    errors = [r for r in folder.reader.records() if r["unit"] == unit and r["status"] == "error"]
    return f"{errors[-1]['err'].splitlines()[0]} (see {folder.path / errors[-1]['trace']})"


class _Pool:
    """Gives jobs to workers as they become free, and listens to all of them."""

    def __init__(self, progress: Progress, places: int, cards: Sequence[str] = (), texts: Path | None = None) -> None:
        self._progress, self._places, self._cards, self._texts = progress, places, cards, texts
        self._events: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers: list[Worker] = []
        self._deaths: dict[Path, str] = {}

    def work(self, waiting: list[tuple[RunFolder, dict[str, Any]]]) -> dict[Path, str]:
        """All jobs to their end; returns why a job died, by run folder."""
        waiting = list(waiting)
        try:
            while True:
                while waiting and sum(worker.folder is not None for worker in self._workers) < self._places:
                    self._give(*waiting.pop(0))
                if all(worker.folder is None for worker in self._workers):
                    return self._deaths
                worker, event = self._events.get()
                if event is not None and "status" in event and "prompt" not in event:
                    self._ended(worker, int(event["status"]))
                elif event is not None:
                    self._hear(worker, event)
                elif worker in self._workers:
                    self._workers.remove(worker)
                    _dismiss(worker.process)
                    self._ended(worker, worker.process.returncode)
        finally:
            for worker in self._workers:
                _dismiss(worker.process)

    def _give(self, folder: RunFolder, config: dict[str, Any]) -> None:
        """Let a free worker, or a new one, do a job."""
        attempt, threads = new_attempt(), folder.job.config.backbone.threads
        log = folder.path / "attempts" / f"{attempt}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        free = [worker for worker in self._workers if worker.folder is None]
        for dead in [worker for worker in free if worker.process.poll() is not None]:  # its end may still wait in the queue
            free.remove(dead)
            self._workers.remove(dead)
            _dismiss(dead.process)
        worker = next((worker for worker in free if worker.threads == threads), None)
        if worker is None:
            for other in free:  # of other threads: its place is needed
                self._workers.remove(other)
                _dismiss(other.process)
            worker = self._start(threads, log)
        worker.folder, worker.log, worker.open_blocks = folder, log, 0
        order = {"config": config, "attempt": attempt, "argv": sys.argv, "log": str(log.absolute())}
        if self._texts is not None and folder.job.config.backbone.parts is not None:
            order["texts"] = str(self._texts)
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit status tells
            worker.process.stdin.write(json.dumps(order) + "\n")
            worker.process.stdin.flush()

    def _start(self, threads: int, log: Path) -> Worker:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        card = next((card for card in self._cards if card not in [worker.card for worker in self._workers]), None)
        if card is not None:
            counts["CUDA_VISIBLE_DEVICES"] = card
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=os.environ | counts | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        worker = Worker(process, threads, card)
        self._workers.append(worker)
        assert process.stdout is not None
        threading.Thread(target=self._listen, args=(worker, process.stdout), daemon=True).start()
        return worker

    def _listen(self, worker: Worker, pipe: IO[str]) -> None:
        """Pass its reports on to the end; a line that is none, as a kill in mid-write leaves it, is the end too."""
        try:
            for line in pipe:
                self._events.put((worker, json.loads(line)))
        except ValueError:
            worker.process.kill()  # whatever it still says cannot be trusted
        worker.process.wait()
        self._events.put((worker, None))

    def _hear(self, worker: Worker, event: dict[str, Any]) -> None:
        assert worker.folder is not None
        if "note" in event:
            self._progress.note(event["note"])
        if "blocks" in event:
            worker.open_blocks += event["blocks"]
            self._progress.block(event["blocks"])
        if "elsewhere" in event:
            theirs = [prompt for prompt in worker.folder.job.mine if prompt.id in event["elsewhere"]]
            self._progress.elsewhere(blocks_of(worker.folder.job, theirs), len(theirs))
        if "prompt" in event:
            worker.open_blocks = 0
            self._progress.video()
            if event["status"] != "ok":
                self._progress.note(f"{worker.folder.job.title}: {event['prompt']} failed: {event['error']}")

    def _ended(self, worker: Worker, status: int) -> None:
        """A job is over, well or badly; a worker that dies without a job hurts nobody."""
        folder, worker.folder = worker.folder, None
        if folder is None:
            return
        text = worker.log.read_text(encoding="utf-8", errors="replace") if worker.log.exists() else ""
        if not text:
            worker.log.unlink(missing_ok=True)
        if status in (0, 1) and not worker.open_blocks:
            return
        lines = [line for line in text.splitlines() if line.strip()]
        if status == unwritable.STATUS and lines:
            self._deaths[folder.path] = lines[-1]
            return
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self._deaths[folder.path] = f"its process {how}; " + (
            f"last words: {lines[-1]} (log: {worker.log})" if lines else "it said nothing"
        )
        self._progress.block(-worker.open_blocks)
        self._progress.note(f"{folder.job.title}: {self._deaths[folder.path]}")


def _dismiss(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
