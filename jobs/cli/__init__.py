"""The command line `echo-harness`: what is computed is `key=value`, as in run.py; where it goes or how it is shown is a `--flag`.

Commands that take the arguments of run.py (run, suite, live, plan) take `store=DIR`, those that read a store `--store DIR`; the other
form is refused with a line that names the right one.
Exit status: 0 success, 1 something failed or is incomplete, 2 a usage error (one line), 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TextIO

from data.outgoing import said
from echo.refusals import Unfinished, first_line
from eval.store.reading import told

NAME = "echo-harness"
MISTAKES = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, FileExistsError)
TRACEBACK = "ECHO_TRACEBACK"
"""Environment variable that requests the traceback of an unforeseen error."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; returns its exit status."""
    from jobs.cli.commands import carried_out  # imports typer, which run.py does without

    asked = list(sys.argv[1:] if words is None else words)
    complete = f"_{NAME.replace('-', '_').upper()}_COMPLETE"
    return ended(lambda: carried_out(asked or ["--help"], NAME, complete))


def ended(call: Callable[[], int | None], mistake: int = 2) -> int:
    """Run a command and report any error in one line; returns its exit status. `mistake`: status of a usage error."""
    try:
        _streams()
        with told():
            status, line = int(call() or 0), ""
        sys.stdout.flush()
    except BaseException as error:
        status, line = _ending(error, mistake)
    _tell(sys.stdout, "")
    _tell(sys.stderr, f"{said(line)}\n" if line else "")
    return status


def _ending(error: BaseException, mistake: int) -> tuple[int, str]:
    """Exit status and message of an error."""
    match error:
        case KeyboardInterrupt():
            return 130, "stopped; the same command goes on"
        case SystemExit():
            return (mistake, error.code) if isinstance(error.code, str) else (int(error.code or 0), "")
        case Unfinished():
            return 1, str(error)
        case OSError(errno=errno.EPIPE):  # the reader has closed the output
            return 1, ""
        case OSError(filename=None):
            return 1, f"cannot write: {error.strerror or error}, where the output goes or where a file was written"
        case OSError():
            return mistake if isinstance(error, MISTAKES) else 1, first_line(error)
        case UnicodeError():
            return 1, _unforeseen(error)
        case ValueError():
            return mistake, str(error)
    return (mistake, first_line(error)) if hasattr(error, "problem_mark") else (1, _unforeseen(error))


def _unforeseen(error: BaseException) -> str:
    """Message of an unforeseen error, with its location."""
    if os.environ.get(TRACEBACK):
        return "".join(traceback.format_exception(error))
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {first_line(error)} ({place.filename}, line {place.lineno}); {TRACEBACK}=1 shows how it came to it"


def _streams() -> None:
    """Replace closed streams, and let characters that cannot be encoded become `?`. Raises ValueError in a deleted folder."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError("the working folder is gone; nearest is to `cd` into one that is there") from None


def _tell(stream: TextIO, text: str) -> None:
    """Write to a stream; a stream that fails is redirected to nowhere from then on."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
