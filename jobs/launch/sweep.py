"""From composed configs to results: check all of them, make what is missing, print the tables."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from data.outgoing import said
from echo.files import RESULTS
from echo.refusals import Unfinished, lacks
from jobs.launch import local
from jobs.memory.job import foretell as foretell_memory
from jobs.spec import backbones, compose, scale
from jobs.spec.config import Plain, from_plain
from jobs.spec.mistakes import check_own, explained
from jobs.spec.plan import Job, lacking, prepare, told_of
from jobs.store import provenance, unwritable
from jobs.store.folder import RunFolder, write_sweep
from jobs.work import models, tracking
from jobs.work.progress import say

PLUGINS = Path(__file__).with_name("plugins")
_fresh: list[Path] = []  # files and folders that Hydra creates for this sweep, the innermost first
Make = Callable[[Sequence[Job], Sequence[Plain]], list[str] | None]
"""Makes what is missing of checked jobs, from their plain configs, and returns lines for what is still missing; None without waiting."""


def single(config: DictConfig) -> None:
    """Run one config. Raises SystemExit like `run`, and if the config has a sweep but `-m` was not given."""
    swept = _hydra(config).sweeper.params
    if swept:
        raise SystemExit(f"this experiment stands for several runs ({', '.join(str(key) for key in swept)} vary); add -m")
    if _hydra(config).runtime.choices.get("hydra/launcher") == "slurm":
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
    plain = [compose.plain_of(config, _hydra(config).overrides.task) for config in configs]
    carry_out(plain, [_experiment(config) for config in configs], make=make)


def carry_out(
    plain: Sequence[Plain],
    experiments: Sequence[str | None],
    foretell: Callable[[Sequence[Job]], None] = lambda jobs: None,
    make: Make = here,
) -> None:
    """Like `run`, for composed configs; `foretell` is called with the checked jobs before the first starts."""
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
        _keep_sweeps(store, jobs, experiments)  # first, so that `status` works meanwhile, and `tables` if this process dies
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
    """The jobs of composed configs with writable stores. Raises SystemExit in one line before a folder of a run is made."""
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
    """Raises ValueError in one line for all things that several runs lack on this machine, with the commands that bring them.

    A single missing thing is left to the check of its run.
    """
    every = lacking(plain)
    if every and here:
        every += lacks(lambda: models.cards([backbones.resolved(from_plain(one)) for one in plain]))
    if len(every) > 1:
        raise ValueError(f"this machine lacks {told_of(every)}; weights=random geometry=tiny prompts=1 seed=0 rehearses without")


def _experiment(config: DictConfig) -> str | None:
    """The experiment of a config, for the names of its tables."""
    chosen = _hydra(config).runtime.choices.get("experiment")
    return None if chosen in (None, "null") else str(chosen)


def _hydra(config: DictConfig) -> Any:
    """Hydra's own part of a config: in a sweep each run has one, for a single run the process has it."""
    return config.hydra if "hydra" in config else HydraConfig.get()


def _tables(stores: Sequence[str], jobs: Sequence[Job], experiments: Sequence[str | None]) -> None:
    from eval.tables import command

    for store in stores:
        if not any(RunFolder(job).reader.exists for job in jobs if job.config.store == store):  # deleted meanwhile, which was reported
            continue
        names = _keep_sweeps(store, jobs, experiments)
        for line in command.make(Path(store), names, sys.stdout.isatty(), shutil.get_terminal_size().columns):
            say(line)
        for experiment in dict.fromkeys(experiments):
            own = [name for name in names if experiment is None or name.startswith(experiment)]
            tracking.tables(jobs[0].config.tracker, Path(store), [*own, *([experiment] if experiment else [])], experiment)
        say(f"videos, traces and scores: below {Path(store) / 'runs'}")
        for line in next_commands(store, names, experiments):
            say(line)


