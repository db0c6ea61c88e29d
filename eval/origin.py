"""Where a measured number comes from: command, commit, machine and the digests of files, for what is written beside figures."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from echo.presets import ROOT

ROOMS = ("echo", "baselines", "data", "eval", "conf")


def origin(module: str, words: Sequence[str]) -> dict[str, str]:
    """The command `python -m module words`, the commit (marked where the code has changed since) and the machine."""
    return {
        "command": " ".join(["python -m", module, *words]),
        "commit": commit(ROOMS),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, one thread",
    }


def git(*words: str) -> str:
    """What git says of this project; nothing outside a repository, without git, or where it takes too long."""
    try:
        answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def commit(paths: Sequence[str]) -> str:
    """The commit of the code, marked where anything below `paths` was changed since; "unknown" outside a repository."""
    return (git("rev-parse", "HEAD") or "unknown") + ("-changed" if git("status", "--porcelain", "--", *paths) else "")


def file_digest(path: Path) -> str:
    """128 bits of BLAKE2b over a file's bytes, as 32 hex digits; one read per process and version of the file."""
    stat = path.stat()
    return _file_digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _file_digest(path: Path, mtime_ns: int, size_bytes: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest(path: Path) -> str:
    """`file_digest` of a file; "missing" where there is none."""
    return file_digest(path) if path.is_file() else "missing"
