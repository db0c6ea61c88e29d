"""What a run store holds, file by file, as typed records; `eval.store.runs` reads a store, `jobs.store.folder` writes it.

<store>/runs/<backbone>/<task>/<method>/seed=<n>/<run id>/
    run.json              `Spec`: what the run is, written once
    asked/<ns>.json       `AskedFile`: the prompts that a command wanted, and the unit that stands for each
    attempts/<id>.json    `Provenance`, one for each start: commit, versions, host, command line (and .log)
    records/<id>.jsonl    `UnitRecord`, one a line with its checksum, appended to by one attempt alone
    errors/               tracebacks
    units/                videos, traces, scores of segments (`ScoresFile`)
<store>/sweeps/<table>.json
    `SweepFile`: the runs, prompts and scores that a command asked for; the last command of that name counts

Every file is checked when it is read: versions up to `VERSION` are read and brought up to it, of a newer one the file is refused.
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
"""Of records; whatever is read of an older version is brought up to it, of a newer one refused. From this one on a line of records ends
with its checksum, and a record says how large each side file is and what is in it."""
SUM = b',"crc32":"'
"""What stands before the checksum of a line of records, which is its last field: eight hex digits of all that comes before."""
SUM_BYTES = len(SUM) + len('00000000"}')
UNIT = re.compile(rb'"unit":"(\w+)"')
RENDER = "render"
"""The policy of runs that are rendered, not generated: calibration rows of every table, sheet and figure."""
Version = Literal[1, 2, 3]
Part = Annotated[str, msgspec.Meta(pattern=PART, max_length=PART_LENGTH)]
"""A name that a folder or a file may have, as `echo.refusals.path_part` has it."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Score = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""A number that statistics can be made of."""
PLACE = "/".join([PART.strip("^").removesuffix("\\Z")] * 5)
Content = TypeVar("Content", bound=msgspec.Struct)
Line = TypeVar("Line", bound="Outcome")


class UnknownVersion(ValueError):
    """A file of a store that a newer version of this project wrote; one line for people."""


class DamagedFile(ValueError):
    """A file of a store that is not what its place says it is; one line for people."""


class Titled(msgspec.Struct, frozen=True):
    """A name of the configuration and its label for people."""

    name: Part
    label: str


class RunKey(msgspec.Struct, frozen=True):
    """All that can change a pixel of a run, apart from the prompt: its name is the digest of this. pixels: settings by dotted path."""

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
        """Latent frames of a block and its denoising steps; where there was no choice the key names neither."""
        frames, steps = (self.key.pixels.get(f"backbone.{name}") for name in ("frames_per_block", "steps"))
        count = frames if isinstance(frames, int) and 1 <= frames <= LARGEST else FRAMES_PER_BLOCK
        return count, len(steps) if isinstance(steps, list) else len(STEPS)

    @property
    def frames_per_block(self) -> int:
        """Latent frames of a block."""
        return self.pace[0]


class Scorer(msgspec.Struct, frozen=True):
    """Who scores; key: all that can change a score, empty or None where nothing is scored."""

    name: Part
    label: str
    key: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What enters its scores, by dotted path; empty where it does not say."""
        said = (self.key or {}).get("scores")
        return said if isinstance(said, dict) else {}


class AskedFile(msgspec.Struct, kw_only=True):
    """These prompts, scored this way. scores: id of the way of scoring, None where videos alone are asked for.

    units: the unit that stands for each prompt id. prompts: digest of each prompt as it stands in its set.
    """

    scores: Part | None
    scorer: Scorer
    task: Titled
    units: dict[str, str]
    prompts: dict[str, str] = {}
    v: Version = 1


class SweepEntry(AskedFile, kw_only=True):
    """A wish of a sweep. path: of its run, from the folder `runs` on."""

    path: Annotated[str, msgspec.Meta(pattern=f"^{PLACE}\\Z")]


class SweepFile(msgspec.Struct):
    """The content of a file of `sweeps`."""

    experiment: Part | None
    task: Part
    runs: list[SweepEntry]
    v: Version = 1


class Outcome(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What settles a unit: a record, as far as tables ask. metrics: null for a number that is not finite.

    pixel_code: digest of the code that made its pixels (`jobs.store.provenance.pixel_code`), empty where an older version does not say.
    dead: "space" for a video each of whose frames is of one colour, "time" for one whose frames are all the same, else empty.
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

    @property
    def ok(self) -> bool:
        """Whether the video is there."""
        return self.status == "ok"


class UnitRecord(Outcome, kw_only=True, omit_defaults=True):
    """What one attempt says of one unit: a finished video (and its scores), or an error.

    flags: metrics that are not finite. files: names of side files by kind. sizes: their bytes by kind; digests: 128 bits of BLAKE2b over
    each, as 32 hex digits; neither has a kind that an older version recorded. fps: pixel frames a second, all work included; fps_dit:
    without the codec. denoising_steps: of a block. attended_frames: latent frames that a block attended to at most,
    of heads in groups the mean.
    kept_frames: frames' worth of keys and values that were kept behind a block at most, memories by name among them. err, trace: of an
    error, the path of its traceback from the run's folder on.
    """

    run: str = ""
    host: str | None = None
    device: str | None = None
    flags: list[str] = []
    blocks: Count = 0
    files: dict[str, str] = {}
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}
    fps: float | None = None
    fps_dit: float | None = None
    denoising_steps: int | None = None
    attended_frames: int | float | None = None
    kept_frames: int | None = None
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
    """commit: None where git names none. dirty: hash of what differs from it, None where nothing does."""

    commit: str | None = None
    dirty: str | None = None


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what an attempt was made. config: the full config. gpu: the first card. slurm: ids of the job."""

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
        """The card's name, else the processor's."""
        name = (self.gpu or {}).get("name")
        return str(name) if name else self.cpu

    @property
    def prompt_set(self) -> str:
        """The file that its prompts came from; empty if it does not say."""
        task = self.config.get("task")
        return str(task.get("prompt_set") or "") if isinstance(task, dict) else ""


