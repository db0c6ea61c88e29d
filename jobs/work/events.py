"""What a command and its workers say to one another, a line of JSON each: orders on a worker's standard input, events on its output.

Both are checked when they are read; a message of another kind or version, or with a field that is not known, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from jobs.spec.config import Plain


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """A line of one JSON object; `kind` says of which class it is."""

    v: Literal[1] = 1


class JobOrder(Message, frozen=True):
    """Make what is missing of one run.

    config: of the run, as plain values. attempt: name of this start. argv: the user's command line. log: the file that takes whatever
    the job prints. texts: a file of all texts of the sweep, for whoever loads a large text encoder first.
    """

    config: Plain
    attempt: str
    argv: list[str]
    log: str
    texts: str | None = None


class BlocksMade(Message, frozen=True):
    """So many blocks are made; a negative number takes back those of a video that failed."""

    count: int


class Note(Message, frozen=True):
    """A line for people."""

    line: str


class Elsewhere(Message, frozen=True):
    """Prompts whose videos another process makes."""

    prompts: list[str]


class UnitEnded(Message, frozen=True):
    """A video is there and scored, or has failed. error: why."""

    prompt: str
    error: str | None = None


FAILED = 6
"""How a job ends that told of units that failed; 1 is how libraries end a process, and says nothing of units."""


class JobEnded(Message, frozen=True):
    """The job is over: 0 all is well, `FAILED` a unit failed, 2 the order is refused, 3 it broke off, 5 the store cannot be written; a
    signal that killed it is negative. With any other a library ended it."""

    status: int


Event = BlocksMade | Note | Elsewhere | UnitEnded | JobEnded
Report = Callable[[Event], None]
M = TypeVar("M")


def line(message: Message) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"


def order(text: bytes) -> JobOrder:
    """The order that a line holds. Raises ValueError in one line."""
    return _read(text, JobOrder)


def event(text: bytes) -> Event:
    """The event that a line holds. Raises ValueError in one line."""
    return _read(text, Event)  # type: ignore[arg-type]  # a union of types


def _read(text: bytes, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{text[:80]!r}: no message of this version ({error})") from error
