"""Origin of measured numbers for the files beside figures: command, commit, machine and digests of files."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from echo.files import ROOT, file_digest

ROOMS = ("echo", "baselines", "data", "eval", "conf")


def origin(command: str, words: Sequence[str]) -> dict[str, str]:
    """The command `echo-harness command words`, the commit (marked if the code has changed since) and the machine."""
    return {
        "command": " ".join(["echo-harness", command, *words]),
        "commit": commit(ROOMS),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, one thread",
    }


def git(*words: str) -> str | None:
    """Output of git in this project; None outside its repository, without git, or if it fails or takes too long.

    An installed package often lies inside the repository of something else, whose commit is not its own.
    """
    if {"site-packages", "dist-packages"} & set(ROOT.parts):
        return None
    try:
        answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def commit(paths: Sequence[str]) -> str:
    """The commit of the code, marked unless git reports no change below `paths`; "unknown" if git names none."""
    head = git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head if git("status", "--porcelain", "--", *paths) == "" else f"{head}-changed"


def digest_if_there(path: Path) -> str:
    """`file_digest` of a file; "missing" if there is none."""
    return file_digest(path) if path.is_file() else "missing"
