"""The command line `echo-harness`: what is computed is `key=value`, as in run.py; where it goes or how it is shown is a `--flag`.

`store=` is the one key that some commands have in common with run.py: those that take run.py's words (run, suite, live, plan) take it as a
key, those that read a store take `--store DIR`; the other form is refused with a line that names the right one.
Exit status: 0 all is well, 1 something failed or is incomplete, 2 a user's mistake, told in one line; 130 where it was stopped.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from typer import TyperException

from data.outgoing import said
from echo.refusals import Unfinished
from eval.store.reading import told
from jobs.cli.commands import GROUPS, group

NAME = "echo-harness"
MISTAKES = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, FileExistsError)


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command line, the process's own by default; its exit status."""
    asked = list(sys.argv[1:] if words is None else words)
    complete = f"_{NAME.replace('-', '_').upper()}_COMPLETE"
    try:
        with told():
            return int(group("", GROUPS).main(asked or ["--help"], NAME, complete, standalone_mode=False) or 0)
    except Unfinished as error:
        _tell(error)
        return 1
    except (TyperException, ValueError) as error:
        _tell(error.format_message() if isinstance(error, TyperException) else error)
        return 2
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read the output has enough of it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 1
        _tell(error)
        return 2 if isinstance(error, MISTAKES) else 1
    except SystemExit as end:
        if isinstance(end.code, str):
            _tell(end.code)
            return 2
        return int(end.code or 0)
    except KeyboardInterrupt:
        _tell("stopped; the same command goes on")
        return 130


def _tell(line: object) -> None:
    sys.stdout.flush()
    if str(line):
        sys.stderr.write(f"{said(line)}\n")
