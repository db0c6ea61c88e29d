"""Finding and opening a store's files: foreign files are skipped, unreadable ones are left out and named.

A store may have been edited, copied or moved to another disk, and parts of it may belong to another user. An unreadable file never counts
as absent, and no read waits: a pipe in a file's place is refused like a folder.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from data.outgoing import said
from eval.store.records import Content, DamagedFile, decoded

LARGEST_BYTES = 2**32
"""Most bytes of a file that is read at once."""


class LeftOut(UserWarning):
    """Part of a store cannot be read: a line with its file, the reason, and what is left out."""


def leave_out(line: object) -> None:
    """Warn that something is left out; once per process."""
    warnings.warn(str(line), LeftOut, stacklevel=2)


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Collect the warnings of what is left out inside the block, in order, each line once; they are also passed on."""
    lines = list[str]()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", LeftOut)
        yield lines
    for one in heard:
        if isinstance(one.message, LeftOut):
            lines += [str(one.message)] * (str(one.message) not in lines)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    for line in lines:
        leave_out(line)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """For a command: each warning of what is left out is printed once, as a line on standard error."""
    lines = set[str]()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *rest: object, **more: object) -> None:
            if not issubclass(category, LeftOut):
                show(message, category, *rest, **more)  # type: ignore[arg-type]
            elif str(message) not in lines:
                lines.add(str(message))
                sys.stderr.write(f"{said(f'left out: {message}')}\n")

        warnings.showwarning = tell
        warnings.simplefilter("always", LeftOut)
        yield


def names_in(folder: str | Path, ending: str = "", say: Callable[[str], None] = leave_out) -> list[str]:
    """Sorted names in a folder without hidden ones (`._x`, `.DS_Store`); empty if there is no folder or, with a call of `say`, if it
    cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(ending) and not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        say(f"{folder}: cannot be read ({error.strerror}), nor what is in it")
        return []


def content_of(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        DamagedFile: it may not be read, is no file (a folder, a pipe, a loop of links), or is too large for a store's file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            about = os.fstat(handle)
            if stat.S_ISREG(about.st_mode) and about.st_size <= LARGEST_BYTES:
                return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise DamagedFile(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    kind = "a file of 4 GB" if stat.S_ISREG(about.st_mode) else "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
    raise DamagedFile(f"{path}: {kind} stands where a file of a store should")


def read(path: str | Path, kind: type[Content], say: Callable[[str], None] = leave_out, lost: str = "it") -> Content | None:
    """The content of a file; None if there is none or, with a call of `say`, if it is damaged. lost: what is left out then.

    Raises UnknownVersion like `decoded`.
    """
    try:
        content = content_of(path)
        content.decode()  # a decoder skips unknown fields without checking their UTF-8
        return decoded(content, kind, Path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        say(f"{path}: byte {error.start} is not UTF-8; {lost} is left out")
        return None
    except DamagedFile as error:
        say(f"{error}; {lost} is left out")
        return None
