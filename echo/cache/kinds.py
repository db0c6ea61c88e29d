"""Kinds of context frames, as all figures and tables show them, and names of the memories that a store keeps besides frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby


class Kind(StrEnum):
    """The kinds of context frames. words: for people. letter: in the paper's C.6. colour: in every figure of the project."""

    words: str
    letter: str
    colour: str

    def __new__(cls, value: str, words: str, letter: str, colour: str) -> Kind:
        kind = str.__new__(cls, value)
        kind._value_, kind.words, kind.letter, kind.colour = value, words, letter, colour
        return kind

    SINK = "sink", "sink", "S", "#8c564b"
    ANCHOR = "anchor", "anchors", "A", "#1f77b4"
    COMPRESSED = "compressed", "compressed", "C", "#9467bd"
    SUMMARY = "summary", "summary", "M", "#17becf"
    RECENT = "recent", "recent", "R", "#2ca02c"
    OLD = "old", "old scene", "O", "#c7a76c"
    RECALLED = "recalled", "recalled", "E", "#d62728"
    CURRENT = "current", "this block", "+", "#c8c8c8"


def letters(kinds: Iterable[Kind]) -> str:
    """Kinds in the letters of C.6, with the length of each run: `A12 C3 R3 +3`."""
    return " ".join(f"{kind.letter}{sum(1 for _ in same)}" for kind, same in groupby(kinds))


@dataclass(frozen=True, slots=True)
class MemoryName:
    """A frame's worth of tokens that a store keeps by name: `srf0` is `MemoryName("srf", 0, Kind.RECALLED)`.

    placed: its tokens come from several frames, and the store keeps each token's own place.
    """

    word: str
    number: int | None = None
    kind: Kind = field(default=Kind.SUMMARY, compare=False)
    placed: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.word if self.number is None else f"{self.word}{self.number}"


Source = int | MemoryName
"""Source of a slot's tokens: a latent frame by its number, or a memory by its name."""

COMPRESSED = MemoryName("cmp", kind=Kind.COMPRESSED)
"""Slots that the plan's selection fills; no store has this name."""


def recall_of(scene: int) -> MemoryName:
    """The recall frame of a scene."""
    return MemoryName("srf", scene, Kind.RECALLED)


def chosen(rank: int) -> MemoryName:
    """One frame's worth of chosen tokens, by rank."""
    return MemoryName("top", rank, Kind.COMPRESSED, placed=True)


def kind_of(label: str) -> Kind:
    """Kind of a memory by its name in a trace; an unknown name is a summary."""
    shipped = {name.word: name.kind for name in (COMPRESSED, recall_of(0), chosen(0))}
    return shipped.get(label.rstrip("0123456789"), Kind.SUMMARY)
