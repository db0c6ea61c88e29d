"""How policies drift: place, subject and quality block by block, from the scores files of a store.

A block here is 0.75 s, which the scorer reads together, whatever a backbone's own blocks are. Each video's blocks are smoothed by a
centred moving mean over `window` blocks; curves are means over videos, bands 95 % intervals over prompts. The rendered truth, if the store
has it, is the ceiling.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.published import ours
from echo.files import RESULTS
from echo.refusals import nearest_of
from echo.scene import FPS
from eval.figures import style
from eval.metrics import READING_S, READINGS
from eval.stats.curves import Curve, curve
from eval.store.frame import readings
from eval.store.rows import Entry, left_out, newest, pick
from eval.store.runs import scores_of, tasks
from eval.world.identity import IDENTITY_KEPT

FIRST = next(iter(READINGS))
"""The reading by which rows are ordered and counted."""
TRUTH = "render_truth"
USUAL = ours("backbone", "Self-Forcing", "", embedded=True)
"""Backbones that are not printed after a row's name."""
TOLD_S = (5.0, 15.0, 30.0, 60.0, 120.0)
"""Seconds in the terminal's table."""


@dataclass
class Drift:
    """Curves of one row by measure."""

    row: Entry
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The row's label in short lines, with the backbone if it is not the usual one."""
        lines = textwrap.wrap(self.row.label, 18)
        return "\n".join(lines if self.row.backbone in USUAL else [*lines, f"({self.row.backbone})"])

    @property
    def rank(self) -> tuple[float, float]:
        """Mean of the first measure over the last quarter and over all blocks; -1 without values."""
        mean = self.curves[FIRST].mean
        parts = mean[-max(1, len(mean) // 4) :], mean
        end, whole = (-1.0 if np.isnan(part).all() else float(np.nanmean(part)) for part in parts)
        return end, whole


def drifts(rows: Sequence[Entry], window: int) -> tuple[list[Drift], list[str]]:
    """Curves of all rows whose scores have readings of blocks, ordered by their last quarter, and the names of the others."""
    drawn, reads = [], [(row, readings(row)) for row in rows]
    without = [row.name for row, read in reads if read.empty]
    told = {name: factor for name, (_, factor) in READINGS.items() if name != IDENTITY_KEPT or any(name in read for _, read in reads)}
    for row, read in [(row, read) for row, read in reads if not read.empty]:
        values = {name: (factor * read.get(name, np.nan * read.iloc[:, 0])).unstack("block") for name, factor in told.items()}
        drawn.append(Drift(row, {name: curve(blocks, window) for name, blocks in values.items()}))
    drawn.sort(key=lambda drift: drift.row.name)
    return sorted(drawn, key=lambda drift: drift.rank, reverse=True), without


def borders(drifted: Sequence[Drift]) -> list[float]:
    """Seconds at which scenes begin, except the first, in the first row's first video."""
    first = next(iter(drifted[0].row.videos["scores_file"].dropna()), None)
    return [start / FPS for start, _ in scores_of(first and Path(first)).segments[1:]]


def as_json(drifted: Sequence[Drift], task: str, window: int) -> dict[str, object]:
    """Everything that the figure shows, in plain values; null for missing values."""
    lines = []
    for drift in drifted:
        first = drift.curves[FIRST]
        size = {"videos": first.videos, "prompts": first.prompts, "seeds": first.seeds}
        curves = {name: {"mean": _plain(one.mean), "half_width": _plain(one.half_width)} for name, one in drift.curves.items()}
        lines.append({"row": drift.row.name, "label": drift.row.label, **size, **curves})
    return {"v": 1, "task": task, "window_blocks": window, "block_s": READING_S, "rows": lines}


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), 2) for value in values]


