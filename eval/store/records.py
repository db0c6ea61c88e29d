"""Files of a run store as typed records; `eval.store.runs` reads a store, `jobs.store.folder` writes it.

<store>/runs/<backbone>/<task>/<method>/seed=<n>/<run id>/
    run.json              `Spec`: what the run is, written once
    asked/<ns>.json       `AskedFile`: the prompts that a command requested, and the unit of each
    attempts/<id>.json    `Provenance`, one per start: commit, versions, host, command line (and .log)
    records/<id>.jsonl    `UnitRecord`, one per line with its checksum, appended by one attempt only
    errors/               tracebacks
    units/                videos, traces, scores of segments (`ScoresFile`)
<store>/sweeps/<table>.json
    `SweepFile`: the runs, prompts and scores that a command requested; the last command of that name counts

Every file is checked when it is read: versions up to `VERSION` are converted to it, and a file of a newer version is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from zlib import crc32

import msgspec

from echo.geometry import STEPS
from echo.refusals import PART, PART_LENGTH
from echo.scene import FRAMES_PER_BLOCK
from echo.settings import LARGEST

VERSION: Final = 3
"""Schema version of the files; an older version is converted to it when it is read, a newer one refused. Since this version a line of
records ends with its checksum, and a record holds the size and digest of each side file."""
SUM = b',"crc32":"'
"""Start of the checksum, the last field of a line of records: eight hex digits of CRC-32 over everything before it."""
SUM_BYTES = len(SUM) + len('00000000"}')
UNIT = re.compile(rb'"unit":"(\w+)"')
RENDER = "render"
"""The policy of rendered runs: calibration rows of every table, sheet and figure."""
Version = Literal[1, 2, 3]
Part = Annotated[str, msgspec.Meta(pattern=PART, max_length=PART_LENGTH)]
"""A valid name of a folder or file, by the rule of `echo.refusals.path_part`."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Score = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""A number that is small enough for statistics."""
PLACE = "/".join([PART.strip("^").removesuffix("\\Z")] * 5)
Content = TypeVar("Content", bound=msgspec.Struct)
Line = TypeVar("Line", bound="Outcome")


class UnknownVersion(ValueError):
    """A newer version of this project wrote a file of a store; one line."""


class DamagedFile(ValueError):
    """A file of a store does not have the content that its place requires; one line."""


class Titled(msgspec.Struct, frozen=True):
    """A name of the configuration and its displayed label."""

    name: Part
    label: str


class RunKey(msgspec.Struct, frozen=True):
    """Everything except the prompt that can change a pixel of a run; the run's name is its digest. pixels: settings by dotted path."""

    epoch: Count
    kernel: str
    pixels: dict[str, Any]


class Spec(msgspec.Struct, frozen=True):
    """The content of run.json."""

    run: Part
    key: RunKey
    backbone: Titled
    method: Titled
    seed: Count
    v: Version = 1

    @property
    def pace(self) -> tuple[int, int]:
        """Latent frames of a block and its denoising steps; a key that names neither means the defaults."""
        frames, steps = (self.key.pixels.get(f"backbone.{name}") for name in ("frames_per_block", "steps"))
        count = frames if isinstance(frames, int) and 1 <= frames <= LARGEST else FRAMES_PER_BLOCK
        return count, len(steps) if isinstance(steps, list) else len(STEPS)

    @property
    def frames_per_block(self) -> int:
        """Latent frames of a block."""
        return self.pace[0]