def next_commands(store: str, names: Sequence[str], experiments: Sequence[str | None]) -> Iterator[str]:
    """Commands that show more of the results."""
    where = "" if Path(store) == RESULTS else f" --store {shlex.quote(store)}"
    tables = dict.fromkeys(next((one for one in experiments if one and name.startswith(f"{one}-")), name) for name in names)
    if tables:
        yield f"all columns, differences: echo-harness tables {' '.join(tables)}{where}"
    only = f" experiment={experiments[0]}" if len(set(experiments)) == 1 and experiments[0] else ""
    yield f"side by side, in step:    echo-harness report{only}{where}"


def _keep_sweeps(store: str, jobs: Sequence[Job], experiments: Sequence[str | None]) -> list[str]:
    """Record the request in a store; returns the names of its tables."""
    names: list[str] = []
    for experiment in dict.fromkeys(experiments):
        members = [job for job, own in zip(jobs, experiments) if (job.config.store, own) == (store, experiment)]
        names += write_sweep(Path(store), members, experiment)
    return names


def foresee(folder: Path) -> None:
    """Before Hydra writes its file of a sweep into a folder: remember which of that file and its parent folders do not exist yet."""
    _fresh[:] = [path for path in (folder / "multirun.yaml", folder, *folder.parents) if not os.path.lexists(path)]


def forget() -> None:
    """Remove the file and folders that Hydra created for this sweep, by name; attempts keep command line and config."""
    for path in _fresh:
        with contextlib.suppress(OSError):
            path.unlink() if path.name == "multirun.yaml" else path.rmdir()
    _fresh.clear()


def _unwritable(error: OSError) -> str:
    """One line for a store that cannot be written. Raises the error itself if it is about anything else."""
    store, file = _given_store().absolute(), Path(str(error.filename)).absolute()
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
        try:
            unwritable.check(str(store))
        except OSError as full:
            return unwritable.refusal(str(_given_store()), full)
        raise error  # no store is to blame: it is where the output goes
    if not (file.is_relative_to(store) or store.is_relative_to(file)):
        raise error
    return unwritable.refusal(str(_given_store()), error)


def _given_store() -> Path:
    return Path(compose.value_of("store", sys.argv[1:], "results"))


class _Raised(BaseException):
    """Carries an error of a run through Hydra, which would otherwise print lines of its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _single(config: DictConfig) -> None:
    try:
        single(config)
    except Exception as error:
        raise _Raised(error) from error


def _arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line for Hydra, `-m` in front, and its settings, with `-m` if given. Raises ValueError in one line."""
    arguments = sorted(compose.hydra_words(words), key=lambda word: word not in ("-m", "--multirun"))
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}; flags are -m, --help, --cfg job and --config-dir DIR, settings are key=value")

    parser.error = refuse  # type: ignore[method-assign]
    known = parser.parse_args(arguments)
    other = [name for name in ("package", "config_name", "config_path") if getattr(known, name)]
    if other:
        raise ValueError(f"--{other[0].replace('_', '-')}: there is one config here; nearest is --config-dir DIR, a folder of more choices")
    scale.check(known.overrides)
    check_own(known.overrides)
    if known.multirun:
        compose.check_sweeps(known.overrides)
    return arguments, [*known.overrides, *(["-m"] if known.multirun else [])]


def command(words: Sequence[str], /) -> int:
    """Run one experiment or a sweep, here or on a cluster; existing videos are not made again.

    The arguments are those of `python run.py`, whose --help shows all choices and settings.

        echo-harness run method=echo task=recall seed=0,1,2,3 -m
        echo-harness run experiment=table2 hydra/launcher=slurm -m

    Args:
        words: KEY=VALUE, KEY=A,B with -m, GROUP=CHOICE.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors are raised up to here, to be reported in one line
    sys.path[:0] = [str(PLUGINS)] if str(PLUGINS) not in sys.path else []  # Hydra finds the launcher however the package is installed
    arguments, settings = _arguments(words)
    sys.argv = ["run.py", *arguments]
    main = hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")(_single)
    try:
        with explained(settings):
            try:
                if arguments == settings and "-m" not in settings:  # one run: Hydra itself would compose it twice
                    single(compose.chosen(settings, hydra=True))
                else:
                    main()
            except _Raised as raised:
                raise raised.error from None
    except OSError as error:
        raise Unfinished(_unwritable(error)) from error
    finally:
        forget()
    return 0
