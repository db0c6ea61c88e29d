"""A store that cannot be written: no unit is to blame, and people are told in one line."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

STORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
"""A full disk, a quota, a read-only or broken disk, a file server that has lost its files."""
STATUS = 5
"""How a worker ends that could not write."""


def of_store(error: BaseException) -> bool:
    """Whether an error is the disk's and not the unit's."""
    return isinstance(error, OSError) and error.errno in STORE


def refusal(store: str, error: OSError) -> str:
    """One line about a store that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space; what is finished is kept, and the same command goes on" if full else "a store is a folder of yours"
    return f"store={store}: cannot be written ({error.strerror or error}); {advice}, for example store=results"


def check(store: str) -> None:
    """Make a store's folder and try to write there. Raises OSError."""
    Path(store).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=store) as file:
        file.write(b"\0" * 4096)
        file.flush()
