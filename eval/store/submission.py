"""A submission: a lab's run store, or a part of it, in one file; how another lab reads it, and where the stores of two labs disagree.

The file is an uncompressed zip. Its members are files of a store under the names that they have there, and `manifest.json`, a `Manifest`.
It is untrusted: links, names that no file of a store has, sizes larger than the file, and members that differ from the manifest are
refused, each with the member's name.
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
"""Names that members other than the manifest may have."""
NAME_BYTES = 200
"""Most bytes of each part of a member's name."""
LINK = "is a link"
GONE = "is gone"
BLOCK_BYTES = 2**20


class Manifest(msgspec.Struct, kw_only=True):
    """What a submission holds. lab: name of the lab. videos: whether videos are included. files: sha256 of every other member by name."""

    lab: Part
    videos: bool
    files: dict[str, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]]
    v: Version = 1


class DamagedSubmission(ValueError):
    """A submission with members that are missing, extra or not what was packed; lines: one for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines[0] + (f"; and {len(lines) - 1} faults more" if len(lines) > 1 else ""))
        self.lines = lines


@dataclass(frozen=True)
class Lab:
    """A lab whose records are read.

    path: its submission, or its store, as it was named. store: the store, unpacked. videos: whether it claims to include its videos.
    """

    name: str
    path: Path
    store: Path
    videos: bool = True

    def renamed(self, line: str) -> str:
        """A line with the submission's name instead of the temporary folder that it is unpacked to."""
        return line.replace(str(self.store), str(self.path))

    def faults(self, run: Run, contents: bool = True) -> tuple[list[str], int, int]:
        """As `faults`; videos that the lab chose not to include are no fault."""
        lines, records, files = faults(run, contents, videos=self.videos)
        return [self.renamed(line) for line in lines], records, files


@contextmanager
def opened(path: Path) -> Iterator[Lab]:
    """A submission, unpacked to a temporary folder until the block ends; or a store, which is read in place.

    Raises:
        DamagedSubmission: if members differ from the manifest.
        ValueError: in one line, for a file that is no submission or cannot be unpacked safely; UnknownVersion if a newer version wrote it.
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
    """Write the files of a submission below an empty folder. Raises what `opened` raises."""
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
    """Raises ValueError for the first member that may not be unpacked, and for members that are together larger than the file."""
    known = set[str]()
    for info in members:
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        why = (
            LINK if kind == stat.S_IFLNK
            else "is no regular file" if kind not in (0, stat.S_IFREG)
            else "occurs twice" if name in known
            else "is not the name of a file of a store" if name != MANIFEST and not is_member(name)
            else "is compressed or encrypted, which no member may be" if info.compress_type != ZIP_STORED or info.flag_bits & 1
            else f"has {info.file_size} bytes, {LARGE_BYTES} at most are allowed" if name == MANIFEST and info.file_size > LARGE_BYTES
            else ""
        )  # fmt: skip
        if why:
            raise ValueError(f"{path}: {brief(repr(name))} {why}; the file is refused")
        known.add(name)
    size, claimed = path.stat().st_size, sum(info.file_size for info in members)
    if claimed > size:
        largest = max(members, key=lambda info: info.file_size).filename
        raise ValueError(f"{path}: {brief(repr(largest))} and the other members claim {claimed} bytes, the file has {size}; it is refused")


def is_member(name: str) -> bool:
    """Whether a member other than the manifest may have this name."""
    return MEMBER.fullmatch(name) is not None and all(len(part.encode()) <= NAME_BYTES for part in name.split("/"))


def _unpacked(file: ZipFile, info: ZipInfo, target: Path, sha256: str) -> bool:
    """Write a member to a path; returns whether its content has the manifest's sha256."""
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
    """What of a run is not as it was written, one line each; how many records it has, and how many of its files were checked.

    contents: whether files are read; otherwise only their sizes are compared. videos: whether a missing video is a fault.
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
    """A unit in which two stores disagree. what: how."""

    prompt: str
    unit: str
    what: str


def differing(ours: Iterable[UnitRecord], theirs: Iterable[UnitRecord]) -> list[Difference]:
    """Units of one run in which two stores disagree: other latents, other scores by the same scorer, or another file of the same name.

    If a unit was done twice in one store, its first record counts.
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
    """Digests of a record's files by file name; files without a recorded digest are left out."""
    return {name: record.digests[kind] for kind, name in record.files.items() if kind in record.digests}


def disagreements(one: Lab, other: Lab) -> Iterator[tuple[Run, Difference]]:
    """Units in which two labs disagree, each with the first lab's run."""
    for run in runs(one.store):
        twin = Run(other.store, run.place)
        if twin.exists:
            for difference in differing(run.records(), twin.records()):
                yield run, difference
