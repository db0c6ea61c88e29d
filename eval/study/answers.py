"""Answers of raters: read, checked, un-blinded with the key, and written as ratings that `eval.tables.opinions` reads."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec
import pandas as pd

from data.outgoing import said
from echo.refusals import nearest
from eval.study.files import VERSION, AnswersFile, StudyKey, content_said
from eval.study.order import order_of
from eval.tables.opinions import POINTS, TASKS

RULES = {
    "damaged": "the file is not one that this study's page wrote",
    "study": "the answers are to another study",
    "consent": "the rater did not agree to what the study asks for",
    "copy": "the same file again",
    "rater": "another file of the same rater has as many answers or more; the fullest counts, of equals the newest",
    "missing": "not every question is answered",
    "straight": "in over half of the groups, all videos got the same points in all criteria",
    "attention": "a check of attention did not get the points that it asks for",
    "fast": "over half of the groups were left in less than half the length of their videos",
}
"""Reasons for which answers are excluded, in the order in which they are checked."""
KEEPABLE = ("missing", "straight", "attention", "fast")
"""Rules about a rater's way of answering, which `keep=` can waive."""
SHARE, HASTE = 0.5, 0.5
"""Limits of `RULES`: share of groups, and share of their videos' length."""
MOST_BYTES, MOST_S = 2**24, 10_000_000
"""Largest file, and longest time of a group (a third of a year: an unwatched page stays open for days)."""
MOST_SAID = 300
"""Longest explanation of why a file does not count, in characters."""
COLUMNS = ("rater", "task", "video", "seed", "backbone", "method", "criterion", "rating")


class RefusedAnswers(ValueError):
    """A file of answers that cannot be counted."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule


@dataclass
class RaterAnswers:
    """One file. answers: None if it is not of this study. broken: rule -> explanation. straight, fast: number of such groups."""

    path: Path
    digest: str
    answers: AnswersFile = AnswersFile(VERSION, "", "", "", "", [], {})
    broken: dict[str, str] = field(default_factory=dict)
    straight: int = 0
    fast: int = 0

    @cached_property
    def points(self) -> dict[tuple[str, str, str], int]:
        """Points by group, video and criterion."""
        return {
            (name, video, criterion): points
            for name, group in self.answers.groups.items()
            for video, ratings in group.ratings.items()
            for criterion, (points, _) in ratings.items()
        }


def read_key(path: Path) -> StudyKey:
    """The key of a study. Raises ValueError in one line for a file that is not a key."""
    what = "it is the file that build wrote beside the study's folder"
    content = content_said("key", path, what)
    try:
        key = msgspec.json.decode(content, type=StudyKey)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"key={path}: no key of a study; {what}") from None
    if key.v != VERSION:
        raise ValueError(f"key={path}: version {key.v!r} is not known here, version {VERSION} is; update this project")
    return key


def key_beside(folder: Path) -> Path:
    """The only key in the folder of answers, beside it or in the current folder. Raises ValueError if there is none or several."""
    keys = sorted({path.resolve() for place in (folder, folder.parent, Path()) for path in place.glob("*.key.json")})
    if len(keys) != 1:
        many = f"{len(keys)} keys are there ({', '.join(path.name for path in keys)})"
        raise ValueError(f"{folder}: {many if keys else 'no *.key.json there or beside it'}; say which with key=FILE")
    return keys[0]


def gather(folder: Path, key: StudyKey) -> list[RaterAnswers]:
    """All files of a folder, each with the rules that it breaks. Raises ValueError if there is none."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.endswith(".key.json")) if folder.is_dir() else []
    paths = [path for path in paths if not path.name.startswith(".")]  # `._answers.json` of a Mac
    if not paths:
        raise ValueError(f"{folder}: no answers; put the *.json files that raters sent into one folder and name it")
    every = [_file(path, key) for path in paths]
    _doubles(every)
    for one in every:
        if not one.broken:
            _manners(one, key)
    return every


class _Which(msgspec.Struct):
    """The study of a file of answers."""

    study: str


