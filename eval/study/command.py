"""A study with people, from a store to Tables 4 and 5: a rating page, and its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.outgoing import without_formulas
from echo.files import RESULTS, write_atomic
from echo.refusals import Unfinished, nearest, nearest_of
from eval.store.rows import left_out
from eval.store.runs import existing
from eval.study.answers import KEEPABLE, RULES, counted, gather, key_beside, ratings_of, read_key, tables_of, told
from eval.study.choice import Choice, StudyRequest, choose, settings
from eval.study.form import StudyForm, read_form
from eval.study.page import focus, free, write
from eval.tables import opinions

KINDS = [task for tasks in opinions.TASKS.values() for task in tasks]


def build(
    words: Sequence[str],
    /,
    task: str = "long60,smooth,hard,recall",
    method: Sequence[str] = (),
    seed: Sequence[str] = ("0",),
    groups: int = 6,
    draw: int = 0,
    contact: str = "",
    *,
    store: Path = RESULTS,
    output: Path = Path("study"),
    key: Path | None = None,
    form: Path | None = None,
) -> list[str]:
    """Write a rating page from a store: a static folder for any web host, with names hidden, and its key.

        echo-harness study build contact="me@lab.example" --output study
        echo-harness study build task=long60,recall method.long60=echo,longlive groups=4
        echo-harness study build --form study.yaml

    Args:
        words: the methods of a single task, method.TASK=NAME,NAME.
        task: tasks that raters see.
        method: presets; by default the rows of Table 1 or 2 that the store has.
        seed: of the runs.
        groups: prompts of each task, drawn among those of which all methods have a video.
        draw: random seed of the prompts.
        contact: where raters send their file.
        store: the run store.
        output: the folder.
        key: the file that maps the videos' random names to methods; OUTPUT.key.json by default.
        form: a YAML file with the study's own title, text, consent, criteria, practice and checks.
    """
    key = key or output.with_name(f"{output.name}.key.json")
    free(output, key)
    words_of = read_form(form)
    wanted = _wanted(words_of, store, task, method, _own(words, task), [_number("seed", word, 0) for word in seed], groups, draw)
    choices = [choose(wanted, name, presets) for name, presets in wanted.methods.items()]
    made = write(choices, wanted, words_of, output, key, contact)
    ratings = made.videos * len(words_of.asked)
    hours = f"{made.seconds / 60:.0f} minutes of video and {ratings} ratings for each rater"
    return [
        *(line for choice in choices for line in _about(choice)),
        *(f"note: {remark}: raters see it twice" for remark in made.remarks),
        f"study: {output} ({made.videos} videos, {made.size / 1e6:.1f} MB), {hours}",
        f"key: {key}, which says what is what: keep it, and off the web host",
        f"then: answers into one folder, and echo-harness study collect FOLDER key={key}",
    ]


def _own(words: Sequence[str], task: str) -> dict[str, list[str]]:
    """Methods of single tasks. Raises ValueError for another argument, or a task that is not shown."""
    lists = dict[str, list[str]]()
    forms = [f"method.{kind}=" for kind in KINDS]
    for word in words:
        name, _, value = word.partition("=")
        if f"{name}=" not in forms:
            raise ValueError(f"{word}: not understood; {nearest_of(word, forms)}")
        kind = name.removeprefix("method.")
        if kind not in settings(task):
            raise ValueError(f"{word}: {kind} is not in task={task}")
        lists[kind] = [one for one in value.split(",") if one]
    return lists


def _wanted(
    form: StudyForm,
    store: Path,
    task: str,
    method: Sequence[str],
    own: Mapping[str, list[str]],
    seeds: Sequence[int],
    groups: int,
    draw: int,
) -> StudyRequest:
    """The settings of the study. Raises ValueError for a method that is named twice."""
    methods = {name: own.get(name, list(method)) for name in settings(task)}
    for name, presets in methods.items():
        twice = next((preset for preset in presets if presets.count(preset) > 1), None)
        if twice:
            raise ValueError(f"task {name}: method={twice} is named twice; once is enough")
    checks, practice = form.checks_of([*methods]), next(iter(methods)) if form.practice else ""
    numbers = _number("groups", str(groups), 1), _number("draw", str(draw), 0)
    return StudyRequest(existing(store), methods, tuple(seeds), *numbers, checks, practice)


def _number(key: str, word: str, least: int) -> int:
    if not (word.isascii() and word.isdecimal()) or int(word) < least:
        raise ValueError(f"{key}={word}: a whole number of {least} or more, for example {key}={least}")
    return int(word)


def _about(choice: Choice) -> list[str]:
    rows = ", ".join(row.name for row in choice.rows)
    rated = sum(group.task == choice.task and not group.check for group in choice.groups)
    more = len(choice.groups) - rated
    extra = f", {more} more for practice and checks" * bool(more)
    lines = [f"{choice.task} ({focus(choice.task)[0].lower()}): {rated} of {choice.candidates} prompts that all have: {rows}{extra}"]
    lines += [f"note: {choice.task}: not in the store: {', '.join(choice.absent)}"] * bool(choice.absent)
    return lines + [f"note: {choice.task}: {line}" for line in left_out(choice.rows)]


def collect(folder: Path, /, key: Path | None = None, keep: Sequence[str] = (), *, output: Path = Path("ratings.csv")) -> Iterator[str]:
    """Read the files that raters sent, list which do not count and by which rule, and write the ratings that do.

        echo-harness study collect answers key=study.key.json --output ratings.csv

    Args:
        folder: the raters' files.
        key: the file that `echo-harness study build` wrote beside the page; by default the one beside the folder.
        keep: count answers that break these rules: all, or some of missing, straight, attention, fast.
        output: the ratings, from which `echo-harness tables table4 ratings=FILE` and table5 are made.
    """
    chosen = list(KEEPABLE) if list(keep) == ["all"] else list(keep)
    for word in chosen:
        if word not in KEEPABLE:
            why = f"what breaks it cannot be counted ({RULES[word]})" if word in RULES else f"nearest is {nearest(word, KEEPABLE)}"
            raise ValueError(f"keep={word}: {why}; all, or of {', '.join(KEEPABLE)}")
    known = read_key(key or key_beside(folder))
    every = gather(folder, known)
    counts = counted(every, chosen)
    ratings = ratings_of(counts, known)
    yield from told(every, known, chosen)
    if ratings.empty:
        raise Unfinished(f"{folder}: nothing counts of {len(every)} files, {output} is not written; keep=all keeps what can be kept")
    write_atomic(output, without_formulas(ratings).to_csv(index=False, lineterminator="\n").encode())
    people, left = len(counts), len(every) - len(counts)
    yield f"{people} rater{'s' * (people != 1)} counted, {left} file{'s' * (left != 1)} left out, {len(ratings)} ratings: {output}"
    yield from (f"then: echo-harness tables {table} ratings={output}" for table in tables_of(known))
