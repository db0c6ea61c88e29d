"""Where a measured number comes from: command, commit, machine and the digests of files, for what is written beside figures."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from baselines.presets import ROOT

LARGE_BYTES = 2**28
ROOMS = ("echo", "baselines", "data", "eval", "conf")


def origin(module: str, words: Sequence[str]) -> dict[str, str]:
    """The command `python -m module words`, the commit (marked where the code has changed since) and the machine."""
    return {
        "command": " ".join(["python -m", module, *words]),
        "commit": commit(ROOMS),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, one thread",
    }


def git(*words: str) -> str | None:
    """What git says of this project; None outside a repository, without git, or where it fails or takes too long."""
    try:
        answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def commit(paths: Sequence[str]) -> str:
    """The commit of the code, marked unless git says that nothing below `paths` was changed since; "unknown" where git names none."""
    head = git("rev-parse", "HEAD")
    if not head:
        return "unknown"
    return head if git("status", "--porcelain", "--", *paths) == "" else f"{head}-changed"


def file_digest(path: Path) -> str:
    """128 bits of BLAKE2b over a file's bytes, as 32 hex digits; one read per process and version of the file.

    Of a folder: over the names and digests of all its files, hidden ones left out. The digest of a file of gigabytes is kept
    in a hidden file beside it, where the folder can be written to, so that not every process of a sweep reads it whole.
    """
    if path.is_dir():
        files = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
        shown = {name: file for name, file in files.items() if not any(part.startswith(".") for part in name.parts)}
        content = "".join(f"{name.as_posix()}\0{file_digest(file)}\n" for name, file in shown.items())
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    stat = path.stat()
    return _file_digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _file_digest(path: Path, mtime_ns: int, size_bytes: int) -> str:
    version, note = f"{mtime_ns} {size_bytes} ", path.with_name(f".{path.name}.blake2b")
    if size_bytes >= LARGE_BYTES:
        with contextlib.suppress(OSError):
            kept = note.read_text(encoding="ascii")
            if kept.startswith(version) and len(kept) == len(version) + 32:
                return kept.removeprefix(version)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    if size_bytes >= LARGE_BYTES:
        with contextlib.suppress(OSError):
            note.write_text(version + found, encoding="ascii")
    return found


def digest(path: Path) -> str:
    """`file_digest` of a file; "missing" where there is none."""
    return file_digest(path) if path.is_file() else "missing"
