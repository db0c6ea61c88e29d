"""The two files of a study, typed: the key, which maps random names to methods, and the answers that a rater's page saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from eval.store.reading import content_of
from eval.store.records import DamagedFile

VERSION = 1
"""Version of keys and of answers."""
PRACTICE = "practice"
"""Task of the group that every rater begins with and that does not count."""


def content_said(word: str, path: Path, what: str) -> bytes:
    """Bytes of a file that a command names. Raises ValueError in one line: the command's word for it, why, and what the file should be."""
    try:
        return content_of(path)
    except (OSError, DamagedFile) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{word}={path}: {why}; {what}") from None


class KeyVideo(msgspec.Struct, frozen=True):
    """The meaning of a random name."""

    backbone: str
    method: str
    label: str


class KeyGroup(msgspec.Struct, frozen=True):
    """Videos of one prompt and seed by their random names.

    seconds: length of each of them.
    check: the points that raters are told to give to all of them as an attention check; 0 for a rated group.
    """

    task: str
    prompt: str
    seed: int
    seconds: float
    videos: dict[str, KeyVideo]
    check: int = 0

    @property
    def counts(self) -> bool:
        """Whether its ratings count."""
        return self.task != PRACTICE and not self.check


class KeyTask(msgspec.Struct, frozen=True, rename={"absent": "not in the store", "candidates": "prompts drawn from"}):
    """The draw of a task: its rows, methods without videos in the store, the number of prompts drawn from."""

    methods: list[str]
    absent: list[str]
    candidates: int


class StudyKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a study.

    draw, lot: random seed and rule by which its prompts were drawn.
    page: id of the page that its answers come from.
    consent: whether raters had to give consent.
    """

    v: int
    made: str = ""
    store: str = ""
    seeds: tuple[int, ...] = ()
    draw: int = 0
    lot: str = ""
    criteria: tuple[str, ...]
    tasks: dict[str, KeyTask] = {}
    groups: dict[str, KeyGroup]
    study: str
    page: str
    consent: bool = False

    @property
    def shown(self) -> dict[str, dict[str, list[str]]]:
        """Task -> group -> names of its videos."""
        shown: dict[str, dict[str, list[str]]] = {}
        for name, group in self.groups.items():
            shown.setdefault(group.task, {})[name] = list(group.videos)
        return shown

    @property
    def questions(self) -> int:
        """Number of ratings in a complete file of answers."""
        return sum(len(group.videos) for group in self.groups.values()) * len(self.criteria)


class GroupAnswers(msgspec.Struct, frozen=True):
    """A rater's answers for a group, with times in seconds. ratings: points (checked later) and time, by video and criterion."""

    spent_s: float
    played_s: float
    ratings: dict[str, dict[str, tuple[Any, float]]]


class AnswersFile(msgspec.Struct, frozen=True):
    """The file that a rating page saves.

    order: everything that the rater saw, as in `eval.study.order.order_of`.
    participant: id of the rater in the page's URL; "" if the study asks for none.
    consented: time of the rater's consent.
    """

    v: int
    study: str
    rater: str
    saved: str
    page: str
    order: list[dict[str, str | list[str]]]
    groups: dict[str, GroupAnswers]
    participant: str = ""
    consented: str = ""

    @property
    def person(self) -> str:
        """The rater: the id in the URL, or the page's random id."""
        return self.participant or self.rater
