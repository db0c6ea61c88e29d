"""The rule for which runs make a row and which rows may be compared; tables, figures, reports and studies follow it.

A row is a preset on a backbone with all settings that enter its pixels, over its seeds. Rows may be compared if they have the same task,
version of the code, way of scoring, text of each prompt and, per backbone, version of its weights. Runs are taken from the latest
requested to the oldest, so that the first group of rows has the newest of all these; a run that contradicts it goes to another group. A
command's table shows the requests of the last command of its name; any other reader takes all requests of a task, and shows one row per
preset of the newest group (`newest`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from echo.files import ROOT
from echo.scene import Prompt, load_prompts
from eval.store.columns import Wishes, table
from eval.store.reading import hearing, leave_out
from eval.store.records import DamagedLine, Provenance, Scorer, Titled
from eval.store.runs import Asked, Run, flat, runs, sweeps, tasks

WEIGHTS = ("backbone.weights", "backbone.lora")
"""Settings that identify the content of a backbone's files."""
CALIBRATION = "calibration"
"""Name in place of the backbone's for rendered videos."""
Unit = tuple[str, int]
"""A prompt's id and a seed."""


@dataclass(frozen=True)
class Source:
    """The requests that make one table."""

    name: str
    task: str
    experiment: str | None
    wishes: tuple[Wishes, ...]
    ordered: bool = True  # rows in the order of the command; otherwise by name
    unreadable: tuple[str, ...] = ()  # a line per file that is left out because it cannot be read


@dataclass(eq=False)
class Entry:
    """A row. settings: all that enter its pixels except seed and weights. weights: identifies the weights, empty for none. parts: its runs.

    newest: name of its last request. older: rows of the same preset and backbone with other settings that it replaced, newest first.
    """

    run: Run
    settings: dict[str, Any]
    weights: str = ""
    parts: list[Wishes] = field(default_factory=list)
    newest: str = ""
    older: list[Entry] = field(default_factory=list)

    @property
    def preset(self) -> str:
        """Name of its preset."""
        return self.run.spec.method.name

    @property
    def label(self) -> str:
        """Displayed label of its method."""
        return self.run.spec.method.label

    @property
    def backbone(self) -> str:
        """Name of its backbone."""
        return self.run.spec.backbone.name

    @property
    def name(self) -> str:
        """Backbone and preset, for example `tiny/echo`."""
        return f"{self.backbone}/{self.preset}"

    @property
    def calibration(self) -> bool:
        """Whether it was rendered."""
        return self.run.calibration

    @property
    def section(self) -> str:
        """Label of its backbone, or that it has none."""
        return CALIBRATION if self.calibration else self.run.spec.backbone.label

    @property
    def runs(self) -> list[Run]:
        """Its runs, one per seed unless one was made twice."""
        return [run for run, _ in self.parts]

    @property
    def beside(self) -> dict[str, Any]:
        """Settings other than its method's."""
        return {key: value for key, value in self.settings.items() if not key.startswith("method.")}

    @cached_property
    def _table(self) -> tuple[pd.DataFrame, list[str], list[DamagedLine]]:
        return table(self.parts)

    @property
    def asked(self) -> pd.DataFrame:
        """All requested videos with status and metrics: `eval.store.columns.table`."""
        return self._table[0]

    @property
    def conflicts(self) -> list[str]:
        """Units that were computed twice with different outcomes."""
        return self._table[1]

    @property
    def damaged(self) -> list[str]:
        """Lines of records that are left out because their checksums are wrong: file and number."""
        return [str(line) for line in self._table[2]]

    @cached_property
    def videos(self) -> pd.DataFrame:
        """The finished videos with paths, hashes and speeds: `eval.store.columns.table`."""
        whole, *_ = table(self.parts, facts=True)
        return whole[whole["status"] == "done"]

    @property
    def metrics(self) -> list[str]:
        """Names of metrics that some video has, with or without a number."""
        return [str(name) for name, kind in self.asked.dtypes.items() if kind == "float64"]

    @property
    def measured(self) -> list[str]:
        """Names of metrics for which some video has a number."""
        return [name for name in self.metrics if self.asked[name].notna().any()]

    def start(self, video: pd.Series) -> Provenance:
        """Provenance of a row of `videos`."""
        return next(run for run in self.runs if run.place.run == video["run"]).attempt(video["attempt"])

    def starts(self) -> Iterator[Provenance]:
        """Provenance of every start that contributed a number."""
        done = self.asked[self.asked["status"] == "done"]
        runs = {run.place.run: run for run in self.runs}
        for run, attempt in done[["run", "attempt"]].drop_duplicates().itertuples(index=False):
            yield runs[run].attempt(attempt)

    def count(self, status: str) -> int:
        """Number of videos with a status."""
        return int((self.asked["status"] == status).sum())

    @property
    def pixel_codes(self) -> tuple[str, ...]:
        """Sorted digests of the code that made its videos; records of older versions have none."""
        return tuple(sorted(set(self.asked["pixel_code"].astype("str")) - {""}))

    @property
    def unreadable(self) -> list[str]:
        """A line per file of its runs that was left out so far because it cannot be read."""
        return list(dict.fromkeys(line for run in self.runs for line in run.unreadable))

    @property
    def dead(self) -> int:
        """Number of videos that show nothing, or nothing that moves (`eval.store.records.Outcome.dead`)."""
        return int(self.asked["dead"].sum())

    def values(self, metric: str) -> pd.Series:
        """Values of a metric by prompt and seed; videos without a number are left out."""
        asked = self.asked
        return asked[metric].dropna() if metric in self.metrics else pd.Series([], asked.index[:0], dtype="float64")


