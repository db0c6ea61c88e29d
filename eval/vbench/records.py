"""Records: what a network says of a video's frames, pairs and triples, kept once and never computed again.

    <folder>/<video digest>/<metric>-<key digest>.safetensors      whole records
    <folder>/<video digest>/.parts/<metric>-<key digest>/<start>   chunks of records under way
    <folder>/text/<metric>-<key digest>.safetensors                features of a sentence

Files appear under their names only when they are whole, so presence is completeness: a kill loses the chunk under way. No torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
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
"""[N, k] frames counted from 0: what each of N values is made of."""


@dataclass(frozen=True)
class Record:
    """values[n] belongs to the frames units[n]; values [N] or [N, D]."""

    units: Units
    values: NDArray[Any]


@dataclass(frozen=True)
class RecordKey:
    """Everything that can change a record's values. source: digest of a video's or a sentence's bytes; rest: what else enters."""

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
        """Of the file: the metric, and 64 bits of BLAKE2b over the whole key."""
        return f"{self.metric}-{hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()}"


class Damaged(ValueError):
    """A file of records that cannot be read."""


class RecordStore:
    """A folder of records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: RecordKey) -> Record | None:
        """The whole record, or None. Raises ValueError where the file of that name holds another one."""
        return _read(self._path(key), key)

    def once(self, key: RecordKey, what: str, make: Callable[[], Record]) -> Record:
        """The record; made and kept where there is none. Raises ValueError, naming `what`, for values that are no numbers."""
        record = self.read(key)
        if record is None:
            record = make()
            if not np.isfinite(record.values).all():
                raise ValueError(f"{what} is no number; nothing of it was kept")
            self.keep(key, record)
        return record

    def keep(self, key: RecordKey, record: Record) -> None:
        """Put a whole record in place."""
        _write(self._path(key), key, record)

    def parts(self, key: RecordKey) -> dict[int, Record]:
        """Chunks that are there of a record under way, by the first frame of their chunk; a damaged one is not there."""
        records = {}
        for path in sorted(self._parts(key).glob("*.safetensors")):
            with contextlib.suppress(Damaged):
                record = _read(path, key)
                assert record is not None
                records[int(path.stem)] = record
        return records

    def keep_part(self, key: RecordKey, start: int, record: Record) -> None:
        """Put a chunk in place."""
        _write(self._parts(key) / f"{start:08d}.safetensors", key, record)

    def join(self, key: RecordKey, parts: Sequence[Record]) -> Record:
        """The whole record of all its chunks, in place of them; chunks without units say nothing of the values' type."""
        parts = [part for part in parts if len(part.units)] or parts
        whole = Record(np.concatenate([part.units for part in parts]), np.concatenate([part.values for part in parts]))
        self.keep(key, whole)
        self.forget_parts(key)
        return whole

    def forget_parts(self, key: RecordKey) -> None:
        """Take the chunks away."""
        shutil.rmtree(self._parts(key), ignore_errors=True)
        with contextlib.suppress(OSError):
            self._parts(key).parent.rmdir()

    @contextlib.contextmanager
    def alone(self, source: str) -> Iterator[None]:
        """Wait until no other process works on a video, then keep others waiting; a lock ends with its process."""
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
    """A file to lock, which may be another user's."""
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
    except SafetensorError as error:
        raise Damaged(f"{path}: damaged ({str(error).partition(chr(10))[0]}); away with it, and it is measured again") from None
    if not np.isfinite(record.values).all():
        raise Damaged(f"{path}: damaged (an answer that is no number); away with it, and it is measured again")
    return record


def _write(path: Path, key: RecordKey, record: Record) -> None:
    tensors = {"units": np.ascontiguousarray(record.units), "values": np.ascontiguousarray(record.values)}
    write_atomic(path, save(tensors, metadata={"key": key.text}))
