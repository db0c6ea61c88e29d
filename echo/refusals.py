"""Error messages for wrong values: the value, the rule and the nearest valid choice, in one line."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


def nearest(word: object, choices: Iterable[object]) -> str:
    """The choice most similar to a word; "none" without choices."""
    return next(iter(difflib.get_close_matches(str(word), [str(choice) for choice in choices], 1, 0)), "none")


def nearest_of(word: object, choices: Iterable[object]) -> str:
    """A phrase that names the choice most similar to a word, and all choices in their order."""
    names = [str(choice) for choice in choices]
    return f"nearest is {nearest(word, names)} of {', '.join(names)}"


def shown(value: object) -> str:
    """A value as Python writes it, shortened for a message."""
    return brief(repr(value))


def brief(value: object) -> str:
    """A value as it is typed, shortened to 60 characters for a message."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def similar(word: str, choices: Iterable[str], count: int = 1) -> list[str]:
    """Up to `count` choices that are similar to a word, the most similar first."""
    return difflib.get_close_matches(word, list(choices), count, 0.5)


MANY = 30
"""A message does not list more choices than this."""


def suggestion(word: str, choices: Iterable[str]) -> str:
    """A phrase that names the choice most similar to a word, or lists all choices if none is similar and they are few."""
    known = sorted(choices)
    close = similar(word, known) or ([nearest(word, known)] if len(known) > MANY else [])
    return f"nearest is {close[0]}" if close else "valid: " + ", ".join(known)


def one_of(what: str, value: object, choices: Iterable[object]) -> None:
    """Raises ValueError for a value that is not one of the choices; `what` names the setting and the value."""
    names = [str(choice) for choice in choices]
    if str(value) not in names:
        raise ValueError(f"{what}: one of {', '.join(names)}; nearest is {nearest(value, names)}")


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError for a setting outside low..high or not finite, naming the nearest one inside."""
    if low <= value <= high and math.isfinite(value):
        return
    rule = f"{low} or more" if high == math.inf else f"within {low}..{high}"
    closest = low if not math.isfinite(value) and high == math.inf else min(max(low, value), high)
    raise ValueError(f"{name} {value}: {rule}; nearest is {closest}")


PART = r"^\w[\w .+=@,()-]*\Z"
"""Pattern of a name that becomes a folder's or a file's name, or a part of one."""
PART_LENGTH = 80


def path_part(name: str, value: str) -> None:
    """Raises ValueError for a name that is not a valid folder name on every system, or that would lead to another folder."""
    if re.match(PART, value) and len(value.encode()) <= PART_LENGTH:
        return
    close = re.sub(r"^\W+", "", re.sub(r"[^\w .+=@,()-]", "-", value)).encode()[:PART_LENGTH].decode(errors="ignore") or "own"
    rule = f"it names folders, so it is of letters, digits, spaces and _.+=@,()-, begins with a letter or digit and has {PART_LENGTH} bytes"
    raise ValueError(f"{name}={value[:200]!r}: {rule} at most; nearest is {close}")


def positive(settings: Any, *names: str) -> None:
    """Raises ValueError for a setting below 1."""
    for name in names:
        within(name, getattr(settings, name), 1, math.inf)


def multiple_of(size: int, **settings: int) -> None:
    """Raises ValueError for a setting that is not a multiple of `size`, naming the next larger one."""
    for name, value in settings.items():
        if value % size:
            raise ValueError(f"{name} {value}: a multiple of {size}; nearest is {-(-value // size) * size}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; for a YAML file that cannot be parsed, with its file and line."""
    mark: Any = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{mark.name}, line {mark.line + 1}: {getattr(error, 'problem', None)}"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def special(path: Path) -> str:
    """The kind of a path that is neither file nor folder, from which reading may never end; "" for files, folders and missing paths."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return ""
    return {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}.get(kind, "")


@contextlib.contextmanager
def reading(path: Path, advice: str = "download it again") -> Iterator[None]:
    """Turn any error of a reader into a ValueError of one line that begins with the file's name; refuse pipes and devices."""
    try:
        if kind := special(path):
            raise ValueError(f"{path}: is {kind}; a file belongs here")
        yield
    except Exception as error:
        line = first_line(error)
        plain = isinstance(error, ValueError) and not hasattr(error, "errno")  # FFmpeg's errors are ValueErrors too
        if str(path) in line and (plain or hasattr(error, "problem_mark")):
            raise ValueError(line) from None
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}: {line[:200]}); {advice}") from None


class Missing(ValueError):
    """Something that this machine lacks: files, packages, a GPU.

    Args:
        line: the message if nothing else is missing.
        what: the missing thing in a few words.
        remedy: the command that installs or downloads it.
    """

    def __init__(self, line: str, what: str, remedy: str) -> None:
        super().__init__(line)
        self.what, self.remedy = what, remedy


def lacks(*checks: Callable[[], object]) -> Iterator[Missing]:
    """The `Missing` errors that some checks raise; other errors are raised."""
    for check in checks:
        try:
            check()
        except Missing as missing:
            yield missing


def refuse(missing: Iterable[Missing]) -> None:
    """Raises the first `Missing`, if there is one."""
    for one in missing:
        raise one


class Unfinished(Exception):
    """A command did a part of its work; the message has a line for each part that failed, or is empty if those were printed already."""
