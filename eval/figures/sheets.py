"""Contact sheets from a store: methods downwards, time to the right, scene borders marked, prompts above; Figs 5 to 9 and 11 too.

Shows every preset with its settings, or the named presets, of the newest comparable rows (`eval.store.rows`); rendered rows
are separated at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.published import ours
from echo.files import RESULTS
from echo.refusals import nearest_of
from echo.scene import FPS, block_s
from eval.figures import mosaic, moving, output, style
from eval.figures.mosaic import Section, Strip, marks, stills
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader
from eval.store.reading import leave_out
from eval.store.rows import Entry, gather, parts_of, prompts_of
from eval.store.runs import scenes_of, tasks

COLUMNS = 12
USUAL = ours("backbone", "Self-Forcing", "", embedded=True)
"""Backbones that are not printed after a row's name."""
LAST = ("oracle", "render_truth", "render_other", "render_shuffled")
"""Presets that are placed below the others, in this order."""
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
"""Defaults of each figure: the rows of the paper's figures, as far as there are presets for them."""
TITLES = {
    "long60": "Long video, 60 s",
    "long120": "Long video, 120 s",
    "smooth": "Smooth transition",
    "hard": "Hard cut",
    "recall": "Scene recall",
}


@dataclass(frozen=True)
class SheetVideo:
    """A video, the seconds at which its scenes begin (except the first), and its length."""

    path: Path
    borders: list[float]
    duration_s: float


@dataclass
class SheetRow:
    """A method's videos of one task and seed by prompt id; `prompt_set` is the file of their prompts."""

    label: str
    preset: str = ""
    backbone: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    videos: dict[str, SheetVideo] = field(default_factory=dict)
    prompt_set: str = ""
    calibration: bool = False


def rows_of(store: Path, task: str, seed: int) -> list[SheetRow]:
    """Every preset with its settings that has videos, of the newest comparable rows (`eval.store.rows`)."""
    groups = gather(part for part in parts_of(store, task, scored=False) if part[0].place.seed == seed)
    for line in groups[0].damaged if groups else ():
        leave_out(f"{line}: a damaged record")
    return [row for row in map(_row, groups[0].entries.values()) if row.videos] if groups else []


def arrange(rows: Sequence[SheetRow], methods: Sequence[str]) -> list[SheetRow]:
    """The rows of the named presets, in that order, else all by name, with distinct labels.

    Rendered rows come last, and once: they are the same for any backbone.
    """
    presets = sorted({row.preset for row in rows})
    order = list(methods) or [name for name in presets if name not in LAST] + [name for name in LAST if name in presets]
    usual = {row.preset for row in rows if row.backbone in USUAL}
    chosen = [row for row in rows if row.preset in order and not (row.calibration and row.backbone not in USUAL and row.preset in usual)]
    chosen.sort(key=lambda row: (row.calibration, order.index(row.preset), row.backbone))
    return [replace(row, label=_label(row, chosen)) for row in chosen]


def _row(entry: Entry) -> SheetRow:
    """A row of the store with its videos of one seed."""
    prompt_set = next((run.prompt_set for run in entry.runs if run.prompt_set), "")
    row = SheetRow(entry.label, entry.preset, entry.backbone, entry.settings, {}, prompt_set, entry.calibration)
    seconds = block_s(entry.run.spec.frames_per_block)
    for (prompt, _), video in entry.videos.dropna(subset=["video", "trace"]).iterrows():
        scenes = scenes_of(Path(video["trace"]))
        borders = [seconds * block for block in range(1, len(scenes)) if scenes[block] != scenes[block - 1]]
        row.videos[prompt] = SheetVideo(Path(video["video"]), borders, seconds * len(scenes))
    return row


def _label(row: SheetRow, rows: Sequence[SheetRow]) -> str:
    """The method's label, completed by backbone, preset and differing settings if another row has the same label."""
    twins = [other for other in rows if other.label == row.label]
    words = [row.preset] if len({other.preset for other in twins}) > 1 else []
    like = [other for other in twins if other.preset == row.preset and other.backbone == row.backbone]
    differ = [key for key in row.settings if len({repr(other.settings.get(key)) for other in like}) > 1]
    words += [f"{key.removeprefix('method.settings.')}={row.settings[key]}" for key in differ]
    words += [f"on {row.backbone}"] if row.backbone not in USUAL and len({other.backbone for other in rows}) > 1 else []
    return "\n".join([row.label, *words])


def common_prompts(rows: Sequence[SheetRow]) -> list[str]:
    """Prompts of which every row has a video."""
    return sorted(set.intersection(*(set(row.videos) for row in rows)))


