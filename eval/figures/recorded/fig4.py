"""Fig. 4: (a) the candidates of a recall frame, compared with single frames; (b) how the old scene's memory fades over blocks and space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from echo.memory import recall
from eval.figures import output, style
from eval.figures.output import FigureOrder, Mean
from eval.figures.recorded.backbones import Loader, policy, prompt_of, prompts_of
from eval.figures.recorded.recall_frames import Fade, RecordedFilm, film

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel

KEYS = {"backbone": "tiny", "method": "echo,echo_paper", "source": "echo_recall_5", "prompt": "", "prompts": "8", "seed": "0"}
SWITCHES = ("smooth", "hard")
WAYS = {"first": "first candidate", "crucial": "single crucial frame", "fused": "fused (eq. 9)"}
STEPS = 5
"""Passes of a block: four denoising steps and the clean one."""
PICTURED = 6
"""Blocks after a switch whose weights are drawn as maps; the curves continue to the scene's end."""


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Roll out, read the memory, draw; returns the files. Raises ValueError in one line for invalid settings."""
    settings, seed = order.settings, order.number("seed")
    backbone, source = load(settings["backbone"]), policy(settings["source"])
    prompts = prompts_of("recall", settings["backbone"], order.number("prompts", 1))
    films = [film(backbone, source, prompt, seed, 3) for prompt in tqdm(prompts, desc=name, unit="prompt", disable=None)]
    faded = {(method, switch): _faded(order, backbone, method, switch) for method in order.names for switch in SWITCHES}
    units = [(one.prompt, seed) for one in films]
    rows = [[float(np.mean([scene.likeness[way] for scene in one.sources])) for one in films] for way in WAYS]
    likeness = dict(zip(WAYS, output.means(units, rows)))
    return output.write(draw(films[0], likeness, faded, order.world), name, order, numbers(films[0], likeness, faded))


def _faded(order: FigureOrder, backbone: VideoModel, method: str, switch: str) -> RecordedFilm:
    prompt = prompt_of(switch, order.settings["backbone"], order.settings["prompt"])
    return film(backbone, policy(method), prompt, order.number("seed"), 2)


@dataclass(frozen=True)
class FadeNumbers:
    """The weights of an old scene's memory, block by block: as maps, and their mean, lowest and highest."""

    method: str
    switch: str
    prompt: str
    sources: tuple[str, ...]
    weights: NDArray[np.float64]
    mean: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor


@dataclass(frozen=True)
class SourceNumbers:
    """Weights of a recall frame's candidates by way of keeping a frame, and each way's similarity to the scene."""

    prompt: str
    frames: tuple[int, ...]
    weights: dict[str, torch.Tensor]
    likeness: Mapping[str, Mean]


@dataclass(frozen=True)
class Fig4Numbers:
    """All numbers of the figure."""

    source: SourceNumbers
    fades: list[FadeNumbers]


def numbers(one: RecordedFilm, likeness: Mapping[str, Mean], faded: Mapping[tuple[str, str], RecordedFilm]) -> Fig4Numbers:
    """The numbers of both panels."""
    fades = []
    for (method, switch), recorded in faded.items():
        fade, over = _only(recorded), (1, 2, 3)
        weights = recorded.grid(fade.weights.mean(1))
        low, high = fade.weights.amin(over), fade.weights.amax(over)
        fades.append(FadeNumbers(method, switch, recorded.prompt, fade.sources, weights, fade.weights.mean(over), low, high))
    return Fig4Numbers(SourceNumbers(one.prompt, one.sources[0].frames, ways(one), likeness), fades)


def _only(recorded: RecordedFilm) -> Fade:
    if not recorded.fades:
        raise ValueError(f"{recorded.prompt}: no memory of the old scene fades under this method; nearest is method=echo")
    return recorded.fades[0]


def ways(one: RecordedFilm) -> dict[str, torch.Tensor]:
    """Weights [M, h, w] of the first scene's candidates by way of keeping a frame, the mean over layers."""
    alpha = one.sources[0].alpha
    first = torch.zeros_like(alpha)
    first[:, 0] = 1
    alphas = {"first": first, "crucial": recall.crucial(alpha), "fused": alpha}
    return {way: torch.from_numpy(one.grid(alphas[way].mean(0))) for way in WAYS}


def draw(one: RecordedFilm, likeness: Mapping[str, Mean], faded: Mapping[tuple[str, str], RecordedFilm], world: str) -> Any:
    """The figure: recall source above, fading below."""
    plots = style.pyplot()
    rows = len(faded)
    figure = plots.figure(figsize=(9.4, 4.2 + 1.15 * rows), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.0, 1.2 * rows + 0.4])
    _sources(upper, one, likeness, world)
    _fades(lower, faded)
    return figure


