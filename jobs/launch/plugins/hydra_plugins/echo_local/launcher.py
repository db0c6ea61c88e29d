"""Hydra's launcher for `-m` on one machine: hands the whole sweep to `jobs.launch.sweep`.

Hydra accepts launchers from the namespace package `hydra_plugins` alone, hence this folder; `jobs.launch.sweep.guarded` puts it
on the path. No `__init__.py` may stand in `hydra_plugins` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Composes every job of a sweep and runs those that are not complete, each in a process of its own."""

    def __init__(self, **resources: Any) -> None:
        """Keep what was said of a cluster, to be refused by name."""
        self._resources = resources

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides.

        Raises:
            SystemExit: if a config is wrong, before any work, or if a unit is missing in the end.
        """
        from jobs.launch import sweep

        sweep.forget(Path(self._config.hydra.sweep.dir))
        if self._resources:
            raise SystemExit(f"launcher: {min(self._resources)} is a resource of jobs on a cluster; add hydra/launcher=slurm")
        loader = self._context.config_loader
        sweep.run([loader.load_sweep_config(self._config, list(overrides)) for overrides in job_overrides])
        return []
