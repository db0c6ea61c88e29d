"""Hydra's launcher for `-m` on a SLURM cluster: hands the whole sweep to `jobs.launch.sweep`, to be made by `jobs.launch.slurm.submit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SlurmLauncher(Launcher):
    """Composes every job of a sweep and submits what is not complete, many videos a SLURM job."""

    def __init__(self, **given: Any) -> None:
        """Keep the settings, which are checked before any work."""
        self._given = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value for key, value in given.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides.

        Raises:
            SystemExit: if a setting or a config is wrong, before any work, or if a unit is missing in the end.
        """
        from jobs.launch import sweep
        from jobs.launch.slurm import submit

        sweep.forget(Path(self._config.hydra.sweep.dir))
        try:
            settings = submit.settings(self._given)
        except ValueError as error:
            raise SystemExit(str(error)) from error
        loader = self._context.config_loader
        configs = [loader.load_sweep_config(self._config, list(overrides)) for overrides in job_overrides]
        sweep.run(configs, lambda jobs, plain: submit.run(jobs, plain, settings))
        return []
