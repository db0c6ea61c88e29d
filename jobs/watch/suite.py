"""All tables of the paper from the embedded world, and the sweeps as figures.

    python -m jobs.watch.suite quick|night [only=table1,table2] [KEY=VALUE ...]

quick: 8 prompts x 2 seeds, the eight tables (Table 1 at 60 s alone) and the sweeps over long videos. night: 32 prompts x 4
seeds, all of Table 1, the bounds of memory and the sweeps over recall. Units that several tables share are made once; what is there
already is not made again, so that a command that was stopped goes on when it is given again. KEY=VALUE are settings of run.py, for example
store=DIR, max_workers=1 or backbone=tiny. Before the work starts it says how many videos are missing and how long that takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def _given(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Name of the size, experiments and settings. Raises ValueError for a word that is not understood."""
    names = [word for word in words if "=" not in word]
    if len(names) != 1 or names[0] not in SIZES:
        raise ValueError(f"{' '.join(names) or '(no size)'}: give one of {', '.join(SIZES)}, for example python -m jobs.watch.suite quick")
    only = next((word.removeprefix("only=") for word in reversed(words) if word.startswith("only=")), ",".join(TABLES))
    for experiment in only.split(","):
        if experiment not in TABLES:
            raise ValueError(f"only={experiment}: no such table; {nearest_of(experiment, TABLES)}")
    settings = [word for word in words if "=" in word and not word.startswith("only=")]
    for word in settings:
        if word.partition("=")[0] in ("prompts", "seed", "experiment", "task", "method"):
            raise ValueError(f"{word}: {names[0]} says that itself; nearest is python run.py experiment=table1 {word} -m")
    return names[0], only.split(","), settings


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit status 1 for a mistake or a missing video, 130 where it was stopped."""
    words, start = list(sys.argv[1:] if argv is None else argv), time.monotonic()
    try:
        size, experiments, settings = _given(words)
        every = list(rows(SIZES[size], experiments, settings))
        if not every:
            raise ValueError(f"only={','.join(experiments)}: not among the tables of {size}; nearest is python -m jobs.watch.suite night")
        names, plain = [name for name, _ in every], [config for _, config in every]
        status = _carry_out(plain, names)
        status = max(status, _figures(Path(plain[0]["store"]), names))
    except REFUSALS as error:
        sys.stderr.write(explain(error, [word for word in words if "=" in word and not word.startswith("only=")]) + "\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on\n")
        return 130
    say(f"{size}: {duration(time.monotonic() - start)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
