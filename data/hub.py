"""The table of files that can be downloaded (`data/hub.yaml`), and the manifest of a folder of checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from omegaconf import OmegaConf

from echo.files import file_sha256, read_json, read_text, write_atomic
from echo.refusals import nearest, reading
from echo.scene import TagMeaning

TABLE = Path(__file__).resolve().parent / "hub.yaml"
MANIFEST = "manifest.json"
EARLIER = "first download"
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """One file of the table.

    source: the folder below the checkpoints. repo, revision: on the hub; repo None: at `url`, which names the revision.
    size_bytes, sha256: None if unknown; known_by: their source, the table, the hub or an earlier download.
    """

    source: str
    file: str
    repo: str | None
    revision: str
    url: str | None
    license: str | None
    size_bytes: int | None
    sha256: str | None
    known_by: str = "table"

    @property
    def target(self) -> str:
        """Path below the checkpoints."""
        return f"{self.source}/{self.file}"

    @property
    def pinned(self) -> bool:
        return self.repo is None or COMMIT.fullmatch(self.revision) is not None

    @property
    def origin(self) -> str:
        """The file's source, for messages."""
        return f"{self.repo}@{self.revision}/{self.file}" if self.repo else f"{self.url}/{self.file}"


class PromptFile(msgspec.Struct, forbid_unknown_fields=True):
    """A downloaded prompt file, below the checkpoints, with the arguments of `data.importers.import_prompts`."""

    file: str
    format: Literal["released", "lines", "jsonl"]
    tag_meaning: TagMeaning | None = None
    duration: float | None = None
    sample: int | None = None
    seed: int = 0


class Table:
    """Sources, groups and prompt sets of `hub.yaml`."""

    def __init__(self, path: Path = TABLE) -> None:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        self.groups: dict[str, dict[str, list[str]]] = content["groups"]
        self.sources: dict[str, list[HubFile]] = {name: _wanted(name, source) for name, source in content["sources"].items()}
        self.prompt_sets = msgspec.convert(content.get("prompt_sets", {}), dict[str, dict[str, PromptFile]], strict=False)

    def files(self, kind: str, names: Iterable[str]) -> list[HubFile]:
        """The files of some names of a group, each once. Raises ValueError for an unknown name."""
        files: dict[str, HubFile] = {}
        for name in names:
            if name not in self.groups[kind]:
                raise ValueError(f"{kind}={name}: one of {', '.join(self.groups[kind])}; nearest is {nearest(name, self.groups[kind])}")
            for source in self.groups[kind][name]:
                files |= {wanted.target: wanted for wanted in self.sources[source]}
        return list(files.values())


def _wanted(name: str, source: Mapping[str, Any]) -> list[HubFile]:
    repo, url, rights = (source.get(key) for key in ("repo", "url", "license"))
    revision = str(source.get("revision", ""))
    return [HubFile(name, file, repo, revision, url, rights, row["size"], row["sha256"]) for file, row in source["files"].items()]


@cache
def shipped() -> Table:
    """The table of the repository, read once."""
    return Table()


def published(path: Path, table: Table) -> HubFile | None:
    """The table's entry of a file, by its sha256; None for any other file, and for a folder, whose files are checked.

    Raises:
        ValueError: in one line, for a file with the path, or the name and size, of an entry but another sha256.
    """
    if path.is_dir():
        for file in sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")):
            published(file, table)
        return None
    size = path.stat().st_size
    for wanted in (wanted for files in table.sources.values() for wanted in files if wanted.sha256 is not None):
        placed = path.as_posix().endswith(f"/{wanted.target}")
        if placed and size != wanted.size_bytes and wanted.size_bytes is not None:
            check(path, wanted)
        if size == wanted.size_bytes:
            if file_sha256(path) == wanted.sha256:
                return wanted
            if placed or path.name == Path(wanted.file).name:
                raise ValueError(f"{path}: sha256 {file_sha256(path)}, {wanted.origin} has {wanted.sha256}; away with it, and fetch again")
    return None


class FetchedFile(msgspec.Struct):
    """An entry of the manifest: a file's digest, its source, what the digest was checked against, and its modification time."""

    repo: str | None
    revision: str
    file: str
    license: str | None
    size_bytes: int
    sha256: str
    checked_against: str
    changed_ns: int


class Checkpoints:
    """A folder of downloaded files with its manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        self.rows: dict[str, FetchedFile] = {}
        if os.path.lexists(path):
            with reading(path, "remove it: what is there is checked again"):
                self.rows = msgspec.convert(read_json(read_text(path), str(path)), dict[str, FetchedFile])

    def pinned(self, wanted: HubFile) -> HubFile:
        """The entry completed by an earlier download: the commit of a branch, and size and sha256 if the table has none."""
        row = self.rows.get(wanted.target)
        if row is None or wanted.sha256 is not None:
            return wanted
        return replace(wanted, revision=row.revision, size_bytes=row.size_bytes, sha256=row.sha256, known_by=EARLIER)

    def there(self, wanted: HubFile, *, again: bool = False) -> bool:
        """Whether the right file is in its place; a file that the manifest lacks is hashed and recorded.

        Args:
            again: hash it even if it has not changed since the manifest recorded it.

        Raises:
            ValueError: for a file of another size or content.
        """
        path = self.folder / wanted.target
        if not path.is_file():
            return False
        stat, row = path.stat(), self.rows.get(wanted.target)
        known = row is not None and (row.size_bytes, row.changed_ns) == (stat.st_size, stat.st_mtime_ns)
        if again or row is None or not known or wanted.sha256 not in (None, row.sha256):
            self.keep(wanted, check(path, wanted), path)
        return True

    def keep(self, wanted: HubFile, sha256: str, path: Path) -> None:
        """Move a checked file into its place and record it."""
        target = self.folder / wanted.target
        target.parent.mkdir(parents=True, exist_ok=True)
        if path != target:
            os.replace(path, target)
        stat = target.stat()
        self.rows[wanted.target] = FetchedFile(
            wanted.repo or wanted.url, wanted.revision, wanted.file, wanted.license, stat.st_size, sha256,
            wanted.known_by if wanted.sha256 else EARLIER, stat.st_mtime_ns,
        )  # fmt: skip
        rows = msgspec.to_builtins(dict(sorted(self.rows.items())))
        write_atomic(self.folder / MANIFEST, (json.dumps(rows, indent=1) + "\n").encode())


def check(path: Path, wanted: HubFile) -> str:
    """The sha256 of the wanted file.

    Raises:
        ValueError: in one line, if size or sha256 differ from the known ones.
    """
    size = path.stat().st_size
    if wanted.size_bytes is not None and size != wanted.size_bytes:
        raise ValueError(f"{path}: {size} bytes, {wanted.origin} has {wanted.size_bytes}; away with it, and fetch again")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted.sha256 is not None and sha256 != wanted.sha256:
        raise ValueError(f"{path}: sha256 {sha256}, {wanted.origin} has {wanted.sha256}; away with it, and fetch again")
    return sha256
