"""Copies of weights on a disk of this machine, so that its processes read them over the network once."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from echo.files import file_digest

SCRATCH = "ECHO_SCRATCH"
"""The variable that names a folder on this machine's own disk; `launcher.scratch` sets it in jobs."""


def staged(path: Path, content: str, note: Callable[[str], None]) -> Path:
    """The copy of a file or folder of weights on this machine's own disk. The first process copies, others wait for it.

    Args:
        path: the file or folder.
        content: its `file_digest`. It names the copy and is checked, so that neither half a copy nor another content is ever read.
        note: called with a line for a copy that was made, or with the reason why there is none.

    Returns:
        `path` itself without `ECHO_SCRATCH`, and where nothing can be copied there.
    """
    place = os.environ.get(SCRATCH)
    if place is None:
        return path
    try:
        if not place:
            raise NotADirectoryError(f"{SCRATCH} is empty here")
        return _copy(path, content, Path(place) / f"echo-weights-{os.getuid()}", note)
    except OSError as error:
        note(f"{path} is read where it is, not from scratch: {error}")
        return path


def _copy(path: Path, content: str, folder: Path, note: Callable[[str], None]) -> Path:
    """The copy in this user's folder of copies, made unless it is whole there. Raises OSError if it cannot be made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "somebody else's folder", str(folder))
    copy, part = folder / content / path.name, folder / f".{content}.part"
    with (folder / f".{content}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if copy.exists() and file_digest(copy) == content:
            return copy
        for old in (part, copy.parent):  # what a killed process or a purge has left
            shutil.rmtree(old, ignore_errors=True)
        wanted, free = _bytes(path), shutil.disk_usage(folder).free
        if wanted > free:
            raise OSError(errno.ENOSPC, f"{wanted / 1e9:.1f} GB do not fit into {free / 1e9:.1f} GB", str(folder))
        begin = time.monotonic()
        try:
            part.mkdir()
            if path.is_dir():  # without its hidden notes of digests, which must be the copy's own
                shutil.copytree(path, part / path.name, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".*"))
            else:
                shutil.copyfile(path, part / path.name)
            if file_digest(part / path.name) != content:
                raise OSError(errno.EIO, "its copy has another content", str(part))
            part.rename(copy.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    note(f"{path.name}: {wanted / 1e9:.1f} GB copied to {folder} in {time.monotonic() - begin:.0f} s")
    return copy


def _bytes(path: Path) -> int:
    """Size of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
