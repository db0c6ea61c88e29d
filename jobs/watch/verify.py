"""Integrity of a store or a lab's submission: records are checked by checksum, files by size and digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

from tqdm import tqdm

from echo.files import RESULTS
from echo.refusals import Unfinished
from eval.store.reading import hearing
from eval.store.runs import Run, existing, runs, sweeps
from eval.store.submission import DamagedSubmission, Lab, disagreements, faults, opened

SHOWN = 10
"""Most faults of a run that are printed one by one; more are counted."""


def verify(files: Sequence[str] = (), /, *, store: Path = RESULTS, sizes: bool = False, remove: bool = False) -> Iterator[str]:
    """Check that a store still holds what was written to it, or that submissions of labs do and that they agree.

    Lines of records are checked by checksum; videos, traces and files of scores by size and digest; runs by their names. Damage is listed
    by file and line, and the exit status is 1. The command that made a unit makes it again: immediately if a file is missing or has
    another size or the record is damaged, and after --remove if a file has other contents. For submissions, requested videos that are not
    done are listed too, and with several files every unit in which two of them disagree.

        echo-harness verify
        echo-harness verify --store results --remove
        echo-harness verify ann.zip bob.zip results

    Args:
        files: submissions of `echo-harness export`, and stores to compare with them; by default only --store is checked.
        store: the run store.
        sizes: check only sizes of files, without reading them.
        remove: remove files that are not what was written.
    """
    if files:
        if remove:
            raise ValueError(f"--remove: a submission is never changed; nearest is --store {store} --remove")
        yield from _submitted(files, not sizes)
        return
    with hearing() as unreadable:
        every = list(runs(existing(store)))
        for _ in sweeps(store):
            pass
    yield from unreadable
    found, records, looked_at = len(unreadable), 0, 0
    for run in tqdm(every, desc="verify", unit="run", disable=None, leave=False):
        lines, of_run, named = faults(run, not sizes)
        yield from lines[:SHOWN]
        if len(lines) > SHOWN:
            yield f"{run.path}: {len(lines) - SHOWN} faults more"
        for name in run.amiss(run.records(), not sizes) if remove and lines and of_run else ():
            (run.units / name).unlink(missing_ok=True)
        found, records, looked_at = found + len(lines), records + of_run, looked_at + named
    whole = f"{len(every)} runs, {records} records, {looked_at} files beside them"
    if not found:
        yield f"{whole}: all as {'long as ' if sizes else ''}they were written"
        return
    yield f"{whole}: {found} faults; the commands that made them make them again" + (
        "" if remove or sizes else ", those of other contents once --remove has taken them away"
    )
    raise Unfinished


def _submitted(files: Sequence[str], contents: bool) -> Iterator[str]:
    """Faults of submissions and stores, each by itself, and units in which any two of them disagree."""
    found, labs = 0, list[Lab]()
    with ExitStack() as stack:
        for word in files:
            try:
                labs.append(stack.enter_context(opened(Path(word))))
            except DamagedSubmission as error:
                yield from error.lines
                found += len(error.lines)
        for lab in labs:
            lines = _of_lab(lab, contents)
            yield from lines
            found += len(lines) - 1
        for one, other in combinations(labs, 2):
            for run, difference in disagreements(one, other):
                found += 1
                yield f"{one.path} and {other.path}: {run.place}: {difference.prompt}: {difference.what}"
    if found:
        yield f"{found} faults"
        raise Unfinished
    if len(labs) > 1:
        yield "units that are in several of them agree"


def _of_lab(lab: Lab, contents: bool) -> list[str]:
    """Damaged or missing parts of a lab's submission, one line each; the last line counts its content."""
    with hearing() as unreadable:
        every, begun = list(runs(lab.store)), list(sweeps(lab.store))
    lines, records, files, codes = [lab.renamed(line) for line in unreadable], 0, 0, set[str]()
    for run in tqdm(every, desc=lab.name, unit="run", disable=None, leave=False):
        of_run, count, named = lab.faults(run, contents)
        lines += of_run if of_run else _undone(lab, run)
        records, files = records + count, files + named
        codes.add(str(run.spec.key.epoch))
    never = {run.place for sweep in begun for run, _ in sweep.wishes if not run.exists}
    lines += [f"{lab.path}: {place}: not begun" for place in sorted(never)]
    videos = "videos among them" if lab.videos else "no videos"
    about = (
        f"{len(every)} runs, {records} records, {files} files beside them, {videos}; pixels of version {', '.join(sorted(codes)) or '-'}"
    )
    return [*lines, f"{lab.path}: of {lab.name}: {about}; {len(lines)} faults" if lines else f"{lab.path}: of {lab.name}: {about}; whole"]


def _undone(lab: Lab, run: Run) -> Iterator[str]:
    """Requested videos of a run that are not done, by scorer, and units that were done twice with different outcomes."""
    asked = dict[str | None, dict[str, str]]()
    for wish in run.asked():
        asked.setdefault(wish.scores, {}).update(wish.units)
    for scores, units in asked.items():
        settled = run.settled(scores)
        undone = [prompt for prompt, unit in units.items() if unit not in settled.done]
        if undone:
            yield f"{lab.path}: {run.place}: {len(undone)} of {len(units)} videos are missing: {', '.join(undone[:SHOWN])}"
        yield from (f"{lab.path}: {run.place}: {line}" for line in settled.conflicts)
