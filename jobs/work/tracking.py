"""Results as they come, told to a tracker: none, files of JSON lines, or Weights & Biases. Nothing is ever read from one.

The truth is the run store; a tracker gets a copy and may fail at any moment: that is said once and no run is the worse for it.
`wandb` is imported only where it is asked for. Without a key it writes to `<store>/tracking/wandb`, and `wandb sync` sends that.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import netrc
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec

from eval.store.records import Provenance
from eval.store.runs import flat
from jobs.spec.plan import Job

VIDEOS = 3
"""Of an attempt; the others are in the store."""
PATIENCE_S = 60.0
"""How long a tracker may take over anything; a network that is gone must not hold a job."""
REACH_S = 3.0
"""How long a server may take to answer at all before wandb is started without it."""
PROJECT = "echo-harness"
T = TypeVar("T")
Tell = Callable[[str], object]
"""Takes a line for people."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker hears of an attempt, or of a table, when it begins.

    group: the experiment, else None. folder: where it may write. config: the full one as plain values.
    """

    id: str
    name: str
    group: str | None
    kind: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class Tracker(Protocol):
    """Whoever is told. Any of its methods may raise."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of the `step`-th unit, by dotted name."""

    def video(self, name: str, path: Path) -> None:
        """A video that stands in the store."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A whole table."""

    def close(self) -> None:
        """No more will come."""


class Lines:
    """JSON lines in a file of its own."""

    def __init__(self, start: TrackedRun, tell: Tell) -> None:
        start.folder.mkdir(parents=True, exist_ok=True)
        self._file = (start.folder / f"{start.id}.jsonl").open("a", encoding="utf-8", buffering=1)
        self._write("start", {"name": start.name, "group": start.group, "tags": start.tags, "config": start.config})

    def _write(self, kind: str, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"v": 1, "t": round(time.time(), 3), "kind": kind, **content}) + "\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker`."""
        self._write("unit", {"step": step, "values": dict(values)})

    def video(self, name: str, path: Path) -> None:
        """As `Tracker`; the file is named, not copied."""
        self._write("video", {"name": name, "path": str(path)})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """As `Tracker`."""
        self._write("table", {"name": name, "columns": list(columns), "rows": [list(row) for row in rows]})

    def close(self) -> None:
        """As `Tracker`."""
        self._write("end", {})
        self._file.close()


