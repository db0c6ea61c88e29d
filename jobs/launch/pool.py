"""Worker processes on this machine, which do jobs one after the other.

A worker gets its orders as lines of its standard input. When this process ends in any way, the input closes and the worker
exits. Workers report events as lines; their other output goes to the attempt's log.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from echo.files import ROOT
from jobs.spec.config import Plain
from jobs.store import unwritable
from jobs.store.folder import RunFolder, new_attempt
from jobs.work import events
from jobs.work.events import BlocksMade, Elsewhere, Event, JobEnded, JobOrder, Note, UnitEnded
from jobs.work.progress import Progress

LEAVE_S = 10.0
COMMAND = (sys.executable, "-m", "jobs.work.child")


@dataclass
class Worker:
    """A running process and what it does."""

    process: subprocess.Popen[bytes]
    threads: int
    card: str | None = None  # the graphics card that it sees, if it works on one
    folder: RunFolder | None = None  # None while it is idle
    log: Path = Path()
    open_blocks: int = 0  # blocks of the videos in progress, subtracted if they fail


class Pool:
    """Gives jobs to workers as they become free, and listens to all of them."""

    def __init__(self, progress: Progress, places: int, cards: Sequence[str] = (), texts: Path | None = None) -> None:
        self._progress, self._places, self._cards, self._texts = progress, places, cards, texts
        self._events: queue.Queue[tuple[Worker, Event | None]] = queue.Queue()
        self._workers: list[Worker] = []
        self._deaths: dict[Path, str] = {}

    def work(self, waiting: list[tuple[RunFolder, Plain]]) -> dict[Path, str]:
        """Do all jobs; returns why jobs died, by run folder."""
        waiting = list(waiting)
        try:
            while True:
                while waiting and sum(worker.folder is not None for worker in self._workers) < self._places:
                    self._give(*waiting.pop(0))
                if all(worker.folder is None for worker in self._workers):
                    return self._deaths
                worker, event = self._events.get()
                if isinstance(event, JobEnded):
                    self._ended(worker, event.status)
                elif event is not None:
                    self._hear(worker, event)
                elif worker in self._workers:
                    self._workers.remove(worker)
                    _dismiss(worker.process)
                    self._ended(worker, worker.process.returncode, died=True)
        finally:
            for worker in self._workers:
                _dismiss(worker.process)

    def _give(self, folder: RunFolder, config: Plain) -> None:
        """Give a job to a free worker, or to a new one."""
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
            for other in free:  # with another number of threads; its place is needed
                self._workers.remove(other)
                _dismiss(other.process)
            worker = self._start(threads, log)
        worker.folder, worker.log, worker.open_blocks = folder, log, 0
        texts = None if self._texts is None or folder.job.config.backbone.parts is None else str(self._texts)
        order = JobOrder(config=config, attempt=attempt, argv=sys.argv, log=str(log.absolute()), texts=texts)
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once, which its exit status reports
            worker.process.stdin.write(events.line(order))
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
                env=os.environ | counts | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            )
        worker = Worker(process, threads, card)
        self._workers.append(worker)
        assert process.stdout is not None
        threading.Thread(target=self._listen, args=(worker, process.stdout), daemon=True).start()
        return worker

    def _listen(self, worker: Worker, pipe: IO[bytes]) -> None:
        """Pass its reports on to the end; a line that is none, as a kill in mid-write leaves it, is the end too."""
        try:
            for line in pipe:
                self._events.put((worker, events.event(line)))
        except ValueError:
            worker.process.kill()  # whatever it still says cannot be trusted
        worker.process.wait()
        self._events.put((worker, None))

    def _hear(self, worker: Worker, event: Event) -> None:
        assert worker.folder is not None
        job = worker.folder.job
        match event:
            case Note(line=line):
                self._progress.note(line)
            case BlocksMade(count=count):
                worker.open_blocks += count
                self._progress.block(count, job.config.backbone.frames_per_block)
            case Elsewhere(prompts=ids):
                theirs = [prompt for prompt in job.mine if prompt.id in ids]
                self._progress.elsewhere(job.blocks(*theirs), len(theirs))
            case UnitEnded(prompt=prompt_id, error=error):
                worker.open_blocks = 0
                self._progress.video()
                if error is not None:
                    self._progress.note(f"{job.title}: {prompt_id} failed: {error}")

    def _ended(self, worker: Worker, status: int, died: bool = False) -> None:
        """A job is over, or its worker has died; the death of an idle worker does not matter."""
        folder, worker.folder = worker.folder, None
        if folder is None:
            return
        text = worker.log.read_text(encoding="utf-8", errors="replace") if worker.log.exists() else ""
        if not text:
            worker.log.unlink(missing_ok=True)
        if status in (0, events.FAILED) and not died and not worker.open_blocks:
            return
        lines = [line for line in text.splitlines() if line.strip()]
        if status == unwritable.STATUS and lines:
            self._deaths[folder.path] = lines[-1]
            return
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        self._deaths[folder.path] = f"its process {how}; " + (
            f"last words: {lines[-1]} (log: {worker.log})" if lines else "it said nothing"
        )
        self._progress.block(-worker.open_blocks, folder.job.config.backbone.frames_per_block)
        self._progress.note(f"{folder.job.title}: {self._deaths[folder.path]}")


def _dismiss(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
