"""Answers of raters: read, checked, un-blinded with the key, and written as ratings that `eval.tables.opinions` reads."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from echo.files import replacing
from echo.refusals import nearest
from eval.study.order import order_of
from eval.study.page import VERSION
from eval.tables.opinions import POINTS

RULES = {
    "damaged": "the file is not one that this study's page wrote",
    "study": "the answers are to another study",
    "copy": "the same file again",
    "rater": "another file of the same rater has as many answers or more; the fullest counts, of equals the newest",
    "missing": "not every question is answered",
    "straight": "in over half of the groups, all videos got the same points in all criteria",
    "fast": "over half of the groups were left in less than half the length of their videos",
}
"""Why answers are not counted, in the order in which it is asked."""
KEEPABLE = ("missing", "straight", "fast")
"""Rules about how somebody answered; whatever breaks another cannot be counted."""
SHARE, HASTE = 0.5, 0.5
"""Of groups, and of their videos' length; see `RULES`."""
COLUMNS = ("rater", "task", "video", "seed", "backbone", "method", "criterion", "rating")


class Refused(ValueError):
    """A file of answers that cannot be counted."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule


@dataclass(frozen=True)
class Key:
    """What the names of a study stand for. groups: as `eval.study.page` writes them."""

    path: Path
    study: str
    page: str
    criteria: tuple[str, ...]
    groups: dict[str, dict[str, Any]]

    @cached_property
    def tasks(self) -> dict[str, dict[str, list[str]]]:
        """Task -> group -> names of its videos."""
        found: dict[str, dict[str, list[str]]] = {}
        for name, group in self.groups.items():
            found.setdefault(group["task"], {})[name] = list(group["videos"])
        return found

    @property
    def asked(self) -> int:
        """Ratings that a whole file has."""
        return sum(len(group["videos"]) for group in self.groups.values()) * len(self.criteria)


@dataclass
class Answers:
    """One file. points: by (group, video, criterion). spent_s, played_s: seconds by group. found: rule -> what broke it."""

    path: Path
    rater: str = ""
    saved: str = ""
    page: str = ""
    digest: str = ""
    points: dict[tuple[str, str, str], int] = field(default_factory=dict)
    spent_s: dict[str, float] = field(default_factory=dict)
    played_s: dict[str, float] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    straight: int = 0
    fast: int = 0


def read_key(path: Path) -> Key:
    """The key of a study. Raises ValueError in one line for a file that is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["v"] != VERSION:
            raise ValueError(f"key={path}: version {content['v']!r} is not known here, version {VERSION} is; update this project")
        return Key(path, content["study"], content["page"], tuple(content["criteria"]), content["groups"])
    except OSError as error:
        raise ValueError(f"key={path}: {error.strerror}; it is the file that build wrote beside the study's folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise ValueError(f"key={path}: no key of a study; it is the file that build wrote beside the study's folder") from None


def key_beside(folder: Path) -> Path:
    """The one key in the folder of answers, beside it or where the command is given. Raises ValueError if it is not one."""
    found = sorted({path.resolve() for place in (folder, folder.parent, Path()) for path in place.glob("*.key.json")})
    if len(found) != 1:
        there = f"{len(found)} keys are there ({', '.join(path.name for path in found)})" if found else "no *.key.json there or beside it"
        raise ValueError(f"{folder}: {there}; say which with key=FILE")
    return found[0]


def gather(folder: Path, key: Key) -> list[Answers]:
    """All files of a folder, each with the rules that it breaks. Raises ValueError where there is none."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.endswith(".key.json")) if folder.is_dir() else []
    if not paths:
        raise ValueError(f"{folder}: no answers; put the *.json files that raters sent into one folder and name it")
    every = [_file(path, key) for path in paths]
    _doubles(every)
    for one in every:
        if not one.found:
            _manners(one, key)
    return every


def _file(path: Path, key: Key) -> Answers:
    content = path.read_bytes()
    one = Answers(path, digest=hashlib.sha256(content).hexdigest())
    try:
        _fill(one, json.loads(content), key)
    except Refused as refusal:
        one.found[refusal.rule] = str(refusal)
    except ValueError:  # not UTF-8, or not JSON
        one.found["damaged"] = "not whole JSON; ask for the file again"
    except (KeyError, TypeError, AttributeError) as error:
        one.found["damaged"] = f"something lacks or is not what the page writes ({type(error).__name__}: {error}); ask for the file again"
    return one


def _fill(one: Answers, content: Any, key: Key) -> None:
    """Take over what a file says. Raises Refused."""
    if not isinstance(content, dict) or "study" not in content:
        raise Refused("damaged", "no answers of a rating page")
    if content["study"] != key.study:
        raise Refused("study", f"answers to study {content['study']}, {key.path.name} is of {key.study}")
    if content["v"] != VERSION or not re.fullmatch("[0-9a-f]{16}", content["rater"]):
        raise Refused("damaged", f"version {content['v']!r} and rater {content['rater']!r} are not what the page writes")
    one.rater, one.saved, one.page = content["rater"], str(content["saved"]), str(content["page"])
    if content["order"] != order_of(one.rater, key.tasks):
        raise Refused("damaged", f"the order is not the one that rater {one.rater} was shown; the file was changed")
    for name, group in content["groups"].items():
        if name not in key.groups:
            raise Refused("damaged", f"group {name} is not in this study")
        one.spent_s[name], one.played_s[name] = float(group["spent_s"]), float(group["played_s"])
        for video, ratings in group["ratings"].items():
            for criterion, (points, _) in ratings.items():
                _allowed(key, name, video, criterion, points)
                one.points[name, video, criterion] = points


def _allowed(key: Key, group: str, video: str, criterion: str, points: object) -> None:
    if video not in key.groups[group]["videos"]:
        raise Refused("damaged", f"video {video} is not in group {group}")
    if criterion not in key.criteria:
        raise Refused("damaged", f"criterion {criterion}: nearest is {nearest(criterion, key.criteria)}")
    if type(points) is not int or points not in POINTS:
        raise Refused("damaged", f"{criterion} of {video} got {points!r}; a whole number from {POINTS[0]} to {POINTS[-1]} is given")


def _doubles(every: Sequence[Answers]) -> None:
    """The same file twice, and several files of one rater."""
    first: dict[str, Answers] = {}
    for one in every:
        other = first.setdefault(one.digest, one)
        if other is not one:
            one.found = {"copy": f"the same bytes as {other.path.name}"}
    best: dict[str, Answers] = {}
    whole = [one for one in every if not one.found]
    for one in sorted(whole, key=lambda one: (len(one.points), one.saved), reverse=True):
        other = best.setdefault(one.rater, one)
        if other is not one:
            counts = f"{len(one.points)} answers, {other.path.name} has {len(other.points)}"
            one.found["rater"] = f"rater {one.rater} again ({counts}{'' if len(one.points) < len(other.points) else ' and is newer'})"


def _manners(one: Answers, key: Key) -> None:
    """How somebody answered."""
    lack = key.asked - len(one.points)
    if lack:
        groups = [name for name, group in key.groups.items() if _given(one, name) < len(group["videos"]) * len(key.criteria)]
        one.found["missing"] = f"{lack} of {key.asked} answers are missing, in {len(groups)} of {len(key.groups)} groups"
    answered = [name for name in key.groups if _given(one, name)]
    one.straight = sum(_is_straight(one, key, name) for name in answered)
    one.fast = sum(one.spent_s[name] < HASTE * key.groups[name]["seconds"] for name in answered)
    if one.straight > SHARE * len(answered):
        one.found["straight"] = f"all the same points in {one.straight} of {len(answered)} groups"
    if one.fast > SHARE * len(answered):
        one.found["fast"] = f"{one.fast} of {len(answered)} groups were left in under half the length of their videos"


def _given(one: Answers, group: str) -> int:
    return sum(name == group for name, _, _ in one.points)


def _is_straight(one: Answers, key: Key, group: str) -> bool:
    """Whether a group of two videos or more got the same points throughout."""
    points = [value for (name, _, _), value in one.points.items() if name == group]
    return len(key.groups[group]["videos"]) > 1 and len(points) > len(key.criteria) and len(set(points)) == 1


def counted(every: Sequence[Answers], keep: Sequence[str]) -> list[Answers]:
    """Files that break no rule but those kept."""
    return [one for one in every if not set(one.found) - set(keep)]


def told(every: Sequence[Answers], key: Key, keep: Sequence[str]) -> list[str]:
    """A table of all files, a line for each rule that one breaks, and the rules that left something out."""
    counts = counted(every, keep)
    head = ("file", "rater", "answers", "minutes", "watched", "alike", "hasty", "counted")
    table = [head, *(_line(one, key, one in counts) for one in every)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in table]
    lines += ["(watched: share of the videos' seconds played, median of groups; alike, hasty: groups; see the rules)", ""]
    for one in every:
        for rule, text in one.found.items():
            lines.append(f"{one.path.name}: {rule}{' (kept)' if rule in keep else ''}: {text}")
        if one.page and one.page != key.page and "study" not in one.found:
            lines.append(f"{one.path.name}: note: answered on page {one.page}, the key is of page {key.page}")
    broken = {rule: sum(rule in one.found for one in every) for rule in RULES}
    lines += [f"rule {rule} ({number}{', kept' if rule in keep else ''}): {RULES[rule]}" for rule, number in broken.items() if number]
    return lines


def _line(one: Answers, key: Key, counts: bool) -> tuple[str, ...]:
    if not one.rater:
        return (one.path.name, "-", "-", "-", "-", "-", "-", "no")
    minutes = sum(one.spent_s.values()) / 60
    shares = [min(1.0, one.played_s[name] / key.groups[name]["seconds"]) for name in one.played_s]
    watched = f"{100 * statistics.median(shares):.0f} %" if shares else "-"
    answers = f"{len(one.points)}/{key.asked}"
    return (one.path.name, one.rater, answers, f"{minutes:.1f}", watched, str(one.straight), str(one.fast), "yes" if counts else "no")


def lines_of(counts: Sequence[Answers], key: Key) -> Iterator[tuple[str | int, ...]]:
    """Ratings, methods in the order of the key, as `COLUMNS`."""
    for name, group in key.groups.items():
        for video, shown in group["videos"].items():
            about = (group["task"], group["prompt"], group["seed"], shown["backbone"], shown["method"])
            for one in sorted(counts, key=lambda one: one.rater):
                for criterion in key.criteria:
                    points = one.points.get((name, video, criterion))
                    if points is not None:
                        yield (one.rater, *about, criterion, points)


def write_ratings(path: Path, rows: Sequence[Sequence[str | int]]) -> None:
    """Write the ratings as CSV, whole or not at all."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def tables_of(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tables that a study's ratings fill."""
    from eval.tables.opinions import TASKS

    return [table for table, tasks in TASKS.items() if any(group["task"] in tasks for group in groups.values())]
