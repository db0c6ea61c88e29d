"""The videos of a rating page: random prompts of each task of which all its methods have a video."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from baselines.ours import OURS, TUNED, methods
from baselines.presets import preset
from echo.files import ROOT
from echo.refusals import nearest
from echo.scene import block_s, load_prompts
from eval.pages.films import Form, form_of
from eval.store.rows import Entry, Unit, left_out, newest, pick
from eval.store.runs import scenes_of
from eval.study.files import PRACTICE
from eval.tables.opinions import TASKS

EXPERIMENTS = {"table4": "table1", "table5": "table2"}
"""Table of people's opinions -> the experiment whose rows it shows by default."""


@dataclass(frozen=True)
class Group:
    """Videos of one prompt and seed, by row of the store.

    scenes: seconds at which each begins, and its text.
    check: the points that raters are told to give as an attention check; 0 for a rated group.
    """

    task: str
    prompt: str
    seed: int
    scenes: tuple[tuple[float, str], ...]
    form: Form
    videos: dict[str, Path]
    check: int = 0

    @property
    def seconds(self) -> float:
        """Length of each of its videos."""
        return self.form.frames / self.form.fps


@dataclass(frozen=True)
class Choice:
    """Groups of a task. absent: rows of its experiment without videos in the store. candidates: number of prompts drawn from."""

    task: str
    rows: tuple[Entry, ...]
    absent: tuple[str, ...]
    candidates: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class StudyRequest:
    """The settings of a study.

    methods: presets by task; empty for all of its experiment.
    seeds: of runs.
    groups: number of rated prompts of each task.
    draw: random seed of the prompts.
    checks: task -> points that its checks of attention ask for.
    practice: task of the group that raters practise with; "" for none.
    """

    store: Path
    methods: dict[str, list[str]]
    seeds: tuple[int, ...]
    groups: int
    draw: int
    checks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    practice: str = ""

    def prompts(self, task: str) -> int:
        """Number of drawn prompts: those that are rated, and one more for each check and for the practice."""
        return self.groups + len(self.checks.get(task, ())) + (task == self.practice)


def choose(wanted: StudyRequest, task: str, names: Sequence[str]) -> Choice:
    """The groups of a task for these methods.

    Raises:
        ValueError: in one line, for a method without enough videos, with the command that makes them.
    """
    rows = [row for row in newest(wanted.store, task, scored=False, texts=False) if _count(row, wanted.seeds)]
    usual = _usual(task, {row.preset for row in rows})
    lacking = [name for name in names or usual if all(row.preset != name for row in rows)]
    if names and lacking:
        raise ValueError(f"task {task}: no videos of method={lacking[0]} at seed={_seeds(wanted)}; {_command(wanted, task, lacking)}")
    shown = pick(rows, [name for name in names or usual if name not in lacking]) if rows else []
    if len(shown) < 2:
        have = f"videos of {shown[0].name} alone, raters compare two methods and more" if shown else "no videos"
        raise ValueError(f"task {task}: {have}, at seed={_seeds(wanted)}; {_command(wanted, task, lacking or usual)}")
    common = _common(shown, wanted.seeds)
    prompts = len({prompt for prompt, _ in common})
    if prompts < wanted.prompts(task):
        raise ValueError(_shortage(wanted, task, shown, lacking, prompts))
    groups = [*_draw(wanted, task, shown, common)]
    checks = wanted.checks.get(task, ())
    for place, points in enumerate(checks, wanted.groups):
        groups[place] = replace(groups[place], check=points)
    if task == wanted.practice:
        groups[-1] = replace(groups[-1], task=PRACTICE)
    return Choice(task, tuple(shown), tuple(lacking), prompts, tuple(groups))


def _shortage(wanted: StudyRequest, task: str, shown: Sequence[Entry], lacking: Sequence[str], prompts: int) -> str:
    """Message for too few prompts: videos of each method, methods that lack some or are left out, and the command for the rest."""
    have = {row.preset: {unit for unit in row.videos.index if unit[1] in wanted.seeds} for row in shown}
    all_units = set().union(*have.values())
    few = [name for name, units in have.items() if units != all_units or len({prompt for prompt, _ in units}) < wanted.prompts(task)]
    line = f"task {task}: {prompts} prompts have videos of all of {', '.join(row.name for row in shown)} at seed={_seeds(wanted)}"
    if few:
        line += f" ({', '.join(f'{name} has {len(have[name])}' for name in few)} of {len(all_units)})"
    else:
        line += " from the same text"
    more = wanted.prompts(task) - wanted.groups
    extra = f" and {more} more for practice and checks" if more else ""
    line += f", groups={wanted.groups}{extra} are asked for; {_command(wanted, task, few or list(have))}"
    gone = "; ".join(
        [f"left out are {', '.join(lacking)}, of which the store has no videos at these seeds"] * bool(lacking) + left_out(shown)
    )
    return f"{line}; {gone}" if gone else line


