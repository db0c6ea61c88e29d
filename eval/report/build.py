"""A report of a store as one folder that opens from disk: tables, videos side by side in step, what each block kept, drift, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from echo.files import RESULTS, inside
from eval.pages import literal, render
from eval.report.cells import parts
from eval.report.folder import MARK, Folder, replacing_folder
from eval.report.site import leaderboard
from eval.report.view import GridView, Lack, constants, drift, index, lacks, provenance, scores, table
from eval.store.origin import commit
from eval.store.records import Scorer
from eval.store.rows import Source, sources
from eval.store.runs import UNSCORED, Asked, existing, known, runs, sweeps
from eval.tables.build import look_of
from eval.tables.command import combined, grouped, in_order, made_of, save
from eval.tables.grid import sections
from eval.tables.meta import MadeGrid, meta

CODE = ("echo", "baselines", "data", "eval", "conf")


@dataclass(frozen=True)
class Counts:
    """Counts of a report: tasks, videos, entries of its list of missing videos; bytes of the videos in its folder."""

    parts: int
    videos: int
    lacks: int
    bytes: int


def chosen(store: Path, experiment: str, tasks: Sequence[str]) -> dict[str, list[Source]]:
    """Sources of the tables to show, by table, followed by runs without scores.

    Raises:
        ValueError: in one line, for a name that the store does not have.
    """
    every = [*sources(existing(store)), *_unscored(store)]
    if not every:
        raise ValueError(f"--store {store}: no runs; make some with python run.py store={store}")
    lack = f"store {store} has no runs of it"
    known("experiment=", filter(None, [experiment]), {source.experiment for source in every if source.experiment}, lack)
    known("task=", tasks, {source.task for source in every}, lack)
    picked = [s for s in every if experiment in ("", s.experiment) and (not tasks or s.task in tasks)]
    if not picked:
        raise ValueError(f"--store {store}: experiment={experiment} has no runs of task={','.join(tasks)}")
    groups = grouped(picked)
    return {name: in_order(groups[name]) for name in sorted(groups, key=lambda name: (groups[name][0].experiment is None, name))}


def _unscored(store: Path) -> list[Source]:
    """Runs for which no scores were requested, by the experiment that requested them, and by task."""
    swept = {run.place: sweep for sweep in sweeps(store) if not sweep.scored for run, _ in sweep.wishes}
    by_name: dict[str, list[tuple[Any, list[Asked]]]] = {}
    for run in runs(store):
        asked = run.asked()
        if asked and all(wish.scores is None for wish in asked):
            nobody = Scorer(asked[-1].scorer.name, asked[-1].scorer.label)  # without scores there is no key
            plain = [msgspec.structs.replace(wish, scorer=nobody) for wish in asked]
            name = swept[run.place].name if run.place in swept else f"{run.place.task}{UNSCORED}"
            by_name.setdefault(name, []).append((run, plain))
    experiments = {sweep.name: sweep.experiment for sweep in swept.values()}
    return [
        Source(name, wishes[0][1][-1].task.name, experiments.get(name), tuple(wishes), ordered=False)
        for name, wishes in sorted(by_name.items())
    ]


def write(groups: Mapping[str, Sequence[Source]], store: Path, out: Path, ways: str, title: str) -> Counts:
    """Write a report, completely or not at all: an older one stays until the new one is complete.

    Args:
        groups: sources by table, in the order of the page.
        store: the run store.
        out: the report's folder.
        ways: how videos get into the folder, one of `WAYS`.
        title: of the page; if empty, the first table's.

    Raises:
        ValueError: `out` is something else than a report or an empty folder.
    """
    with replacing_folder(out) as part:
        return _fill(Folder(part, out, ways), groups, store, title)


def _fill(folder: Folder, groups: Mapping[str, Sequence[Source]], store: Path, title: str) -> Counts:
    tables, indexes, shown, missing = [], [], [], list[Lack]()
    for name, group in groups.items():
        look = look_of(group[0].experiment)
        made, links = [(source, made_of(source, look)) for source in group], dict[tuple[str, ...], str]()
        for source, ones in made:
            for part in parts(source, ones):
                words = [look.title] if len(groups) > 1 else []
                words += [part.grid.title] + ([part.name] if part.name != source.name else [])
                heading = ": ".join(filter(None, words))
                indexes.append(index(part, heading, folder))
                folder.data(f"drift/{part.name}", drift(part))
                folder.data(f"scores/{part.name}", scores(part))
                missing += lacks(part, heading, folder)
                links |= {method.row.runs: f"#task={quote(part.name)}&method={quote(method.name)}" for method in part.methods}
                shown.append(part)
        scored = [one for source, ones in made for one in ones if source.wishes[0][1][-1].scores is not None]
        if scored:
            tables.append(_table(folder, name, look.title, scored, links))
    missing += _never(groups, store)
    lines = provenance(shown, folder)
    videos = {cell.video for part in shown for method in part.methods for cell in method.cells.values()} - {None}
    counts = Counts(len(shown), len(videos), len(missing), folder.bytes)
    commits = sorted({code.commit[:12] + " (changed)" * bool(code.dirty) for line in lines if (code := line.facts.code).commit})
    page = render(
        "report.html",
        title=title or (tables[0].title if tables else "Videos"),
        store=str(store), counts=counts, tables=tables, sections=sections, lacks=missing, lines=lines, commits=commits,
        made_by=commit(CODE)[:12],
        data=msgspec.to_builtins({"parts": indexes, "metrics": folder.metrics, **constants()}),
    )  # fmt: skip
    folder.write("index.html", page)
    folder.write(MARK, literal({"v": 1, "tables": list(groups), **asdict(counts)}) + "\n")
    return counts


@dataclass(frozen=True)
class TableView:
    """A table on the page. links: links to the videos of a row, by its runs. conflicts: videos that were made twice and differ.

    damaged: lines of records that are left out.
    """

    name: str
    title: str
    grids: list[GridView]
    links: Mapping[tuple[str, ...], str]
    conflicts: list[str]
    damaged: list[str]


def _table(folder: Folder, name: str, title: str, made: Sequence[MadeGrid], links: Mapping[tuple[str, ...], str]) -> TableView:
    """A table on the page, also written in all formats into the folder `tables`."""
    grids = combined(title, [one.grid for one in made])
    save(folder.root / "tables", name, grids, meta(name, title, made))
    shown = [table(grid) for grid in grids]
    conflicts = [line for one in made for line in one.group.conflicts]
    damaged = [line for one in made for line in one.group.damaged]
    return TableView(name, shown[0].title if len(grids) == 1 else title or name, shown, links, conflicts, damaged)


def _never(groups: Mapping[str, Sequence[Source]], store: Path) -> list[Lack]:
    """Runs that a command requested and that have not begun."""
    shown = {source.name for group in groups.values() for source in group}
    lacks = []
    for sweep in sweeps(store):
        for run, wish in sweep.wishes:
            if sweep.name in shown and not run.exists:
                row, seeds = f"{run.place.backbone}/{run.place.method}", (run.place.seed,)
                lacks.append(Lack(sweep.name, row, tuple(wish.units), seeds, "run not begun"))
    return lacks


def report(
    labs: Sequence[str] = (),
    /,
    experiment: str = "",
    task: Sequence[str] = (),
    *,
    site: bool = False,
    store: Path = RESULTS,
    videos: Literal["link", "copy", "relative"] = "link",
    output: Path | None = None,
) -> list[str]:
    """Write a store as one folder that opens from disk: tables, videos side by side in step, what each block kept, drift, provenance.

    Open index.html in the folder; it asks no server and no network. With --site it is the leaderboard of several labs: methods x tasks
    with intervals, every number linked to its records.

        echo-harness report experiment=table2
        echo-harness report --store results --output review
        echo-harness report --site ann.zip bob.zip results --output site

    Args:
        labs: with --site: submissions, as `echo-harness export` makes them, and stores; by default --store alone.
        experiment: only this one; by default all of the store, runs without scores included.
        task: only these tasks.
        site: write the leaderboard.
        store: the run store.
        videos: link puts hard links into the folder (copies if the disk differs) and copy puts copies, so that the folder can be packed and
            sent; relative leaves the videos in their place, for a report that stays beside its store.
        output: the folder; STORE/report/EXPERIMENT by default, `site` for a leaderboard.
    """
    if site:
        if experiment:
            raise ValueError(f"experiment={experiment}: a leaderboard has the newest rows of each task; nearest is task=NAME")
        return leaderboard(list(labs) or [str(store)], task, output or Path("site"), videos)
    if labs:
        raise ValueError(f"{labs[0]}: submissions are shown as a leaderboard; nearest is --site {labs[0]}")
    groups = chosen(store, experiment, task)
    out = output or inside(store, f"report/{experiment or 'all'}")
    counts = write(groups, store, out, videos, "" if experiment else f"All runs of {store.resolve().name}")
    megabytes = f", {counts.bytes / 1e6:.0f} MB" if counts.bytes else ""
    lines = [f"report: {out / 'index.html'} ({counts.parts} task{'s' * (counts.parts != 1)}, {counts.videos} videos{megabytes})"]
    return lines + ([f"failed, dead or missing: {counts.lacks} entries, listed at its end"] if counts.lacks else [])
