"""A report as the template takes it: tables, the index of cells, drift, what is missing, provenance; plain values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from echo.cache.kinds import Kind
from echo.scene import BLOCK_S, FPS, Prompt, TagMeaning
from eval.figures import style
from eval.figures.drift import FIRST, drifts
from eval.metrics import READINGS, Column
from eval.report.cells import ABSENT, DONE, GONE, Method, Part
from eval.report.cells import Cell as Video
from eval.report.folder import BLOCK_FRAMES, Folder
from eval.store.records import Provenance
from eval.store.runs import Run
from eval.tables.captions import Panel, panels
from eval.tables.grid import Grid, Row, sections

WINDOW = 9
"""Blocks of the moving mean of drift curves, as of `eval.figures.drift`."""


@dataclass(frozen=True)
class Lack:
    """A video that is not as asked for, or all of a row that were not made. where: of its traceback in the folder, or ""."""

    task: str
    method: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    what: str
    note: str = ""
    where: str = ""


def table(grid: Grid) -> dict[str, Any]:
    """A grid as the template prints it: the texts are those of every other form of the table; columns without a number are told below."""
    measured = [any(row.cells[place].estimate is not None for row in grid.rows) for place in range(len(grid.columns))]
    gap = any(cell.estimate is None for row in grid.rows for cell, there in zip(row.cells, measured) if there)
    means, *differences = panels(grid)
    notes = [note for note in means.notes if gap or not note.startswith("-:")]
    empty = [column.about.label for column, there in zip(grid.columns, measured) if not there]
    return {
        "title": grid.title,
        "caption": means.caption,
        "heads": [_head(column) for column, there in zip(grid.columns, measured) if there],
        "sections": _sections(means, measured),
        "notes": [*notes, *([f"Columns left out, as no row has a number: {', '.join(empty)}."] if empty else [])],
        "differences": [{"caption": panel.caption, "sections": _sections(panel, measured), "notes": panel.notes} for panel in differences],
    }


def _head(column: Column) -> dict[str, str]:
    words = [word for word in column.words if not word.startswith("(")]
    return {"words": " ".join(words), "kind": column.kind.replace("_", " "), "metric": column.metric}


def _sections(panel: Panel, measured: Sequence[bool]) -> list[dict[str, Any]]:
    parts = sections(panel.rows)
    return [
        {"heading": heading if len(parts) > 1 else "", "rows": [_line(row, measured, panel.gaps) for row in rows]}
        for heading, rows in parts.items()
    ]


def _line(row: Row, measured: Sequence[bool], gaps: bool) -> dict[str, Any]:
    return {
        "label": row.label,
        "name": row.name,
        "count": row.count,
        "calibration": row.calibration,
        "cells": [cell.printed(gaps)._asdict() for cell, there in zip(row.cells, measured) if there],
    }


def index(part: Part, title: str, folder: Folder) -> dict[str, Any]:
    """What the page knows of a part before any cell is loaded; writes the cells."""
    prompts, seeds = part.prompts, part.seeds
    cells = [[[_entry(method.cells.get((p, s)), folder) for s in seeds] for p in prompts] for method in part.methods]
    names = [entry if isinstance(entry, str) else (entry or {}).get("data") for rows in cells for row in rows for entry in row]
    return {
        "id": part.name,
        "title": title,
        "prompts": [{"id": prompt, **_script(part, prompt, folder)} for prompt in prompts],
        "seeds": seeds,
        "methods": [_method(method, part.methods, folder) for method in part.methods],
        "cells": cells,
        "frames": max((folder.lengths[name] for name in names if name), default=1),
    }


def _entry(cell: Video | None, folder: Folder) -> Any:
    """The name that loads a cell; of one without a video what became of it; null where nothing was asked for."""
    if cell is None:
        return None
    if cell.video is None:
        return {"status": GONE if cell.record is not None else cell.status, "note": cell.note}
    return folder.cell(cell) if cell.status == DONE else {"data": folder.cell(cell), "status": cell.status, "note": cell.note}


def _method(method: Method, others: Sequence[Method], folder: Folder) -> dict[str, Any]:
    row = method.row
    sections = {other.row.section for other in others if not other.row.calibration}
    twins = [other for other in others if other.row.label == row.label]
    words = [row.section] if len(sections) > 1 and not row.calibration else []
    words += [row.preset] if len({other.row.preset for other in twins}) > 1 else []
    words += [row.variant] if row.variant else []
    cells = [cell for one in (method, *others) for cell in one.cells.values()]  # a row without videos takes the shape of the others
    shape = next((shape for cell in cells if (shape := folder.shape(cell))), None)
    return {
        "id": method.name,
        "label": row.label,
        "more": ", ".join(words),
        "calibration": row.calibration,
        "size": [shape.width, shape.height] if shape else [16, 9],
    }


def _script(part: Part, prompt: str, folder: Folder) -> dict[str, Any]:
    """The scenes of a prompt: where they begin by the first trace that there is, how they are entered, and their texts if known."""
    videos = (cell for method in part.methods for (p, _), cell in method.cells.items() if p == prompt and cell.video)
    trace = next((found for cell in videos if (found := folder.trace(cell))), None)
    return {"borders": list(trace[1].borders) if trace else [0], **_words(part.texts.get(prompt))}


def _words(prompt: Prompt | None) -> dict[str, Any]:
    if prompt is None:
        return {"texts": [], "how": []}
    ways = prompt.transitions(TagMeaning.enter)
    return {"texts": list(prompt.scenes), "how": [str(way.value) if way else "" for way in ways]}


def drift(part: Part) -> list[dict[str, Any]]:
    """Curves of a part's methods with their bands, as `eval.figures.drift` makes them; empty where no scores have readings of blocks."""
    made = [method.drifting() for method in part.methods]
    rows = {id(row): index for index, row in enumerate(made)}
    found, _ = drifts([row for row in made if row.videos], WINDOW)
    lines = []
    for one in sorted(found, key=lambda one: rows[id(one.row)]):
        curves = {name: {"mean": _plain(curve.mean), "half": _plain(curve.half_width)} for name, curve in one.curves.items()}
        first = one.curves[FIRST]
        lines.append({"method": rows[id(one.row)], "videos": first.videos, "prompts": first.prompts, "curves": curves})
    return lines


