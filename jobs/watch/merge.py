"""Merging submissions of labs into a store: what agrees is kept once, what disagrees is listed and left out, nothing is overwritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import msgspec

from echo.files import RESULTS, replacing, write_atomic
from echo.refusals import Unfinished
from eval.store.reading import content_of, hearing, names_in, read
from eval.store.records import VERSION, SweepFile, UnitRecord, line_of, lines_of
from eval.store.runs import Run, runs
from eval.store.submission import Lab, differing, digests_of, opened


@dataclass
class Taken:
    """What a merge did. added, alike: how many units were new, and were in the store already. refused: one line per unit that disagrees."""

    added: int = 0
    alike: int = 0
    refused: list[str] = field(default_factory=list)


def merge(submissions: Sequence[str], /, *, store: Path = RESULTS) -> Iterator[str]:
    """Merge submissions of labs, or whole stores, into a store.

    Each is verified first, and refused whole if it is not what was packed. A unit that both have is kept once; a unit in which they
    disagree is listed and stays as it is in the store, and the exit status is 1. Error records are not merged. If it is stopped at any
    moment, the same command continues.

        echo-harness merge ann.zip bob.zip --store everybody

    Args:
        submissions: files that `echo-harness export` made, or folders of stores.
        store: the run store to merge into; it is created if it does not exist.
    """
    refused = 0
    for word in submissions:
        with opened(Path(word)) as lab:
            taken = _taken(lab, store)
        yield from taken.refused
        yield f"{word}: units: {taken.added} added, {taken.alike} already in {store}, {len(taken.refused)} left out as they disagree"
        refused += len(taken.refused)
    if refused:
        raise Unfinished


def _taken(lab: Lab, store: Path) -> Taken:
    """Merge a lab's store into another. Raises ValueError in one line if it is not as it was written."""
    with hearing() as unreadable:
        every, taken = list(runs(lab.store)), Taken()
    if lines := [*map(lab.renamed, unreadable), *(line for run in every for line in lab.faults(run)[0])]:
        raise ValueError(f"{lines[0]}{f'; and {len(lines) - 1} faults more' if len(lines) > 1 else ''}; nothing was merged")
    for theirs in every:
        _take_run(lab, Run(store, theirs.place), theirs, taken)
    for name in names_in(lab.store / "sweeps", ".json"):
        _take_sweep(store / "sweeps" / name, lab.store / "sweeps" / name)
    return taken


def _take_run(lab: Lab, ours: Run, theirs: Run, taken: Taken) -> None:
    """Add the units of a run that are not in the store: files before the records that name them, run.json, which makes it a run, last."""
    here, there = ours.records(), [record for record in theirs.records() if record.ok]
    differences = {difference.unit: difference for difference in differing(here, there)}
    taken.refused += [f"{lab.path}: {ours.place}: {one.prompt}: {one.what} than in {ours.store}" for one in differences.values()]
    known = {(record.unit, record.scores) for record in here if record.ok}
    new = dict[tuple[str, str | None], UnitRecord]()
    for record in there:
        key = (record.unit, record.scores)
        taken.alike += key in known and record.unit not in differences
        if key not in known and record.unit not in differences:
            new.setdefault(key, record)
    digests = {name: digest for record in here if record.ok for name, digest in digests_of(record).items()}
    for record in there:
        if record.unit not in differences:
            _take_files(ours, theirs, record, digests)
    taken.added += len(new)
    attempts = {f"{record.attempt}.json" for record in new.values()}
    for name in attempts.intersection(names_in(theirs.path / "attempts")):
        _put(ours.path / "attempts" / name, content_of(theirs.path / "attempts" / name))
    wishes = {content_of(ours.path / "asked" / name) for name in names_in(ours.path / "asked", ".json")}
    for name in names_in(theirs.path / "asked", ".json"):
        if (content := content_of(theirs.path / "asked" / name)) not in wishes:
            _put(ours.path / "asked" / name, content)
    for path in map(Path, theirs.record_files()):
        every = [msgspec.structs.replace(one, v=VERSION) for one in lines_of(content_of(path), UnitRecord, path)[0]]
        own = [one for one in every if new.get((one.unit, one.scores)) == one]
        if own:
            content = b"".join(map(line_of, own))
            name = f"{path.stem}-{crc32(content):08x}" if (ours.path / "records" / path.name).exists() else path.stem
            write_atomic(ours.path / "records" / f"{name}.jsonl", content)
    _put(ours.path / "run.json", content_of(theirs.path / "run.json"))


def _take_files(ours: Run, theirs: Run, record: UnitRecord, digests: dict[str, str]) -> None:
    """Copy the files of a unit that the store lacks, unless its own records have another digest for them."""
    for kind, name in record.files.items():
        source, target = theirs.side(record, kind), ours.below(f"units/{name}")
        if source is None or target is None or os.path.lexists(target) or not source.is_file():
            continue
        if digests.get(name, digest := record.digests.get(kind)) == digest:
            with replacing(target) as part:
                shutil.copyfile(source, part)


def _put(path: Path, content: bytes) -> None:
    """Write a file unless the path is taken."""
    if not os.path.lexists(path):
        write_atomic(path, content)


def _take_sweep(path: Path, theirs: Path) -> None:
    """Add the requests of a lab's sweep to the store's sweep of that name; if both name a prompt, the store's unit stays."""
    more, ours = (read(one, SweepFile, lost="its table") for one in (theirs, path))
    if more is None or (ours is None and os.path.lexists(path)):
        return
    if ours is not None and (ours.experiment, ours.task) != (more.experiment, more.task):
        return
    wishes = {(wish.path, wish.scores): wish for wish in (ours.runs if ours else [])}
    for wish in more.runs:
        own = wishes.get((wish.path, wish.scores), wish)
        both = msgspec.structs.replace(own, units=wish.units | own.units, prompts=wish.prompts | own.prompts)
        wishes[wish.path, wish.scores] = both
    whole = SweepFile(more.experiment, more.task, list(wishes.values()))
    if ours is None or whole.runs != ours.runs:
        write_atomic(path, msgspec.json.format(msgspec.json.encode(whole), indent=1))
