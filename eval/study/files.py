"""The two files of a study, typed: the key, which says what random names stand for, and the answers that a rater's page saves."""

from __future__ import annotations

from typing import Any

import msgspec

VERSION = 1
"""Of keys and of answers."""
PRACTICE = "practice"
"""Task of the group that every rater begins with and that does not count."""


class KeyVideo(msgspec.Struct, frozen=True):
    """What a random name stands for."""

    backbone: str
    method: str
    label: str


class KeyGroup(msgspec.Struct, frozen=True):
    """Videos of one prompt and seed by their random names.

    seconds: length of each of them.
    check: the points that raters are told to give to all of them, to see who reads; 0 where they are rated.
    """

    task: str
    prompt: str
    seed: int
    seconds: float
    videos: dict[str, KeyVideo]
    check: int = 0

    @property
    def counts(self) -> bool:
        """Whether its ratings say something of the videos."""
        return self.task != PRACTICE and not self.check


class KeyTask(msgspec.Struct, frozen=True, rename={"absent": "not in the store", "candidates": "prompts drawn from"}):
    """What was drawn for a task: its rows, the methods that the store has no videos of, the number of prompts drawn from."""

    methods: list[str]
    absent: list[str]
    candidates: int


class StudyKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a study.

    draw, lot: how its prompts were drawn.
    page: which page its answers come from.
    consent: whether raters had to agree to something.
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
        """Ratings that a whole file of answers has."""
        return sum(len(group.videos) for group in self.groups.values()) * len(self.criteria)


class GroupAnswers(msgspec.Struct, frozen=True):
    """What a rater did with a group, in seconds. ratings: by video and criterion, points (checked later) and when they were given."""

    spent_s: float
    played_s: float
    ratings: dict[str, dict[str, tuple[Any, float]]]


class AnswersFile(msgspec.Struct, frozen=True):
    """What a rating page saves.

    order: all that the rater saw, as `eval.study.order.order_of` gives it.
    participant: id of the rater in the page's address; "" where the study asks for none.
    consented: when the rater agreed to what the study asks for.
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
        """Who rated: the id of the address, or the page's random one."""
        return self.participant or self.rater
