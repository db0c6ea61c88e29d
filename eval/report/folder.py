"""Files beside a report's page: videos, traces, scores of cells, tracebacks and provenance, all read from disk by name.

Data are JavaScript files that pass one value to `report.take`, since a page opened from disk may load scripts but fetch nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from echo.files import inside
from echo.scene import PIXEL_FRAMES_PER_LATENT
from eval.metrics import READINGS, described
from eval.pages import literal
from eval.pages.films import Form, form_of
from eval.report.cells import VideoCell
from eval.report.memory_strips import WINDOW, MemoryStrip, kept, policy_of, read
from eval.store.reading import content_of
from eval.store.records import DamagedFile, Provenance
from eval.store.runs import Run, scores_of
from eval.world.places import scene_scores

MARK = "report.json"
"""The file that marks a folder as a report, which may be replaced."""
WAYS = ("link", "copy", "relative")
"""How videos get into the folder: as hard links (copies if the disk differs), as copies, or not at all, with links to the store."""
SPAN = ("start", "end")
"""First frame of a scene and the one after its last, beside its scores."""
FACTS = ("fps", "fps_dit", "block_ms", "generate_s", "score_s", "host", "device", "latents_sha256", "attempt")
"""Fields of a record that a cell shows."""


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which replaces the report at `out` at the end; an older report stays until then.

    Raises ValueError if `out` is something else than a report or an empty folder.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
        raise ValueError(f"--output {out}: there is something else than a report; give another folder, for example --output {out}-report")
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    part.mkdir(parents=True)
    try:
        yield part
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class CellData:
    """The data of a video that the page loads.

    video: its address. frames: pixel frames. lead: how many fewer pixel frames the first latent frame makes than the others. trace: the
    name that loads the memory strip. borders: blocks at which scenes begin. block_frames: pixel frames of a block. segments, per_segment:
    pixel frames and scores of the scenes. drift: a value per 12 pixel frames, by reading.
    """

    video: str
    frames: int
    lead: int
    trace: str | None
    borders: list[int]
    blocks: int
    block_frames: int
    run: str
    metrics: dict[str, float | None]
    facts: dict[str, float | str]
    segments: list[tuple[int, int]]
    per_segment: list[dict[str, float]]
    drift: dict[str, list[float | None]]


@dataclass(frozen=True)
class StripData:
    """A memory strip, one value per block: scene, kinds as one letter per slot, sources, positions, decaying slots, other notes."""

    certain: bool
    scenes: list[int]
    kinds: list[str]
    sources: list[list[str]]
    positions: list[list[int | None]]
    faded: list[int]
    notes: list[str]


@dataclass
class Folder:
    """A report's folder that is being written. root: its present path; final: its later path, from which relative paths are computed."""

    root: Path
    final: Path
    ways: str = "link"
    bytes: int = 0
    lengths: dict[str, int] = field(default_factory=dict)  # name of a cell -> frames of its video
    metrics: dict[str, dict[str, str]] = field(default_factory=dict)  # metrics of all cells, as shown on the page, by name
    _shapes: dict[Path, Form] = field(default_factory=dict)
    _traces: dict[tuple[str, str], tuple[str, MemoryStrip]] = field(default_factory=dict)

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder."""
        path = inside(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def data(self, name: str, value: Any) -> None:
        """Write a value for the page as `<name>.js`."""
        self.write(f"{name}.js", f"report.take({literal(name)},{literal(value)})\n")

    def video(self, path: Path) -> str:
        """Address of a video from the page; the first call puts the file into the folder."""
        if self.ways == "relative":
            return quote(os.path.relpath(path.resolve(), self.final.resolve()))
        name = f"videos/{path.parent.parent.name[:12]}/{path.name}"
        if not (self.root / name).exists():
            self._put(path, self.root / name)
            self.bytes += path.stat().st_size
        return quote(name)

    def _put(self, path: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # another disk, or one without links
            if self.ways == "link":
                return target.hardlink_to(path)
        shutil.copyfile(path, target)

    def shape(self, cell: VideoCell) -> Form | None:
        """Size and length of a run's videos, read from the first one; None if nothing can be read."""
        path = cell.video
        if cell.run.path not in self._shapes and path is not None:
            with suppress(ValueError):
                self._shapes[cell.run.path] = form_of(path)
        return self._shapes.get(cell.run.path)

    def trace(self, cell: VideoCell) -> tuple[str, MemoryStrip] | None:
        """Name of the trace's file in the folder, and its memory strip; equal traces share a file. None if there is no trace."""
        path = cell.side("trace")
        try:
            text = content_of(path).decode() if path is not None else ""
        except (OSError, ValueError):  # gone, or no text
            return None
        if not text:
            return None
        pixels = cell.run.spec.key.pixels
        settings = json.dumps([pixels.get("method.policy"), pixels.get("method.settings")], sort_keys=True)
        if (settings, text) not in self._traces:
            name = f"traces/{len(self._traces):04d}"
            try:
                memory = kept(read(text), policy_of(pixels), int(pixels.get("backbone.parts.window_frames") or WINDOW))
            except (ValueError, LookupError, TypeError, RecursionError, AttributeError):  # not a trace
                return None
            self.data(name, strip(memory))
            self._traces[settings, text] = name, memory
        return self._traces[settings, text]

    def cell(self, cell: VideoCell) -> str:
        """Write the page's data of a video; returns the name that loads it."""
        name = f"cells/{cell.key}"
        if name in self.lengths:
            return name
        path, trace, shape = cell.video, self.trace(cell), self.shape(cell)
        assert path is not None and cell.record is not None
        blocks = len(trace[1].blocks) if trace else cell.record.blocks
        size = cell.run.spec.frames_per_block * PIXEL_FRAMES_PER_LATENT
        frames = shape.frames if shape and shape.frames else blocks * size
        self.lengths[name] = frames
        scores = scores_of(cell.side("scores"))
        content = CellData(
            video=self.video(path),
            frames=frames,
            lead=max(0, blocks * size - frames),
            trace=trace[0] if trace and any(block.keys for block in trace[1].blocks) else None,
            borders=list(trace[1].borders) if trace else [0],
            blocks=blocks,
            block_frames=size,
            run=cell.run.path.name,
            metrics=cell.record.metrics,
            facts={key: value for key in FACTS if (value := getattr(cell.record, key)) is not None},
            segments=scores.segments,
            per_segment=[scene_scores(row) for row in scores.per_segment],
            drift=_drift(scores.per_block),
        )
        measured = dict.fromkeys([*content.metrics, *(key for row in content.per_segment for key in row if key not in SPAN)])
        self.metrics |= {metric: described(metric) for metric in measured}
        self.data(name, content)
        return name

    def provenance(self, run: Run) -> tuple[str, dict[str, Provenance]]:
        """Write a run's key and starts; returns the name of the file, and the starts."""
        name, starts = f"runs/{run.path.name[:12]}.json", run.attempts()
        attempts = [msgspec.to_builtins(facts) | {"name": start} for start, facts in starts.items()]
        self.write(name, json.dumps({"run": msgspec.to_builtins(run.spec), "attempts": attempts}, indent=1) + "\n")
        return name, starts

    def traceback(self, cell: VideoCell) -> str:
        """Copy a failed video's traceback into the folder; returns its name there, "" if there is none."""
        path = cell.run.below(cell.trace) if cell.trace else None
        try:
            text = content_of(path).decode(errors="replace") if path is not None else ""
        except (OSError, DamagedFile):
            return ""
        if path is None or not text:
            return ""
        name = f"errors/{cell.run.path.name[:12]}-{path.stem}.txt"  # always .txt, so that it is shown as text
        self.write(name, text)
        return quote(name)


def strip(memory: MemoryStrip) -> StripData:
    """A memory strip for the page."""
    blocks = memory.blocks
    return StripData(
        memory.certain,
        [block.scene for block in blocks],
        ["".join(kind.letter for kind in block.kinds) for block in blocks],
        [[source for source, _ in block.keys] for block in blocks],
        [[position for _, position in block.keys] for block in blocks],
        [block.faded for block in blocks],
        ["; ".join(block.notes) for block in blocks],
    )


def _drift(blocks: Sequence[Mapping[str, float | None]]) -> dict[str, list[float | None]]:
    """Drift curves by reading, one value per block."""
    return {
        name: [None if (value := block.get(name)) is None else round(factor * value, 2) for block in blocks]
        for name, (_, factor) in READINGS.items()
        if any(block.get(name) is not None for block in blocks)
    }