class Wandb:
    """A run of Weights & Biases. Its names of variables hold: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY, WANDB_BASE_URL.

    A server that does not answer is asked once: the run is written offline and a line says so.
    """

    def __init__(self, start: TrackedRun, tell: Tell) -> None:
        import wandb

        start.folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        how = mode()
        trouble = unreachable() if how == "online" else None
        if trouble is None:
            try:
                self._run = self._opened(start, how)
                return
            except Exception as error:
                if how != "online":
                    raise
                trouble, start = _first(error), replace(start, id=f"{start.id}-offline")  # wandb keeps the name of a run that failed
        tell(
            f"tracker=wandb: {server()} gives no run ({trouble}); written offline, `wandb sync {start.folder}/wandb/offline-run-*` sends it"
        )
        self._run = self._opened(start, "offline")

    def _opened(self, start: TrackedRun, how: Any) -> Any:
        # a sweep may open many in one process, and each is a run of its own
        return self._wandb.init(
            id=start.id, name=start.name, group=start.group, job_type=start.kind, tags=list(start.tags), config=dict(start.config),
            dir=str(start.folder), project=os.environ.get("WANDB_PROJECT", PROJECT), mode=how, resume="allow", reinit="create_new",
            settings=self._wandb.Settings(
                console="off", silent=True, init_timeout=PATIENCE_S / 4, finish_timeout=PATIENCE_S / 2, finish_timeout_raises=True
            ),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker`."""
        self._run.log(dict(values), step=step)

    def video(self, name: str, path: Path) -> None:
        """As `Tracker`."""
        self._run.log({f"video/{name}": self._wandb.Video(str(path), format="mp4")})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """As `Tracker`."""
        self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def close(self) -> None:
        """As `Tracker`."""
        self._run.finish()


def mode() -> Any:
    """What WANDB_MODE says; else online where there is a key, and offline where wandb would stop to ask for one."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    host = urlsplit(server()).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host):
            return "online"
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def server() -> str:
    """Address of wandb's server."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def unreachable() -> str | None:
    """Why wandb's server does not answer, None where it does: wandb itself would ask again and again for as long as it may."""

    def ask() -> None:
        with contextlib.suppress(HTTPError), urlopen(server(), timeout=REACH_S):  # whatever it says, it is there
            pass

    try:
        _within(REACH_S, ask)
    except (OSError, ValueError, HTTPException) as error:
        # its certificate is for wandb to judge, by its own settings
        return None if isinstance(getattr(error, "reason", error), ssl.SSLError) else _first(error)
    return None


KINDS: dict[str, Callable[[TrackedRun, Tell], Tracker]] = {"jsonl": Lines, "wandb": Wandb}
"""By `tracker=`; `none` has none."""


def complain(line: str) -> None:
    """Say a line on standard error."""
    sys.stderr.write(line + "\n")


class GuardedTracker:
    """A tracker whose first failure is told in a line and is its end; what it holds up for too long is left behind."""

    def __init__(self, kind: str, start: TrackedRun, tell: Tell = complain) -> None:
        self._kind, self._tell, self._count, self._videos = kind, tell, 0, 0
        self._inner: Tracker | None = None
        if kind != "none":
            self._inner = self._try(lambda: KINDS[kind](start, tell))

    def unit(self, values: Mapping[str, Any], name: str, video: Path | None) -> None:
        """A finished unit: its numbers, and its video if it is one of the first."""
        if self._inner is None:
            return
        self._count += 1
        numbers = {key: float(value) for key, value in flat(values) if _number(value)}
        self._try(partial(self._inner.log, self._count, numbers))
        if self._inner is not None and video is not None and self._videos < VIDEOS:
            self._videos += 1
            self._try(partial(self._inner.video, name, video))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A whole table."""
        if self._inner is not None:
            self._try(partial(self._inner.table, name, columns, rows))

    def close(self) -> None:
        """No more will come."""
        if self._inner is not None:
            self._try(self._inner.close)
        self._inner = None

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return _within(PATIENCE_S, call)
        except (Exception, SystemExit) as error:  # a library may think that its trouble ends the program
            hint = '; pip install "echo-harness[wandb]"' if isinstance(error, ModuleNotFoundError) and error.name == "wandb" else ""
            self._tell(f"tracker={self._kind}: told nothing more ({type(error).__name__}: {_first(error)}{hint}); the run goes on")
            self._inner = None
            return None


def _first(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _within(limit_s: float, call: Callable[[], T]) -> T:
    """A call that is waited for so long and no longer. Raises what it raises, and TimeoutError."""
    results: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    if not results:
        raise TimeoutError(f"no answer in {limit_s:.0f} s")
    return results[0]


def of_attempt(job: Job, attempt: str, provenance: Provenance, tell: Tell = complain) -> GuardedTracker:
    """The tracker of one start of a job."""
    config = job.config
    tags = (config.method.name, config.task.name, config.backbone.name)
    run = TrackedRun(
        f"{job.run_id}-{attempt}", job.title, config.experiment, "attempt", folder_of(config.store), msgspec.to_builtins(provenance), tags
    )
    return GuardedTracker(config.tracker, run, tell)


def folder_of(store: str | Path) -> Path:
    """Where trackers write."""
    return Path(store).absolute() / "tracking"


def tables(kind: str, store: Path, names: Sequence[str], group: str | None) -> None:
    """Tell of the tables that a command made, from their CSV files.

    Args:
        kind: `tracker=`.
        store: the run store.
        names: the tables; one that is not there is passed over.
        group: the experiment.
    """
    files = [(name, path) for name in dict.fromkeys(names) if (path := store / "tables" / f"{name}.csv").is_file()]
    if kind == "none" or not files:
        return
    title = group or files[0][0]
    tracker = GuardedTracker(
        kind, TrackedRun(f"table-{title}-{time.time_ns():020d}", f"tables of {title}", group, "table", folder_of(store))
    )
    for name, path in files:
        columns, *rows = _csv(path)
        tracker.table(name, columns, rows)
    tracker.close()


def _csv(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file)
