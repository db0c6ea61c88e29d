"""Damage to a file like that by disks, downloads, editors and people: a table of kinds, drawn damage of each kind, and the reason why a
damaged file cannot be right, found by other readers than the project's."""

from __future__ import annotations

import json
import math
import os
import random
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

DEEP = b"[" * 100_000
HUGE = b"9" * 400
Damage = Callable[[Path], object]
Drawn = Callable[[Path, random.Random], object]


def content(after: bytes) -> Damage:
    """Other content in its place."""
    return lambda path: path.write_bytes(after)


def edited(old: bytes, new: bytes) -> Damage:
    """Every occurrence replaced."""
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))


def instead(make: Callable[[Path], object]) -> Damage:
    """Something that is no file in its place."""
    return lambda path: (path.unlink(), make(path))


def encoded(encoding: str) -> Damage:
    """Text in another encoding; characters that it lacks are lost, and bytes that are no text count as Latin-1."""

    def damage(path: Path) -> None:
        raw = path.read_bytes()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        path.write_bytes(text.encode(encoding, errors="replace"))

    return damage


DAMAGES: dict[str, Damage] = {
    "empty": content(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"\n"),
    "another kind": content(b"[1, 2]\n"),
    "null": content(b"null\n"),
    "nested without end": content(DEEP + b"\n"),
    "nested in a field": content(b'{"key":{"pixels":{"a":' + DEEP + b"\n"),
    "a number of 400 digits": content(b'{"seed":' + HUGE + b',"scene":' + HUGE + b',"argv":' + HUGE + b',"metrics":{"x":' + HUGE + b"}}\n"),
    "half an emoji": content(b'{"v":"\\ud83d","scene":"\\ud83d"}\n'),
    "UTF-16": encoded("utf-16"),
    "GBK": content('{"label":"狐狸"}\n'.encode("gbk")),
    "a mark of byte order": lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size) + b"\n"),
    "lists for texts": edited(b'":', b'":['),
    "a folder": instead(Path.mkdir),
    "a pipe": instead(os.mkfifo),
    "a circle of links": instead(lambda path: path.symlink_to(path)),
}
"""Damages without randomness."""
VALUES = (
    "null", "true", "[]", "{}", '""', "-1", "0", "0.5", "2", "1e400", "-1e400", "NaN", "-Infinity", "9" * 400, "1" + "0" * 5000, "1e308",
    '"\\ud83d"', '"a\\u0000b"', '"../../../../../../etc/passwd"', '"/etc/passwd"', '"nan"', '"7"', '"\\u001b[31m"', '"x" ', DEEP.decode(),
    '{"a":' * 100_000, '{"a":1,"a":2}', "[[1]]", '"' + "x" * 100_000 + '"', "9007199254740993", "18446744073709551616", "[null]", '{"": 0}',
)  # fmt: skip
"""JSON in a value's place."""
MARK = "@put here@"


def values(path: Path, draw: random.Random) -> None:
    """Change, remove or repeat a value of a JSON text, of a line of it, or of the header of weights."""
    raw = path.read_bytes()
    if path.suffix == ".safetensors":
        (length,) = struct.unpack("<Q", raw[:8])
        header = changed_json(raw[8 : 8 + length].decode(), draw).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
    elif path.suffix == ".jsonl":
        lines = raw.decode().splitlines()
        number = draw.randrange(len(lines))
        lines[number] = changed_json(lines[number], draw)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(changed_json(raw.decode(), draw), encoding="utf-8")
    else:
        words(path, draw)


