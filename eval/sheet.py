"""A contact sheet from the store: methods downwards, time to the right, scene borders marked.

    python -m eval.sheet task=recall [store=results] [prompt=ID] [seed=0] [every_s=4] [out=FILE.png]

Shows the newest run, by its last start, of every preset and its settings (newer weights take the place of older ones);
without prompt=ID the first prompt that all of them have.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from echo.scene import BLOCK_S, FPS
from eval.records import Run, flat, runs

KEYS = ("task", "store", "prompt", "seed", "every_s", "out")


@dataclass
class Row:
    """A method's videos of one task and seed: prompt id -> (file, scene borders in seconds)."""

    label: str
    preset: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    videos: dict[str, tuple[Path, list[float]]] = field(default_factory=dict)


def rows_of(store: Path, task: str, seed: int) -> list[Row]:
    """The newest run of every preset and its settings that has videos. Raises ValueError where there is none."""
    newest: dict[tuple[str, str], tuple[str, Row]] = {}
    for run in runs(store):
        if run.path.parts[-4] != task or run.spec["seed"] != seed:
            continue
        settings = dict(flat(run.spec["key"]["pixels"]))
        settings.pop("backbone.weights", None)  # a run of older weights gives way to one of newer
        row = Row(run.spec["method"]["label"], run.spec["method"]["name"], settings)
        for record in run.settled(None).done.values():
            row.videos[record["prompt"]] = (run.path / "units" / record["files"]["video"], borders(run, record))
        age = max((path.stem for path in (run.path / "attempts").glob("*.json")), default="")
        key = row.preset, repr(sorted(settings.items()))
        if row.videos and (key not in newest or newest[key][0] < age):
            newest[key] = age, row
    rows = [row for _, row in newest.values()]
    if not rows:
        raise ValueError(f"{store}: no videos of task {task!r} at seed {seed}; make some with python run.py task={task} seed={seed}")
    return [replace(row, label=_label(row, rows)) for row in rows]


def _label(row: Row, rows: Sequence[Row]) -> str:
    """The method's label, with its preset and the settings that differ where another row has the same."""
    twins = [other for other in rows if other.label == row.label]
    words = [row.preset] if len({other.preset for other in twins}) > 1 else []
    like = [other for other in twins if other.preset == row.preset]
    differ = [key for key in row.settings if len({repr(other.settings.get(key)) for other in like}) > 1]
    words += [f"{key.removeprefix('method.settings.')}={row.settings[key]}" for key in differ]
    return "\n".join([row.label, *words])


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
    """Frames [N, H, W, 3] of a video, one each `every_s` seconds, from the middle of each span. Raises ValueError if it is shorter."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        step = max(1, round(every_s * float(stream.average_rate or 16)))
        frames = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i % step == step // 2]
    if not frames:
        raise ValueError(f"every_s={every_s:g}: {path.name} is shorter than that, for example every_s=1")
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
        cuts = {math.ceil(border / every_s - 0.5) for border in row.videos[prompt][1]}
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


def _given(words: Sequence[str]) -> dict[str, str]:
    """The command line by key. Raises ValueError for a word that is none of the keys."""
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word}: a word is key=value, for example task=recall")
        if key not in KEYS:
            raise ValueError(f"{key}: give task=TASK and any of {', '.join(f'{key}=' for key in KEYS[1:])}")
        given[key] = value
    if "task" not in given:
        raise ValueError("(no task=): give a task, for example task=recall")
    return given


def _every(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 / FPS <= value < math.inf:
        raise ValueError(f"every_s={text}: seconds between stills, {1 / FPS} (one frame) or more, for example every_s=4")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    try:
        given = _given(sys.argv[1:] if argv is None else argv)
        store, task = Path(given.get("store", "results")), given["task"]
        if not given.get("seed", "0").isdecimal():
            raise ValueError(f"seed={given['seed']}: a whole number of 0 or more, for example seed=0")
        seed, every_s = int(given.get("seed", 0)), _every(given.get("every_s", "4"))
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