def shared_prompt(rows: Sequence[SheetRow], wanted: str) -> str:
    """The wanted prompt, or the first that every row has. Raises ValueError if a row lacks it."""
    common = common_prompts(rows)
    if not wanted and not common:
        raise ValueError("no prompt has a video of every method; name one with prompt=ID or the methods with method=NAME,NAME")
    if wanted and wanted not in common:
        raise ValueError(f"prompt {wanted!r} lacks a video of some method; the prompts that all have are {', '.join(common[:8])}")
    return wanted or common[0]


def sentences(rows: Sequence[SheetRow], prompt: str) -> tuple[str, ...]:
    """The scenes of a prompt, from the prompt set of its runs; empty if that file is gone, or damaged (with a warning)."""
    sets = (prompts_of(row.prompt_set) for row in rows)
    return next((one.scenes for one in next(filter(None, sets), ()) if one.id == prompt), ())


def section(rows: Sequence[SheetRow], prompt: str, every_s: float | None, title: str, columns: int = COLUMNS) -> Section:
    """One prompt's stills of all rows, one every `every_s` seconds, or `columns` stills.

    Raises ValueError if videos are shorter than the time between stills, or of several sizes.
    """
    shots = [row.videos[prompt] for row in rows]
    every = every_s or max(shot.duration_s for shot in shots) / columns
    strips = [Strip(row.label, stills(shot.path, every), marks(shot.borders, every), row.calibration) for row, shot in zip(rows, shots)]
    sizes = {f"{strip.frames.shape[2]}x{strip.frames.shape[1]}": row.preset for strip, row in zip(strips, rows)}
    if len(sizes) > 1:
        sizes_told = ", ".join(f"{preset} {size} px" for size, preset in sizes.items())
        raise ValueError(f"{title}: frames of several sizes ({sizes_told}); name rows of one size with method=NAME,NAME")
    columns = max(len(strip.frames) for strip in strips)
    starts = [0, *sorted(marks(shots[0].borders, every))]
    texts = [(start, text) for start, text in zip(starts, sentences(rows, prompt)) if start < columns]
    title += "; red: a scene begins" if any(strip.cuts for strip in strips) else ""
    return Section(strips, [(column + 0.5) * every for column in range(columns)], texts, title)


