"""Networks that a process loads and caches by the content of their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from echo.files import file_digest
from echo.refusals import Missing
from jobs.spec import backbones
from jobs.spec.config import RANDOM, BackboneConfig, RunConfig, located
from jobs.spec.plan import Job
from jobs.work import scratch
from jobs.work.progress import say

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel
    from echo.backbone.real import Parts
    from echo.sampler import Schedule
    from eval.world.scorer import EmbeddedScorer

Content = tuple[Path | None, str | None]
"""A file and the digest of its content, so that a changed file is read again; None for no file."""


def load(job: Job, window: str = "shared", note: Callable[[str], None] = say) -> tuple[VideoModel | None, EmbeddedScorer | None]:
    """Backbone and scorer of a job, cached from an earlier job of this process if they are the same; a rendered row has no backbone.

    window: what `window=auto` stands for here. note: called with lines about copies of weights on a disk of this machine.
    """
    import torch

    torch.set_num_threads(job.config.backbone.threads)
    scorer, backbone = None, None
    if job.config.eval.scorer == "embedded":
        import cv2

        cv2.setNumThreads(job.config.backbone.threads)
        assert job.config.eval.weights is not None
        path = located(job.config.eval.weights)
        scorer = _scorer(path, file_digest(path))
    if job.config.backbone.parts is not None:
        backbone = _real(_staged(parts_to_load(job.config, window), note))
    elif not job.rendered:
        files = [None if path is None else located(path) for path in (job.config.backbone.weights, job.config.backbone.lora)]
        digests = [None if path is None else file_digest(path) for path in files]
        contents = zip(_near(files, digests, note), digests)
        config = job.config.backbone
        backbone = _backbone(config.dtype, *contents, config.frames_per_block, steps_of(config))
    return backbone, scorer


def steps_of(backbone: BackboneConfig) -> Schedule:
    """The denoising steps of a backbone's blocks."""
    from echo.sampler import schedule

    return schedule(backbone.steps, backbone.shift, warp=backbone.warp, first=backbone.first_steps)


@lru_cache(maxsize=2)
def _backbone(dtype: str, weights: Content, lora: Content, frames: int, steps: Schedule) -> VideoModel:
    from echo.backbone.load import load

    return load(str(weights[0]), dtype, None if lora[0] is None else str(lora[0])).paced(frames, steps)


@lru_cache(maxsize=1)  # `release` frees it before the next is loaded
def _real(parts: Parts) -> VideoModel:
    from echo.backbone.real import RealBackbone

    return RealBackbone(parts)


@lru_cache(maxsize=2)
def _scorer(path: Path, digest: str) -> EmbeddedScorer:
    from eval.world.scorer import EmbeddedScorer

    return EmbeddedScorer.load(path)


def _near(paths: Sequence[Path | None], contents: Sequence[str | None], note: Callable[[str], None]) -> list[Path | None]:
    """Files or their copies on a disk of this machine. contents: their digests."""
    return [path if path is None or own is None else scratch.staged(path, own, note) for path, own in zip(paths, contents, strict=True)]


def _staged(parts: Parts, note: Callable[[str], None]) -> Parts:
    """Parts with network, additions and decoder from a disk of this machine. The text encoder is not copied: a sweep reads it once."""
    weights, lora, codec = _near((parts.weights, parts.lora, parts.codec), parts.content, note)
    return replace(parts, weights=weights, lora=lora, codec=codec)


def release() -> None:
    """Free a large backbone."""
    _real.cache_clear()


def parts_to_load(config: RunConfig, window: str = "shared") -> Parts:
    """The loader's arguments, from a resolved config."""
    from echo.backbone.real import Parts

    parts = backbones.parts_of(config)

    def place(path: str | None) -> Path | None:
        return None if path in (None, RANDOM) else located(path)

    text, tokenizer = place(parts.text), place(parts.tokenizer)
    read = [place(path) for path in (config.backbone.weights, config.backbone.lora, parts.codec)]
    return Parts(
        size=config.geometry, geometry=backbones.geometry(config), schedule=steps_of(config.backbone),
        weights=place(config.backbone.weights), lora=place(config.backbone.lora),
        text=text, tokenizer=tokenizer, codec=place(parts.codec), decoder=parts.decoder, dtype=config.backbone.dtype,
        text_dtype=parts.text_dtype, codec_dtype=parts.codec_dtype, device=parts.device, text_device=parts.text_device,
        kernel=parts.kernel, compile=parts.compile, text_cache=Path(parts.text_cache),
        window=window if parts.window == "auto" else parts.window,
        content=tuple(None if path is None else file_digest(path) for path in read),
        text_identity=RANDOM if text is None or tokenizer is None else f"{file_digest(text)} {file_digest(tokenizer)}",
    )  # fmt: skip


def cards(configs: Sequence[RunConfig]) -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them, if a run needs one; else none.

    Raises ValueError if a run needs a GPU and there is none.
    """
    every = [(config, config.backbone.parts) for config in configs]
    wanting = [config for config, parts in every if parts is not None and "cuda" in (parts.device, parts.text_device)]
    if not wanting:
        return []
    import torch

    count = torch.cuda.device_count()
    if not count:
        rest = "nearest is backbone.parts.device=cpu (hours a video), or weights=random geometry=tiny to try the whole path"
        line = f"backbone={wanting[0].backbone.name}: device=cuda, and torch sees no CUDA card here; {rest}"
        raise Missing(line, "a CUDA card", "hydra/launcher=slurm computes elsewhere")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]
