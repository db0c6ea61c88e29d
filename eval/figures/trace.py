"""What each block attends to, as data and as a figure, from the policy's plan, without running a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.presets import make_policy
from echo.cache.kinds import Kind
from echo.cache.plan import Plan
from echo.cache.policy import Policy, plans, script_of
from echo.geometry import Geometry
from echo.refusals import brief, within
from echo.scene import FRAMES_PER_BLOCK, LONGEST_S, Prompt, block_s
from eval.figures.recorded.backbones import embedded, prompt_of

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel


def strip(axis: Any, traced: Sequence[Plan], height: int, bottom: float, ink: str) -> None:
    """Draw plans on an axis: blocks to the right, window slots upwards, coloured by kind of memory; scene borders as lines.

    Frames whose logits a bias lowers are paler.

    Args:
        axis: of matplotlib.
        traced: plans of blocks that follow each other.
        height: slots that the strip is high.
        bottom: where the first slot begins.
        ink: colour of the borders.
    """
    from matplotlib.colors import ListedColormap

    kinds = list(Kind)
    grid = [[float("nan")] * len(traced) for _ in range(height)]
    strength = [[1.0] * len(traced) for _ in range(height)]
    for column, plan in enumerate(traced):
        for slot, (kind, share) in enumerate(zip(plan.kinds(), plan.shares())):
            grid[slot][column] = kinds.index(kind)
            strength[slot][column] = max(0.25, min(1.0, share))
    colours = ListedColormap([kind.colour for kind in kinds])
    biased = {"alpha": strength} if any(plan.bias for plan in traced) else {}
    axis.imshow(grid, **biased, origin="lower", aspect="auto", interpolation="none", cmap=colours, vmin=-0.5, vmax=len(kinds) - 0.5,
                extent=(traced[0].block - 0.5, traced[-1].block + 0.5, bottom, bottom + height))  # fmt: skip
    for before, after in zip(traced[:-1], traced[1:]):
        if before.scene != after.scene:
            axis.axvline(after.block - 0.5, color=ink, linewidth=0.8)


def block_axis(frames_per_block: int) -> str:
    """Label of an axis of blocks.

    >>> block_axis(3), block_axis(1)
    ('block (0.75 s)', 'block (0.25 s)')
    """
    return f"block ({block_s(frames_per_block):g} s)"


def draw(traced: Sequence[Plan], path: Path, title: str) -> None:
    """Draw a strip of one policy into a file."""
    import matplotlib

    matplotlib.rcdefaults()  # ignore the user's matplotlibrc
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    height = max(len(plan.kinds()) for plan in traced)
    figure, axis = pyplot.subplots(figsize=(max(4.0, 0.11 * len(traced) + 2.2), 0.12 * height + 1.3), layout="constrained")
    strip(axis, traced, height, -0.5, "black")
    used = [kind for kind in Kind if any(kind in plan.kinds() for plan in traced)]
    axis.legend(handles=[Patch(color=k.colour, label=k.value) for k in used], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set(xlabel=block_axis(len(traced[0].queries)), ylabel="window slot (latent frames)", title=title)
    axis.locator_params(integer=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def embed(texts: list[str]) -> list[list[float]]:
    """Features of the shipped backbone's text encoder, for presets whose router needs one."""
    from echo.backbone.interface import features  # imports torch, which most traces do not need

    return features(shipped_backbone().text, texts)


@cache
def shipped_backbone() -> VideoModel:
    """The shipped backbone, loaded once."""
    return embedded("tiny")


def planned(policy: Policy, prompt: Prompt, blocks: int | None = None, frames_per_block: int = FRAMES_PER_BLOCK) -> list[Plan]:
    """A policy's plans of a prompt's first blocks, all by default. Raises ValueError for a prompt that the policy cannot plan."""
    # Plans depend only on frames and slots, not on the sizes of the network.
    geometry = Geometry(layers=1, heads=1, head_dim=6, grid_height=1, grid_width=1, frames_per_block=frames_per_block)
    script = script_of(prompt, policy, frames_per_block, embed)
    blocks = script.blocks if blocks is None else blocks
    if blocks < 1:
        raise ValueError(f"blocks={blocks}: a whole number, at least 1; nearest is 1")
    if blocks * block_s(frames_per_block) > LONGEST_S:
        nearest = int(LONGEST_S / block_s(frames_per_block))
        raise ValueError(f"blocks={brief(blocks)}: a video is {LONGEST_S} s at most; nearest is {nearest}")
    policy.check(geometry, blocks)
    return list(plans(policy, script, geometry, blocks))


def trace(
    words: Sequence[str], /, method: str, task: str, blocks: int | None = None, prompt: str = "", frames_per_block: int = FRAMES_PER_BLOCK,
    *, png: Path | None = None,
) -> list[str]:  # fmt: skip
    """Print what each block attends to, one JSON line per block.

    {"block", "scene", "keys": [[source, position], ...], "queries": [...]} in latent frames, from the policy's plan, without running a
    network. A plan may also have the context of its clean pass ("clean"), biases by pass and slot ("bias"), candidates that its
    clean pass chooses from ("revision"), and the context of groups of heads ("groups").

        echo-harness trace method=echo task=recall blocks=12 --png trace.png
        echo-harness trace method=echo method.anchors=6 task=recall
        echo-harness trace method=longlive task=recall frames_per_block=1

    Args:
        words: settings of the method, method.SETTING=VALUE.
        method: a preset of conf/method.
        task: a preset of conf/task.
        blocks: number of blocks; all of the prompt's by default.
        prompt: its id; the first of the task's set by default.
        frames_per_block: latent frames per block, 1 for frame-wise backbones.
        png: also draw the trace into this file.
    """
    for word in words:
        if not word.startswith("method.") or "=" not in word:
            raise ValueError(f"{word!r}: give method=NAME task=TASK [blocks=N] [prompt=ID] [method.SETTING=VALUE ...]")
    policy = make_policy({"method": method, **dict(word.split("=", 1) for word in words)})
    chosen = prompt_of(task, "tiny", prompt)
    within("frames_per_block", frames_per_block, 1, 10)
    traced = planned(policy, chosen, blocks, frames_per_block)
    if png:
        draw(traced, png, f"{policy.label} on {task}: prompt {chosen.id}")
    return [json.dumps(plan.as_json()) for plan in traced]
