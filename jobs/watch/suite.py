"""All tables of the paper from the embedded world, and the sweeps as figures; units that several tables share are made once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from echo.refusals import nearest_of
from eval.figures import sweeps
from jobs.launch import sweep
from jobs.spec import compose
from jobs.spec.config import Plain
from jobs.spec.mistakes import REFUSALS, explain
from jobs.watch.forecast import briefly, duration
from jobs.work.progress import say

TABLES = ("table1", "table2", "table3", "table6", "table7", "table8", "table9a", "table9b", "bounds", "sweep_lambda", "sweep_budget")


@dataclass(frozen=True)
class SuiteSize:
    """How much of everything. tasks: the only tasks of some experiments, none of others. settings: of run.py."""

    prompts: int
    seeds: tuple[int, ...]
    tasks: dict[str, tuple[str, ...]]
    settings: tuple[str, ...] = ()


SIZES = {
    "quick": SuiteSize(
        8, (0, 1), {**dict.fromkeys(("table1", "sweep_lambda", "sweep_budget"), ("long60",)), "bounds": ()}, ("video.height_px=96",)
    ),
    "night": SuiteSize(32, (0, 1, 2, 3), {}),
}


def rows(size: SuiteSize, experiments: Sequence[str], settings: Sequence[str]) -> Iterator[tuple[str, Plain]]:
    """Every run as (experiment, plain config), one seed after the other, so that the first seed's are whole first."""
    words = [f"prompts={size.prompts}", *size.settings, *settings]
    for seed in size.seeds:
        for experiment in experiments:
            axes = {key: [part.strip() for part in str(value).split(",")] for key, value in compose.swept(experiment).items()}
            axes["task"] = [task for task in axes["task"] if task in size.tasks.get(experiment, (task,))]
            axes["seed"] = [str(seed)]
            yield from ((experiment, plain) for plain in compose.product(axes, words, task_apart=True))


def _figures(store: Path, experiments: Sequence[str]) -> int:
    """Draw what the store has of the sweeps; 1 if one of them cannot be drawn, which is told, else 0."""
    status = 0
    for experiment in dict.fromkeys(experiments):
        name = experiment.removeprefix("sweep_")
        if experiment.startswith("sweep_") and name in sweeps.SETTINGS:
            try:
                for path in sweeps.write(store, name, store / "tables"):
                    say(f"figure: {path}")
            except ValueError as error:
                sys.stderr.write(f"no figure of {experiment}: {error}\n")
                status = 1
    return status


def _carry_out(plain: Sequence[Plain], names: Sequence[str]) -> int:
    """Runs and tables; 1 if a video is missing in the end. Raises SystemExit, as it comes, for a refusal before any work."""
    try:
        sweep.carry_out(plain, names, lambda jobs: say(briefly(jobs)))
    except SystemExit as end:
        if end.code != 1:
            raise
        return 1
    return 0


def _checked(size: str, only: Sequence[str], words: Sequence[str]) -> None:
    """Raise ValueError in one line for a table that there is not, or a setting that the size says itself."""
    for experiment in only:
        if experiment not in TABLES:
            raise ValueError(f"only={experiment}: no such table; {nearest_of(experiment, TABLES)}")
    for word in words:
        if "=" not in word:
            raise ValueError(f"{word}: not understood; settings are those of run.py, for example store=DIR max_workers=1")
        if word.partition("=")[0] in ("prompts", "seed", "experiment", "task", "method"):
            raise ValueError(f"{word}: {size} says that itself; nearest is python run.py experiment=table1 {word} -m")


def suite(size: Literal["quick", "night"], words: Sequence[str], /, only: Sequence[str] = TABLES) -> int:
    """Make all tables of the paper from the embedded world, and draw the sweeps.

    quick: 8 prompts x 2 seeds, Table 1 at 60 s alone. night: 32 x 4, all of Table 1, the bounds of memory and the sweeps over recall.
    A command that was stopped goes on when it is given again.

        echo-harness suite quick
        echo-harness suite night only=table1,table2 store=results max_workers=2

    Args:
        size: quick or night.
        words: settings of run.py, KEY=VALUE.
        only: these tables.
    """
    start = time.monotonic()
    _checked(size, only, words)
    try:
        every = list(rows(SIZES[size], only, words))
    except REFUSALS as error:
        raise ValueError(explain(error, words)) from error
    if not every:
        raise ValueError(f"only={','.join(only)}: not among the tables of {size}; nearest is echo-harness suite night")
    names, plain = [name for name, _ in every], [config for _, config in every]
    status = max(_carry_out(plain, names), _figures(Path(plain[0]["store"]), names))
    say(f"{size}: {duration(time.monotonic() - start)}")
    return status
