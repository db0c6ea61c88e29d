"""From composed configs to results: check all of them, make what is missing, print the tables."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from data.outgoing import said
from echo.refusals import lacks
from eval.store.reading import told
from eval.store.records import UnknownVersion
from jobs.launch import local
from jobs.memory.job import foretell as foretell_memory
from jobs.spec import backbones, compose, scale
from jobs.spec.config import Plain, from_plain
from jobs.spec.mistakes import REFUSALS, explain
from jobs.spec.plan import Job, lacking, prepare, told_of
from jobs.store import provenance, unwritable
from jobs.store.folder import RunFolder, write_sweep
from jobs.work import models, tracking
from jobs.work.progress import say

PLUGINS = Path(__file__).with_name("plugins")
_fresh: list[Path] = []  # what Hydra's note of this sweep makes, the innermost first
Make = Callable[[Sequence[Job], Sequence[Plain]], list[str] | None]
"""Makes what is missing of checked jobs, from their plain configs, and says what it could not; None where nobody waits."""


def single(config: DictConfig) -> None:
    """Run one config. Raises SystemExit as `run` does, and if the config holds a sweep that was not asked for."""
    swept = HydraConfig.get().sweeper.params
    if swept:
        raise SystemExit(f"this experiment stands for several runs ({', '.join(str(key) for key in swept)} vary); add -m")
    if HydraConfig.get().runtime.choices.get("hydra/launcher") == "slurm":
        raise SystemExit("hydra/launcher=slurm: submits sweeps, and one run is a sweep of one; add -m")
    run([config])


def here(jobs: Sequence[Job], plain: Sequence[Plain]) -> list[str]:
    """Make what is missing on this machine."""
    return local.run(jobs, plain, jobs[0].config.max_workers)


def run(configs: Sequence[DictConfig], make: Make = here) -> None:
    """Check every config, one for each run, then run what is missing of all, then make the tables.

    Raises:
        SystemExit: with one line before any work if a config is wrong; with status 1 if a unit is missing in the end.
    """
    try:
        compose.check_globs(() if configs else sys.argv[1:])
    except ValueError as error:
        raise SystemExit(str(error)) from error
    plain = [compose.plain_of(config, _hydra(config).overrides.task) for config in configs]
    carry_out(plain, [_experiment(config) for config in configs], make=make)


def carry_out(
    plain: Sequence[Plain],
    experiments: Sequence[str | None],
    foretell: Callable[[Sequence[Job]], None] = lambda jobs: None,
    make: Make = here,
) -> None:
    """As `run`, of composed configs; `foretell` is told of the checked jobs before the first starts."""
    plain = [one | {"experiment": experiment} for one, experiment in zip(plain, experiments)]
    jobs = _checked(plain, here=make is here)
    stores = list(dict.fromkeys(job.config.store for job in jobs))
    foretell(jobs)
    for line in backbones.notes(job.config for job in jobs):
        say(line)
    for line in (line for job in jobs for line in RunFolder(job).again()):
        say(line)
    for line in foretell_memory([job for job in jobs if RunFolder(job).missing()]):
        say(line)
    for store in stores:
        _keep_sweeps(store, jobs, experiments)  # before, so that status knows of it meanwhile, and tables if this process dies
    try:
        lacks = make(jobs, plain)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if lacks is None:
        for store in stores:
            say(f"nobody waits; echo-harness tables --store {store} makes the tables when the jobs are done")
        return
    _tables(stores, jobs, experiments)
    for line in lacks:
        sys.stderr.write(said(line) + "\n")
    if lacks:
        raise SystemExit(1)


def _checked(plain: Sequence[Plain], here: bool) -> list[Job]:
    """The jobs of composed configs, whose stores can be written. Raises SystemExit in one line before a folder of a run is made."""
    try:
        _refuse_missing(plain, here)
        jobs = [prepare(one) for one in plain]
        for config in {job.config.experiment: job.config for job in jobs}.values():
            provenance.refuse_dirty(config.experiment, config.allow_dirty)
        if here:
            models.cards([job.config for job in jobs])
    except ValueError as error:
        raise SystemExit(str(error)) from error
    for store in dict.fromkeys(job.config.store for job in jobs):
        try:
            unwritable.check(store)
        except OSError as error:
            raise SystemExit(unwritable.refusal(store, error)) from error
    return jobs


def _refuse_missing(plain: Sequence[Plain], here: bool) -> None:
    """Refuse at once, with the commands that bring it, all that several runs lack on this machine. Raises ValueError: one line.

    A single thing is left to the check of the run that lacks it.
    """
    every = lacking(plain)
    if every and here:
        every += lacks(lambda: models.cards([backbones.resolved(from_plain(one)) for one in plain]))
    if len(every) > 1:
        raise ValueError(f"this machine lacks {told_of(every)}; weights=random geometry=tiny prompts=1 seed=0 rehearses without")


def _experiment(config: DictConfig) -> str | None:
    """The named experiment of a config, for the names of its tables; it changes neither pixels nor scores."""
    chosen = _hydra(config).runtime.choices.get("experiment")
    return None if chosen in (None, "null") else str(chosen)


def _hydra(config: DictConfig) -> Any:
    """Hydra's own part of a config: of a sweep's runs each has one, of a single run the process."""
    return config.hydra if "hydra" in config else HydraConfig.get()


def _tables(stores: Sequence[str], jobs: Sequence[Job], experiments: Sequence[str | None]) -> None:
    from eval.tables import command

    for store in stores:
        names = _keep_sweeps(store, jobs, experiments)
        for line in command.make(Path(store), names, sys.stdout.isatty()):
            say(line)
        for experiment in dict.fromkeys(experiments):
            own = [name for name in names if experiment is None or name.startswith(experiment)]
            tracking.tables(jobs[0].config.tracker, Path(store), [*own, *([experiment] if experiment else [])], experiment)
        say(f"videos, traces and scores: below {Path(store) / 'runs'}")


def _keep_sweeps(store: str, jobs: Sequence[Job], experiments: Sequence[str | None]) -> list[str]:
    """Keep what was asked for in a store; the names of its tables."""
    names: list[str] = []
    for experiment in dict.fromkeys(experiments):
        members = [job for job, own in zip(jobs, experiments) if (job.config.store, own) == (store, experiment)]
        names += write_sweep(Path(store), members, experiment)
    return names


def foresee(folder: Path) -> None:
    """Before Hydra notes a sweep in a folder: which of the note and the folders above it are not there yet."""
    _fresh[:] = [path for path in (folder / "multirun.yaml", folder, *folder.parents) if not os.path.lexists(path)]


def forget() -> None:
    """Take away what Hydra has made of this sweep's note, by name; attempts keep command line and config. What was there before stays."""
    for path in _fresh:
        with contextlib.suppress(OSError):
            path.unlink() if path.name == "multirun.yaml" else path.rmdir()
    _fresh.clear()