def _plain(values: Any) -> list[float | None]:
    return [round(value, 2) if value == value else None for value in map(float, values)]


def lacks(part: Part, title: str, folder: Folder) -> Iterator[Lack]:
    """Everything that was asked for and is not there, or not scored; of videos that were not made one entry a row."""
    for method in part.methods:
        label = ", ".join(filter(None, (method.row.label, "" if method.row.calibration else method.row.section, method.row.variant)))
        absent: dict[int, list[str]] = {}
        for (prompt, seed), cell in sorted(method.cells.items()):
            if cell.status == ABSENT:
                absent.setdefault(seed, []).append(prompt)
            elif cell.status != DONE:
                yield Lack(title, label, (prompt,), (seed,), cell.status, cell.note, folder.traceback(cell))
            if cell.record is not None and cell.video is None:
                yield Lack(title, label, (prompt,), (seed,), GONE, cell.record.files.get("video", ""))
        for prompts in dict.fromkeys(map(tuple, absent.values())):
            seeds = tuple(seed for seed, there in sorted(absent.items()) if tuple(there) == prompts)
            yield Lack(title, label, prompts, seeds, ABSENT)


def provenance(parts: Sequence[Part], folder: Folder) -> list[dict[str, Any]]:
    """A line for every start of every run that the report shows."""
    runs: dict[str, tuple[Run, Method, str]] = {}
    for part in parts:
        for method in part.methods:
            for run in method.entry.runs:
                runs.setdefault(str(run.path), (run, method, part.grid.title))
    lines = []
    for run, method, task in runs.values():
        name, starts = folder.provenance(run)
        for start, facts in (starts or {"?": Provenance()}).items():
            lines.append({"run": run.path.name, "file": name, "method": method.row.label, "backbone": run.spec.backbone.name,
                          "task": task, "seed": run.spec.seed, **_start(start, facts)})  # fmt: skip
    return lines


def _start(name: str, facts: Provenance) -> dict[str, Any]:
    """What a reader wants to know of an attempt first; the rest is in its file."""
    nanoseconds = name.partition("-")[0]
    began = int(nanoseconds) / 1e9 if nanoseconds.isdecimal() and len(nanoseconds) == 20 else 0.0
    return {
        "attempt": name,
        "began": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(began)) if began > 1e9 else "",
        "commit": facts.code.commit or "",
        "dirty": facts.code.dirty or "",
        "host": facts.host or "",
        "device": facts.device or "",
        "job": (facts.slurm or {}).get("job_id", ""),
        "versions": ", ".join(f"{key} {value}" for key, value in {"python": facts.python, **facts.packages}.items() if value),
        "command": " ".join(facts.argv),
    }


def constants() -> dict[str, Any]:
    """What the page's script must know beside the parts: sizes, colours, kinds, measures."""
    used = {kind.letter: {"name": kind.words, "colour": kind.colour} for kind in Kind}
    measures = {name: words for name, (words, _) in READINGS.items()}
    return {"fps": FPS, "block_frames": BLOCK_FRAMES, "block_s": BLOCK_S, "kinds": used, "measures": measures,
            "series": list(style.SERIES), "window": WINDOW}  # fmt: skip
