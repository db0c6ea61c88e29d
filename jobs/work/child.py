"""A worker: takes orders for jobs on standard input, reports events on standard output (`jobs.work.events`): `python -m jobs.work.child`.

Each job is a fresh process, forked from this one, which has imported the libraries and computed nothing. When standard input closes,
the launching process has ended, and the worker exits at once, with its job.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from data.outgoing import said
from eval.vbench.networks import packages
from jobs.memory.measured import keep_pages
from jobs.spec.config import Plain
from jobs.spec.plan import prepare
from jobs.store import provenance, unwritable
from jobs.work import events
from jobs.work.events import Event, JobEnded, JobOrder, Report
from jobs.work.worker import work

CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
"""Forking is only safe if no imported library has started threads."""
LOADED = ("torch", "cv2", "echo.generate", "echo.backbone.load", "eval.world.scorer")
"""Imported once for all jobs, since each import takes seconds."""
WAN = ("diffusers.models.autoencoders.autoencoder_kl_wan", "transformers")
VBENCH = ("pyiqa.archs.musiq_arch", "torchvision.models.optical_flow", "transformers")
"""Modules of optional packages that take seconds to import."""


def main() -> int:
    """Take orders until there are no more, each in a process of its own: nothing that a job leaves in memory reaches the next."""
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log, never between the reports

    def report(event: Event) -> None:
        try:
            reports.write(events.line(event))
            reports.flush()
        except BrokenPipeError:  # the launching process has ended; not a failure of a video
            os._exit(4)

    _ignore_warnings()
    keep_pages(32 << 20)
    for name in LOADED:
        importlib.import_module(name)
    status, orders = 0, _Orders()
    while status != unwritable.STATUS:
        order = orders.next()
        _import_for(order.config)
        status = _apart(order, orders, report)
        report(JobEnded(status=status))
    return status


def _import_for(config: Plain) -> None:
    """Import the optional packages of this job, for this and later ones. The job itself reports failing imports.

    Not with a CUDA build of torch: a package that initialises CUDA when it is imported would break CUDA in forked processes.
    """
    if torch.version.cuda is not None or torch.version.hip is not None:
        return
    for name in (*(WAN if config["backbone"].get("parts") else ()), *(VBENCH if config["eval"].get("scorer") == "vbench" else ())):
        with suppress(Exception):
            packages.need(name, asked="a job")


class _Orders:
    """Orders as lines of standard input, whose end ends this process and its job."""

    def __init__(self) -> None:
        self._open, self._lines = b"", deque[bytes]()
        self.job: multiprocessing.process.BaseProcess | None = None

    def next(self) -> JobOrder:
        """Wait for the next order. Raises ValueError for an invalid line."""
        while not self._lines:
            self.read()
        return events.order(self._lines.popleft())

    def read(self) -> None:
        """Wait for standard input and read it."""
        more = os.read(0, 1 << 16)
        if not more:
            if self.job is not None:
                self.job.kill()
            os._exit(4)
        *whole, self._open = (self._open + more).split(b"\n")
        self._lines.extend(whole)


def _apart(order: JobOrder, orders: _Orders, report: Report) -> int:
    """One job in a process of its own; its status, or the signal that killed it as a negative number."""
    heard, tell = CONTEXT.Pipe(duplex=False)
    orders.job = job = CONTEXT.Process(target=_job, args=(order, tell))
    job.start()
    tell.close()
    while True:
        ready = connection.wait([0, heard])
        if 0 in ready:
            orders.read()
        if heard in ready:
            try:
                report(heard.recv())
            except (EOFError, OSError):  # it has ended
                break
    job.join()
    orders.job = None
    return int(job.exitcode or 0)


def _job(order: JobOrder, tell: connection.Connection) -> None:
    """Run a job in its process, whose exit status reports the result."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _ignore_warnings()

    def report(event: Event) -> None:
        try:
            tell.send(event)
        except OSError:
            os._exit(4)

    sys.exit(_obey(order, report))


def _ignore_warnings() -> None:
    """Ignore SLURM's signals to the whole job: its first process ends it, and the time until then is for the unit in progress."""
    if "SLURM_JOB_ID" in os.environ:
        for warning in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(warning, signal.SIG_IGN)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(4)


def _obey(order: JobOrder, report: Report) -> int:
    """Carry out one job; returns its status."""
    with open(order.log, "a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        job = prepare(order.config)
        provenance.refuse_dirty(job.config.experiment, job.config.allow_dirty)  # the code may have changed while the job waited
    except ValueError as error:
        sys.stderr.write(f"{said(error)}\n")
        return 2
    try:
        texts = () if order.texts is None else json.loads(Path(order.texts).read_bytes())
        return events.FAILED if work(job, order.attempt, order.argv, order.config, report, texts) else 0
    except Exception as error:
        sys.stderr.write(said(traceback.format_exc()))
        if isinstance(error, OSError) and unwritable.of_store(error):
            sys.stderr.write(f"{unwritable.refusal(job.config.store, error)}\n")
            return unwritable.STATUS
        return 3
    finally:
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
