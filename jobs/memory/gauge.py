"""Memory of a job on a backbone with parts: computed before, measured since."""

from __future__ import annotations

from typing import Any

from jobs.memory.forecast import gb
from jobs.spec import backbones
from jobs.spec.plan import Job


class Gauge:
    """Memory of a job, computed before and measured since; made before anything is loaded."""

    def __init__(self, job: Job) -> None:
        from jobs.memory.forecast import Meter

        self.computed = backbones.forecast(job)
        self._meter = Meter(backbones.parts_of(job.config).device)
        self._meter.start()

    def facts(self) -> dict[str, Any]:
        """For a record."""
        return self._meter.beside(self.computed.peak)

    def line(self) -> str:
        """For people."""
        facts = self.facts()
        return f"memory: {gb(facts['measured_bytes'])} GB measured ({facts['measured']}), {gb(facts['computed_bytes'])} GB computed"
