"""Definitions of metrics, and the arithmetic of metrics that are derived from others. No torch, no frames."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # refused settings do not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

PERCENT = "percent, 0 to 100"
COSINE = "100 x cosine"


@dataclass(frozen=True)
class Definition:
    """A definition of a metric; its name is part of the metric's name in the store.

    words: description for a caption; "" for one that `rule=` cannot select. unit: its own, if it is not the metric's.
    note: printed below a table that shows it. cuts: whether its description states its stretches of video. embedded: of the embedded
    scorer; its name precedes the metric, as in `proxy.dynamic_degree`, while others follow it, as in `dynamic_degree.vbench`.
    """

    words: str = ""
    unit: str = ""
    note: str = ""
    cuts: bool = False
    embedded: bool = False


DEFINITIONS: Final[Mapping[str, Definition]] = {
    "vbench_long": Definition(
        "VBench-Long: mean over clips of 2 s; subject and background consistency are half the clips' own, half that between clips, "
        "mapped by VBench-Long's table",
        cuts=True,
    ),
    "vbench_long_scenes": Definition("VBench-Long of each scene as if it were a video, then the mean over scenes", cuts=True),
    "vbench_static": Definition("temporal flickering: over those clips of 2 s that VBench's static filter calls still", cuts=True),
    "vbench": Definition("VBench's plain formulas"),
    "pair_mean": Definition("consistency of a pair: mean cosine across it"),
    "pair_joined": Definition("consistency of a pair: VBench's plain formula on the two scenes joined end to end"),
    "clip_b32": Definition("text alignment: 100 x cosine of CLIP ViT-B/32", COSINE),
    "clip_l14": Definition("text alignment: 100 x cosine of CLIP ViT-L/14", COSINE),
    "viclip": Definition("text alignment: 100 x cosine of ViCLIP", COSINE),
    "vbench_text_alignment": Definition("text alignment: mean of CLIP's and ViCLIP's cosine x 100, as in VBench's competitions", COSINE),
    "proxy": Definition(note="proxy: the dimension's idea measured by another scorer; not a VBench number.", embedded=True),
    "proxy_joined": Definition(embedded=True),
    "world": Definition(note="world: read against the truth of the embedded world; no other benchmark has it.", embedded=True),
    "opinion": Definition(unit="points, 1 (worst) to 5 (best)"),
}
"""By name, in the order of captions."""
PAIRS: Final = {"pair_joined": "proxy_joined", "pair_mean": "proxy"}
"""Readings of the appendix's "paired segments", the default first, and the embedded scorer's name of each."""
MADE: Final = {
    "vbench_long": ("vbench_long",), "vbench_long_scenes": ("vbench_long_scenes",), "vbench": ("vbench", "pair_joined"),
    "proxy": ("proxy",),
}  # fmt: skip
"""Definitions of derived metrics, and the definitions of their parts, of which the first available one is used."""
RULES: Final = {name: definition for name, definition in DEFINITIONS.items() if definition.words}
"""Definitions that `rule=` can select."""


@dataclass(frozen=True)
class Part:
    """A part of a derived metric: scaled from least..most (percent) to 0..1, times a weight."""

    least: float = 0.0
    most: float = 100.0
    weight: float = 1.0


def weighted(parts: Mapping[str, Part], values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The weighted mean of values in percent, each scaled to the range of its part; in percent."""
    scaled = [part.weight * (values[name] - part.least) / (part.most - part.least) for name, part in parts.items()]
    return 100 * reduce(operator.add, scaled) / sum(part.weight for part in parts.values())
