"""Results of a job's videos: recorded in the store, reported to the launching process, and logged to the tracker."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.outgoing import without_secrets
from echo.scene import Prompt
from jobs.spec.plan import Job
from jobs.store import unwritable
from jobs.store.folder import Attempt, RunFolder
from jobs.work.events import BlocksMade, Report, UnitEnded
from jobs.work.tracking import GuardedTracker


@dataclass(frozen=True)
class JobRecorder:
    """One start of a job, with the receivers of its results."""

    attempt: Attempt
    report: Report
    tracker: GuardedTracker

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return self.attempt.folder

    @property
    def job(self) -> Job:
        """The job."""
        return self.attempt.folder.job

    def done(self, prompt: Prompt, metrics: Mapping[str, float | None], facts: Mapping[str, Any]) -> None:
        """A video is made and scored; see `Attempt.ok`."""
        if self.attempt.ok(prompt, metrics, facts):
            self.tracker.unit({**metrics, **facts}, prompt.id, self.folder.path / "units" / facts["files"]["video"])
        self.report(UnitEnded(prompt=prompt.id))

    def failed(self, prompt: Prompt, error: Exception, blocks: int) -> None:
        """A video failed after `blocks` blocks, with the error that is being handled. Raises the error if it is of the disk."""
        if unwritable.of_store(error):
            raise error
        message = without_secrets(f"{type(error).__name__}: {error}")
        self.attempt.error(prompt, message, without_secrets(traceback.format_exc()))
        self.report(BlocksMade(count=-blocks))
        self.report(UnitEnded(prompt=prompt.id, error=message))