def _file(path: Path, key: StudyKey) -> RaterAnswers:
    one = RaterAnswers(path, path.name)
    try:
        if not path.is_file():  # a folder, or a pipe, which would block
            raise RefusedAnswers("damaged", "no file; ask for the file again")
        if path.stat().st_size > MOST_BYTES:
            raise RefusedAnswers("damaged", f"larger than {MOST_BYTES >> 20} MiB, which no page writes; ask for the file again")
        content = path.read_bytes()
        one.digest = hashlib.sha256(content).hexdigest()
        one.answers = _answers(content, key)
    except RefusedAnswers as refusal:
        one.broken[refusal.rule] = str(refusal)[:MOST_SAID]
    except msgspec.ValidationError as error:
        one.broken["damaged"] = f"something lacks or is not what the page writes ({error}); ask for the file again"
    except (msgspec.DecodeError, UnicodeDecodeError):
        one.broken["damaged"] = "not whole JSON; ask for the file again"
    except Exception as error:  # one bad file must not stop the others
        one.broken["damaged"] = f"cannot be read ({type(error).__name__}: {error})"[:MOST_SAID]
    return one


def _answers(content: bytes, key: StudyKey) -> AnswersFile:
    """The content of a file. Raises RefusedAnswers."""
    try:
        study = msgspec.json.decode(content, type=_Which).study
    except msgspec.ValidationError:
        raise RefusedAnswers("damaged", "no answers of a rating page") from None
    if study != key.study:
        raise RefusedAnswers("study", f"answers to study {study}, the key is of {key.study}")
    answers = msgspec.json.decode(content, type=AnswersFile)
    if answers.v != VERSION or not re.fullmatch("[0-9a-f]{16}", answers.rater):
        raise RefusedAnswers("damaged", f"version {answers.v!r} and rater {answers.rater!r} are not what the page writes")
    if answers.order != order_of(answers.rater, key.shown):
        raise RefusedAnswers("damaged", f"the order is not the one that rater {answers.rater} was shown; the file was changed")
    if answers.participant and not re.fullmatch(r"[\w.@-]{1,100}", answers.participant, re.ASCII):
        raise RefusedAnswers("damaged", f"participant {answers.participant!r} is not what the page writes")
    if key.consent and not answers.consented:
        raise RefusedAnswers("consent", "no consent is in the file; its answers must not be used")
    for name, group in answers.groups.items():
        if name not in key.groups:
            raise RefusedAnswers("damaged", f"group {name} is not in this study")
        if not all(0 <= seconds <= MOST_S for seconds in (group.spent_s, group.played_s)):
            raise RefusedAnswers("damaged", f"group {name} took {group.spent_s:g} s, of which {group.played_s:g} s were played")
        for video, ratings in group.ratings.items():
            for criterion, (points, _) in ratings.items():
                _allowed(key, name, video, criterion, points)
    return answers


def _allowed(key: StudyKey, group: str, video: str, criterion: str, points: object) -> None:
    if video not in key.groups[group].videos:
        raise RefusedAnswers("damaged", f"video {video} is not in group {group}")
    if criterion not in key.criteria:
        raise RefusedAnswers("damaged", f"criterion {criterion}: nearest is {nearest(criterion, key.criteria)}")
    if type(points) is not int or points not in POINTS:
        raise RefusedAnswers("damaged", f"{criterion} of {video} got {points!r}; a whole number from {POINTS[0]} to {POINTS[-1]} is given")


def _doubles(every: Sequence[RaterAnswers]) -> None:
    """Mark duplicate files, and further files of one rater."""
    first: dict[str, RaterAnswers] = {}
    for one in every:
        other = first.setdefault(one.digest, one)
        if other is not one:
            one.broken = {"copy": f"the same bytes as {other.path.name}"}
    best: dict[str, RaterAnswers] = {}
    whole = [one for one in every if not one.broken]
    for one in sorted(whole, key=lambda one: (len(one.points), one.answers.saved), reverse=True):
        other = best.setdefault(one.answers.person, one)
        if other is not one:
            newer = "" if len(one.points) < len(other.points) else " and is newer"
            counts = f"{len(one.points)} answers, {other.path.name} has {len(other.points)}"
            one.broken["rater"] = f"rater {said(one.answers.person)} again ({counts}{newer})"


