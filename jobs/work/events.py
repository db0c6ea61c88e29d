"""Messages between a command and its workers, one JSON line each: orders on a worker's standard input, events on its output.

Both are checked when they are read; a message of another kind or version, or with an unknown field, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from jobs.spec.config import Plain


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """A line of one JSON object; `kind` names its class."""

    v: Literal[1] = 1


class JobOrder(Message, frozen=True):
    """Make what is missing of one run.

    config: of the run, as plain values. attempt: name of this start. argv: the user's command line. log: the file for the job's
    output. texts: a file of all texts of the sweep, for the first job that loads a large text encoder.
    """

    config: Plain
    attempt: str
    argv: list[str]
    log: str
    texts: str | None = None


class BlocksMade(Message, frozen=True):
    """A number of blocks is made; a negative number subtracts those of a failed video."""

    count: int


class Note(Message, frozen=True):
    """A line for people."""

    line: str


class Elsewhere(Message, frozen=True):
    """Prompts whose videos another process is making."""

    prompts: list[str]


class UnitEnded(Message, frozen=True):
    """A video is made and scored, or has failed. error: the reason."""

    prompt: str
    error: str | None = None


FAILED = 6
"""Status of a job that reported failed units; 1 is the status with which libraries end a process."""


class JobEnded(Message, frozen=True):
    """The job is over: 0 success, `FAILED` a unit failed, 2 the order is refused, 3 it was interrupted, 5 the store cannot be written;
    negative for the signal that killed it. With any other status a library ended it."""

    status: int


Event = BlocksMade | Note | Elsewhere | UnitEnded | JobEnded
Report = Callable[[Event], None]
M = TypeVar("M")


def line(message: Message) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"


def order(text: bytes) -> JobOrder:
    """The order in a line. Raises ValueError in one line for an invalid one."""
    return _read(text, JobOrder)


def event(text: bytes) -> Event:
    """The event in a line. Raises ValueError in one line for an invalid one."""
    return _read(text, Event)  # type: ignore[arg-type]  # a union of types


def _read(text: bytes, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{text[:80]!r}: no message of this version ({error})") from error