def changed_json(text: str, draw: random.Random) -> str:
    """A JSON text with one node changed."""
    root = json.loads(text)
    holder: Any
    holder, key = draw.choice(places({"": root}))
    if isinstance(holder, dict) and key and draw.random() < 0.2:
        if draw.random() < 0.5:
            del holder[key]
            return json.dumps(root)
        value = json.dumps(holder[key])
        holder[key] = MARK
        return json.dumps(root).replace(f'"{MARK}"', f"{value}, {json.dumps(key)}: {draw.choice((value, '0'))}")
    if not key and isinstance(holder, dict):
        return draw.choice(VALUES)
    holder[key] = MARK
    return json.dumps(root).replace(f'"{MARK}"', draw.choice(VALUES))


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place inside a JSON value, as its container and key."""
    inner = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in inner] + [place for _, value in inner for place in places(value)]


def words(path: Path, draw: random.Random) -> None:
    """Replace a word of a text or, in other files, a few bytes."""
    raw = path.read_bytes()
    spans = [found.span() for found in re.finditer(rb"[^\s,;:|\"'\[\]{}]+", raw[:100_000])] or [(0, 0)]
    start, end = draw.choice(spans)
    path.write_bytes(raw[:start] + draw.choice(VALUES)[:100_000].strip('"').encode() + raw[end:])


def flipped(path: Path, draw: random.Random) -> None:
    """Flip one to eight bits."""
    raw = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 1, 8))):
        raw[draw.randrange(draw.choice((len(raw), min(len(raw), 400))))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def cut(path: Path, draw: random.Random) -> None:
    """Truncate at a random place."""
    raw = path.read_bytes()
    path.write_bytes(raw[: draw.choice((draw.randrange(len(raw)), len(raw) - 1, len(raw) - draw.randrange(min(64, len(raw)))))])


def inserted(path: Path, draw: random.Random) -> None:
    """Insert up to 64 bytes."""
    raw, place = path.read_bytes(), draw.randrange(path.stat().st_size + 1)
    path.write_bytes(raw[:place] + draw.randbytes(draw.choice((1, 2, 64))) + raw[place:])


def zeroed(path: Path, draw: random.Random) -> None:
    """Overwrite a range with zeros, like a block that a disk never wrote."""
    raw = bytearray(path.read_bytes())
    start = draw.randrange(len(raw))
    end = min(len(raw), start + draw.choice((1, 16, 512, 4096, len(raw))))
    raw[start:end] = bytes(end - start)
    path.write_bytes(raw)


def lined(path: Path, draw: random.Random) -> None:
    """Repeat, remove or move a line."""
    lines = path.read_bytes().splitlines(keepends=True)
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.choice(("twice", "out", "swapped")):
        case "twice":
            lines.insert(other, lines[one])
        case "out":
            del lines[one]
        case "swapped":
            lines[one], lines[other] = lines[other], lines[one]
    path.write_bytes(b"".join(lines))


def numbers(path: Path, draw: random.Random) -> None:
    """Make a tensor zero, or one of its numbers NaN, infinite or huge; flip bits of other files."""
    if path.suffix != ".safetensors":
        return flipped(path, draw)
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    header = {name: entry for name, entry in json.loads(raw[8 : 8 + length]).items() if name != "__metadata__"}
    entry = header[draw.choice(sorted(header))]
    start, end = (8 + length + offset for offset in entry["data_offsets"])
    if draw.random() < 0.5:
        raw[start:end] = bytes(end - start)
    elif end - start >= 4:
        place = start + 4 * draw.randrange((end - start) // 4)
        raw[place : place + 4] = struct.pack("<f", draw.choice((math.nan, math.inf, -math.inf, 3e38)))
    path.write_bytes(raw)


def unreadable(path: Path, draw: random.Random) -> None:
    """Remove read permission, which does not stop root."""
    path.chmod(0)


DRAWN: dict[str, Drawn] = {
    "values": values, "words": words, "flipped": flipped, "cut anywhere": cut, "inserted": inserted, "zeroed": zeroed, "lines": lined,
    "numbers": numbers, "unreadable": unreadable, "gbk": lambda path, draw: encoded("gbk")(path),
    "latin-1": lambda path, draw: encoded("latin-1")(path),
    **{name: lambda path, draw, damage=damage: damage(path) for name, damage in DAMAGES.items()},
}  # fmt: skip
"""All kinds; the first are drawn more often."""
OFTEN = ("values",) * 8 + ("words", "flipped", "cut anywhere", "inserted", "zeroed", "lines", "numbers") * 2


def damage_drawn(path: Path, draw: random.Random) -> str:
    """Do a random kind of damage; returns its name."""
    name = draw.choice((*DRAWN, *OFTEN))
    DRAWN[name](path, draw)
    return name


def fault_of(path: Path, sound: Path) -> str:
    """Why a damaged file cannot be right; empty if it may be, for example after a change of words.

    Uses only readers of the standard library and of the formats, none of the project's. sound: the file before.
    """
    if path.is_symlink() or not stat.S_ISREG(path.stat().st_mode):
        return "no file"
    raw = path.read_bytes()
    if path.suffix in (".pt", ".pth", ".npz", ".zip"):
        return _zip_fault(path)
    if path.suffix == ".safetensors":
        return _weights_fault(path)
    if path.suffix in (".mp4", ""):
        return "" if raw else "empty"
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "no UTF-8"
    if b'"crc32"' in sound.read_bytes():  # each line has its checksum
        lines = set(sound.read_bytes().splitlines(keepends=True))
        wrong = [line for line in raw.splitlines(keepends=True) if line not in lines and line.endswith(b"\n")]  # otherwise torn by a crash
        return "a line without its checksum" if wrong else ""
    texts = text.splitlines() if path.suffix == ".jsonl" else [text] if path.suffix == ".json" else []
    return next((fault for line in texts if line.strip() and (fault := json_fault(line))), "")


def json_fault(text: str) -> str:
    """Why a text is no JSON object or list with unique keys."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise ValueError("no finite number")
        return float(digits)

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=number, parse_float=number)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__} {error}"[:80]
    return "" if isinstance(value, (dict, list)) else "neither object nor list"


def _zip_fault(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{broken} is damaged" if (broken := archive.testzip()) else ""
    except Exception as error:
        return f"{type(error).__name__} {error}"[:80]


def _weights_fault(path: Path) -> str:
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
                    return f"{name} is not finite"
                if tensor.ndim > 1 and tensor.numel() > 1 and not bool(torch.count_nonzero(tensor)):
                    return f"{name} is zeros"
    except (SafetensorError, ValueError, OSError, TypeError, KeyError, OverflowError, RuntimeError) as error:
        return f"{type(error).__name__} {error}"[:80]
    return ""