@dataclass
class Comparable:
    """Rows that may be compared, by backbone, preset and settings.

    newest: name of the last request of any row. weights: by backbone. prompts: digest of each prompt's content by its id.
    """

    task: Titled
    scorer: Scorer
    newest: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    entries: dict[tuple[str, str, str], Entry] = field(default_factory=dict)

    @property
    def conflicts(self) -> list[str]:
        """Units that were computed twice with different outcomes, each with its preset."""
        return [f"{entry.preset} {line}" for entry in self.entries.values() for line in entry.conflicts]

    @property
    def damaged(self) -> list[str]:
        """Damaged lines of records, which are left out, by file and number."""
        return [line for entry in self.entries.values() for line in entry.damaged]

    def takes(self, backbone: str, weights: str, prompts: Mapping[str, str]) -> bool:
        """Whether a run with this backbone, weights and prompts contradicts none of its rows."""
        return (not weights or self.weights.get(backbone, weights) == weights) and agree(self.prompts, prompts)


def asked_of(entries: Iterable[Entry]) -> pd.MultiIndex:
    """All prompts and seeds that were requested for any of the rows."""
    return reduce(lambda some, other: some if some.equals(other) else some.union(other), (entry.asked.index for entry in entries))


def sources(store: Path) -> list[Source]:
    """Sources of all tables that a store can make, sorted by name."""
    by_name: dict[str, Source] = {}
    for sweep in filter(lambda sweep: sweep.scored, sweeps(store)):
        with hearing() as lost:
            there = [(run, [wish]) for run, wish in sweep.wishes if run.there]
        if there:
            by_name[sweep.name] = Source(sweep.name, sweep.task, sweep.experiment, tuple(there), unreadable=tuple(lost))
    swept = {source.task for source in by_name.values()}
    for task in tasks(store):
        if task not in swept:
            with hearing() as lost:
                parts = tuple(parts_of(store, task))
            by_name |= {task: Source(task, task, None, parts, ordered=False, unreadable=tuple(lost))} if parts else {}
    return [by_name[name] for name in sorted(by_name)]


def parts_of(store: Path, task: str, scored: bool = True) -> list[Wishes]:
    """All requests of a task's runs, by run and way of scoring; scored=False: by run only, however videos were scored, or not at all."""
    parts: list[Wishes] = []
    for run in runs(store, f"*/{task}/*/seed=*/*"):
        by_scores: dict[str | None, list[Asked]] = {}
        for wish in run.asked():
            if not scored:
                by_scores.setdefault(None, []).append(msgspec.structs.replace(wish, scores=None))
            elif wish.scores is not None:
                by_scores.setdefault(wish.scores, []).append(wish)
        parts += [(run, wishes) for wishes in by_scores.values()]
    return parts


def last_asked(store: Path) -> list[tuple[Run, Asked]]:
    """The last request of every run of the newest version of the code: the videos that a store should have."""
    last = [(run, asked[-1]) for run in runs(store) if (asked := run.asked())]
    newest_epoch = max((run.spec.key.epoch for run, _ in last), default=0)
    return [(run, asked) for run, asked in last if run.spec.key.epoch == newest_epoch]


