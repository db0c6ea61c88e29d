"""A study's own texts and rules from a YAML file: title, text, consent, criteria, a practice group and checks of attention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from echo.refusals import suggestion
from eval import metrics
from eval.study.files import content_said
from eval.tables.opinions import POINTS

CHECKED = (POINTS[1], POINTS[-2])
"""Points that checks of attention ask for alternately; neither is an end of the scale."""
MOST_CHECKS, MOST_TEXT = 12, 20_000
"""Largest number of checks, and of characters of a text."""


class StudyForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts and rules of a study; the defaults are those of the paper's appendix A.3. Empty lines separate paragraphs.

    title: heading of the page.
    text: shown before the explanation of how videos are rated.
    consent: text that a rater has to agree to before the first group.
    thanks: shown at the end.
    finish: https URL that a rater is sent to once the file is saved, for example Prolific's with its completion code.
    rater: key in the page's URL whose value identifies the rater, for example PROLIFIC_PID; without that value the study cannot begin.
    criteria: name -> question; by default the four of the paper's study.
    practice: shown above a first group that does not count; empty for no such group.
    checks: number of groups that ask for given points, as a test of attention.
    """

    title: str = "Rating videos"
    text: str = ""
    consent: str = ""
    thanks: str = ""
    finish: str = ""
    rater: str = ""
    criteria: dict[str, str] = {}
    practice: str = ""
    checks: int = 0

    @property
    def asked(self) -> dict[str, str]:
        """Criteria and their questions."""
        return self.criteria or metrics.criteria()

    def checks_of(self, tasks: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Task -> the points that its checks ask for; checks are assigned to the tasks in turn."""
        points = [(tasks[index % len(tasks)], CHECKED[index % len(CHECKED)]) for index in range(self.checks)]
        return {task: tuple(value for name, value in points if name == task) for task in tasks}


def read_form(path: Path | None) -> StudyForm:
    """The form of a study; without a file, the paper's. Raises ValueError in one line for an invalid file."""
    if path is None:
        return StudyForm()
    fields = StudyForm.__struct_fields__
    content = content_said("--form", path, f"a YAML file with any of {', '.join(fields)}")
    try:
        form = msgspec.yaml.decode(content, type=StudyForm)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        unknown = re.search("unknown field `(.*?)`", str(error))
        what = f"{unknown[1]}: no such key; {suggestion(unknown[1], fields)}" if unknown else " ".join(str(error).split())
        raise ValueError(f"--form={path}: {what}; a study has {', '.join(fields)}") from None
    for wrong in _wrong(form):
        raise ValueError(f"--form={path}: {wrong}")
    return form


def _wrong(form: StudyForm) -> list[str]:
    """Errors in a form, one line each."""
    lines = [
        f"{name}: {len(value)} characters; {MOST_TEXT} at most"
        for name, value in msgspec.structs.asdict(form).items()
        if isinstance(value, str) and len(value) > MOST_TEXT
    ]
    if not form.title.strip():
        lines.append("title: it is empty; leave it out for “Rating videos”")
    if form.finish and not re.fullmatch(r"https://[^\s\"'<>]+", form.finish):
        lines.append(f"finish: {form.finish!r} is no https address, for example https://app.prolific.com/submissions/complete?cc=CODE")
    if form.rater and not re.fullmatch("[A-Za-z0-9_]{1,40}", form.rater):
        lines.append(f"rater: {form.rater!r} is no key of an address; letters, digits and _ are, for example PROLIFIC_PID")
    for name, question in form.criteria.items():
        if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or not question.strip():
            lines.append(f"criteria: {name!r}: a name in small letters, digits and _, and its question, for example camera: Is it steady?")
    if not 0 <= form.checks <= MOST_CHECKS:
        lines.append(f"checks: {form.checks}: 0 to {MOST_CHECKS}")
    return lines
