"""Settings of `eval=vbench`: checks of values and files, and the content that names the scores. Nothing is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from echo.refusals import Missing, refuse
from echo.scene import Prompt
from eval.protocol import PAIRED, pairs_of
from jobs.spec.config import RANDOM, Key, RunConfig, VbenchConfig, enlarged, located

if TYPE_CHECKING:
    from eval.vbench.kit import Kit, Wish

SCORER = "vbench"


def wish(config: RunConfig) -> Wish:
    """The config's settings for VBench. Raises ValueError for an unknown value, naming the setting."""
    from eval.vbench.kit import DIMENSIONS, Wish, listed

    vbench, parts = _vbench(config), config.backbone.parts
    dimensions = DIMENSIONS if vbench.dimensions == "all" else listed(vbench.dimensions)
    device = vbench.device if vbench.device != "auto" else "cpu" if parts is None else parts.device
    try:
        return Wish(dimensions, listed(vbench.text), vbench.clip_features, vbench.clip_dtype, device, vbench.long_for, vbench.static_filter)
    except ValueError as error:
        raise ValueError(f"eval.vbench.{error}") from None


def _vbench(config: RunConfig) -> VbenchConfig:
    if config.eval.vbench is None:
        raise ValueError("eval.vbench is missing: eval.scorer=vbench needs its settings; nearest is eval=vbench")
    return config.eval.vbench


def kit(config: RunConfig) -> Kit:
    """The networks of a config, none of them loaded."""
    from eval.vbench.kit import Files, Kit, Random

    assert config.eval.weights is not None
    return Kit(wish(config), Random() if config.eval.weights == RANDOM else Files(located(config.eval.weights)))


def content(config: RunConfig) -> Key:
    """Weights, dtypes and versions of the networks that are used, which enter a score's name."""
    asked = kit(config)
    return asked.identity(long=asked.wish.long(config.task.name), text=True)


def missing(config: RunConfig) -> Iterator[Missing]:
    """Missing packages and weights of networks, if a config scores by them."""
    if config.eval.scorer == SCORER and config.eval.weights is not None:
        asked = kit(config)
        yield from asked.missing(long=asked.wish.long(config.task.name), text=True)


def check(config: RunConfig, prompts: Sequence[Prompt]) -> None:
    """Raises ValueError in one line, before any work, for missing files and videos that cannot be scored."""
    from eval.vbench.kit import ANY_SIZE

    if config.eval.weights is None:
        raise ValueError("eval.weights=null: eval=vbench needs a folder of weights; nearest is checkpoints/vbench, or weights=random")
    asked, parts = kit(config), config.backbone.parts
    larger = 1 if parts is None else enlarged(parts.height_px, parts.width_px, config.video.height_px)
    if parts is not None and min(parts.height_px, parts.width_px) * larger < asked.wish.least_side:
        size, others = f"{parts.width_px * larger}x{parts.height_px * larger} px", "+".join(ANY_SIZE)
        rule = f"RAFT and AMT need sides of at least {asked.wish.least_side} px"
        raise ValueError(f"eval=vbench: the videos are {size}, {rule}; nearest is eval.vbench.dimensions={others}")
    for prompt in prompts:
        try:
            pairs_of(config.task.name, len(prompt.scenes), prompt.recalls)
        except ValueError as error:
            raise ValueError(f"prompt {prompt.id!r}: {error}") from None
    refuse(missing(config))


def resolved(config: RunConfig) -> RunConfig:
    """The config as it runs: settings without effect are at their defaults; with random weights, all networks are random and clips are
    compared by `dino_clip`.

    So scores are named by what ran. Raises ValueError for weights of the scorer together with `weights=random`.
    """
    if config.eval.pairs != "mean" and (config.eval.scorer == SCORER or config.task.name not in PAIRED):
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, pairs="mean"))  # no effect, so names stay
    own = config.eval.weights
    if config.eval.scorer != SCORER or RANDOM not in (own, config.weights):
        return config
    if own not in (None, RANDOM) and Path(own) != Path(config.checkpoints) / "vbench":
        rest = "nearest is eval.weights=random, or weights=trained"
        raise ValueError(f"eval.weights={own}: weights=random draws the scorer's networks too; {rest}")
    vbench = _vbench(config)
    if vbench.clip_features == "dinov2_dreamsim":  # the default, and DreamSim has no random weights
        vbench = dataclasses.replace(vbench, clip_features="dino_clip")
    asked = dataclasses.replace(config.eval, weights=RANDOM, vbench=vbench, label=f"{config.eval.label}, random weights")
    return dataclasses.replace(config, eval=asked)
