"""A study with people, from a store to Tables 4 and 5: a rating page, and its answers.

    python -m eval.study.command build [store=DIR] [method=NAME,NAME] [seed=0] [groups=6] [draw=0] [--output DIR]
    python -m eval.study.command build task=long60,recall method.long60=NAME,NAME contact="me@lab.example" --output study
    python -m eval.study.command collect DIR [key=FILE] [keep=all] [--output ratings.csv]

`build` draws `groups` prompts of each task (`draw` is the seed of the lot, `seed` that of the runs) among those that all methods have
a video of, and writes a static folder for any web host. Without method= a task shows the rows of Table 1 or 2 that the store has;
method.TASK= names them for one task. What the videos' random names stand for is in DIR.key.json beside the folder.

`collect` reads the files that raters sent, tells which do not count and by which rule (keep=all, or keep=missing,straight,fast), and
writes ratings that `python -m eval.tables.command table4 ratings=ratings.csv` and `table5` read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from echo.refusals import nearest
from eval.arguments import parse
from eval.store.rows import left_out
from eval.study.answers import KEEPABLE, RULES, counted, gather, key_beside, lines_of, read_key, tables_of, told, write_ratings
from eval.study.choice import Choice, StudyRequest, choose, settings
from eval.study.page import focus, free, write
from eval.tables import opinions

KINDS = [task for tasks in opinions.TASKS.values() for task in tasks]
BUILD = {
    "store": "results",
    "task": "long60,smooth,hard,recall",
    "method": "",
    **{f"method.{task}": "" for task in KINDS},
    "seed": "0",
    "groups": "6",
    "draw": "0",
    "contact": "",
    "key": "",
    "--output": "study",
}
COLLECT = {"key": "", "keep": "", "--output": "ratings.csv"}


def _build(words: Sequence[str]) -> list[str]:
    given, _ = parse(words, BUILD)
    folder = Path(given["--output"])
    key = Path(given["key"]) if given["key"] else folder.with_name(f"{folder.name}.key.json")
    free(folder, key)
    wanted = _wanted(given)
    choices = choose(wanted)
    made = write(choices, wanted, folder, key, given["contact"])
    ratings = made.videos * len(opinions.CRITERIA)
    hours = f"{made.seconds / 60:.0f} minutes of video and {ratings} ratings for each rater"
    return [
        *(line for choice in choices for line in _about(choice)),
        *(f"note: {remark}: raters see it twice" for remark in made.remarks),
        f"study: {made.folder} ({made.videos} videos, {made.size / 1e6:.1f} MB), {hours}",
        f"key: {made.key}, which says what is what: keep it, and off the web host",
        f"then: answers into one folder, and python -m eval.study.command collect FOLDER key={made.key}",
    ]


def _wanted(given: dict[str, str]) -> StudyRequest:
    """What is asked for. Raises ValueError."""
    tasks, store = settings(given["task"]), Path(given["store"])
    if not (store / "runs").is_dir():
        raise ValueError(f"store={store}: no run store; it has no folder runs")
    seeds = tuple(_number("seed", word, 0) for word in given["seed"].split(","))
    for task in KINDS:
        if given[f"method.{task}"] and task not in tasks:
            raise ValueError(f"method.{task}={given[f'method.{task}']}: {task} is not in task={given['task']}")
    methods = {task: [name for name in (given[f"method.{task}"] or given["method"]).split(",") if name] for task in tasks}
    for task, names in methods.items():
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"task {task}: method={twice} is named twice; once is enough")
    return StudyRequest(store, methods, seeds, _number("groups", given["groups"], 1), _number("draw", given["draw"], 0))


def _number(key: str, word: str, least: int) -> int:
    if not (word.isascii() and word.isdecimal()) or int(word) < least:
        raise ValueError(f"{key}={word}: a whole number of {least} or more, for example {key}={BUILD[key]}")
    return int(word)


def _about(choice: Choice) -> list[str]:
    """What a task shows."""
    rows = ", ".join(row.name for row in choice.rows)
    lines = [f"{choice.task} ({focus(choice.task)[0].lower()}): {len(choice.groups)} of {choice.candidates} prompts that all have: {rows}"]
    lines += [f"note: {choice.task}: not in the store: {', '.join(choice.absent)}"] * bool(choice.absent)
    return lines + [f"note: {choice.task}: {line}" for line in left_out(choice.rows)]


def _collect(words: Sequence[str]) -> tuple[list[str], str]:
    """The lines to show, and why nothing was written, or nothing."""
    if not words or "=" in words[0] or words[0].startswith("--"):
        raise ValueError("collect: which folder; for example python -m eval.study.command collect answers key=study.key.json")
    folder = Path(words[0])
    given, _ = parse(words[1:], COLLECT)
    keep = list(KEEPABLE) if given["keep"] == "all" else [word for word in given["keep"].split(",") if word]
    for word in keep:
        if word not in KEEPABLE:
            why = f"what breaks it cannot be counted ({RULES[word]})" if word in RULES else f"nearest is {nearest(word, KEEPABLE)}"
            raise ValueError(f"keep={word}: {why}; all, or of {', '.join(KEEPABLE)}")
    key = read_key(Path(given["key"]) if given["key"] else key_beside(folder))
    every = gather(folder, key)
    counts = counted(every, keep)
    rows = list(lines_of(counts, key))
    lines = told(every, key, keep)
    if not rows:
        return lines, f"{folder}: nothing counts of {len(every)} files, {given['--output']} is not written; keep=all keeps what can be kept"
    path = Path(given["--output"])
    write_ratings(path, rows)
    people, left = len(counts), len(every) - len(counts)
    summary = f"{people} rater{'s' * (people != 1)} counted, {left} file{'s' * (left != 1)} left out, {len(rows)} ratings: {path}"
    return [*lines, summary, *(f"then: python -m eval.tables.command {table} ratings={path}" for table in tables_of(key))], ""


def main(words: Sequence[str]) -> int:
    """Command line; see the module's docstring. Status 2: nothing was done; 1: nothing counted."""
    try:
        if words[:1] == ["build"]:
            lines, failure = _build(words[1:]), ""
        elif words[:1] == ["collect"]:
            lines, failure = _collect(words[1:])
        else:
            near = nearest(words[0], ["build", "collect"]) if words else "build"
            raise ValueError(f"{words[0] if words else '(nothing)'}: build or collect; nearest is python -m eval.study.command {near}")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if failure:
        sys.stdout.flush()
        sys.stderr.write(f"{failure}\n")
    return int(bool(failure))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
