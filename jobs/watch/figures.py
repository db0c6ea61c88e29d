"""The paper's figures on a backbone of Wan2.1's make: the words of `eval.figures.command`, and those that say which backbone.

    python -m jobs.watch.figures fig10 backbone=self_forcing [checkpoints=DIR] [backbone.parts.SETTING=VALUE ...]
    python -m jobs.watch.figures fig3 backbone=self_forcing layers=14 layer=14 prompts=2 batch=1 every=8 [...]
    python -m jobs.watch.figures fig10 backbone=self_forcing weights=random geometry=tiny                        # tries the way, on a CPU

Queries and keys of a recording lie in the host's memory: at 832x480, 144 MB for each layer and block, so fig3 wants few layers there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from baselines.presets import preset
from eval.figures import command
from eval.figures.recorded.backbones import embedded
from jobs.spec import backbones, compose
from jobs.spec.mistakes import explained
from jobs.work import models

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel

OWN = ("weights=", "geometry=", "checkpoints=", "backbone.")
"""How words begin that are settings of a run's config; all others are of the figures."""


def load(words: Sequence[str], name: str) -> VideoModel:
    """A backbone as a run with these settings would have it. Raises ValueError in one line for what cannot be loaded."""
    if not preset("backbone", name).get("parts"):
        return embedded(name)
    chosen = [f"backbone={name}", *words]
    with explained(chosen):
        plain = compose.one(chosen)
    parts = models.parts_to_load(backbones.checked(plain))
    from echo.backbone.real import RealBackbone

    return RealBackbone(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    own = [word for word in words if word.startswith(OWN)]
    return command.main([word for word in words if word not in own], partial(load, own), "jobs.watch.figures", own)


if __name__ == "__main__":
    sys.exit(main())
