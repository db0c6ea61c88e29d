"""Claims on units, so that two commands at once do not make a unit twice.

A claim is a file `claims/<unit>.<n>`, created exclusively (O_EXCL works on local disks, NFS and Lustre, where
locks cannot be trusted); the highest n owns the unit, so that a dead owner is superseded without deleting a living owner's claim.
Claims only avoid duplicate work: if two owners finish the same unit, its first record counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec

from eval.store.reading import content_of
from eval.store.records import UNREADABLE, DamagedFile

BEAT_S = 15.0
STALE_S = 90.0
"""An owner on another machine that has not touched its claim for this long is dead."""
_SEEN: dict[Path, tuple[float, float]] = {}  # claims of other machines: time stamp, and when this process first saw it, by its own clock


class Owner(msgspec.Struct, omit_defaults=True):
    """Owner of a claim. machine: id of its boot and of its process namespace. start: when the process began, by that machine.

    job: SLURM job, and how often it was restarted.
    """

    host: str | None = None
    machine: str | None = None
    pid: int | None = None
    start: str | None = None
    job: str | None = None
    restart: int = 0
    attempt: str | None = None


class Claims:
    """The claims of one run folder, for one attempt."""

    def __init__(self, run: Path, attempt: str) -> None:
        self._folder, self._attempt = run / "claims", attempt
        self._held: dict[str, Path] = {}
        self._beating = False

    def take(self, unit: str) -> bool:
        """Claim a unit, unless a living process owns it. Raises OSError if the store cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        top = self._top(unit)
        if top and self._living(self._path(unit, top)):
            return False
        path = self._path(unit, top + 1)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(handle, msgspec.json.encode(msgspec.structs.replace(_self(), attempt=self._attempt)))
        except OSError:  # a full disk: a claim without an owner would block everybody until it is stale
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        self._held[unit] = path
        if not self._beating:
            self._beating = True
            threading.Thread(target=self._beat, daemon=True).start()
        return True

    @property
    def held(self) -> list[str]:
        """The units that this attempt has claimed and not released."""
        return list(self._held)

    def lost(self, unit: str) -> bool:
        """Whether a claimed unit has another owner by now, as after a long pause of this process."""
        path = self._held.get(unit)
        return path is not None and not self._owns(unit, path)

    def release(self, units: Iterable[str]) -> None:
        """Release units, made or not, and remove claims of dead owners."""
        for unit in units:
            path = self._held.pop(unit, None)
            if path is None or not self._owns(unit, path):
                continue
            for number in sorted(self._numbers().get(unit, ())):  # the owner's own claim last, so that it stays the owner until then
                with contextlib.suppress(OSError):
                    self._path(unit, number).unlink()

    def starts(self) -> dict[str, int]:
        """Number of unfinished starts by unit, which shows units that kill their process."""
        return {unit: max(numbers) for unit, numbers in self._numbers().items()}

    def _numbers(self) -> dict[str, list[int]]:
        """Numbers of existing claims, by unit."""
        numbers: dict[str, list[int]] = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self._folder):
                unit, _, number = name.rpartition(".")
                if unit and not unit.startswith(".") and number.isascii() and number.isdecimal():
                    numbers.setdefault(unit, []).append(int(number))
        return numbers

    def _top(self, unit: str) -> int:
        return self.starts().get(unit, 0)

    def holders(self, units: Iterable[str]) -> dict[str, str]:
        """Units that another living process has claimed, each with a description of the process."""
        starts, owners = self.starts(), {}
        for unit in units:
            if unit in starts and unit not in self._held and self._living(self._path(unit, starts[unit])):
                owners[unit] = self._owner(unit, starts[unit])
        return owners

    def abandoned(self, units: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Units with unfinished starts that no living process has claimed: number of starts, and a description of the last process."""
        starts, held = self.starts(), self.holders(units := list(units))
        left = [unit for unit in units if unit in starts and unit not in held]
        return {unit: (starts[unit], self._owner(unit, starts[unit])) for unit in left}

    def _owner(self, unit: str, number: int) -> str:
        owner = _read(self._path(unit, number))
        job = f", SLURM job {owner.job}" if owner.job else ""
        return f"process {owner.pid} on {owner.host}{job}" if owner.pid is not None else "a process that left no name"

    def _owns(self, unit: str, path: Path) -> bool:
        """Whether a claim is the highest of its unit and this attempt's; once all are released, numbers start again."""
        return path == self._path(unit, self._top(unit)) and _read(path).attempt == self._attempt

    def _path(self, unit: str, number: int) -> Path:
        return self._folder / f"{unit}.{number}"

    def _living(self, path: Path) -> bool:
        owner, own = _read(path), _self()
        if owner.job is not None and owner.job == own.job and owner.restart < own.restart:
            return False  # SLURM restarts a job only after its last start has ended
        if own.machine is not None and owner.machine == own.machine and owner.pid is not None:
            return owner.start is not None and _start_of(owner.pid) == owner.start
        try:
            stamp = path.stat().st_mtime
        except OSError:
            return False
        before, since = _SEEN.get(path, (None, 0.0))
        if stamp != before:
            before, since = _SEEN[path] = stamp, time.monotonic()
        return self._now() - stamp < STALE_S and time.monotonic() - since < STALE_S  # a time stamp may be of another clock

    def _now(self) -> float:
        """The time by the clock that stamps the files, which may be a file server's; by this machine's if nothing can be written."""
        probe = self._folder / f".clock-{self._attempt}"
        try:
            with probe.open("wb"):
                os.utime(probe)
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def _beat(self) -> None:
        wait = threading.Event()
        while not wait.wait(BEAT_S):
            for path in list(self._held.values()):
                with contextlib.suppress(OSError):
                    os.utime(path)


def _read(path: Path) -> Owner:
    """A claim's owner; without a name while it is being written or if it is damaged, in which case its age decides."""
    try:
        return msgspec.json.decode(content_of(path), type=Owner)
    except (OSError, DamagedFile, *UNREADABLE):
        return Owner()


def _start_of(process: int) -> str | None:
    """Start time of a process of this machine, in clock ticks; None if it does not exist or has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _self() -> Owner:
    job, restart = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0")
    process = os.getpid()
    times = int(restart) if restart.isdecimal() else 0
    return Owner(socket.gethostname(), _machine(), process, _start_of(process), job, times)


@lru_cache(maxsize=1)
def _machine() -> str | None:
    """Ids of this machine's boot and process namespace; None if unavailable."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
