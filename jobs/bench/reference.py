"""Block times of another code on the same device: a program with an environment of its own measures them and ends with one line of JSON."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Annotated

import msgspec

from echo.refusals import first_line

FORECAST_S = 90.0
LIMIT_S = 3 * FORECAST_S
"""Seconds that the program is forecast to take, and after which it is stopped."""
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Told(msgspec.Struct, forbid_unknown_fields=True):
    """That line. frames: latent frames that a block attends to. block_ms: milliseconds of network and cache for each measured block."""

    method: str
    frames: Positive
    block_ms: Annotated[list[Positive], msgspec.Meta(min_length=1)]


def check(program: Path) -> None:
    """Raises ValueError, before anything is measured, for what cannot be run."""
    if not program.is_file():
        raise ValueError(f"--reference {program}: no such file; it is a program that times the other code (docs/performance.md)")
    if not os.access(program, os.X_OK):
        raise ValueError(f"--reference {program}: is not executable; nearest is: chmod +x {program}")


def timed(program: Path, limit_s: float = LIMIT_S) -> Told:
    """Runs the program in its own folder. Raises RuntimeError in one line if it fails, takes longer, or tells nothing of use."""
    try:
        run = subprocess.Popen(
            [program.resolve()], cwd=program.parent, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise RuntimeError(f"{program.name}: {first_line(error)}") from error
    try:
        out, err = run.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{program.name}: was stopped after {limit_s:.0f} s") from error
    finally:
        if run.poll() is None:  # with its children, one of which may hold the device
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
    last = (out.strip().splitlines() or [""])[-1]
    if run.returncode:
        why = (err.strip().splitlines() or [last])[-1]
        raise RuntimeError(f"{program.name}: ended with status {run.returncode}: {why[:200]}")
    try:
        return msgspec.json.decode(last, type=Told)
    except msgspec.DecodeError as error:
        raise RuntimeError(f"{program.name}: its last line is not as docs/performance.md says ({error}): {last[:100]!r}") from error