def _unwritable(error: OSError) -> str:
    """One line for a store that cannot be written. Raises the error itself if it is about anything else."""
    store, file = _given_store().absolute(), Path(str(error.filename)).absolute()
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) and not (file.is_relative_to(store) or store.is_relative_to(file)):
        raise error
    return unwritable.refusal(str(_given_store()), error)


def _given_store() -> Path:
    return Path(next((word.removeprefix("store=") for word in reversed(sys.argv) if word.startswith("store=")), "results"))


def guarded(main: Callable[[], None], mistake: int = 1) -> int:
    """Run the command line; a user's mistake is one line and status `mistake`, an interrupt is status 130.

    The plugin folder goes on the path, so that Hydra finds the launcher however the package is installed. Settings of a
    method are rewritten to `++method.x`, so that one that its YAML leaves at the default can be given; the policy itself
    refuses unknown ones. `launcher.x` is short for `hydra.launcher.x`, and `launcher.extra` takes any name. `-m` may stand
    anywhere, which argparse alone does not allow.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come up to here, to be told in one line
    sys.path.insert(0, str(PLUGINS))
    words = [f"++{word}" if word.startswith("method.") else word for word in sys.argv[1:]]
    words = [f"++hydra.{word}" if word.startswith("launcher.extra") else word for word in words]
    words = [f"hydra.{word}" if word.startswith("launcher.") else word for word in words]
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    try:
        scale.check(words)
    except ValueError as error:
        sys.stderr.write(f"{said(error)}\n")
        return mistake
    try:
        with told():
            main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on\n")
        return 130
    except UnknownVersion as error:
        sys.stderr.write(f"{said(error)}\n")
        return mistake
    except REFUSALS as error:
        sys.stderr.write(said(explain(error, sys.argv[1:])) + "\n")
        return mistake
    except OSError as error:
        sys.stderr.write(said(_unwritable(error)) + "\n")
        return 1
    finally:
        forget()
    return 0


def command(words: Sequence[str], /) -> int:
    """Run one experiment or a sweep of them, here or on a cluster; what is there already is not made again.

    The words are those of `python run.py`, whose --help shows all choices and settings.

        echo-harness run method=echo task=recall seed=0,1,2,3 -m
        echo-harness run experiment=table2 hydra/launcher=slurm -m

    Args:
        words: KEY=VALUE, KEY=A,B with -m, GROUP=CHOICE.
    """
    sys.argv = ["run.py", *words]
    return guarded(hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")(single), mistake=2)
