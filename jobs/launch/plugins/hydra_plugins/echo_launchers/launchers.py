"""Hydra's launchers for `-m`: they pass a whole sweep to `jobs.launch.sweep`, to be made here or on a SLURM cluster.

Hydra accepts launchers only from the namespace package `hydra_plugins`, hence this folder; `jobs.launch.sweep.command` puts it
on the path. `hydra_plugins` itself must not have an `__init__.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class LocalLauncher(Launcher):
    """Composes every job of a sweep and runs the incomplete ones, each in a process of its own."""

    def __init__(self, **settings: Any) -> None:
        """settings: of the launcher, checked before any work."""
        self._settings = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value for key, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs, and what is there before the sweeper writes."""
        from jobs.launch import sweep

        self._context, self._config = hydra_context, config
        with read_write(config), open_dict(config):  # one for each command, so that none takes away another's
            config.hydra.sweep.dir = f"{config.hydra.sweep.dir}-{os.getpid()}"
        sweep.foresee(Path(config.hydra.sweep.dir))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides.

        Raises:
            SystemExit: if a setting or a config is wrong, before any work, or if a unit is missing in the end.
        """
        from jobs.launch import sweep

        sweep.forget()
        make = self._make()
        loader = self._context.config_loader
        sweep.run([loader.load_sweep_config(self._config, list(overrides)) for overrides in job_overrides], make)
        return []

    def _make(self) -> Any:
        """The function that makes a sweep, for `jobs.launch.sweep.run`. Raises SystemExit for a setting of cluster jobs."""
        from jobs.launch import sweep

        if self._settings:
            raise SystemExit(f"launcher: {min(self._settings)} is a resource of jobs on a cluster; add hydra/launcher=slurm")
        return sweep.here


class SlurmLauncher(LocalLauncher):
    """Composes every job of a sweep and submits the incomplete ones, with many videos per SLURM job."""

    def _make(self) -> Any:
        from jobs.launch.slurm import submit

        try:
            chosen = submit.settings(self._settings)
        except ValueError as error:
            raise SystemExit(str(error)) from error
        return lambda jobs, plain: submit.run(jobs, plain, chosen)
