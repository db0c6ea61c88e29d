"""Backbones of Wan2.1's make in a run's config: what `auto` and `random` stand for, whether the files are there and fit."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from echo.backbone import extras, sizes
from echo.cache.policy import held_frames, plans
from echo.files import file_digest
from echo.geometry import Geometry
from echo.routing import Feature, Routing, script_of
from jobs.spec.config import RANDOM, PartsConfig, RunConfig, located

if TYPE_CHECKING:
    from echo.backbone.real import Parts
    from jobs.memory.forecast import Forecast
    from jobs.spec.plan import Job


def resolved(config: RunConfig) -> RunConfig:
    """The config with `auto` and `weights=random` put into its parts, so that a run's name tells what really ran.

    `auto` is the graphics card at the native geometry and the processor at the tiny one, whatever machine asks: a login node
    without a card names the same run as the node that computes it. Raises ValueError for choices that do not go together.
    """
    parts = config.backbone.parts
    if parts is None:
        for name, value, usual in (("weights", config.weights, "trained"), ("geometry", config.geometry, "native")):
            if value != usual:
                rule = "this backbone is trained, tiny and shipped" if config.backbone.name.startswith("tiny") else "it has no parts"
                taken = f"backbone={config.backbone.name} takes {name}={usual} alone ({rule}); nearest is backbone=self_forcing"
                raise ValueError(f"{name}={value}: {taken}")
        return config
    from echo.backbone import compiled, kernels

    device = ("cpu" if config.geometry == "tiny" else "cuda") if parts.device == "auto" else parts.device
    try:
        kernel = kernels.resolve(parts.kernel, device, config.backbone.dtype)
        compiled.check(parts.compile, device)
    except ValueError as error:
        raise ValueError(f"backbone.parts.{error}") from None
    text_device = device if parts.text_device == "auto" else parts.text_device
    changes: dict[str, object] = {"device": device, "text_device": text_device, "kernel": kernel}
    label, backbone = config.backbone.label, config.backbone
    if config.geometry == "tiny":
        size, native = sizes.SIZES["tiny"], sizes.SIZES["native"]
        if (parts.height_px, parts.width_px) == (native.height_px, native.width_px):  # frames that were asked for stay
            changes |= {"height_px": size.height_px, "width_px": size.width_px}
        label += ", tiny sizes"
    if config.weights == "random":
        changes |= dict.fromkeys(("text", "tokenizer", "codec"), RANDOM)
        backbone = dataclasses.replace(backbone, weights=RANDOM, lora=None)
        label += ", random weights"
    backbone = dataclasses.replace(backbone, label=label, parts=dataclasses.replace(parts, **changes))  # type: ignore[arg-type]
    return dataclasses.replace(config, backbone=backbone)


def parts_of(config: RunConfig) -> PartsConfig:
    """The parts of a backbone that has some."""
    parts = config.backbone.parts
    assert parts is not None
    return parts


def geometry(config: RunConfig) -> Geometry:
    """Geometry of a resolved config's backbone with parts."""
    parts = parts_of(config)
    return sizes.geometry(sizes.SIZES[config.geometry].network, parts.height_px, parts.width_px, parts.window_frames)


def files(config: RunConfig) -> dict[str, str]:
    """The paths that must be there, by the name of their setting."""
    parts = parts_of(config)
    named = {
        "backbone.weights": config.backbone.weights, "backbone.lora": config.backbone.lora, "backbone.parts.text": parts.text,
        "backbone.parts.tokenizer": parts.tokenizer, "backbone.parts.codec": parts.codec,
    }  # fmt: skip
    return {name: path for name, path in named.items() if path not in (None, RANDOM)}


def check(config: RunConfig) -> None:
    """Refuse a backbone with parts whose files are not there or are not what they should be; no data of them is read.

    Raises ValueError: one line.
    """
    extras.check(f"backbone={config.backbone.name}")
    for name, path in files(config).items():
        if not located(path).exists():
            raise ValueError(
                f"{name}={path}: no such file; `python -m data.download backbone={config.backbone.name}` fetches it, "
                "checkpoints=DIR looks elsewhere, weights=random needs none"
            )
    if config.eval.scorer == "embedded":
        rule = f"reads videos of the embedded world, not those of backbone={config.backbone.name}; nearest is eval=none"
        raise ValueError(f"eval={config.eval.name}: {rule}")
    if config.backbone.weights == RANDOM:
        return
    from echo.backbone import checkpoint, taehv, umt5, vae

    network, given = sizes.SIZES[config.geometry].network, parts_of(config)
    checkpoint.check(located(config.backbone.weights), network)
    if config.backbone.lora is not None:
        checkpoint.check_lora(located(config.backbone.lora), network)
    umt5.check(located(given.text), located(given.tokenizer))
    (taehv if given.decoder == "taehv" else vae).check(located(given.codec))


