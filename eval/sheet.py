"""A contact sheet from the store: methods downwards, time to the right, scene borders marked.

    python -m eval.sheet task=recall [store=results] [prompt=ID] [seed=0] [every_s=4] [out=FILE.png]

Shows each method's newest run that has the prompt's video; without prompt=ID the first prompt that all of them have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from echo.scene import BLOCK_S
from eval.records import Run, runs

KEYS = ("task", "store", "prompt", "seed", "every_s", "out")


@dataclass
class Row:
    """A method's videos of one task and seed: prompt id -> (file, scene borders in seconds)."""

    label: str
    videos: dict[str, tuple[Path, list[float]]] = field(default_factory=dict)


def rows_of(store: Path, task: str, seed: int) -> list[Row]:
    """One row for each method (and changed setting) that has videos. Raises ValueError where there is none."""
    rows: list[Row] = []
    for run in runs(store):
        if run.path.parts[-4] != task or run.spec["seed"] != seed:
            continue
        row = Row(run.spec["method"]["label"])
        for record in run.settled(None).done.values():
            row.videos[record["prompt"]] = (run.path / "units" / record["files"]["video"], borders(run, record))
        if row.videos:
            rows.append(row)
    if not rows:
        raise ValueError(f"{store}: no videos of task {task!r} at seed {seed}; make some with python run.py task={task} seed={seed}")
    return rows


def borders(run: Run, record: dict[str, Any]) -> list[float]:
    """Seconds at which scenes begin, the first left out, read off the unit's trace."""
    lines = (run.path / "units" / record["files"]["trace"]).read_text(encoding="utf-8").splitlines()
    scenes = [json.loads(line)["scene"] for line in lines]
    return [BLOCK_S * block for block in range(1, len(scenes)) if scenes[block] != scenes[block - 1]]


def shared_prompt(rows: Sequence[Row], wanted: str | None) -> str:
    """The wanted prompt, or the first that every row has. Raises ValueError where a row lacks it."""
    common = sorted(set.intersection(*(set(row.videos) for row in rows)))
    if wanted is None:
        if not common:
            raise ValueError("no prompt has a video of every method; name one with prompt=ID")
        return common[0]
    if wanted not in common:
        raise ValueError(f"prompt {wanted!r} lacks a video of some method; the prompts that all have are {', '.join(common[:8])}")
    return wanted


def stills(path: Path, every_s: float) -> NDArray[np.uint8]:
    """Frames [N, H, W, 3] of a video, one each `every_s` seconds, from the middle of each span."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        step = max(1, round(every_s * float(stream.average_rate or 16)))
        frames = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i % step == step // 2]
    return np.stack(frames)


def draw(rows: Sequence[Row], prompt: str, every_s: float, title: str, out: Path) -> None:
    """Write the sheet as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    images = [stills(row.videos[prompt][0], every_s) for row in rows]
    columns = max(len(strip) for strip in images)
    size = (0.75 * columns + 1.6, 0.79 * len(rows) + 0.6)
    figure, axes = pyplot.subplots(len(rows), columns, figsize=size, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.06})
    for row, strip, line in zip(rows, images, axes, strict=True):
        cuts = {int(border // every_s) for border in row.videos[prompt][1]}
        for column, axis in enumerate(line):
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
            if column in cuts:
                axis.spines["left"].set(visible=True, color="crimson", linewidth=2.5)
            if column < len(strip):
                axis.imshow(strip[column])
        line[0].set_ylabel(row.label, rotation=0, ha="right", va="center", fontsize=8)
    for column, axis in enumerate(axes[-1]):
        axis.set_xlabel(f"{(column + 0.5) * every_s:g} s", fontsize=6)
    figure.suptitle(title, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    try:
        given = dict(word.split("=", 1) for word in (sys.argv[1:] if argv is None else argv))
        if unknown := [key for key in given if key not in KEYS] or ([] if "task" in given else ["(no task=)"]):
            raise ValueError(f"{unknown[0]}: give task=TASK and any of {', '.join(f'{key}=' for key in KEYS[1:])}")
        store, task, seed = Path(given.get("store", "results")), given["task"], int(given.get("seed", 0))
        every_s = float(given.get("every_s", 4))
        rows = rows_of(store, task, seed)
        prompt = shared_prompt(rows, given.get("prompt"))
        out = Path(given.get("out", store / "sheets" / f"{task}-{prompt}-seed{seed}.png"))
        draw(rows, prompt, every_s, f"{task}, prompt {prompt}, seed {seed}: one frame each {every_s:g} s, red where a scene begins", out)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
