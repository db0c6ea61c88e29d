"""The command line in a process of its own, and a single command in this one."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from jobs import cli
from jobs.cli.commands import GROUPS, Kinds, group
from jobs.cli.words import command

ECHO_HARNESS = (sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())")
"""What the console script of the package does, whatever is installed."""


def carried_out(name: str, target: str, words: Sequence[str]) -> list[str]:
    """The lines that a command prints. Raises what its function raises."""
    out = io.StringIO()
    with redirect_stdout(out):
        command(name, target).main(list(words), standalone_mode=False)
    return out.getvalue().splitlines()


def ended_here(call: Callable[[], int | None], mistake: int = 2) -> subprocess.CompletedProcess[str]:
    """What a command line ends in, carried out in this process, which has imported everything."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.ended(call, mistake)
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess([], status, out.getvalue(), err.getvalue())


def understood(words: Sequence[str]) -> dict[str, Any]:
    """What a command takes words for; nothing is done. Raises ValueError or TyperException for words that are not understood."""
    made: Any
    made, plain = group("", GROUPS), [word for word in words if word != "--help"]
    if not plain:
        return {}
    context = made.make_context("echo-harness", plain)
    while isinstance(made, Kinds):
        name, made, rest = made.resolve_command(context, [*context._protected_args, *context.args])
        context = made.make_context(name, rest, parent=context, resilient_parsing="--help" in words)
        made = context.command
    return dict(context.params)