def forecast(job: Job) -> Forecast:
    """Memory of a job, by its longest prompt."""
    from jobs.memory import forecast as memory
    from jobs.memory import parts as memory_parts

    config, parts = job.config, parts_of(job.config)
    policy = job.policy
    routing: Routing | None = getattr(policy, "routing", None)
    if routing is not None:  # which scene is recalled changes no size, and the encoder is not loaded for it
        policy = dataclasses.replace(policy, routing=dataclasses.replace(routing, feature=Feature.idf))  # type: ignore[call-arg]
    script = max((script_of(prompt, policy) for prompt in job.asked), key=lambda script: (script.blocks, len(script.starts)))
    return memory.forecast(
        memory.Setup(
            sizes.SIZES[config.geometry].network, geometry(config), policy, script, config.batch, config.backbone.dtype, parts.window,
            text=memory_parts.text_sizes(config.geometry, config.weights == "random"), text_dtype=parts.text_dtype,
            text_on_device=parts.text_device == parts.device, codec=memory_parts.codec_sizes(parts.decoder, config.geometry),
            codec_dtype=parts.codec_dtype, capacity=held_frames(plans(policy, script, geometry(config))),
        )
    )  # fmt: skip


def texts(jobs: Sequence[Job]) -> list[str]:
    """All that the text encoder will be asked for by some jobs, so that it is loaded once for all of them."""
    found: dict[str, None] = {}

    def embed(asked: list[str]) -> list[list[float]]:
        found.update(dict.fromkeys(asked))
        return [[1.0]] * len(asked)

    for job in jobs:
        for prompt in job.asked if job.config.backbone.parts is not None else ():
            found.update(dict.fromkeys(prompt.scenes))
            script_of(prompt, job.policy, embed)  # a router asks for texts of its own
    return list(found)


def foretell(jobs: Sequence[Job]) -> list[str]:
    """What the most demanding of some jobs will take of memory, and what to change where the card has less."""
    found = {id(job): forecast(job) for job in {job.run_id: job for job in jobs if job.config.backbone.parts is not None}.values()}
    if not found:
        return []
    job = max((job for job in jobs if id(job) in found), key=lambda job: found[id(job)].peak)
    most, total = found[id(job)], card_bytes() if parts_of(job.config).device == "cuda" else None
    return [f"{job.title}: {most.line(total)}", *([] if total is None else most.advice(total))]


def card_bytes() -> int | None:
    """Memory of the smallest card of this machine, by its driver's own tool: this process opens no card. None where it is silent."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return min((int(word) for word in said if word.isdecimal()), default=0) * 2**20 or None


def cards(configs: Sequence[RunConfig]) -> list[str]:
    """The graphics cards of this machine, as CUDA_VISIBLE_DEVICES names them, where a run wants one; else none.

    Raises ValueError where one is wanted and there is none.
    """
    parts = [(config, config.backbone.parts) for config in configs]
    wanting = [config for config, one in parts if one is not None and "cuda" in (one.device, one.text_device)]
    if not wanting:
        return []
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise ValueError(
            f"backbone={wanting[0].backbone.name}: device=cuda, and torch sees no CUDA card here; nearest is backbone.parts.device=cpu "
            "(hours a video), or weights=random geometry=tiny to try the whole path"
        )
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else [str(index) for index in range(count)]


def parts(config: RunConfig) -> Parts:
    """What the loader needs, from a resolved config."""
    from echo.backbone.real import Parts

    given = parts_of(config)

    def place(path: str | None) -> Path | None:
        return None if path in (None, RANDOM) else located(path)

    text, tokenizer = place(given.text), place(given.tokenizer)
    read = [place(path) for path in (config.backbone.weights, config.backbone.lora, given.codec)]
    return Parts(
        size=config.geometry, geometry=geometry(config), weights=place(config.backbone.weights), lora=place(config.backbone.lora),
        text=text, tokenizer=tokenizer, codec=place(given.codec), decoder=given.decoder, dtype=config.backbone.dtype,
        text_dtype=given.text_dtype, codec_dtype=given.codec_dtype, device=given.device, text_device=given.text_device,
        kernel=given.kernel, compile=given.compile, window=given.window, text_cache=Path(given.text_cache),
        content=tuple(None if path is None else file_digest(path) for path in read),
        text_identity=RANDOM if text is None or tokenizer is None else f"{file_digest(text)} {file_digest(tokenizer)}",
    )  # fmt: skip
