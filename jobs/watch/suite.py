"""All tables of the paper and figures of the sweeps; units that several tables share are made once."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from baselines.presets import preset
from echo.refusals import nearest_of
from eval.figures import sweeps
from jobs.launch import sweep
from jobs.spec import compose
from jobs.spec.config import Plain
from jobs.spec.mistakes import explained
from jobs.watch.forecast import briefly, duration, foretold, launcher_of
from jobs.work.progress import say


def rows(size: str, experiments: Sequence[str], settings: Sequence[str]) -> list[tuple[str, Plain]]:
    """Every run as (experiment, plain config), ordered by seed, so that the first seed is complete first."""
    every = [(name, one) for name in experiments for one in compose.sweep([f"experiment={name}", f"scale={size}", *settings])]
    return sorted(every, key=lambda row: row[1]["seed"])


def tables_of(size: str) -> list[str]:
    """The experiments of a size, from `conf/scale`."""
    return [str(name) for name in preset("scale", size)["scale"]["suite"]]


def _figures(store: Path, experiments: Sequence[str]) -> int:
    """Draw the sweeps that the store has; returns 1 if one cannot be drawn, with a message, otherwise 0."""
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
    """Make runs and tables; returns 1 if a video is missing in the end. Raises SystemExit for a refusal before any work."""
    try:
        sweep.carry_out(plain, names, lambda jobs: say(briefly(jobs)))
    except SystemExit as end:
        if end.code != 1:
            raise
        return 1
    return 0


def _checked(size: str, only: Sequence[str], words: Sequence[str]) -> None:
    """Raise ValueError in one line for a table that the size does not have, or a setting that the size fixes."""
    for experiment in only:
        if experiment not in (there := tables_of(size)):
            raise ValueError(f"only={experiment}: not among the tables of {size}; {nearest_of(experiment, there)}")
    for word in words:
        if "=" not in word:
            raise ValueError(f"{word}: not understood; settings are those of run.py, for example store=DIR max_workers=1")
        if word.partition("=")[0] in ("scale", "experiment", "task", "method"):
            raise ValueError(f"{word}: {size} says that itself; nearest is python run.py experiment=table1 {word} -m")


def suite(size: Literal["laptop", "night", "paper"], words: Sequence[str], /, only: Sequence[str] = (), *, plan: bool = False) -> int:
    """Make all tables of the paper, and draw the sweeps; videos that tables share are made once.

    laptop: the embedded world, 8 prompts x 2 seeds, of Table 1 only 60 s. night: 32 x 4, all of Table 1, the memory bounds and the sweeps
    over recall. paper: Wan2.1's backbones, VBench, the paper's prompts and seeds. A stopped command continues when it is given again.

        echo-harness suite laptop
        echo-harness suite night only=table1,table2 store=results max_workers=2
        echo-harness suite paper weights=random geometry=tiny prompts=1 seed=0
        echo-harness suite paper --plan

    Args:
        size: laptop, night or paper.
        words: settings of run.py, KEY=VALUE.
        only: only these tables.
        plan: print the forecast and make nothing.
    """
    start = time.monotonic()
    _checked(size, only, words)
    with explained(["-m", *words]):
        every = rows(size, only or tables_of(size), words)
    names, configs = [name for name, _ in every], [config for _, config in every]
    if plan:
        for line in foretold(configs, launcher_of(()), None):
            say(line)
        return 0
    status = max(_carry_out(configs, names), _figures(Path(configs[0]["store"]), names))
    say(f"{size}: {duration(time.monotonic() - start)}")
    return status
