"""Files: the repository's folder, atomic writes, reading of text and JSON, and digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from echo.refusals import special

Json = dict[str, Any]
"""A JSON object at the border of the program."""
ROOT = Path(__file__).resolve().parent.parent
"""The repository's folder; relative paths of a config are below it."""
RESULTS = Path("results")
"""The default run store, in the working folder."""
LARGE_BYTES = 2**28
"""From this size on, a file's digest is kept in a hidden file next to it."""
PART_BYTES = 80
"""Longest text in a file's name; a digest follows it where names must differ."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` at the end; if the block raises, `path` stays as it was.

    The content survives a crash of the machine once the block has ended.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # half a file would keep a full disk full
    sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; it survives a crash of the machine."""
    with replacing(path) as part:
        part.write_bytes(content)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents; they survive a crash of the machine."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def read_text(path: Path) -> str:
    """The text of a user's file, in UTF-8 with or without a byte order mark, with line ends unified.

    Raises:
        ValueError: in one line, for a path that is not a readable file, or for another encoding, with the line.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path}: is {special(path) or 'a folder'}; a text file belongs here")
        if path.stat().st_size > LARGE_BYTES:
            raise ValueError(f"{path}: {path.stat().st_size / 1e6:.0f} MB; a text file of {LARGE_BYTES / 1e6:.0f} MB at most belongs here")
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {os.strerror(error.errno or 0)}; a text file belongs here") from None
    except ValueError as error:
        rule = str(error)
        raise ValueError(rule if rule.startswith(str(path)) else f"{str(path)!r}: {rule}; a text file belongs here") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or raw[:200].count(0) > len(raw[:200]) // 4:
        raise ValueError(f"{path}: UTF-16; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line, runs = raw[: error.start].count(b"\n") + 1, re.findall(rb"[\x80-\xff]+", raw)
        looks = (
            "GBK or another encoding of two bytes a letter" if all(len(run) % 2 == 0 for run in runs) else "Latin-1 or another of one byte"
        )
        byte = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        raise ValueError(f"{path}:{line}: {byte}, it looks like {looks}; save the file as UTF-8") from None


def read_json(text: str, where: str) -> Any:
    """The value of a user's JSON text. Raises ValueError in one line that begins with `where` for invalid or senseless JSON."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f"line {error.lineno}, "
        raise ValueError(f"{where}: not JSON ({error.msg} at {line}column {error.colno})") from None
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: half a character, \\u{ord(error.object[error.start]):04x} without its other half; write it whole"
        ) from None
    except RecursionError:
        raise ValueError(f"{where}: lists or objects within each other without end") from None
    except ValueError as error:
        reason = str(error) if isinstance(error, _Doubled) else "a number of thousands of digits"
        raise ValueError(f"{where}: {reason}") from None


class _Doubled(ValueError):
    """An object has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> Json:
    values = dict(pairs)
    if len(values) != len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise _Doubled(f"key {key[:60]!r} stands twice; remove one")
    return values


def name_part(text: str) -> str:
    """A text as a part of a file's name: letters, digits, `-` and `.` stay, other characters become `-`; cut at 80 bytes of UTF-8."""
    safe = "".join(c if c.isalnum() or c in "-." else "-" for c in text)
    return safe.encode()[:PART_BYTES].decode(errors="ignore")


def inside(folder: Path, name: str) -> Path:
    """The path of an untrusted name below a folder. Raises ValueError for one that leads out of it, by itself or by a link."""
    if name and "\0" not in name:
        path = folder / name
        with contextlib.suppress(OSError, RuntimeError):  # a circle of links
            if path.resolve(strict=False).is_relative_to(folder.resolve()):
                return path
    raise ValueError(f"{folder}: {name[:200]!r} leads out of it; paths of a store stay inside")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that they survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinity are refused.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """80 bits of BLAKE2b over canonical JSON, as 20 hex digits."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=10).hexdigest()


def file_digest(path: Path) -> str:
    """128 bits of BLAKE2b over a file's bytes, as 32 hex digits; one read per process and version of the file.

    For a folder: over the names and digests of all its files except hidden ones. The digest of a file of 256 MB or more is kept
    in a hidden file next to it, if the folder is writable, so that not every process of a sweep reads the whole file.
    """
    if path.is_dir():
        files = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
        shown = {name: file for name, file in files.items() if not any(part.startswith(".") for part in name.parts)}
        content = "".join(f"{name.as_posix()}\0{file_digest(file)}\n" for name, file in shown.items())
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
    version = path.stat()
    return _digests(path, version.st_mtime_ns, version.st_size)[0]


def content_digest(path: Path) -> str:
    """`file_digest` of a file's present bytes, without any cached digest. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file; computed in the same reading as `file_digest`."""
    version = path.stat()
    return _digests(path, version.st_mtime_ns, version.st_size)[1]


@lru_cache(maxsize=256)
def _digests(path: Path, mtime_ns: int, size_bytes: int) -> tuple[str, str]:
    version, note = f"{mtime_ns} {size_bytes} ", path.with_name(f".{path.name}.blake2b")
    if size_bytes >= LARGE_BYTES:
        with contextlib.suppress(OSError, ValueError):
            kept = note.read_text(encoding="ascii")
            if kept.startswith(version):
                own, published = kept.removeprefix(version).split()
                return own, published
    both = hashlib.blake2b(digest_size=16), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            for hashed in both:
                hashed.update(block)
    own, published = both[0].hexdigest(), both[1].hexdigest()
    if size_bytes >= LARGE_BYTES:
        with contextlib.suppress(OSError):
            write_atomic(note, f"{version}{own} {published}".encode())
    return own, published


_JUDGED: set[str] = set()


def judged_once(path: Path, kind: str, judge: Callable[[], object]) -> None:
    """Run a check on the content of a file or folder unless it has passed before: in this process, or, for files of 256 MB or more,
    in any process, which a hidden file next to it records. Errors of `judge` are raised, and nothing is recorded.
    """
    content, note = f"{kind} {file_digest(path)}", path.with_name(f".{path.name}.judged")
    large = any(file.stat().st_size >= LARGE_BYTES for file in ([path] if path.is_file() else path.iterdir()))
    with contextlib.suppress(OSError, ValueError):
        if content in _JUDGED or large and note.read_text(encoding="ascii") == content:
            return
    judge()
    _JUDGED.add(content)
    if large:
        with contextlib.suppress(OSError):
            write_atomic(note, content.encode())
