"""Memory of a job on a backbone with parts: computed before anything is loaded, measured since."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace

from echo.backbone import sizes
from echo.cache.policy import held_frames, plans, script_of
from echo.files import Json
from echo.routing import Feature
from jobs.memory.forecast import Forecast, Setup, forecast, gb
from jobs.memory.measured import Meter
from jobs.memory.parts import codec_sizes, text_sizes
from jobs.spec import backbones
from jobs.spec.plan import Job

SPARE = 1.25
"""GPU memory over the forecast from which `window=auto` keeps every layer's window; tests check forecasts to within a quarter."""


class JobMemory:
    """Memory of a job, computed and measured; make it before anything is loaded."""

    def __init__(self, job: Job) -> None:
        self.computed = forecast_of(job, total_bytes(job))
        self._meter = Meter(backbones.parts_of(job.config).device)
        self._meter.start()

    def facts(self) -> Json:
        """Facts for a record."""
        return self._meter.compared(self.computed.peak)

    def line(self) -> str:
        """The printed line."""
        facts = self.facts()
        return f"memory: {gb(facts['measured_bytes'])} GB measured ({facts['measured']}), {gb(facts['computed_bytes'])} GB computed"


def forecast_of(job: Job, total_bytes: int | None = None) -> Forecast:
    """Memory of a job, by its longest prompt. total_bytes: memory of the GPU.

    `window=auto` becomes resident if the GPU has the forecast and a quarter more, otherwise shared; results are the same bit for bit.
    """
    config, parts = job.config, backbones.parts_of(job.config)
    policy = job.policy.routed(feature=Feature.idf)  # without loading the encoder; the recalled scene changes no size
    geometry = backbones.geometry(config)
    alike = [script_of(prompt, policy, geometry.frames_per_block, lambda texts: [[1.0]] * len(texts)) for prompt in job.asked]
    script = max(alike, key=lambda script: (script.blocks, len(script.starts)))
    setup = Setup(
        sizes.SIZES[config.geometry].network, geometry, policy, script, config.batch, config.backbone.dtype,
        "shared" if parts.window == "auto" else parts.window, text=text_sizes(config.geometry, config.weights == "random"),
        text_dtype=parts.text_dtype, text_on_device=parts.text_device == parts.device, codec=codec_sizes(parts.decoder, config.geometry),
        codec_dtype=parts.codec_dtype, capacity=held_frames(plans(policy, script, geometry)),
        timesteps=len({*config.backbone.steps, *config.backbone.first_steps}) + 1,
    )  # fmt: skip
    if parts.window == "auto" and total_bytes is not None:
        resident = forecast(replace(setup, window="resident"))
        if SPARE * resident.peak <= total_bytes:
            return resident
    return forecast(setup)


def foretell(jobs: Sequence[Job]) -> list[str]:
    """Lines on the memory of the largest of some jobs, and what to change if the GPU has less."""
    distinct = {job.run_id: job for job in jobs if job.config.backbone.parts is not None}.values()
    forecasts = {id(job): forecast_of(job, total_bytes(job)) for job in distinct}
    if not forecasts:
        return []
    job = max((job for job in jobs if id(job) in forecasts), key=lambda job: forecasts[id(job)].peak)
    most, total = forecasts[id(job)], total_bytes(job)
    return [f"{job.title}: {most.line(total)}", *([] if total is None else most.advice(total))]


def total_bytes(job: Job) -> int | None:
    """Memory of this machine's smallest GPU, if the job is computed on one; None otherwise or if unknown."""
    return card_bytes() if backbones.parts_of(job.config).device == "cuda" else None


def card_bytes() -> int | None:
    """Memory of this machine's smallest GPU in bytes, by the driver's own tool, so that this process opens no GPU; None if unknown."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return min((int(word) for word in said if word.isdecimal()), default=0) * 2**20 or None