def gather(parts: Iterable[Wishes], texts: bool = True) -> list[Comparable]:
    """Runs in rows, and rows in comparable groups, the latest requested group first; each in the order of the runs.

    texts: whether each prompt must have one text in a group, which means over prompts require; if not, see `differences`.
    """
    every = list(parts)
    like: dict[tuple[Any, ...], list[Comparable]] = {}
    group_of: dict[int, Comparable] = {}
    for place in sorted(range(len(every)), key=lambda place: every[place][1][-1].name, reverse=True):
        run, asked = every[place]
        backbone, weights, last = run.spec.backbone.name, _weights(run), asked[-1]
        prompts = dict[str, str]()
        for wish in asked:
            prompts |= wish.prompts
        groups = like.setdefault((last.task.name, run.spec.key.epoch, last.scores), [])
        group = next((group for group in groups if group.takes(backbone, weights, prompts if texts else {})), None)
        if group is None:
            group = Comparable(last.task, last.scorer, last.name)
            groups.append(group)
        group.prompts |= prompts
        group.weights |= {backbone: weights} if weights else {}
        group_of[place] = group
    for place, (run, asked) in enumerate(every):
        settings = {key: value for key, value in sorted(flat(run.spec.key.pixels), key=itemgetter(0)) if key not in ("seed", *WEIGHTS)}
        key = (run.spec.backbone.name, run.spec.method.name, repr(settings))
        entry = group_of[place].entries.setdefault(key, Entry(run, settings, _weights(run)))
        entry.parts.append((run, asked))
        entry.newest = max(entry.newest, asked[-1].name)
    return sorted((group for groups in like.values() for group in groups), key=lambda group: group.newest, reverse=True)


def _weights(run: Run) -> str:
    """Text that identifies the files of a run's backbone; empty for none."""
    return "+".join(str(digest)[:8] for digest in map(run.spec.key.pixels.get, WEIGHTS) if digest)


def agree(some: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Whether no prompt has different texts in the two; an edited prompt set is never mixed with the old one."""
    return some == others or all(others.get(prompt, content) == content for prompt, content in some.items())


def newest(store: Path, task: str, scored: bool = True, texts: bool = True) -> list[Entry]:
    """Rows of a task with at least one video, one per preset and backbone, made by any commands, sorted by name.

    They are from the newest group: rows whose settings besides the method's agree with those of most videos, and, if a preset has several
    settings, the newest.

    Args:
        store: the run store.
        task: name of the task.
        scored: whether to leave out videos without scores; otherwise videos count however they were scored.
        texts: see `gather`.

    Returns:
        The rows; an empty list if the store has none.
    """
    groups = gather(parts_of(store, task, scored), texts)
    there = [entry for entry in groups[0].entries.values() if entry.count("done")] if groups else []
    for line in groups[0].damaged if groups else ():
        leave_out(f"{line}: a damaged record")
    best: dict[str, Entry] = {}
    for entry in sorted(_alike(there), key=lambda entry: (entry.newest, entry.count("done")), reverse=True):
        first = best.setdefault(entry.name, entry)
        if first is not entry:
            first.older.append(entry)
    return [best[name] for name in sorted(best)]


def _alike(entries: Sequence[Entry]) -> list[Entry]:
    """Rows whose settings besides the method's agree with those of most videos; rendered rows do not count among these."""
    count: dict[str, int] = {}
    for entry in entries:
        if not entry.calibration:
            count[repr(entry.beside)] = count.get(repr(entry.beside), 0) + entry.count("done")
    if not count:
        return list(entries)
    most = max(count, key=count.__getitem__)
    chosen = next(entry.beside for entry in entries if repr(entry.beside) == most)
    return [entry for entry in entries if all(chosen.get(key, value) == value for key, value in entry.beside.items())]


def differences(first: Entry, second: Entry, metric: str) -> pd.Series:
    """First minus second by prompt and seed, over videos of the same text for which both have the metric."""
    paired = (first.values(metric) - second.values(metric)).dropna()
    some, other = (entry.asked["text"].reindex(paired.index).astype("str") for entry in (first, second))
    return paired[some == other]


def left_out(entries: Iterable[Entry]) -> list[str]:
    """A line per row that newer settings of its preset replaced: its different settings, and its number of videos."""
    lines = []
    for entry in entries:
        for other in entry.older:
            old, new = other.settings, entry.settings
            keys = [key for key in old if old[key] != new.get(key, old[key])] or [key for key in old if key not in new]
            words = ", ".join(f"{key.removeprefix('method.settings.')}={old[key]}" for key in keys)
            lines.append(f"left out, as {entry.name} has newer settings: {words or 'fewer settings'} ({other.count('done')} videos)")
    return lines


def pick(entries: Iterable[Entry], names: Sequence[str]) -> list[Entry]:
    """Rows of the named presets, in the order of the names; all rows if none is named.

    Raises:
        ValueError: in one line, for a preset that no row has.
    """
    there = list(entries)
    if not names:
        return there
    presets = sorted({entry.preset for entry in there})
    for name in names:
        if name not in presets:
            raise ValueError(f"method={name}: no videos of it here; there are {', '.join(presets) or 'none'}")
    return [entry for name in names for entry in there if entry.preset == name]


def prompts_of(prompt_set: str) -> tuple[Prompt, ...]:
    """The prompts of a set that a run names; none if the file is gone or, with a warning, if it has been damaged."""
    try:
        return load_prompts(ROOT / prompt_set) if prompt_set and os.path.lexists(ROOT / prompt_set) else ()
    except ValueError as error:
        leave_out(f"{error}; its texts are left out")
        return ()
