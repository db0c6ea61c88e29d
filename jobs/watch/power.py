"""Prompts and seeds that a difference between two methods needs, from existing scores: a store's, or files of other systems."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from echo.refusals import nearest_of
from eval.stats import results
from eval.stats.power import Spread, spread
from eval.stats.statistics import less
from eval.store.rows import differences, newest
from eval.store.runs import tasks

PROMPTS = (16, 32, 64, 128, 200)
SEEDS = (1, 2, 4)
KEYS = ("metric", "method", "task", "against", "difference")


def told(path: Path, words: Sequence[str]) -> Iterator[str]:
    """The spread of a paired difference, the differences that some numbers of prompts and seeds detect, and what one difference needs.

    Args:
        path: a run store, a folder that `echo-harness score` wrote, VBench's results of one method, or a CSV of several.
        words: metric=, method=FIRST,SECOND, task= of a store, against= the results of the second method, difference=.

    Raises ValueError in one line for an unknown word, and for missing scores.
    """
    said = dict(word.partition("=")[::2] for word in words)
    for word, (key, value) in zip(words, said.items()):
        if key not in KEYS or not value:
            raise ValueError(f"{word}: not understood; {nearest_of(key + '=', [f'{name}=' for name in KEYS])}")
    size = _size(said.get("difference"))
    name, paired = _of_files(path, said) if path.is_file() or (path / results.SUMMARY).is_file() else _of_store(path, said)
    try:
        seen = spread(paired)
    except ValueError as error:
        raise ValueError(f"{path}: {name}: {error}") from None
    yield from lines(name, seen, size)


def _size(word: str | None) -> float | None:
    try:
        size = None if word is None else float(word)
    except ValueError:
        size = math.nan
    if size is not None and not 0 < size < math.inf:
        raise ValueError(f"difference={word}: a number above 0; nearest is difference=1")
    return size


def _of_store(store: Path, said: dict[str, str]) -> tuple[str, pd.Series]:
    """Two rows of a store's task, and their paired difference."""
    there = tasks(store)
    task = said.get("task", there[0] if len(there) == 1 else "")
    if task not in there:
        raise ValueError(f"task={task}: store {store} has no scores of it; {nearest_of(task, there)}")
    rows = {row.preset: row for row in newest(store, task)}
    first, second = _pair(said, list(rows), str(store))
    names = [name for name in rows[first].videos if rows[first].videos[name].dtype.kind == "f" and name in rows[second].videos]
    metric = said.get("metric", "")
    if metric not in names:
        raise ValueError(f"metric={metric}: task={task} has no such score of both; {nearest_of(metric, names)}")
    return f"{first} minus {second}, {metric}, {task}", differences(rows[first], rows[second], metric)


def _of_files(path: Path, said: dict[str, str]) -> tuple[str, pd.Series]:
    """Two methods from files of other systems, and their paired difference over the prompts and seeds that both have."""
    metric = said.get("metric", "")
    scores = results.read(path, metric)
    if "against" in said:
        scores |= results.read(Path(said["against"]), metric)
    first, second = _pair(said, list(scores), str(path))
    return f"{first} minus {second}, {metric}", less(scores[first], scores[second])


def _pair(said: dict[str, str], there: list[str], where: str) -> tuple[str, str]:
    asked = said["method"].split(",") if "method" in said else there if len(there) == 2 else []
    unknown = next((name for name in asked if name not in there), None)
    if unknown is not None or len(asked) != 2 or asked[0] == asked[1]:
        rule = "two different ones are meant, method=FIRST,SECOND"
        raise ValueError(f"method={said.get('method', '')}: {rule}; of {where} {nearest_of(unknown or '', there)}")
    return asked[0], asked[1]


def lines(name: str, seen: Spread, size: float | None) -> Iterator[str]:
    """The printed lines about a spread."""
    parts = f"standard deviation {math.sqrt(seen.between):.4g} between prompts"
    alone = ", seeds among them (one a prompt, so more are counted as no help)"
    parts += alone if seen.within is None else f", {math.sqrt(seen.within):.4g} between seeds"
    yield f"{name}: {seen.mean:+.4g} over {seen.prompts} prompts x {seen.seeds} seeds; {parts}"
    if error := seen.error(seen.prompts, seen.seeds):
        yield f"the two are {abs(seen.mean) / error:.1f} paired standard errors apart, of {error:.4g} each"
    yield "true difference that is found in 80 of 100 trials (paired t test over prompts, two-sided, 5 %), in the scores' unit:"
    seeds = SEEDS if seen.within is not None else SEEDS[:1]
    yield "  prompts" + "".join(f"{f'{count} seed' + 's' * (count > 1):>10}" for count in seeds)
    for prompts in PROMPTS:
        yield f"  {prompts:7d}" + "".join(f"{seen.detects(prompts, count):10.4g}" for count in seeds)
    if size is not None:
        needs = [(seen.needed(size, count), count) for count in seeds]
        words = [f"{'over a million' if least is None else least} prompts with {count} seed{'s' * (count > 1)}" for least, count in needs]
        yield f"a true difference of {size:g} needs {', '.join(words)}"
