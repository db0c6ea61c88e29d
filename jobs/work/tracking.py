"""Logging of results to a tracker: none, files of JSON lines, or Weights & Biases. Nothing is ever read from one.

A tracker gets a copy of the run store's data and may fail at any moment: that is reported once and does not affect the run.
`wandb` is imported only if it is used. Without a key it writes to `<store>/tracking/wandb`, which `wandb sync` uploads.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import netrc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from data.outgoing import said, without_secrets
from echo.refusals import first_line
from eval.store.records import Provenance
from eval.store.runs import flat
from jobs.spec.plan import Job
from jobs.store import unwritable

VIDEOS = 3
"""Number of videos logged per attempt; the others are in the store."""
PATIENCE_S = 60.0
"""Timeout of every call of a tracker, so that a lost network does not block a job."""
REACH_S = 3.0
"""Timeout of the server's first answer, after which wandb is started offline."""
PROJECT = "echo-harness"
T = TypeVar("T")
Say = Callable[[str], object]
"""Prints a line."""


@dataclass(frozen=True)
class TrackedRun:
    """Start of a tracker's run, for an attempt or a table.

    group: the experiment, else None. folder: to write to. config: the full config as plain values.
    """

    id: str
    name: str
    group: str | None
    kind: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


class Tracker(Protocol):
    """A tracker. It may raise any error, and be slow."""

    def tell(self, kind: str, content: Mapping[str, Any]) -> None:
        """kind: `unit` (step, values by dotted name), `video` (name, path in the store), `table` (name, columns, rows) or `end`."""


class Lines:
    """JSON lines in a file; a video is named, not copied."""

    def __init__(self, start: TrackedRun, say: Say) -> None:
        start.folder.mkdir(parents=True, exist_ok=True)
        self._file = (start.folder / f"{start.id}.jsonl").open("a", encoding="utf-8", buffering=1)
        self.tell("start", {"name": start.name, "group": start.group, "tags": start.tags, "config": start.config})

    def tell(self, kind: str, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"v": 1, "t": round(time.time(), 3), "kind": kind, **content}) + "\n")
        if kind == "end":
            self._file.close()


class Wandb:
    """A run of Weights & Biases. Its variables apply: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY, WANDB_BASE_URL.

    If the server does not answer once, the run is written offline and a line says so.
    """

    def __init__(self, start: TrackedRun, say: Say) -> None:
        _homes(start.folder / "wandb")
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
                trouble, start = first_line(error), replace(start, id=f"{start.id}-offline")  # wandb keeps the name of a run that failed
        say(
            f"tracker=wandb: {server()} gives no run ({trouble}); written offline, `wandb sync {start.folder}/wandb/offline-run-*` sends it"
        )
        self._run = self._opened(start, "offline")

    def _opened(self, start: TrackedRun, how: Any) -> Any:
        config = without_secrets(dict(start.config))
        # a sweep may open many in one process, and each is a run of its own
        return self._wandb.init(
            id=start.id, name=start.name, group=start.group, job_type=start.kind, tags=list(start.tags), config=config,
            dir=str(start.folder), project=os.environ.get("WANDB_PROJECT", PROJECT), mode=how, resume="allow", reinit="create_new",
            settings=self._wandb.Settings(
                console="off", silent=True, init_timeout=PATIENCE_S / 4, finish_timeout=PATIENCE_S / 2, finish_timeout_raises=True
            ),
        )  # fmt: skip

    def tell(self, kind: str, content: Mapping[str, Any]) -> None:
        match kind:
            case "unit":
                self._run.log(dict(content["values"]), step=content["step"])
            case "video":
                self._run.log({f"video/{content['name']}": self._wandb.Video(content["path"], format="mp4")})
            case "table":
                self._run.log({content["name"]: self._wandb.Table(columns=content["columns"], data=content["rows"])})
            case "end":
                self._run.finish()


def _homes(folder: Path) -> None:
    """Let wandb stage its tables in a folder if the home directory is not writable, as in a container."""
    for name, place in {"WANDB_DATA_DIR": ".local/share/wandb", "WANDB_CACHE_DIR": ".cache/wandb"}.items():
        try:
            unwritable.check(str(Path.home() / place))
        except (OSError, RuntimeError):  # a user without a home
            os.environ.setdefault(name, str(folder / Path(place).parts[-2].strip(".")))


