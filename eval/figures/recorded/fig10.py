"""Fig. 10: the candidates of each scene's recall frame and their weights at each place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eval.figures import output, style
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader, policy, prompt_of
from eval.figures.recorded.recall_frames import RecallSource, RecordedFilm, film

KEYS = {"backbone": "tiny", "method": "echo_recall_5", "task": "recall", "prompt": "", "seed": "0", "scenes": "3", "layer": "mean"}


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Roll out, read the memory, draw; returns the files. Raises ValueError in one line for invalid settings."""
    settings = order.settings
    prompt = prompt_of(settings["task"], settings["backbone"], settings["prompt"])
    recorded = film(load(settings["backbone"]), policy(settings["method"]), prompt, order.number("seed"), order.number("scenes", 1))
    layer = layer_of(order, recorded)
    return output.write(draw(recorded, layer, order), name, order, numbers(recorded, layer))


def layer_of(order: FigureOrder, recorded: RecordedFilm) -> int | None:
    """The layer that is drawn; None for the mean over all. Raises ValueError for an unknown layer."""
    layers = recorded.geometry.layers
    if order.settings["layer"] == "mean":
        return None
    layer = order.number("layer")
    if layer >= layers:
        raise ValueError(f"layer={layer}: 0..{layers - 1} or mean; nearest is {layers - 1}")
    return layer


@dataclass(frozen=True)
class SceneWeights:
    """Weights of one scene's candidates: `alpha` as maps, `share` of each in the recall frame, and how far they are from even."""

    scene: int
    frames: tuple[int, ...]
    alpha: NDArray[np.float64]
    share: Tensor
    largest_by_layer: Tensor
    even: float
    spread_over_candidates: float


@dataclass(frozen=True)
class Fig10Numbers:
    """All numbers of the figure. starts: first block of each scene, and the end."""

    prompt: str
    starts: tuple[int, ...]
    scenes: list[SceneWeights]


def numbers(recorded: RecordedFilm, layer: int | None) -> Fig10Numbers:
    """Weights by scene and candidate, of the layer or the mean over layers."""
    scenes = [
        SceneWeights(
            source.scene, source.frames, recorded.grid(_weights(source, layer)), source.shares.mean((0, 2)),
            source.alpha.amax(1).mean(1), 1 / len(source.frames), float(source.alpha.std(1, correction=0).mean()),
        )
        for source in recorded.sources
    ]  # fmt: skip
    return Fig10Numbers(recorded.prompt, recorded.starts, scenes)


def _weights(source: RecallSource, layer: int | None) -> Tensor:
    return source.alpha.mean(0) if layer is None else source.alpha[layer]


def draw(recorded: RecordedFilm, layer: int | None, order: FigureOrder) -> Any:
    """A row for each scene: its middle frame, then each candidate frame with a map of its weights."""
    plots = style.pyplot()
    many = max(len(source.frames) for source in recorded.sources)
    size = (1.35 * (1 + many) + 0.9, 1.62 * len(recorded.sources) + 0.75)
    figure, axes = plots.subplots(len(recorded.sources), 1 + many, figsize=size, squeeze=False, layout="constrained")
    values = [recorded.grid(_weights(source, layer)) for source in recorded.sources]
    high = max(float(one.max()) for one in values)
    shown = None
    for line, source, alpha in zip(axes, recorded.sources, values):
        style.bare(*line)
        line[0].imshow(recorded.middle(source.scene))
        style.row_label(line[0], f"scene {source.scene + 1}")
        for axis, frame, weights in zip(line[1:], source.frames, alpha):
            shown = axis.imshow(weights, cmap="Blues", vmin=0, vmax=high)
            inset = axis.inset_axes((0.0, 1.03, 0.4, 0.4))
            inset.imshow(recorded.frames[frame])
            inset.set(xticks=[], yticks=[])
            inset.spines[:].set_visible(False)
            own = frame - recorded.starts[source.scene] * recorded.geometry.frames_per_block
            axis.set_title(f"its frame {own}", fontsize=9, fontweight="normal")
        for axis in line[1 + len(source.frames) :]:
            axis.set_visible(False)
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, aspect=24, pad=0.015, ticks=[0, 1 / many, high])
    bar.ax.set_yticklabels(["0", f"{1 / many:.2f}\neven", f"{high:.2f}"])
    bar.outline.set_visible(False)
    bar.ax.grid(False)
    which = f"mean over {recorded.geometry.layers} layers" if layer is None else f"layer {layer + 1} of {recorded.geometry.layers}"
    what = f"{recorded.prompt} under {order.settings['method']}: weight of each candidate frame in the scene's recall frame, {which}"
    style.heading(figure, f"{order.world}; {what}")
    return figure
