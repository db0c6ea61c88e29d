"""Records: a network's values for a video's frames, pairs and triples, computed once and stored.

    <folder>/<video digest>/<metric>-<key digest>.safetensors      complete records
    <folder>/<video digest>/.parts/<metric>-<key digest>/<start>   chunks of unfinished records
    <folder>/text/<metric>-<key digest>.safetensors                features of a sentence

A file gets its name only when it is complete, so every existing file is complete: a kill loses only the unfinished chunk. This module
needs no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from echo.files import write_atomic

Units = NDArray[np.int64]
"""[N, k] frames counted from 0: the frames of each of N values."""


@dataclass(frozen=True)
class Record:
    """values[n] belongs to the frames units[n]; values [N] or [N, D]."""

    units: Units
    values: NDArray[Any]


@dataclass(frozen=True)
class RecordKey:
    """Everything that can change a record's values. source: digest of a video's or a sentence's bytes. rest: other inputs."""

    source: str
    metric: str
    network: str
    rule: int
    dtype: str
    versions: Mapping[str, str]
    rest: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def name(self) -> str:
        """Name of the file: the metric, and 64 bits of BLAKE2b over the whole key."""
        return f"{self.metric}-{hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()}"


class Damaged(ValueError):
    """A file of records that cannot be read."""


class RecordStore:
    """A folder of records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: RecordKey) -> Record | None:
        """The complete record, or None. Raises ValueError if the file of that name holds another record."""
        return _read(self._path(key), key)

    def once(self, key: RecordKey, what: str, make: Callable[[], Record]) -> Record:
        """The record, which is computed and stored if there is none. Raises ValueError, naming `what`, for values that are not finite."""
        record = self.read(key)
        if record is None:
            record = make()
            if not np.isfinite(record.values).all():
                raise ValueError(f"{what} is no number; nothing of it was kept")
            self.keep(key, record)
        return record

    def keep(self, key: RecordKey, record: Record) -> None:
        """Store a complete record."""
        _write(self._path(key), key, record)

    def parts(self, key: RecordKey) -> dict[int, Record]:
        """Stored chunks of an unfinished record, by their first frame, without damaged ones."""
        records = {}
        for path in sorted(self._parts(key).glob("*.safetensors")):
            with contextlib.suppress(Damaged):
                record = _read(path, key)
                assert record is not None
                records[int(path.stem)] = record
        return records

    def keep_part(self, key: RecordKey, start: int, record: Record) -> None:
        """Store a chunk."""
        _write(self._parts(key) / f"{start:08d}.safetensors", key, record)

    def join(self, key: RecordKey, parts: Sequence[Record]) -> Record:
        """Join all chunks into the complete record, which replaces them; chunks without units do not decide the values' type."""
        parts = [part for part in parts if len(part.units)] or parts
        whole = Record(np.concatenate([part.units for part in parts]), np.concatenate([part.values for part in parts]))
        self.keep(key, whole)
        self.forget_parts(key)
        return whole

    def forget_parts(self, key: RecordKey) -> None:
        """Remove the chunks."""
        shutil.rmtree(self._parts(key), ignore_errors=True)
        with contextlib.suppress(OSError):
            self._parts(key).parent.rmdir()

    @contextlib.contextmanager
    def alone(self, source: str) -> Iterator[None]:
        """Lock a video: wait until no other process works on it; a lock ends with its process."""
        folder = self.folder / source
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _path(self, key: RecordKey) -> Path:
        return self.folder / key.source / f"{key.name}.safetensors"

    def _parts(self, key: RecordKey) -> Path:
        return self.folder / key.source / ".parts" / key.name


def _lock(path: Path) -> BinaryIO:
    """A file to lock, which may belong to another user."""
    try:
        return path.open("ab")
    except PermissionError:
        return path.open("rb")


def _read(path: Path, key: RecordKey) -> Record | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("key") != key.text:
                raise ValueError(f"{path}: holds another record than its name says; away with it")
            record = Record(file.get_tensor("units"), file.get_tensor("values"))
            whole = "crc32" not in file.keys() or int(file.get_tensor("crc32")[0]) == _checksum(record)  # noqa: SIM118
    except SafetensorError as error:
        raise Damaged(f"{path}: damaged ({str(error).partition(chr(10))[0]}); away with it, and it is measured again") from None
    if not whole:  # files of older versions have no checksum
        raise Damaged(f"{path}: damaged (other numbers than were written); away with it, and it is measured again")
    if not np.isfinite(record.values).all():
        raise Damaged(f"{path}: damaged (an answer that is no number); away with it, and it is measured again")
    return record


def _write(path: Path, key: RecordKey, record: Record) -> None:
    tensors = {"units": np.ascontiguousarray(record.units), "values": np.ascontiguousarray(record.values)}
    tensors["crc32"] = np.array([_checksum(record)], np.uint32)  # no entry beside the key: several come in no certain order
    write_atomic(path, save(tensors, metadata={"key": key.text}))


def _checksum(record: Record) -> int:
    """CRC-32 of a record's numbers."""
    return zlib.crc32(record.values.tobytes(), zlib.crc32(record.units.tobytes()))
