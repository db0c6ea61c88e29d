"""Where a measured number comes from: command, commit, machine and the digests of files, for what is written beside figures."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from echo.presets import ROOT

ROOMS = ("echo", "baselines", "data", "eval", "conf")


def origin(module: str, words: Sequence[str]) -> dict[str, str]:
    """The command `python -m module words`, the commit (marked where the code has changed since) and the machine."""
    changed = "-changed" if _git("status", "--porcelain", "--", *ROOMS) else ""
    return {
        "command": " ".join(["python -m", module, *words]),
        "commit": (_git("rev-parse", "HEAD") or "unknown") + changed,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, one thread",
    }


def _git(*words: str) -> str:
    """What git says, or nothing outside a repository."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def digest(path: Path) -> str:
    """BLAKE2b of a file, 32 hex digits; "missing" where there is none."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else "missing"