def _sources(panel: Any, one: RecordedFilm, likeness: Mapping[str, Mean], world: str) -> None:
    source, weights = one.sources[0], ways(one)
    many = len(source.frames)
    axes = panel.subplots(1 + len(WAYS), many + 1, width_ratios=[1] * many + [2.4], squeeze=False)
    first = one.starts[source.scene] * one.geometry.frames_per_block
    for axis, frame in zip(axes[0], source.frames):
        style.bare(axis)
        axis.imshow(one.frames[frame])
        axis.set_title(f"frame {frame - first}", fontsize=9, fontweight="normal")
    style.row_label(axes[0][0], "candidates")
    for line, (way, label) in zip(axes[1:], WAYS.items()):
        for axis, values in zip(line, weights[way]):
            style.bare(axis)
            axis.imshow(values, cmap="Blues", vmin=0, vmax=1 if way != "fused" else max(0.5, float(weights["fused"].max())))
            axis.text(
                0.5, -0.04, f"{float(values.mean()):.2f}", transform=axis.transAxes, ha="center", va="top", fontsize=8, color=style.MUTED
            )
        style.row_label(line[0], label)
    for axis in axes[:, -1]:
        axis.set_visible(False)
    right = panel.add_subplot(axes[0][0].get_gridspec()[:, -1])
    for place, (way, label) in enumerate(WAYS.items()):
        mean = likeness[way]
        right.errorbar([mean.mean], [-place], xerr=[mean.half_width or 0], fmt="o", ms=5, color=style.SERIES[0], capsize=2)
        right.annotate(label, (mean.mean, -place), (0, 7), textcoords="offset points", ha="center", fontsize=8.5)
    right.set(yticks=[], ylim=(-len(WAYS) + 0.5, 0.6), title="likeness to the scene", xlabel="mean cosine of keys with the scene's frames")
    right.margins(x=0.35)
    title = f"(a) recall source. {world}; {one.prompt}, first scene; weight of each frame at each place, mean over layers"
    style.heading(panel, title)


def _fades(panel: Any, faded: Mapping[tuple[str, str], RecordedFilm]) -> None:
    blocks = max(len(_only(recorded).weights) for recorded in faded.values())
    shown = min(blocks, PICTURED)
    axes = panel.subplots(len(faded), shown + 3, width_ratios=[1, 1, *[1.5] * shown, 2.6], squeeze=False)
    for line, ((method, switch), recorded) in zip(axes, faded.items()):
        _fade_row(line, method, switch, recorded, blocks)
    for axis, title in zip(axes[0], ("old scene", "new scene", *(f"block {number + 1}" for number in range(shown)))):
        axis.set_title(title, fontsize=9, fontweight="normal")
    axes[0][-1].set_title("mean, lowest, highest", fontsize=9, fontweight="normal")
    axes[-1][-1].set_xlabel("passes, 5 a block", fontsize=8.5)
    title = "(b) weights of the old scene's memory, mean over layers (smooth: recall frame, then its last two frames); dropped where blank"
    title += f"; maps of the first {shown} blocks" if shown < blocks else ""
    style.heading(panel, title)


def _fade_row(line: Sequence[Any], method: str, switch: str, recorded: RecordedFilm, blocks: int) -> None:
    fade, size = _only(recorded), recorded.geometry.frames_per_block
    style.bare(*line[:-1])
    line[0].imshow(recorded.frames[fade.block * size - 1])
    line[1].imshow(recorded.frames[fade.block * size + size - 1])
    style.row_label(line[0], f"{switch}\n{method}", fontsize=9)
    for axis, weights in zip(line[2:-1], recorded.grid(fade.weights.mean(1))):
        gap = np.full((weights.shape[1], 1), np.nan)
        axis.imshow(np.concatenate([part for one in weights for part in (one, gap)][:-1], 1), cmap="Purples", vmin=0, vmax=1)
        axis.set_xlabel(f"{float(weights.mean()):.2f}", fontsize=8, labelpad=2)
    flat = fade.weights.flatten(1)
    steps = np.arange(blocks * STEPS)
    for values, wide in ((flat.mean(1), 1.6), (flat.amin(1), 0.7), (flat.amax(1), 0.7)):
        stairs = np.zeros(len(steps))
        stairs[: len(values) * STEPS] = np.repeat(values.numpy(), STEPS)
        line[-1].step(steps, stairs, where="post", color=style.SERIES[3], linewidth=wide)
    line[-1].set(yticks=[0, 0.5, 1], xticks=range(0, blocks * STEPS + 1, STEPS * max(1, blocks // 4)), xlim=(0, blocks * STEPS))
    style.bounded(line[-1], most=1)
