"""All tables of the paper from the embedded world, and the sweeps as figures.

    python -m jobs.watch.suite quick|night [only=table1,table2] [KEY=VALUE ...]

quick: 8 prompts x 2 seeds, the eight tables (Table 1 at 60 s alone) and the sweeps over long videos. night: 32 prompts x 4
seeds, all of Table 1, the bounds of memory and the sweeps over recall. Units that several tables share are made once; what is there
already is not made again, so that a command that was stopped goes on when it is given again. KEY=VALUE are settings of run.py, for example
store=DIR, max_workers=1 or backbone=tiny. Before the work starts it says how many videos are missing and how long that takes.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.world.film import Render
from echo.files import ROOT
from echo.refusals import nearest_of
from eval.figures import sweeps
from eval.store.records import runs
from jobs.launch import local, sweep
from jobs.spec.plan import Job
from jobs.store.folder import RunFolder
from jobs.work import score
from jobs.work.progress import say

CONF = ROOT / "conf"
TABLES = ("table1", "table2", "table3", "table6", "table7", "table8", "table9a", "table9b", "bounds", "sweep_lambda", "sweep_budget")
BLOCK_S = {False: 0.037, True: 0.011}
"""Seconds of one core for a block, generated and rendered, scores included, where a store tells of none yet (an AMD EPYC of 2025)."""
START_S = 6.0
"""Seconds until a worker works."""


@dataclass(frozen=True)
class Size:
    """How much of everything. tasks: the only tasks of some experiments, none of others. settings: of run.py."""

    prompts: int
    seeds: tuple[int, ...]
    tasks: dict[str, tuple[str, ...]]
    settings: tuple[str, ...] = ()


SIZES = {
    "quick": Size(
        8, (0, 1), {**dict.fromkeys(("table1", "sweep_lambda", "sweep_budget"), ("long60",)), "bounds": ()}, ("video.height_px=96",)
    ),
    "night": Size(32, (0, 1, 2, 3), {}),
}


def composed(size: Size, experiments: Sequence[str], settings: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every run as (experiment, plain config), one seed after the other, so that the first seed's are whole first."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [f"prompts={size.prompts}", *size.settings, *settings]
        found = [pair for experiment in experiments for pair in _rows(size, experiment, words)]
    for seed in size.seeds:
        yield from ((experiment, plain | {"seed": seed}) for experiment, plain in found)


def _rows(size: Size, experiment: str, words: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """An experiment's runs, whatever its seeds. A method is composed once, its tasks are put in: groups know nothing of each other."""
    params = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml").hydra.sweeper.params
    axes = {str(key): [part.strip() for part in str(value).split(",")] for key, value in params.items() if key != "seed"}
    tasks = [task for task in axes.pop("task") if task in size.tasks.get(experiment, (task,))]
    groups = {task: _composed((f"task={task}", *words))["task"] for task in tasks}
    for values in itertools.product(*axes.values()):
        chosen = (f"{key}={value}" for key, value in zip(axes, values))
        plain = _composed((*chosen, *words)) if tasks else {}
        yield from ((experiment, plain | {"task": groups[task]}) for task in tasks)


@lru_cache(maxsize=1024)
def _composed(words: tuple[str, ...]) -> dict[str, Any]:
    return sweep.plain_of(compose("config", list(words)))


def measured(store: Path) -> dict[bool, float]:
    """Mean seconds of a block in a store, scores included, by whether it was rendered; kinds of which it has none are left out."""
    totals: dict[bool, list[float]] = {}
    for run in runs(store):
        rendered = run.calibration
        for record in run.records():
            if record["status"] == "ok":
                total = totals.setdefault(rendered, [0.0, 0.0])
                total[0] += record["dur_s"]
                total[1] += record["blocks"]
    return {rendered: seconds / blocks for rendered, (seconds, blocks) in totals.items() if blocks}


def forecast(jobs: Sequence[Job]) -> str:
    """How much is missing and how long it will take, in a line."""
    folders = {folder.path: folder for folder in map(RunFolder, jobs)}
    seconds = measured(Path(jobs[0].config.store))
    videos, blocks, whole, unscored, work_s = 0, 0, 0, 0, 0.0
    for folder in folders.values():
        missing = folder.missing()
        made = score.unscored(folder, missing)
        unscored, missing = unscored + len(made), tuple(prompt for prompt in missing if prompt.id not in made)
        count = local.blocks_of(folder.job, missing)
        rendered = isinstance(folder.job.policy, Render)
        videos, blocks, whole = videos + len(missing), blocks + count, whole + len(folder.job.mine)
        work_s += count * seconds.get(rendered, BLOCK_S[rendered])
    rest = f"; {unscored} more {'is' if unscored == 1 else 'are'} made, not scored" if unscored else ""
    if not videos:
        return f"all {whole} videos are there" + rest.replace(" more", "")
    places = jobs[0].config.max_workers or max(1, local.cores() // jobs[0].config.backbone.threads)
    source = "as measured in this store" if False in seconds else "by this project's own measure, none being in this store yet"
    rate = 1e3 * seconds.get(False, BLOCK_S[False])
    return (
        f"{videos} of {whole} videos are missing, {blocks} blocks; {rate:.0f} ms a generated block {source}, {places} at a time: "
        f"about {_time(work_s / places + START_S)}{rest}"
    )


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"


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


def _carry_out(plain: Sequence[dict[str, Any]], names: Sequence[str]) -> int:
    """Runs and tables; 1 if a video is missing in the end. Raises SystemExit, as it comes, for a refusal before any work."""
    try:
        sweep.carry_out(plain, names, lambda jobs: say(forecast(jobs)))
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
        rows = list(composed(SIZES[size], experiments, settings))
        if not rows:
            raise ValueError(f"only={','.join(experiments)}: not among the tables of {size}; nearest is python -m jobs.watch.suite night")
        names, plain = [name for name, _ in rows], [config for _, config in rows]
        status = _carry_out(plain, names)
        status = max(status, _figures(Path(plain[0]["store"]), names))
    except (HydraException, OmegaConfBaseException) as error:
        from jobs.spec.mistakes import explain

        sys.stderr.write(explain(error, [word for word in words if "=" in word and not word.startswith("only=")]) + "\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on\n")
        return 130
    say(f"{size}: {_time(time.monotonic() - start)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
