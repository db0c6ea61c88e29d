"""A submission: what a lab hands in of its run store, as one file, and how another lab reads it. Nothing in it is believed unread.

A zip whose members are a store's own files, uncompressed, under the names that they have there, and `manifest.json`, a `Manifest`. The file
is anybody's: links, names of no store, sizes that the file has not, members that are not what the manifest says are refused by name.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import msgspec

from echo.files import LARGE_BYTES, digest, name_part
from echo.refusals import PART, brief, reading
from eval.store.records import PLACE, DamagedFile, Part, UnitRecord, UnknownVersion, Version, decoded
from eval.store.runs import Run, existing, runs

MANIFEST: Final = "manifest.json"
_NAME = PART.strip("^").removesuffix("\\Z")
MEMBER = re.compile(
    rf"sweeps/{_NAME}\.json|runs/{PLACE}/(?:run\.json|(?:asked|attempts)/{_NAME}\.json|records/{_NAME}\.jsonl|units/[\w-][\w .+=@,()-]*)"
)
"""What a member beside the manifest is called."""
NAME_BYTES = 200
"""Of each part of a member's name, at most."""
LINK = "is a link"
GONE = "is gone"
BLOCK_BYTES = 2**20


class Manifest(msgspec.Struct, kw_only=True):
    """What a submission holds. lab: whose it is. videos: whether its videos are in it. files: sha256 of every other member by name."""

    lab: Part
    videos: bool
    files: dict[str, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]]
    v: Version = 1