def draw(drifted: Sequence[Drift], task: str, window: int, out: Path) -> None:
    """Write the figure: a row of panels for each policy, a column for each measure, all other policies in grey behind."""
    plots = style.pyplot()
    policies = [drift for drift in drifted if not drift.row.calibration] or list(drifted)
    truth = next((drift for drift in drifted if drift.row.preset == TRUTH), None)
    size = (9.6, 1.05 + 1.12 * len(policies))
    names = list(policies[0].curves)
    figure, axes = plots.subplots(len(policies), len(names), figsize=size, squeeze=False, sharex=True, sharey="col")
    for line, drift in zip(axes, policies):
        for axis, name in zip(line, names):
            _panel(axis, drift, [other for other in policies if other is not drift], truth, name)
            for border in borders(drifted):
                axis.axvline(border, color=style.OTHERS, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        style.row_label(line[0], drift.label, labelpad=10)
    for axis, name in zip(axes[0], names):
        axis.set_title(READINGS[name][0])
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    first = [drift.curves[FIRST] for drift in policies]
    prompts, seeds = (_range([getattr(one, name) for one in first]) for name in ("prompts", "seeds"))
    ceiling = "; dashed: the rendered truth" if truth else ""
    title = f"{task}: {prompts} prompts x {seeds} seeds, embedded world"
    figure.suptitle(
        f"{title}\nMoving mean over {window * READING_S:g} s, band: 95 % over prompts; grey: the other policies{ceiling}",
        fontsize=9.5,
        x=0.01,
        ha="left",
        y=0.995,
        color=style.MUTED,
    )
    figure.subplots_adjust(left=0.17, right=0.985, top=1 - 0.72 / size[1], bottom=0.5 / size[1], hspace=0.22, wspace=0.12)
    style.save(figure, out)


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _panel(axis: Any, drift: Drift, others: Sequence[Drift], truth: Drift | None, name: str) -> None:
    for other in others:
        axis.plot(_times(other.curves[name]), other.curves[name].mean, color=style.OTHERS, linewidth=0.7, zorder=1)
    if truth is not None:
        axis.plot(_times(truth.curves[name]), truth.curves[name].mean, color=style.CEILING, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    one = drift.curves[name]
    low, high = (np.clip(one.mean + sign * one.half_width, 0, 100) for sign in (-1, 1))
    axis.fill_between(_times(one), low, high, color=style.SERIES[0], alpha=0.22, linewidth=0, zorder=3)
    axis.plot(_times(one), one.mean, color=style.SERIES[0], zorder=4)
    axis.set(yticks=(0, 50, 100), xlim=(0, READING_S * len(one.mean)))
    style.bounded(axis)


def _times(one: Curve) -> NDArray[np.float64]:
    """Middle of each block in seconds."""
    drifted: NDArray[np.float64] = READING_S * (np.arange(len(one.mean), dtype=np.float64) + 0.5)
    return drifted


def summary(drifted: Sequence[Drift]) -> list[str]:
    """A line for each row: every measure at some seconds."""
    length = max(len(drift.curves[FIRST].mean) for drift in drifted)
    blocks = {second: round(second / READING_S) - 1 for second in TOLD_S if round(second / READING_S) <= length}
    lines = []
    for drift in drifted:
        for name, one in drift.curves.items():
            numbers = [f"{second:g} s {_number(one.mean[block], one.half_width[block])}" for second, block in blocks.items()]
            lines.append(f"{drift.row.name:36} {name:14} " + "   ".join(numbers))
    return lines


def _number(mean: float, half: float) -> str:
    """A mean with half its interval, if known; a dash for a missing value."""
    return "-" if math.isnan(mean) else f"{mean:.1f}" + ("" if math.isnan(half) else f" ± {half:.1f}")


def drift(
    task: str = "long120",
    method: Sequence[str] = (),
    window: int = 9,
    *,
    store: Path = RESULTS,
    output: Path | None = None,
    data: Path | None = None,
) -> list[str]:
    """Print, and draw, how policies drift: place, subject and quality block by block.

        echo-harness figures drift task=long120 --output docs/drift.png --data docs/data/drift.json

    Args:
        task: a task that the store has.
        method: presets; all by default.
        window: blocks of the moving mean, an odd number.
        store: the run store.
        output: the figure, PNG.
        data: its numbers, JSON.
    """
    there = tasks(store)
    if not there:
        raise ValueError(f"--store {store}: no run store; it has no runs")
    if task not in there:
        raise ValueError(f"task={task}: store {store} has no runs of it; {nearest_of(task, there)}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window}: an odd number of blocks, for example window=9")
    picked = pick(newest(store, task), list(method))
    drifted, without = drifts(picked, window)
    if not drifted:
        raise ValueError(f"task={task}: no scores in {store} have readings of blocks; the embedded scorer of now writes them")
    if output:
        draw(drifted, task, window, output)
    if data:
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_text(json.dumps(as_json(drifted, task, window)).replace('{"row"', '\n{"row"') + "\n", encoding="utf-8")
    return [*summary(drifted), *(f"no readings of blocks: {name}" for name in without), *left_out(picked)]