class Scorer(msgspec.Struct, frozen=True):
    """A scorer. key: everything that can change a score; empty or None if nothing is scored."""

    name: Part
    label: str
    key: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that enter its scores, by dotted path; empty if the key names none."""
        said = (self.key or {}).get("scores")
        return said if isinstance(said, dict) else {}


class AskedFile(msgspec.Struct, kw_only=True):
    """A request for prompts with one way of scoring. scores: id of the way of scoring, None if only videos are requested.

    units: the unit of each prompt id. prompts: digest of each prompt in its set.
    """

    scores: Part | None
    scorer: Scorer
    task: Titled
    units: dict[str, str]
    prompts: dict[str, str] = {}
    v: Version = 1


class SweepEntry(AskedFile, kw_only=True):
    """A request of a sweep. path: path of its run below the folder `runs`."""

    path: Annotated[str, msgspec.Meta(pattern=f"^{PLACE}\\Z")]


class SweepFile(msgspec.Struct):
    """The content of a file of `sweeps`."""

    experiment: Part | None
    task: Part
    runs: list[SweepEntry]
    v: Version = 1


class Outcome(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The outcome of a unit: the fields of a record that tables need. metrics: null for a number that is not finite.

    device: what made the video. fps_dit: pixel frames per second without the codec. attended_frames: most latent frames that a block
    attended to, the mean if heads are in groups. kept_frames: most latent frames whose keys and values were kept after a block, named
    memories included; kept_mb: their megabytes (10^6 bytes) in all layers, which records of older versions do not have.
    denoising_steps: steps of a block. All times are a video's share where several were made together.
    pixel_code: digest of the code that made its pixels (`jobs.store.provenance.pixel_code`), empty in records of older versions.
    dead: "space" if each frame of the video has one colour, "time" if all its frames are the same, otherwise empty.
    """

    unit: str
    scores: str | None
    attempt: str
    prompt: str
    seed: Count
    status: Literal["ok", "error"]
    t: Score
    metrics: dict[str, Score | None]
    v: Version = 1
    latents_sha256: str = ""
    dead: Literal["", "space", "time"] = ""
    pixel_code: str = ""
    device: str | None = None
    fps_dit: float | None = None
    attended_frames: int | float | None = None
    kept_frames: int | None = None
    kept_mb: float | None = None
    denoising_steps: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the video was made."""
        return self.status == "ok"


class UnitRecord(Outcome, kw_only=True, omit_defaults=True):
    """One attempt's record of one unit: a finished video (and its scores), or an error.

    flags: metrics that are not finite. files: names of side files by kind. sizes: their bytes by kind; digests: 128 bits of BLAKE2b over
    each, as 32 hex digits; records of older versions have neither. fps: pixel frames per second with all work. err, trace: an error, and
    the path of its traceback below the run's folder.
    """

    run: str = ""
    host: str | None = None
    flags: list[str] = []
    blocks: Count = 0
    files: dict[str, str] = {}
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    fps: float | None = None
    block_ms: float | None = None
    block_ms_p95: float | None = None
    switch_block_ms: float | None = None
    generate_s: float | None = None
    decode_s: float | None = None
    score_s: float | None = None
    dur_s: float | None = None
    process_peak_mb: float | None = None
    memory: dict[str, Any] | None = None
    tokens_cut: dict[str, list[int]] | None = None
    err: str = ""
    trace: str = ""


class CodeState(msgspec.Struct, frozen=True):
    """State of the code. commit: None if git names none. dirty: hash of the differences from it, None without differences."""

    commit: str | None = None
    dirty: str | None = None


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Machine, software and settings of an attempt. config: the full config. gpu: the first GPU. slurm: ids of the job."""

    argv: list[str] = []
    config: dict[str, Any] = {}
    code: CodeState = CodeState()
    python: str = ""
    packages: dict[str, str | None] = {}
    host: str | None = None
    machine: str = ""
    cpu: str | None = None
    gpu: dict[str, str | int | None] | None = None
    cores: int | None = None
    slurm: dict[str, str] | None = None
    pid: int | None = None
    v: Version = 1

    @property
    def device(self) -> str | None:
        """The GPU's name, or the CPU's without a GPU."""
        name = (self.gpu or {}).get("name")
        return str(name) if name else self.cpu

    @property
    def prompt_set(self) -> str:
        """The file of its prompts; empty if the config names none."""
        task = self.config.get("task")
        return str(task.get("prompt_set") or "") if isinstance(task, dict) else ""


class ScoresFile(msgspec.Struct, kw_only=True):
    """A side file with the scores of one video.

    segments: [start, end) in pixel frames.
    per_segment: scores of each scene by name; some have parts by name, or a value for each block.
    per_block: readings, one mapping per block.
    """

    segments: list[tuple[Count, Count]] = []
    metrics: dict[str, Score | None] = {}
    per_segment: list[dict[str, Count | Score | None | list[Score | None] | dict[str, Score | None]]] = []
    per_block: list[dict[str, Score | None]] = []
    v: Version = 1