def _usual(task: str, there: Collection[str]) -> list[str]:
    """The default methods of a task: those of its experiment, in its order.

    Rendered rows, and LongLive's variants in Table 5, are shown only if they are named.

    there: presets that the store has; they choose among the presets for the paper's own method.
    """
    table = next(table for table, tasks in TASKS.items() if task in tasks)
    listed = preset("experiment", EXPERIMENTS[table])["hydra"]["sweeper"]["params"]["method"]
    rows = methods(listed, [word for word, base in OURS.items() if base in there] or [*OURS][:1])
    return [name for name in rows if not (table == "table5" and name.startswith(TUNED))]  # the paper's Table 5 has four rows


def _seeds(wanted: StudyRequest) -> str:
    return ",".join(map(str, wanted.seeds))


def _command(wanted: StudyRequest, task: str, names: Sequence[str]) -> str:
    words = f"method={','.join(names)} task={task} seed={_seeds(wanted)} prompts={wanted.prompts(task)} eval=none store={wanted.store}"
    return f"make them with python run.py {words} -m"


def _common(shown: Sequence[Entry], seeds: Sequence[int]) -> list[Unit]:
    """Prompts and seeds for which all rows have a video of the same text."""
    texts = pd.DataFrame({row.name: row.videos["text"].astype("str") for row in shown}).dropna()
    return sorted(unit for unit in texts.index[texts.nunique(axis=1) == 1] if unit[1] in seeds)


def _count(row: Entry, seeds: Sequence[int]) -> int:
    return int(row.videos.index.isin(seeds, level="seed").sum())


def _draw(wanted: StudyRequest, task: str, shown: Sequence[Entry], common: Sequence[Unit]) -> Iterator[Group]:
    """Groups in random order; a prompt that was drawn before, or whose videos differ in form, is skipped."""
    order = np.random.default_rng([wanted.draw, zlib.crc32(task.encode())]).permutation(len(common))
    drawn, odd = set[str](), ""
    for unit in (common[index] for index in order):
        group = None if unit[0] in drawn else _group(task, unit, shown)
        if isinstance(group, str):
            odd = group
        elif group is not None:
            drawn.add(group.prompt)
            yield group
        if len(drawn) == wanted.prompts(task):
            return
    rule = "videos side by side have one codec, size and length, else they tell what they are (video.height_px=)"
    raise ValueError(f"task {task}: {len(drawn)} prompts have videos of one form, {wanted.prompts(task)} are asked for: {odd}; {rule}")


def _group(task: str, unit: Unit, shown: Sequence[Entry]) -> Group | str:
    """A group, or a description of how its videos differ."""
    videos = {row.name: _file(row, unit) for row in shown}
    forms = {name: form_of(path) for name, path in videos.items()}
    first, *rest = forms.items()
    for name, form in rest:
        if form != first[1]:
            return f"{unit[0]} is {first[1]} of {first[0]}, {form} of {name}"
    if first[1].codec != "h264":
        raise ValueError(f"task {task}: {videos[first[0]]} is {first[1].codec}; browsers play h264 alone everywhere")
    return Group(task, *unit, _scenes(task, unit, shown), first[1], videos)


def _file(row: Entry, unit: Unit) -> Path:
    path = Path(str(row.videos["video"][unit]))
    if not path.is_file():
        raise ValueError(f"{path}: the store's record names this video and it is not there; run its command again")
    if isinstance(why := row.videos["spoilt"][unit], str):
        raise ValueError(f"{path}: {why}; run its command again")
    return path


def _scenes(task: str, unit: Unit, shown: Sequence[Entry]) -> tuple[tuple[float, str], ...]:
    """Texts of the prompt and the seconds at which they begin, from the first video for which both are known."""
    reason = "no attempt names its prompt set"
    for row in shown:
        video = row.videos.loc[unit]
        name = row.start(video).prompt_set
        if not name or not (ROOT / name).is_file():
            reason = f"its prompt set {name} is gone" if name else reason
            continue
        texts = next((one.scenes for one in load_prompts(ROOT / name) if one.id == unit[0]), ())
        scenes = scenes_of(Path(video["trace"]) if isinstance(video["trace"], str) else None)
        seconds = block_s(row.run.spec.frames_per_block)
        starts = [seconds * block for block in range(len(scenes)) if block == 0 or scenes[block] != scenes[block - 1]]
        if texts and len(texts) == len(starts):
            return tuple(zip(starts, texts))
        reason = f"{name} has {len(texts)} scenes of it and the video {len(starts)}"
    raise ValueError(f"task {task}: raters must see the text of {unit[0]}, but {reason}; put the file back, or make the runs anew")


def settings(words: str) -> list[str]:
    """Tasks of a comma-separated list. Raises ValueError for a task without a table of opinions, and for one named twice."""
    known = [task for tasks in TASKS.values() for task in tasks]
    names = [name for name in words.split(",") if name]
    for name in names:
        if name not in known:
            raise ValueError(f"task={name}: people rate {', '.join(known)}; nearest is {nearest(name, known)}")
        if names.count(name) > 1:
            raise ValueError(f"task={name}: named twice; once is enough")
    if not names:
        raise ValueError("task=: no task; nearest is task=long60,smooth,hard,recall")
    return names
