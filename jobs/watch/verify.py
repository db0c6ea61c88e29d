"""Whether a store still holds what was written to it: records by their checksums, videos and what lies beside them by size and digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from tqdm import tqdm

from echo.files import RESULTS, digest
from echo.refusals import Unfinished
from eval.store.reading import hearing
from eval.store.records import DamagedFile, UnitRecord, UnknownVersion
from eval.store.runs import Run, existing, runs, sweeps

SHOWN = 10
"""Faults of a run that are told one by one; of more the number."""


def faults(run: Run, contents: bool, remove: bool = False) -> tuple[list[str], int, int]:
    """What of a run is not as it was written, a line each; how many records it has, and how many of its files were looked at.

    contents: whether files are read; else their sizes alone are looked at. remove: whether files that are not as they were go.
    """
    lines = list[str]()
    try:
        key = msgspec.to_builtins(run.spec.key)
        named = digest(key) == run.place.run
        lines += [] if named else [f"{run.path / 'run.json'}: its settings are not those that its folder is named after"]
        run.asked()
        run.attempts()
        records, damaged = run.lines(UnitRecord)
    except (FileNotFoundError, DamagedFile, UnknownVersion) as error:
        return [str(error)], 0, 0
    lines += [*run.unreadable, *(f"{line}: a damaged record" for line in damaged)]
    wrong = run.amiss(records, contents)
    lines += [f"{run.units / name}: {why}" for name, why in wrong.items()]
    for name in wrong if remove else ():
        (run.units / name).unlink(missing_ok=True)
    names = {name for record in records if record.ok for name in record.files.values()}
    return lines, len(records), len(names)


def verify(*, store: Path = RESULTS, sizes: bool = False, remove: bool = False) -> Iterator[str]:
    """Check that a store still holds what was written to it.

    Lines of records by their checksums; videos, traces and files of scores by size and digest; runs by their names. What is damaged is
    told by file and line, and the exit status is 1. The command that made it makes it again: at once what is gone or has another size or
    was a record, and what has other contents once it is taken away (--remove).

        echo-harness verify
        echo-harness verify --store results --remove

    Args:
        store: the run store.
        sizes: look at sizes of files alone, and read none of them.
        remove: take files away that are not what was written.
    """
    with hearing() as unreadable:
        every = list(runs(existing(store)))
        for _ in sweeps(store):
            pass
    yield from unreadable
    found, records, files = len(unreadable), 0, 0
    for run in tqdm(every, desc="verify", unit="run", disable=None, leave=False):
        lines, of_run, named = faults(run, not sizes, remove)
        yield from lines[:SHOWN]
        if len(lines) > SHOWN:
            yield f"{run.path}: {len(lines) - SHOWN} faults more"
        found, records, files = found + len(lines), records + of_run, files + named
    whole = f"{len(every)} runs, {records} records, {files} files beside them"
    if not found:
        yield f"{whole}: all as {'long as ' if sizes else ''}they were written"
        return
    yield f"{whole}: {found} faults; the commands that made them make them again" + (
        "" if remove or sizes else ", those of other contents once --remove has taken them away"
    )
    raise Unfinished
