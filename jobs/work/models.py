"""What a process has loaded stands on a shelf until it is let go; files are told apart by their content."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from data.world.film import Render
from echo.files import file_digest
from jobs.spec import backbones
from jobs.spec.config import located
from jobs.spec.plan import Job

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel
    from echo.backbone.real import Parts
    from eval.world.scorer import EmbeddedScorer

Content = tuple[Path | None, str | None]
"""A file and the digest of its content, so that a file that changes is read again; None where there is none."""


def load(job: Job) -> tuple[VideoModel | None, EmbeddedScorer | None]:
    """What a job needs, from the shelf where this process has loaded it before; a rendered row needs no backbone."""
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
        backbone = _real(backbones.parts(job.config))
    elif not isinstance(job.policy, Render):
        files = [None if path is None else located(path) for path in (job.config.backbone.weights, job.config.backbone.lora)]
        backbone = _backbone(job.config.backbone.dtype, *((path, path and file_digest(path)) for path in files))
    return backbone, scorer


@lru_cache(maxsize=2)
def _backbone(dtype: str, weights: Content, lora: Content) -> VideoModel:
    from echo.backbone.load import BackboneFile, load

    return load(BackboneFile(str(weights[0]), dtype, None if lora[0] is None else str(lora[0])))


@lru_cache(maxsize=1)  # the last one is let go before the next is loaded
def _real(parts: Parts) -> VideoModel:
    from echo.backbone.real import RealBackbone

    return RealBackbone(parts)


@lru_cache(maxsize=2)
def _scorer(path: Path, digest: str) -> EmbeddedScorer:
    from eval.world.scorer import EmbeddedScorer

    return EmbeddedScorer.load(path)


def release() -> None:
    """Let a large backbone go."""
    _real.cache_clear()
