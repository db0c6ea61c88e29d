"""Figs 5 to 9 and 11: contact sheets from a store; methods downwards, time to the right, a section for each prompt or task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.figures import mosaic, output, stills, style
from eval.figures.output import Order
from eval.figures.recorded.backbones import Loader
from eval.store.selection import tasks

KEYS = {"seed": "0", "prompt": "", "every_s": "", "task": "", "method": "", "prompts": "1"}
CUTS = "self_forcing_recache,infinity_rope,longlive,echo,longlive_echo"
LONG = "self_forcing,infinity_rope,deep_forcing_official,rolling_sink,echo"
OWN = {
    "fig5": {"task": "long60,smooth,hard,recall", "method": "infinity_rope,longlive,echo"},
    "fig6": {"task": "long60", "method": LONG, "prompts": "2"},
    "fig7": {"task": "smooth", "method": CUTS, "prompts": "2"},
    "fig8": {"task": "hard", "method": CUTS, "prompts": "2"},
    "fig9": {"task": "long120", "method": LONG},
    "fig11": {"task": "recall", "method": f"{CUTS},render_truth", "prompts": "2"},
}
"""What each shows by default; rows of the paper's figures as far as there are presets for them."""
TITLES = {
    "long60": "Long video, 60 s",
    "long120": "Long video, 120 s",
    "smooth": "Smooth transition",
    "hard": "Hard cut",
    "recall": "Scene recall",
}


def make(name: str, order: Order, load: Loader) -> list[Path]:
    """Draw from the store; the files. Raises ValueError in one line, with the command that makes what is missing."""
    given = order.given
    store, seed, every_s = Path(given["store"]), order.number("seed"), stills.every_of(given["every_s"])
    wanted = [task for task in given["task"].split(",") if task]
    rows = _rows(store, wanted, order, seed)
    sections, numbers = list[mosaic.Section](), list[dict[str, Any]]()
    for task in wanted:
        for prompt in _prompts(rows[task], order, task):
            world = "; embedded world" if all(row.backbone.startswith(stills.USUAL) for row in rows[task]) else ""
            title = f"{TITLES.get(task, task)}: {prompt}, seed {seed}{world}"
            sections.append(stills.section(rows[task], prompt, every_s, title))
            numbers.append(_described(rows[task], task, prompt, sections[-1]))
    figure = mosaic.compose(sections)
    paths = [order.folder / f"{name}{ending}" for ending in (".pdf", ".png", ".json")]
    order.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(paths[0], dpi=mosaic.DPI, metadata={"CreationDate": None})
    style.save(figure, paths[1], dpi=mosaic.DPI)
    output.write_json(paths[2], name, order, {"sections": numbers})
    return paths


def command(order: Order, wanted: Sequence[str], methods: Sequence[str]) -> str:
    """The run that makes rows of these methods."""
    words = f"method={','.join(methods)} task={','.join(wanted)}"
    return f"python run.py {words} {' '.join(f'{key}={order.given[key]}' for key in ('seed', 'prompts', 'store'))} -m"


def _rows(store: Path, wanted: Sequence[str], order: Order, seed: int) -> dict[str, list[stills.Row]]:
    """Rows of each task, in the order of the methods. Raises ValueError that names all that is missing and one command for it."""
    there = tasks(store)
    found: dict[str, list[stills.Row]] = {}
    lacking: dict[str, list[str]] = {}
    for task in wanted:
        rows = _there(store, task, seed) if task in there else []
        presets = {row.preset for row in rows}
        if missing := [name for name in order.names if name not in presets]:
            lacking[task] = missing
        found[task] = stills.arrange(rows, order.names) if rows else []
    if lacking:
        methods = [name for name in order.names if any(name in missing for missing in lacking.values())]
        told = "; ".join(f"{task} lacks {', '.join(missing)}" for task, missing in lacking.items())
        raise ValueError(f"store={store}: {told}; `{command(order, list(lacking), methods)}` makes them")
    return found


def _there(store: Path, task: str, seed: int) -> list[stills.Row]:
    try:
        return stills.rows_of(store, task, seed)
    except ValueError:  # no videos at this seed: every method is missing
        return []


def _prompts(rows: Sequence[stills.Row], order: Order, task: str) -> list[str]:
    """The prompts named, or the first that all rows have. Raises ValueError in one line."""
    common = sorted(set.intersection(*(set(row.videos) for row in rows)))
    named = [name for name in order.given["prompt"].split(",") if name]
    if named:
        return [stills.shared_prompt(rows, name) for name in named]
    count = order.number("prompts", 1)
    if len(common) < count:
        told = f"task {task} has {len(common)} prompts with a video of every method, prompts={count} are asked for"
        raise ValueError(f"{told}; `{command(order, [task], order.names)}` makes them")
    return common[:count]


def _described(rows: Sequence[stills.Row], task: str, prompt: str, section: mosaic.Section) -> dict[str, Any]:
    """What a section shows: rows, their videos, times of stills and scene borders."""
    shown = [
        {"label": row.label, "preset": row.preset, "backbone": row.backbone, "video": row.videos[prompt].path.as_posix()} for row in rows
    ]
    return {
        "task": task,
        "prompt": prompt,
        "scenes": list(stills.sentences(rows, prompt)),
        "rows": shown,
        "borders_s": rows[0].videos[prompt].borders,
        "stills_s": section.times_s,
    }
