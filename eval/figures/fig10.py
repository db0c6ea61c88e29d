"""Fig. 10: what each scene's recall frame is fused from, place by place, beside the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.figures import output, style
from eval.figures.output import Order
from eval.figures.recorded.backbones import Loader, policy, prompt_of
from eval.figures.recorded.recall_frames import RecordedFilm, film

KEYS = {"backbone": "tiny", "method": "echo_recall_5", "task": "recall", "prompt": "", "seed": "0", "scenes": "3", "layer": "mean"}


def make(name: str, order: Order, load: Loader) -> list[Path]:
    """Roll out, read the memory, draw; the files. Raises ValueError in one line for what cannot be recorded."""
    given = order.given
    prompt = prompt_of(given["task"], given["backbone"], given["prompt"])
    found = film(load(given["backbone"]), policy(given["method"]), prompt, order.number("seed"), order.number("scenes", 1))
    layer = layer_of(order, found)
    return output.write(draw(found, layer, order), name, order, numbers(found, layer))


def layer_of(order: Order, found: RecordedFilm) -> int | None:
    """The layer that is drawn; None for the mean over all. Raises ValueError for one that there is not."""
    layers = found.geometry.layers
    if order.given["layer"] == "mean":
        return None
    layer = order.number("layer")
    if layer >= layers:
        raise ValueError(f"layer={layer}: 0..{layers - 1} or mean; nearest is {layers - 1}")
    return layer


def numbers(found: RecordedFilm, layer: int | None) -> dict[str, Any]:
    """Weights by scene and candidate, of the layer or the mean over layers, and how far they are from even."""
    scenes = []
    for source in found.sources:
        alpha = source.alpha.mean(0) if layer is None else source.alpha[layer]
        even = 1 / len(source.frames)
        spread = source.alpha.std(1, correction=0).mean()
        scenes.append(
            {
                "scene": source.scene, "frames": source.frames, "alpha": found.grid(alpha), "share": source.shares.mean((0, 2)),
                "largest_by_layer": source.alpha.amax(1).mean(1), "even": even, "spread_over_candidates": float(spread),
            }
        )  # fmt: skip
    return {"prompt": found.prompt, "starts": found.starts, "scenes": scenes}


def draw(found: RecordedFilm, layer: int | None, order: Order) -> Any:
    """A row for each scene: its middle frame, then a pair for each candidate, the frame and where it is weighed."""
    plots = style.pyplot()
    many = max(len(source.frames) for source in found.sources)
    figure, axes = plots.subplots(
        len(found.sources),
        1 + many,
        figsize=(1.35 * (1 + many) + 0.9, 1.62 * len(found.sources) + 0.75),
        squeeze=False,
        layout="constrained",
    )
    values = [found.grid(source.alpha.mean(0) if layer is None else source.alpha[layer]) for source in found.sources]
    high = max(float(one.max()) for one in values)
    shown = None
    for line, source, alpha in zip(axes, found.sources, values):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
        line[0].imshow(found.middle(source.scene))
        line[0].set_ylabel(f"scene {source.scene + 1}", rotation=0, ha="right", va="center", color=style.INK)
        for axis, frame, weights in zip(line[1:], source.frames, alpha):
            shown = axis.imshow(weights, cmap="Blues", vmin=0, vmax=high)
            inset = axis.inset_axes((0.0, 1.03, 0.4, 0.4))
            inset.imshow(found.frames[frame])
            inset.set(xticks=[], yticks=[])
            inset.spines[:].set_visible(False)
            axis.set_title(
                f"its frame {frame - found.starts[source.scene] * found.geometry.frames_per_block}", fontsize=8, fontweight="normal"
            )
        for axis in line[1 + len(source.frames) :]:
            axis.set_visible(False)
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, aspect=24, pad=0.015, ticks=[0, 1 / many, high])
    bar.ax.set_yticklabels(["0", f"{1 / many:.2f}\neven", f"{high:.2f}"])
    bar.outline.set_visible(False)
    bar.ax.grid(False)
    which = f"mean over {found.geometry.layers} layers" if layer is None else f"layer {layer + 1} of {found.geometry.layers}"
    figure.suptitle(
        f"{order.world}; {found.prompt} under {order.given['method']}: weight of each candidate frame in the scene's recall frame, {which}",
        fontsize=8.5, color=style.MUTED, x=0.01, ha="left",
    )  # fmt: skip
    return figure