class ScoresFile(msgspec.Struct, kw_only=True):
    """A side file with the scores of one video. segments: [start, end) in pixel frames. per_block: readings, one mapping a block."""

    segments: list[tuple[Count, Count]] = []
    metrics: dict[str, Score | None] = {}
    per_segment: list[dict[str, Any]] = []
    per_block: list[dict[str, Score | None]] = []
    v: Version = 1


class TraceLine(msgspec.Struct):
    """What a line of a trace says of its block, as far as a store's readers ask; frames: where it has no queries, as a rendered one."""

    scene: Count
    queries: list[Any] = []
    frames: Count = FRAMES_PER_BLOCK

    @property
    def frames_per_block(self) -> int:
        """Latent frames of the block."""
        return len(self.queries) or self.frames


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises."""


class _Versioned(msgspec.Struct):
    v: Any = 1


@lru_cache(maxsize=256)
def decoder(kind: type[Content]) -> msgspec.json.Decoder[Content]:
    """The decoder of a kind of content, made once."""
    return msgspec.json.Decoder(kind)


def decoded(content: bytes, kind: type[Content], path: Path) -> Content:
    """The content of a file.

    Raises:
        UnknownVersion: if a newer version of this project wrote it; its meaning is not guessed at.
        DamagedFile: if it is not of this kind.
    """
    try:
        return decoder(kind).decode(content)
    except UNREADABLE as error:
        _refuse_newer(content, path)
        what = f"no {kind.__name__.lower()}" if isinstance(error, msgspec.ValidationError) else "not JSON"
        raise DamagedFile(f"{path}: {what}: {error}" if content.strip() else f"{path}: it is empty") from None


def _refuse_newer(content: bytes, path: Path) -> None:
    """Raises UnknownVersion for a file that says so."""
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
    """Content as it is written: JSON in one line, keys sorted."""
    return msgspec.json.encode(content, order="sorted")


def line_of(record: UnitRecord) -> bytes:
    """A record as a line of its file: of the newest version, its checksum at the end."""
    content = encoded(msgspec.structs.replace(record, v=VERSION))[:-1]
    return content + SUM + b'%08x"}\n' % crc32(content)


def intact(line: bytes) -> bool:
    """Whether a line, its end left out, carries a checksum and is what it was when it was written."""
    return line[-SUM_BYTES:-10] == SUM and line[-10:] == b'%08x"}' % crc32(line[:-SUM_BYTES])


@dataclass(frozen=True)
class DamagedLine:
    """A line of records that is not what was written, and is left out. unit: that it says it is of; empty where that is damaged too."""

    path: Path
    number: int
    unit: str

    def __str__(self) -> str:
        """The file and the line, for people."""
        return f"{self.path}:{self.number}"


def lines_of(content: bytes, kind: type[Line], path: Path) -> tuple[list[Line], list[DamagedLine]]:
    """The records of a file, as far as a kind of them says, and its damaged lines; a last line torn by a crash is passed over.

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
    """Lines that were written to their end; a last one without it is one if its checksum says so, or another byte stands in its place."""
    *lines, last = content.split(b"\n")
    return [*lines, last] if intact(last) or intact(last[:-1]) else lines


def at_once(lines: Sequence[bytes], kind: type[Content]) -> list[Content] | None:
    """Records of lines none of which is damaged, as most files have; None of others. kind: has a version, `v`."""
    summed, content = all(map(intact, lines)), b"\n".join(lines)
    if not summed and SUM in content:
        return None
    try:
        records = decoder(kind).decode_lines(content)
    except UNREADABLE:
        return None
    return records if summed or all(record.v < VERSION for record in records) else None


def _record(line: bytes, kind: type[Line], path: Path) -> Line | None:
    """A record with a right checksum, or of a version without; None for a line that is damaged. Raises UnknownVersion."""
    summed = intact(line)
    if SUM in line and not summed:
        return None
    try:
        record = decoder(kind).decode(line)
    except UNREADABLE:
        _refuse_newer(line, path)
        return None
    return record if summed or record.v < VERSION else None
