"""The two files of a study, typed: the key, which says what random names stand for, and the answers that a rater's page saves."""

from __future__ import annotations

from typing import Any

import msgspec

VERSION = 1
"""Of keys and of answers."""


class KeyVideo(msgspec.Struct, frozen=True):
    """What a random name stands for."""

    backbone: str
    method: str
    label: str


class KeyGroup(msgspec.Struct, frozen=True):
    """Videos of one prompt and seed by their random names. seconds: length of each of them."""

    task: str
    prompt: str
    seed: int
    seconds: float
    videos: dict[str, KeyVideo]


class KeyTask(msgspec.Struct, frozen=True, rename={"absent": "not in the store", "candidates": "prompts drawn from"}):
    """What was drawn for a task: its rows, the methods that the store has no videos of, the number of prompts drawn from."""

    methods: list[str]
    absent: list[str]
    candidates: int


class StudyKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a study. draw, lot: how its prompts were drawn. page: which page its answers come from."""

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
    """What a rating page saves. order: all that the rater saw, as `eval.study.order.order_of` gives it."""

    v: int
    study: str
    rater: str
    saved: str
    page: str
    order: list[dict[str, str | list[str]]]
    groups: dict[str, GroupAnswers]
