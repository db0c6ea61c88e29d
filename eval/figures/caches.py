"""Cache distributions (appendix C.6) as strips: what each block attends to, slot by slot, from plans without a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines.presets import preset
from echo.cache.kinds import Kind, letters
from echo.cache.plan import Plan
from echo.files import read_json, read_text
from echo.refusals import nearest, reading
from echo.scene import FRAMES_PER_BLOCK
from eval.figures import output, sheets, style
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader, policy, prompt_of
from eval.figures.trace import block_axis, planned, strip
from eval.store.runs import tasks

KEYS = {
    "task": "recall", "prompt": "", "seed": "0",
    "method": "self_forcing,infinity_rope,longlive,rolling_sink,deep_forcing_table,deep_forcing_official,memrope,echo",
}  # fmt: skip
PAPER = {
    "self_forcing": "R21", "infinity_rope": "R21", "longlive": "S3 R9", "rolling_sink": "S15 R6", "deep_forcing_official": "S12 C9",
    "deep_forcing_table": "S12 C9", "echo": "A12 C3 R6", "echo_paper": "A12 C3 R6",
}  # fmt: skip
"""As in appendix C.6, whose R includes the block's own three frames."""


@dataclass(frozen=True)
class Cache:
    """A method's plans of one prompt. stored: whether a trace of the store is the same; None without a trace."""

    method: str
    label: str
    plans: list[Plan]
    stored: bool | None

    @property
    def full(self) -> Plan:
        """The last block of the longest scene, where the window is fullest."""
        scenes = [plan.scene for plan in self.plans]
        longest = max(dict.fromkeys(scenes), key=scenes.count)
        return [plan for plan in self.plans if plan.scene == longest][-1]


def distribution(plan: Plan) -> str:
    """A block's context in the letters of C.6, in the order of its slots: `A12 C3 R3`, and `+3` for the block itself."""
    return letters(plan.kinds())


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Plan and draw; returns the files. Raises ValueError in one line for an unknown method, task or prompt."""
    task, prompt = order.settings["task"], prompt_of(order.settings["task"], "tiny", order.settings["prompt"])
    if not order.names:
        raise ValueError("method=: one policy or several, for example method=echo,longlive")
    stored = _stored(Path(order.settings["store"]), task, order.number("seed"), prompt.id)
    cached = []
    for method in order.names:
        if preset("method", method)["policy"] == "render":
            raise ValueError(f"method={method}: is rendered and keeps no cache; nearest is {nearest(method, list(PAPER))}")
        made = policy(method)
        drawn = planned(made, prompt)
        trace = stored.get(method)
        same = None if trace is None else [plan.as_json() for plan in drawn] == trace
        cached.append(Cache(method, made.label or method, drawn, same))
    numbers = {
        "prompt": prompt.id,
        "methods": [
            {
                "method": one.method,
                "full_window": distribution(one.full),
                "notes": one.full.notes(),
                "paper": PAPER.get(one.method),
                "stored_trace_agrees": one.stored,
                "frames": [len(plan.kinds()) for plan in one.plans],
                "attended": [plan.attended for plan in one.plans],
                "blocks": [distribution(plan) for plan in one.plans],
            }
            for one in cached
        ],
    }  # fmt: skip
    return output.write(draw(cached, f"{prompt.id}, task {task}"), name, order, numbers)


def _stored(store: Path, task: str, seed: int, prompt: str) -> dict[str, list[Any]]:
    """Traces of a prompt by preset, of the newest runs; empty without any."""
    if task not in tasks(store):
        return {}
    traces = {}
    for row in sheets.rows_of(store, task, seed):
        if prompt in row.videos and not row.calibration:
            video = row.videos[prompt].path
            trace = video.with_name(video.name.removesuffix(video.suffix) + ".trace.jsonl")
            if trace.is_file():
                with reading(trace, "run its command again"):
                    traces[row.preset] = [read_json(line, str(trace)) for line in read_text(trace).splitlines()]
    return traces


def draw(cached: Sequence[Cache], title: str) -> Any:
    """A row for each method: the strip over blocks, and the full window in letters, beside the paper's."""
    from matplotlib.patches import Patch

    plots = style.pyplot()
    figure, axes = plots.subplots(
        len(cached), 1, figsize=(10.2, 1.02 * len(cached) + 0.9), squeeze=False, sharex=True, layout="constrained"
    )
    tallest = max(len(plan.kinds()) for one in cached for plan in one.plans)
    for (axis,), one in zip(axes, cached):
        _strip(axis, one, tallest)
    axes[-1][0].set_xlabel(block_axis(FRAMES_PER_BLOCK))
    used = [kind for kind in Kind if any(kind in plan.kinds() for one in cached for plan in one.plans)]
    handles = [Patch(color=kind.colour, label=f"{kind.letter}  {kind.value}") for kind in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5, handlelength=1, columnspacing=1.4)
    style.heading(figure, f"Frames that each block attends to, slot by slot from below; {title}")
    return figure


def _strip(axis: Any, one: Cache, tallest: int) -> None:
    strip(axis, one.plans, tallest, 0, style.INK)
    axis.set(yticks=[0, tallest], ylim=(0, tallest))
    axis.grid(False)
    style.row_label(axis, one.label, fontsize=9)
    paper = f"\npaper: {PAPER[one.method]}" if one.method in PAPER else ""
    said = "\n".join([distribution(one.full), *one.full.notes()])
    axis.text(1.01, 0.5, f"{said}{paper}", transform=axis.transAxes, va="center", fontsize=8.5)
