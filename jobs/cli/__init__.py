"""The command line `echo-harness`: what is computed is `key=value`, as in run.py; where it goes or how it is shown is a `--flag`.

`store=` is the one key that some commands have in common with run.py: those that take run.py's words (run, suite, live, plan) take it as a
key, those that read a store take `--store DIR`; the other form is refused with a line that names the right one.
Exit status: 0 all is well, 1 something failed or is incomplete, 2 a user's mistake, told in one line; 130 where it was stopped.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TextIO

from typer import TyperException

from data.outgoing import said
from echo.refusals import Unfinished, first_line
from eval.store.reading import told
from jobs.cli.commands import GROUPS, group

NAME = "echo-harness"
MISTAKES = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, FileExistsError)
TRACEBACK = "ECHO_TRACEBACK"
"""Name of the variable that asks for the traceback of an error that nobody foresaw."""


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command line, the process's own by default; its exit status."""
    asked = list(sys.argv[1:] if words is None else words)
    complete = f"_{NAME.replace('-', '_').upper()}_COMPLETE"
    return ended(lambda: group("", GROUPS).main(asked or ["--help"], NAME, complete, standalone_mode=False))


def ended(call: Callable[[], int | None], mistake: int = 2) -> int:
    """Carry out a command; its exit status. Whatever it raises is told in one line; `mistake`: the status of a user's."""
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
    """Exit status and line of whatever a command raised."""
    match error:
        case KeyboardInterrupt():
            return 130, "stopped; the same command goes on"
        case SystemExit():
            return (mistake, error.code) if isinstance(error.code, str) else (int(error.code or 0), "")
        case Unfinished():
            return 1, str(error)
        case TyperException():
            return mistake, error.format_message()
        case OSError(errno=errno.EPIPE):  # whoever read the output has enough of it
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
    """An error that nobody foresaw: what and where."""
    if os.environ.get(TRACEBACK):
        return "".join(traceback.format_exception(error))
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {first_line(error)} ({place.filename}, line {place.lineno}); {TRACEBACK}=1 shows how it came to it"


def _streams() -> None:
    """Closed streams lead nowhere, and a sign that the output cannot show becomes `?`. Raises ValueError in a folder that is gone."""
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
    """Write to a stream whatever it has to write; one that cannot be written leads nowhere from now on."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
