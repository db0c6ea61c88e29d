"""Errors of a store that cannot be written, which are not failures of a unit, and their one-line message."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

STORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""Errors of a full, read-only or broken disk, a quota, or a file server that has lost its files."""
STATUS = 5
"""Exit status of a worker that could not write."""


class StoreGone(OSError):
    """A store that was deleted or renamed under a running command."""

    def __init__(self, path: Path) -> None:
        """path: the missing file."""
        super().__init__(errno.ENOENT, "it was deleted or renamed while the command ran", str(path))


def of_store(error: BaseException) -> bool:
    """Whether an error is of the disk, not of the unit."""
    return isinstance(error, StoreGone) or isinstance(error, OSError) and error.errno in STORE


def refusal(store: str, error: OSError) -> str:
    """One line about a store that cannot be written."""
    kept = "what is finished is kept, and the same command goes on"
    advice = {errno.ENOSPC: f"free some space; {kept}", errno.EDQUOT: f"free some space; {kept}"}
    advice |= {errno.EIO: f"its disk fails; {kept} once it answers", errno.ESTALE: f"its file server fails; {kept} once it answers"}
    advice |= {errno.ENOENT: "rename it back, or give the same command again, which makes what is missing"}
    nearest = "a store is a folder of yours, for example store=results"
    return f"store={store}: cannot be written ({error.strerror or error}); {advice.get(error.errno or 0, nearest)}"


def check(store: str) -> None:
    """Make a store's folder and try to write there. Raises OSError."""
    Path(store).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=store) as file:
        file.write(b"\0" * 4096)
        file.flush()