def _check_every(every_s: float | None) -> None:
    """Raise ValueError in one line for less than a frame between stills; None is the default."""
    if every_s is not None and not 1 / FPS <= every_s < math.inf:
        raise ValueError(f"every_s={every_s:g}: seconds between stills, {1 / FPS} (one frame) or more, for example every_s=4")


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Draw from the store; returns the files. Raises ValueError in one line, with the command that makes what is missing."""
    values = order.settings
    store, seed, every_s = Path(values["store"]), order.number("seed"), order.seconds("every_s")
    _check_every(every_s)
    wanted = [task for task in values["task"].split(",") if task]
    rows = _rows(store, wanted, order, seed)
    sections, numbers = list[Section](), list[dict[str, object]]()
    for task in wanted:
        for prompt in _prompts(rows[task], order, task):
            world = "; embedded world" if all(row.backbone.startswith("tiny") for row in rows[task]) else ""
            title = f"{TITLES.get(task, task)}: {prompt}, seed {seed}{world}"
            sections.append(section(rows[task], prompt, every_s, title))
            numbers.append(_described(rows[task], task, prompt, sections[-1]))
    paths = style.save_pair(mosaic.compose(sections), order.folder / name, mosaic.DPI)
    return [*paths, output.write_json(name, order, {"sections": numbers})]


def run_command(order: FigureOrder, wanted: Sequence[str], methods: Sequence[str]) -> str:
    """The run that makes rows of these methods."""
    words = f"method={','.join(methods)} task={','.join(wanted)}"
    return f"python run.py {words} {' '.join(f'{key}={order.settings[key]}' for key in ('seed', 'prompts', 'store'))} -m"


def _rows(store: Path, wanted: Sequence[str], order: FigureOrder, seed: int) -> dict[str, list[SheetRow]]:
    """Rows of each task, in the order of the methods. Raises ValueError that names all that is missing and one command for it."""
    present = tasks(store)
    by_task: dict[str, list[SheetRow]] = {}
    lacking: dict[str, list[str]] = {}
    for task in wanted:
        rows = rows_of(store, task, seed) if task in present else []
        presets = {row.preset for row in rows}
        if missing := [name for name in order.names if name not in presets]:
            lacking[task] = missing
        by_task[task] = arrange(rows, order.names) if rows else []
    if lacking:
        methods = [name for name in order.names if any(name in missing for missing in lacking.values())]
        shortage = "; ".join(f"{task} lacks {', '.join(missing)}" for task, missing in lacking.items())
        raise ValueError(f"store={store}: {shortage}; `{run_command(order, list(lacking), methods)}` makes them")
    return by_task


def _prompts(rows: Sequence[SheetRow], order: FigureOrder, task: str) -> list[str]:
    """The named prompts, or the first that all rows have. Raises ValueError in one line if a row lacks one."""
    common = common_prompts(rows)
    named = [name for name in order.settings["prompt"].split(",") if name]
    if named:
        return [shared_prompt(rows, name) for name in named]
    count = order.number("prompts", 1)
    if len(common) < count:
        shortage = f"task {task} has {len(common)} prompts with a video of every method, prompts={count} are asked for"
        raise ValueError(f"{shortage}; `{run_command(order, [task], order.names)}` makes them")
    return common[:count]


def _described(rows: Sequence[SheetRow], task: str, prompt: str, section: Section) -> dict[str, object]:
    """A section as plain values: rows, their videos, times of stills and scene borders."""
    shown = [
        {"label": row.label, "preset": row.preset, "backbone": row.backbone, "video": row.videos[prompt].path.as_posix()} for row in rows
    ]
    return {
        "task": task,
        "prompt": prompt,
        "scenes": list(sentences(rows, prompt)),
        "rows": shown,
        "borders_s": rows[0].videos[prompt].borders,
        "stills_s": section.times_s,
    }


def sheets(
    task: Sequence[str],
    method: Sequence[str] = (),
    prompt: str = "",
    seed: int = 0,
    every_s: float | None = None,
    *,
    store: Path = RESULTS,
    output: Path | None = None,
) -> list[str]:
    """Draw contact sheets of a store: methods downwards, time to the right, scene borders marked, prompts above.

        echo-harness figures sheet task=recall method=echo,infinity_rope --output sheet.png
        echo-harness figures sheet task=all --output docs
        echo-harness figures sheet task=recall method=forget,echo,oracle --output memories.gif

    Args:
        task: tasks, or all of the store.
        method: presets, in the order of the rows; all by default.
        prompt: its id; the first that all rows have by default.
        seed: of the runs.
        every_s: seconds between stills; a twelfth of the video by default, for a GIF a ninetieth.
        store: the run store.
        output: a PNG, an animated GIF, or for several tasks a folder, which gets a PNG for each.
    """
    _check_every(every_s)
    every = list(task) == ["all"]
    names = tasks(store) if every else list(task)
    if not names:
        raise ValueError(f"--store {store}: no runs")
    several = every or len(names) > 1
    if several and output and output.suffix:
        raise ValueError(f"--output {output}: one file for several tasks; give a folder, for example --output docs")
    rows_by_task = {name: rows_of(store, name, seed) for name in names}
    for name in (name for name, rows in rows_by_task.items() if not rows):
        raise ValueError(f"{store}: no videos of task {name!r} at seed {seed}; make some with python run.py task={name} seed={seed}")
    _known(method, rows_by_task, seed)
    written = []
    for name, rows in rows_by_task.items():
        shown = arrange(rows, [one for one in method if any(row.preset == one for row in rows)])
        chosen = shared_prompt(shown, prompt)
        own = store / "sheets" / f"{name}-{chosen}-seed{seed}.png"
        out = own if output is None else output / f"{name}.png" if several else output
        moves = out.suffix == ".gif"
        one = section(shown, chosen, every_s, f"{name}, prompt {chosen}, seed {seed}", moving.FRAMES if moves else COLUMNS)
        if moves:
            moving.animate(one, out)
        else:
            style.save(mosaic.compose([one]), out, dpi=mosaic.DPI)
        written.append(f"{out} ({out.stat().st_size // 1000} kB)")
    return written


def _known(methods: Sequence[str], rows_by_task: Mapping[str, Sequence[SheetRow]], seed: int) -> None:
    """Raise ValueError for a preset that no task has, or a task without any of the named presets."""
    there = {task: {row.preset for row in rows} for task, rows in rows_by_task.items()}
    every = sorted(set().union(*there.values()))
    for name in methods:
        if name not in every:
            raise ValueError(f"method={name}: no videos of it at seed {seed}; {nearest_of(name, every)}")
    for task, presets in there.items():
        if methods and not presets & set(methods):
            raise ValueError(f"task={task}: no videos of {', '.join(methods)} at seed {seed}; there are {', '.join(sorted(presets))}")
