"""The content of Figs 1 and 2, from rollouts: frames of the four modes, what each block attends to, how an old scene's memory fades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from echo.cache.kinds import Kind
from eval.figures import output, style
from eval.figures.caches import distribution
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader, policy, prompt_of
from eval.figures.recorded.recall_frames import Fade, RecordedFilm, film
from eval.figures.trace import block_axis, strip

KEYS = {"backbone": "tiny", "method": "echo", "task": "long60,smooth,hard,recall", "prompt": "", "seed": "0"}
STILLS = 18
"""Number of square stills in a row."""


@dataclass(frozen=True)
class Switch:
    """Start of a scene: its block, and the scene (from 0) whose memory is at the front of the window, None for none.

    weights: of the old memory in each block, the mean over layers, frames and places.
    """

    block: int
    entered: str
    remembered: int | None
    weights: list[float]


@dataclass(frozen=True)
class Mode:
    """One task's rollout in numbers. blocks: the context of each, in the letters of C.6."""

    task: str
    prompt: str
    starts: tuple[int, ...]
    switches: list[Switch]
    blocks: list[str]


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Roll out a prompt of each task and draw; returns the files. Raises ValueError in one line for invalid settings."""
    settings, tasks = order.settings, [task for task in order.settings["task"].split(",") if task]
    if not tasks:
        raise ValueError(f"task=: one task or several, for example task={KEYS['task']}")
    prompts = [prompt_of(task, settings["backbone"], settings["prompt"]) for task in tasks]
    backbone, method = load(settings["backbone"]), policy(settings["method"])
    bar = tqdm(prompts, desc=name, unit="film", disable=None)
    films = [film(backbone, method, prompt, order.number("seed"), len(prompt.scenes)) for prompt in bar]
    modes = [mode(task, one) for task, one in zip(tasks, films, strict=True)]
    return output.write(draw(films, modes, f"{order.world}; {method.label or settings['method']}"), name, order, modes)


def mode(task: str, one: RecordedFilm) -> Mode:
    """A rollout's numbers, from its plans and memory."""
    fades = {fade.scene: fade for fade in one.fades}
    switches = [switch(one, scene, fades.get(scene)) for scene in range(1, len(one.starts) - 1)]
    return Mode(task, one.prompt, one.starts, switches, [distribution(plan) for plan in one.plans])


def switch(one: RecordedFilm, scene: int, fade: Fade | None) -> Switch:
    """One scene's start; `fade` is None if the window holds nothing of another scene."""
    block = one.starts[scene]
    numbers = (slot.source.number for slot in one.plans[block].context if not isinstance(slot.source, int) and slot.kind is Kind.RECALLED)
    weights = [] if fade is None else fade.weights.mean((1, 2, 3)).tolist()
    return Switch(block, str(fade.transition) if fade else "cut", next(numbers, None), weights)


def draw(films: Sequence[RecordedFilm], modes: Sequence[Mode], title: str) -> Any:
    """For each mode its frames, below them the cache of each block, and below that the weight of the old memory."""
    from matplotlib.patches import Patch

    figure = style.pyplot().figure(figsize=(10.2, 2.25 * len(modes) + 0.6), layout="constrained")
    axes = figure.subplots(3 * len(modes), 1, squeeze=False, height_ratios=[0.62, 0.85, 0.42] * len(modes))[:, 0]
    tallest = max(len(plan.kinds()) for one in films for plan in one.plans)
    for number, (one, told) in enumerate(zip(films, modes, strict=True)):
        _film(axes[3 * number], one, told)
        strip(axes[3 * number + 1], one.plans, tallest, 0, style.INK)
        axes[3 * number + 1].set(yticks=[0, tallest], ylim=(0, tallest), xticks=[])
        axes[3 * number + 1].grid(False)
        style.row_label(axes[3 * number + 1], "attended", fontsize=9)
        _weights(axes[3 * number + 2], told)
    axes[-1].set_xlabel(block_axis(len(films[0].plans[0].queries)))
    used = [kind for kind in Kind if any(kind in plan.kinds() for one in films for plan in one.plans)]
    handles = [Patch(color=kind.colour, label=kind.words) for kind in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5, handlelength=1, columnspacing=1.4)
    style.heading(figure, f"{title}: the film, the frames that each block attends to, the weight of the old scene's memory")
    return figure


def _film(axis: Any, one: RecordedFilm, told: Mode) -> None:
    height, width = one.frames.shape[1:3]
    count = min(len(one.plans), max(4, round(STILLS * height / width)))
    edges = np.linspace(0, len(one.plans), count + 1)
    frames = [one.frames[int((left + right) / 2 * len(one.frames) / len(one.plans))] for left, right in zip(edges, edges[1:])]
    for frame, left, right in zip(frames, edges, edges[1:]):
        axis.imshow(frame, extent=(left - 0.5, right - 0.5, 0, 1), aspect="auto")
    style.bare(axis)
    axis.set(xlim=(-0.5, len(one.plans) - 0.5), ylim=(0, 1))
    for start in told.switches:
        scene = "" if start.remembered is None or start.entered != "recall" else f" of scene {start.remembered + 1}"
        axis.axvline(start.block - 0.5, color=style.INK, linewidth=0.8)
        axis.text(start.block - 0.3, 1.03, f"{start.entered}{scene}", fontsize=8, color=style.MUTED, va="bottom")
    style.row_label(axis, told.task, fontsize=9)


def _weights(axis: Any, told: Mode) -> None:
    for start in told.switches:
        values = np.array([*start.weights, 0.0])
        axis.fill_between(np.arange(len(values)) + start.block - 0.5, values, step="post", color=Kind.RECALLED.colour, alpha=0.6, lw=0)
    axis.set(xlim=(-0.5, len(told.blocks) - 0.5), yticks=[0, 1])
    style.bounded(axis, most=1)
    style.row_label(axis, "old memory", fontsize=9)