def mode() -> Any:
    """WANDB_MODE; by default online with a key, and offline without one, where wandb would prompt for it."""
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
    """Why wandb's server does not answer, None if it does; wandb itself would retry for a long time."""
    from http.client import HTTPException  # these import ssl, which takes as long as a command's own modules
    from ssl import SSLError
    from urllib.error import HTTPError
    from urllib.request import urlopen

    def ask() -> None:
        with contextlib.suppress(HTTPError), urlopen(server(), timeout=REACH_S):  # any answer shows that it is there
            pass

    try:
        _within(REACH_S, ask)
    except (OSError, ValueError, HTTPException) as error:
        # its certificate is for wandb to judge, by its own settings
        return None if isinstance(getattr(error, "reason", error), SSLError) else first_line(error)
    return None


KINDS: dict[str, Callable[[TrackedRun, Say], Tracker]] = {"jsonl": Lines, "wandb": Wandb}
"""Trackers by `tracker=`, except `none`."""


def complain(line: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(said(line) + "\n")


class GuardedTracker:
    """A tracker that is closed after its first failure, which is reported in a line; slow calls are abandoned."""

    def __init__(self, kind: str, start: TrackedRun, say: Say = complain) -> None:
        self._kind, self._say, self._units, self._videos = kind, say, 0, 0
        self._inner: Tracker | None = None if kind == "none" else self._try(lambda: KINDS[kind](start, say))

    def unit(self, values: Mapping[str, Any], name: str, video: Path | None) -> None:
        """A finished unit: its numbers, and its video if it is one of the first."""
        self._units += 1
        self._tell("unit", step=self._units, values={key: float(value) for key, value in flat(values) if _number(value)})
        if video is not None and self._videos < VIDEOS:
            self._videos += 1
            self._tell("video", name=name, path=str(video))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A whole table."""
        self._tell("table", name=name, columns=list(columns), rows=[list(row) for row in rows])

    def close(self) -> None:
        """End the tracker's run."""
        self._tell("end")
        self._inner = None

    def _tell(self, kind: str, **content: Any) -> None:
        if self._inner is not None:
            self._try(partial(self._inner.tell, kind, content))

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return _within(PATIENCE_S, call)
        except (Exception, SystemExit) as error:  # a library may call sys.exit
            hint = '; pip install "echo-harness[wandb]"' if isinstance(error, ModuleNotFoundError) and error.name == "wandb" else ""
            self._say(f"tracker={self._kind}: told nothing more ({type(error).__name__}: {first_line(error)}{hint}); the run goes on")
            self._inner = None
            return None


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _within(limit_s: float, call: Callable[[], T]) -> T:
    """Run a call with a timeout. Raises its errors, and TimeoutError."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # an executor's threads would block the end of the process
    if not wait([future], limit_s).done:
        raise TimeoutError(f"no answer in {limit_s:.0f} s")
    return future.result()


def of_attempt(job: Job, attempt: str, provenance: Provenance, say: Say = complain) -> GuardedTracker:
    """The tracker of one start of a job."""
    config = job.config
    tags = (config.method.name, config.task.name, config.backbone.name)
    run = TrackedRun(
        f"{job.run_id}-{attempt}", job.title, config.experiment, "attempt", folder_of(config.store), msgspec.to_builtins(provenance), tags
    )
    return GuardedTracker(config.tracker, run, say)


def folder_of(store: str | Path) -> Path:
    """Folder of the trackers' files."""
    return Path(store).absolute() / "tracking"


def tables(kind: str, store: Path, names: Sequence[str], group: str | None) -> None:
    """Log the tables of an experiment's command to a tracker (`tracker=kind`), from their CSV files."""
    files = [(name, path) for name in dict.fromkeys(names) if (path := store / "tables" / f"{name}.csv").is_file()]
    if kind == "none" or not files:
        return
    title = group or files[0][0]
    tracker = GuardedTracker(
        kind, TrackedRun(f"table-{title}-{time.time_ns():020d}", f"tables of {title}", group, "table", folder_of(store))
    )
    for name, path in files:
        with path.open(encoding="utf-8", newline="") as file:
            columns, *rows = csv.reader(file)
        tracker.table(name, columns, rows)
    tracker.close()
