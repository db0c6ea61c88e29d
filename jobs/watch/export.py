"""Packing a store into one file that another lab can verify, merge and show; `eval.store.submission` defines and reads the format."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from zipfile import ZipFile, ZipInfo

import msgspec

from data.outgoing import without_homes, without_secrets
from echo.files import RESULTS, replacing
from echo.refusals import Unfinished, path_part, reading
from eval.store.reading import content_of, hearing, leave_out, names_in, read
from eval.store.records import VERSION, DamagedFile, SweepFile, UnitRecord, encoded, line_of, lines_of
from eval.store.runs import Run, existing, known, runs
from eval.store.submission import BLOCK_BYTES, MANIFEST, Manifest, is_member

NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every member, so that the same store always gives the same bytes."""
PLAIN_FILE: Final = 0o100644 << 16
PRIVATE = "it holds a secret or a path of a home folder, and cannot be edited, as it is identified by its content"


def export(
    task: Sequence[str] = (),
    method: Sequence[str] = (),
    lab: str = "",
    *,
    store: Path = RESULTS,
    videos: bool = False,
    output: Path | None = None,
) -> Iterator[str]:
    """Pack a store's records, traces, scores, hashes and configs into one file that another lab can verify, merge and show.

    Secrets and paths of home folders are removed from command lines, configs and errors. The same store gives the same bytes.

        echo-harness export lab=ann
        echo-harness export lab=ann task=recall method=echo,longlive --videos --output ann-recall.zip

    Args:
        task: only these tasks.
        method: only these methods, by the names of their presets.
        lab: name of the lab, shown on leaderboards; the name of the store's folder by default.
        store: the run store.
        videos: include the videos; otherwise only their hashes.
        output: the file, by default LAB.zip. An older submission of this name is replaced once the new one is complete.
    """
    name, lack = lab or existing(store).resolve().name, f"store {store} has no runs of it"
    path_part("lab", name)
    out = output or Path(f"{name}.zip")
    _refuse_other(out)
    with hearing() as lost:
        every = list(runs(existing(store)))
        known("task=", task, {run.place.task for run in every}, lack)
        known("method=", method, {run.place.method for run in every}, lack)
        chosen = [run for run in every if (not task or run.place.task in task) and (not method or run.place.method in method)]
        if not chosen:
            raise ValueError(f"--store {store}: no runs of task={','.join(task)} method={','.join(method)}, so nothing to export")
        for part in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 8}"):  # of an export that was killed
            part.unlink(missing_ok=True)
        manifest = Manifest(lab=name, videos=videos, files={}, v=VERSION)
        with replacing(out) as part, ZipFile(part, "w") as file:
            for run in chosen:
                for member, content in _members(run, videos):
                    manifest.files[member] = _packed(file, member, content)
            for member, content in _sweeps(store, task, method):
                manifest.files[member] = _packed(file, member, content)
            _packed(file, MANIFEST, encoded(manifest))
    packed = sum(member.endswith("/run.json") for member in manifest.files)
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    yield f"submission: {out} ({packed} runs, {len(manifest.files)} files, {size}{'' if videos else '; no videos'})"
    if lost:
        raise Unfinished


def _refuse_other(out: Path) -> None:
    """Raises ValueError if the output exists and is no submission."""
    if out.exists() or out.is_symlink():
        with reading(out, "give another --output"), ZipFile(out) as file:
            if MANIFEST not in file.namelist():
                raise ValueError(f"{out}: it exists and is no submission; give another --output")


def _packed(file: ZipFile, member: str, content: bytes | Path) -> str:
    """Add a member; returns its sha256."""
    info, sha256 = ZipInfo(member, NO_TIME), hashlib.sha256()
    info.create_system, info.external_attr = 3, PLAIN_FILE
    info.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
    with file.open(info, "w") as target:
        if isinstance(content, bytes):
            sha256.update(content)
            target.write(content)
            return sha256.hexdigest()
        with content.open("rb") as source:
            while block := source.read(BLOCK_BYTES):
                sha256.update(block)
                target.write(block)
    return sha256.hexdigest()


def _members(run: Run, videos: bool) -> Iterator[tuple[str, bytes | Path]]:
    """The members of a run by name; none, with a warning, if its settings hold private data."""
    place, content = f"runs/{run.place}", content_of(run.path / "run.json")
    if _clean(content) != content:
        leave_out(f"{run.path / 'run.json'}: {PRIVATE}; the run is left out")
        return
    for kind in ("asked", "attempts"):
        for name in names_in(run.path / kind, ".json", run.leave_out):
            yield from _json_member(f"{place}/{kind}/{name}", run.path / kind / name)
    whole = list[UnitRecord]()
    for path in run.record_files():
        try:
            records, damaged = lines_of(content_of(path), UnitRecord, Path(path))
        except DamagedFile as error:
            leave_out(f"{error}; its records are left out")
            continue
        for line in damaged:
            leave_out(f"{line}: a damaged record")
        whole += [record for record in records if record.ok]
        yield f"{place}/records/{path.rpartition('/')[2]}", b"".join(map(line_of, map(_without_traceback, records)))
    yield f"{place}/run.json", content
    wrong = run.amiss(whole, contents=True)
    sides = {name: kind for record in whole for kind, name in record.files.items() if videos or kind != "video"}
    for name, kind in sorted(sides.items()):
        member = f"{place}/units/{name}"
        why = wrong.get(name, "" if is_member(member) else "its name is not the name of a file of a store")
        if not why and kind != "video":
            text = content_of(run.units / name).decode(errors="replace")
            why = PRIVATE if _public(text) != text else ""
        if why:
            leave_out(f"{run.units / name}: {why}; it is left out")
        else:
            yield member, run.units / name


def _json_member(member: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """A JSON file without private data; nothing, with a warning, if it is damaged."""
    try:
        if is_member(member):
            yield member, _clean(content_of(path))
    except (FileNotFoundError, DamagedFile, msgspec.DecodeError, UnicodeDecodeError) as error:
        leave_out(f"{path}: {error}; it is left out")


def _sweeps(store: Path, task: Sequence[str], method: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The sweeps of a store, reduced to the chosen tasks and methods."""
    for name in names_in(store / "sweeps", ".json"):
        content, member = read(store / "sweeps" / name, SweepFile, lost="its table"), f"sweeps/{name}"
        if content is None or not is_member(member) or (task and content.task not in task):
            continue
        content.runs = [wish for wish in content.runs if not method or wish.path.split("/")[2] in method]
        if content.runs:
            yield member, _clean(encoded(content))


def _public(content: object) -> object:
    return without_homes(without_secrets(content))


def _clean(content: bytes) -> bytes:
    """JSON without private data; the same bytes if it holds none."""
    value = msgspec.json.decode(content)
    clean = _public(value)
    return content if clean == value else msgspec.json.encode(clean, order="sorted")


def _without_traceback(record: UnitRecord) -> UnitRecord:
    """A record as it is exported: an error without its traceback, whose lines are paths of this machine."""
    return record if record.ok else msgspec.structs.replace(record, err=str(_public(record.err)), trace="")