class TraceLine(msgspec.Struct):
    """The fields of a trace's line that readers of a store need. frames: for a block without queries, such as a rendered one."""

    scene: Count
    queries: list[Any] = []
    frames: Count = FRAMES_PER_BLOCK

    @property
    def frames_per_block(self) -> int:
        """Latent frames of the block."""
        return len(self.queries) or self.frames


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Exceptions that a decoder raises."""


class _Versioned(msgspec.Struct):
    v: Any = 1


@lru_cache(maxsize=256)
def decoder(kind: type[Content]) -> msgspec.json.Decoder[Content]:
    """The decoder of a kind of content, made once."""
    return msgspec.json.Decoder(kind)


def decoded(content: bytes, kind: type[Content], path: Path) -> Content:
    """The content of a file.

    Raises:
        UnknownVersion: a newer version of this project wrote it.
        DamagedFile: it is not of this kind.
    """
    try:
        return decoder(kind).decode(content)
    except UNREADABLE as error:
        _refuse_newer(content, path)
        what = f"no {kind.__name__.lower()}" if isinstance(error, msgspec.ValidationError) else "not JSON"
        raise DamagedFile(f"{path}: {what}: {error}" if content.strip() else f"{path}: it is empty") from None


def _refuse_newer(content: bytes, path: Path) -> None:
    """Raise UnknownVersion for a file with a newer version number."""
    try:
        version = decoder(_Versioned).decode(content).v
    except UNREADABLE:
        return
    if version not in range(1, VERSION + 1):
        raise UnknownVersion(
            f"{path}: schema version {str(version)[:40]} is not known here, versions 1 to {VERSION} are; "
            "a newer version of this project wrote it: update this one, or give another store=DIR"
        )


def encoded(content: msgspec.Struct) -> bytes:
    """Content as JSON in one line with sorted keys."""
    return msgspec.json.encode(content, order="sorted")


def line_of(record: UnitRecord) -> bytes:
    """A record as a line of its file: the newest version, with the checksum at the end."""
    content = encoded(msgspec.structs.replace(record, v=VERSION))[:-1]
    return content + SUM + b'%08x"}\n' % crc32(content)


def intact(line: bytes) -> bool:
    """Whether a line without its newline ends with a checksum that is right."""
    return line[-SUM_BYTES:-10] == SUM and line[-10:] == b'%08x"}' % crc32(line[:-SUM_BYTES])


@dataclass(frozen=True)
class DamagedLine:
    """A damaged line of records, which is left out. unit: the unit that it names; empty if that is damaged too."""

    path: Path
    number: int
    unit: str

    def __str__(self) -> str:
        """The file and the line's number."""
        return f"{self.path}:{self.number}"


def lines_of(content: bytes, kind: type[Line], path: Path) -> tuple[list[Line], list[DamagedLine]]:
    """The records of a file, with the fields of `kind`, and its damaged lines; a last line torn by a crash is skipped.

    Raises UnknownVersion for a record that a newer version of this project wrote.
    """
    lines = whole_lines(content)
    records = at_once(lines, kind)
    if records is not None:
        return records, []
    records, damaged = [], []
    for number, line in enumerate(lines, 1):
        record = _record(line, kind, path)
        if record is not None:
            records.append(record)
        elif line:
            unit = UNIT.search(line)
            damaged.append(DamagedLine(path, number, unit[1].decode() if unit else ""))
    return records, damaged


def whole_lines(content: bytes) -> list[bytes]:
    """Lines that were written completely; a last one without newline counts if its checksum is right, even if its newline is damaged."""
    *lines, last = content.split(b"\n")
    return [*lines, last] if intact(last) or intact(last[:-1]) else lines


def at_once(lines: Sequence[bytes], kind: type[Content]) -> list[Content] | None:
    """Fast path for most files: the records if no line is damaged, otherwise None. kind: a type with a version, `v`."""
    summed, content = all(map(intact, lines)), b"\n".join(lines)
    if not summed and SUM in content:
        return None
    try:
        records = decoder(kind).decode_lines(content)
    except UNREADABLE:
        return None
    return records if summed or all(record.v < VERSION for record in records) else None


def _record(line: bytes, kind: type[Line], path: Path) -> Line | None:
    """A record with a right checksum, or of a version without checksums; None for a damaged line. Raises UnknownVersion."""
    summed = intact(line)
    if SUM in line and not summed:
        return None
    try:
        record = decoder(kind).decode(line)
    except UNREADABLE:
        _refuse_newer(line, path)
        return None
    return record if summed or record.v < VERSION else None