def _manners(one: RaterAnswers, key: StudyKey) -> None:
    """Apply the rules about a rater's way of answering."""
    points = {name: list[int]() for name in key.groups}
    for (name, _, _), value in one.points.items():
        points[name].append(value)
    lack = key.questions - len(one.points)
    if lack:
        groups = [name for name, group in key.groups.items() if len(points[name]) < len(group.videos) * len(key.criteria)]
        one.broken["missing"] = f"{lack} of {key.questions} answers are missing, in {len(groups)} of {len(key.groups)} groups"
    failed = [name for name, group in key.groups.items() if group.check and set(points[name]) - {group.check}]
    if failed:
        checks = sum(bool(group.check) for group in key.groups.values())
        one.broken["attention"] = f"{len(failed)} of {checks} checks got other points than they ask for"
    answered = {name: values for name, values in points.items() if values and key.groups[name].counts}
    one.straight = sum(
        len(key.groups[name].videos) > 1 and len(values) > len(key.criteria) and len(set(values)) == 1 for name, values in answered.items()
    )
    one.fast = sum(not one.answers.groups[name].spent_s >= HASTE * key.groups[name].seconds for name in answered)  # NaN counts as too fast
    if one.straight > SHARE * len(answered):
        one.broken["straight"] = f"all the same points in {one.straight} of {len(answered)} groups"
    if one.fast > SHARE * len(answered):
        one.broken["fast"] = f"{one.fast} of {len(answered)} groups were left in under half the length of their videos"


def counted(every: Sequence[RaterAnswers], keep: Sequence[str]) -> list[RaterAnswers]:
    """Files that break only rules in `keep`."""
    return [one for one in every if not set(one.broken) - set(keep)]


def told(every: Sequence[RaterAnswers], key: StudyKey, keep: Sequence[str]) -> list[str]:
    """A table of all files, a line for each rule that a file breaks, and the rules that excluded files."""
    counts = counted(every, keep)
    head = ("file", "rater", "answers", "minutes", "watched", "alike", "hasty", "counted")
    table = [head, *(_line(one, key, one in counts) for one in every)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in table]
    lines += ["(watched: share of the videos' seconds played, median of groups; alike, hasty: groups; see the rules)", ""]
    for one in every:
        for rule, text in one.broken.items():
            lines.append(f"{_name(one)}: {rule}{' (kept)' if rule in keep else ''}: {text}")
        if one.answers.page and one.answers.page != key.page:
            lines.append(f"{_name(one)}: note: answered on page {one.answers.page}, the key is of page {key.page}")
    broken = {rule: sum(rule in one.broken for one in every) for rule in RULES}
    lines += [f"rule {rule} ({number}{', kept' if rule in keep else ''}): {RULES[rule]}" for rule, number in broken.items() if number]
    return lines


def _name(one: RaterAnswers) -> str:
    """A file's name on one line, with control characters escaped."""
    return said(" ".join(one.path.name.splitlines()))


def _line(one: RaterAnswers, key: StudyKey, counts: bool) -> tuple[str, ...]:
    if not one.answers.rater:
        return (_name(one), "-", "-", "-", "-", "-", "-", "no")
    groups = one.answers.groups
    minutes = sum(group.spent_s for group in groups.values()) / 60
    shares = [min(1.0, group.played_s / key.groups[name].seconds) for name, group in groups.items()]
    watched, answers = f"{100 * statistics.median(shares):.0f} %" if shares else "-", f"{len(one.points)}/{key.questions}"
    numbers = (answers, f"{minutes:.1f}", watched, str(one.straight), str(one.fast))
    return (_name(one), said(one.answers.person), *numbers, "yes" if counts else "no")


def ratings_of(counts: Sequence[RaterAnswers], key: StudyKey) -> pd.DataFrame:
    """Ratings with the columns `COLUMNS`, methods in the order of the key."""
    lines = [
        (one.answers.rater, *about, criterion, one.points[name, video, criterion])
        for name, group in key.groups.items()
        for video, shown in group.videos.items()
        for about in [(group.task, group.prompt, group.seed, shown.backbone, shown.method)]
        for one in sorted(counts, key=lambda one: one.answers.rater)
        for criterion in key.criteria
        if group.counts and (name, video, criterion) in one.points
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def tables_of(key: StudyKey) -> list[str]:
    """The tables that a study's ratings fill."""
    return [table for table, tasks in TASKS.items() if any(group.task in tasks for group in key.groups.values())]
