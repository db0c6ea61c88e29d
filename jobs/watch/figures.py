"""The paper's figures on any backbone: the settings of `eval.figures.command`, and those of the backbone.

Queries and keys of a recording lie in the host's memory: at 832x480, 144 MB per layer and block, so choose few layers for fig3 there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.presets import preset
from echo.files import RESULTS
from eval.figures import command
from eval.figures.recorded.backbones import embedded
from jobs.spec import backbones, compose
from jobs.spec.mistakes import explained
from jobs.work import models

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel

OWN = ("weights=", "geometry=", "checkpoints=", "backbone.")
"""Prefixes of words that are settings of a run's config; all others are settings of the figures."""


def load(words: Sequence[str], name: str) -> VideoModel:
    """The backbone of a run with these settings. Raises ValueError in one line if it cannot be loaded."""
    if not preset("backbone", name).get("parts"):
        return embedded(name)
    chosen = [f"backbone={name}", *words]
    with explained(chosen):
        plain = compose.one(chosen)
    parts = models.parts_to_load(backbones.checked(plain))
    from echo.backbone.real import RealBackbone

    return RealBackbone(parts)


def figures(words: Sequence[str], /, *, store: Path = RESULTS, output: Path | None = None) -> Iterator[str]:
    """Draw the paper's figures: NAME.pdf, NAME.png, and NAME.json with the numbers, settings, command and commit.

        echo-harness figures fig3 fig4 fig10
        echo-harness figures fig5 method=infinity_rope,echo every_s=10 --store results --output docs/figures
        echo-harness figures fig10 backbone=self_forcing weights=random geometry=tiny

    Args:
        words: fig3 to fig11, overview, cache, lambda, budget, or all, and their settings, KEY=VALUE, some of backbone= task= method=
            source= prompt= prompts= seed= scenes= blocks= block= every= every_s= layers= layer= truth= recent= batch= (docs/figures.md); a
            backbone of Wan2.1's architecture also takes weights= geometry= checkpoints= backbone.SETTING=.
        store: the run store; fig3, fig4, fig10, overview and cache need none.
        output: the folder; by default the store's figures folder.
    """
    own = [word for word in words if word.startswith(OWN)]
    return command.draw([word for word in words if word not in own], store, output, partial(load, own), own)