class DamagedSubmission(ValueError):
    """A submission some of whose members are not what was packed; lines: one for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0] + (f"; and {len(lines) - 1} faults more" if len(lines) > 1 else ""))
        self.lines = lines


@dataclass(frozen=True)
class Lab:
    """Whose records are read. path: the submission or the store as it was named. store: a folder with its files. videos: whether it says
    that its videos are there."""

    name: str
    path: Path
    store: Path
    videos: bool = True

    def told(self, line: str) -> str:
        """A line with the name of the submission in place of the folder that it is unpacked to."""
        return line.replace(str(self.store), str(self.path))

    def faults(self, run: Run, contents: bool = True) -> tuple[list[str], int, int]:
        """As `faults`, of videos that were left out by choice none."""
        lines, records, files = faults(run, contents, videos=self.videos)
        return [self.told(line) for line in lines], records, files


@contextmanager
def opened(path: Path) -> Iterator[Lab]:
    """A submission unpacked for as long as the block lasts, in a folder for temporary files; or a store, which is read where it is.

    Raises:
        DamagedSubmission: for one whose members are not what its manifest says.
        ValueError: in one line, for what is no submission, or none that can be unpacked safely; UnknownVersion for one of a newer version.
    """
    if path.is_dir():
        yield Lab(path.resolve().name, path, existing(path))
        return
    with TemporaryDirectory(prefix=f"{name_part(path.name)}-", ignore_cleanup_errors=True) as folder:
        manifest = unpack(path, Path(folder))
        try:
            yield Lab(manifest.lab, path, Path(folder), manifest.videos)
        except (UnknownVersion, DamagedFile) as error:
            raise type(error)(str(error).replace(folder, str(path))) from None


def unpack(path: Path, folder: Path) -> Manifest:
    """Put the files of a submission below a folder; raises what `opened` does."""
    with reading(path, "ask for it again"), ZipFile(path) as file:
        members = {info.filename: info for info in file.infolist()}
        _refuse_unsafe(path, file.infolist())
        if MANIFEST not in members:
            raise ValueError(f"{path}: no submission, as it has no {MANIFEST}; `echo-harness export` makes one")
        manifest = decoded(file.read(MANIFEST), Manifest, path / MANIFEST)
        lines = [f"{path}: {brief(name)} {GONE}" for name in manifest.files.keys() - members.keys()]
        lines += [f"{path}: {name} is not in its manifest" for name in members.keys() - manifest.files.keys() - {MANIFEST}]
        (folder / "runs").mkdir()
        for name in sorted(manifest.files.keys() & members.keys()):
            if not _unpacked(file, members[name], folder / name, manifest.files[name]):
                lines.append(f"{path}: {name} is not what was packed")
    if lines:
        raise DamagedSubmission(sorted(lines))
    return manifest


def _refuse_unsafe(path: Path, members: list[ZipInfo]) -> None:
    """Raises ValueError for the first member that may not be unpacked, whatever the manifest says, and for sizes that are not there."""
    known = set[str]()
    for info in members:
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        why = (
            LINK if kind == stat.S_IFLNK
            else "is no file" if kind not in (0, stat.S_IFREG)
            else "stands in it twice" if name in known
            else "is no name of a store's file" if name != MANIFEST and not is_member(name)
            else "is compressed or encrypted, as no member is" if info.compress_type != ZIP_STORED or info.flag_bits & 1
            else f"has {info.file_size} bytes, {LARGE_BYTES} at most belong here" if name == MANIFEST and info.file_size > LARGE_BYTES
            else ""
        )  # fmt: skip
        if why:
            raise ValueError(f"{path}: {brief(repr(name))} {why}; nothing of it is read")
        known.add(name)
    size, said = path.stat().st_size, sum(info.file_size for info in members)
    if said > size:
        largest = max(members, key=lambda info: info.file_size).filename
        raise ValueError(f"{path}: {brief(repr(largest))} and the others say that they have {said} bytes, the file has {size}")


def is_member(name: str) -> bool:
    """Whether a member beside the manifest may be called so."""
    return MEMBER.fullmatch(name) is not None and all(len(part.encode()) <= NAME_BYTES for part in name.split("/"))


def _unpacked(file: ZipFile, info: ZipInfo, target: Path, sha256: str) -> bool:
    """Write a member to a path; whether it is what the manifest says."""
    content = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open(info) as source, target.open("xb") as out:
            while block := source.read(BLOCK_BYTES):
                content.update(block)
                out.write(block)
    except (BadZipFile, EOFError):
        return False
    return content.hexdigest() == sha256


def faults(run: Run, contents: bool, videos: bool = True) -> tuple[list[str], int, int]:
    """What of a run is not as it was written, a line each; how many records it has, and how many of its files were looked at.

    contents: whether files are read; else their sizes alone are looked at. videos: whether a video that is gone counts.
    """
    lines = list[str]()
    try:
        named = digest(msgspec.to_builtins(run.spec.key)) == run.place.run
        lines += [] if named else [f"{run.path / 'run.json'}: its settings are not those that its folder is named after"]
        run.asked()
        run.attempts()
        records, damaged = run.lines(UnitRecord)
    except (FileNotFoundError, DamagedFile, UnknownVersion) as error:
        return [str(error)], 0, 0
    lines += [*run.unreadable, *(f"{line}: a damaged record" for line in damaged)]
    whole = [record for record in records if record.ok]
    apart = set() if videos else {record.files.get("video") for record in whole}
    wrong = {name: why for name, why in run.amiss(records, contents).items() if why != GONE or name not in apart}
    lines += [f"{run.units / name}: {why}" for name, why in wrong.items()]
    return lines, len(records), len({name for record in whole for name in record.files.values()} - (apart - wrong.keys()))


@dataclass(frozen=True)
class Difference:
    """A unit of which two stores say different things. what: which."""

    prompt: str
    unit: str
    what: str


def differing(ours: Iterable[UnitRecord], theirs: Iterable[UnitRecord]) -> list[Difference]:
    """Units of one run that stand otherwise in two stores: other latents, other scores of one way of scoring, or another file of one name.

    A unit that was done twice in one store counts as it was first.
    """
    latents, metrics, digests = dict[str, str](), dict[tuple[str, str | None], dict[str, float | None]](), dict[str, str]()
    for record in filter(lambda record: record.ok, ours):
        latents.setdefault(record.unit, record.latents_sha256)
        metrics.setdefault((record.unit, record.scores), record.metrics)
        digests |= digests_of(record)
    differences, seen = dict[str, Difference](), set[tuple[str, str | None]]()
    for record in filter(lambda record: record.ok, theirs):
        known, first = metrics.get((record.unit, record.scores)), (record.unit, record.scores) not in seen
        seen.add((record.unit, record.scores))
        what = ""
        if latents.get(record.unit, record.latents_sha256) != record.latents_sha256:
            what = "other latents"
        elif known is not None and first:
            names = [name for name in {**known, **record.metrics} if known.get(name) != record.metrics.get(name)]
            what = f"other scores ({names[0]} {known.get(names[0])} and {record.metrics.get(names[0])})" if names else ""
        elif known is None:
            what = next((f"another {name}" for name, one in digests_of(record).items() if digests.get(name, one) != one), "")
        if what:
            differences.setdefault(record.unit, Difference(record.prompt, record.unit, what))
    return list(differences.values())


def digests_of(record: UnitRecord) -> dict[str, str]:
    """Digests of a record's files by their names, as far as it says them."""
    return {name: record.digests[kind] for kind, name in record.files.items() if kind in record.digests}


def disagreements(one: Lab, other: Lab) -> Iterator[tuple[Run, Difference]]:
    """Units of which two labs say different things, each with the first lab's run."""
    for run in runs(one.store):
        twin = Run(other.store, run.place)
        if twin.exists:
            for difference in differing(run.records(), twin.records()):
                yield run, difference
