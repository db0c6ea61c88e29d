"""Times and file sizes of a store's newest videos, for forecasts and for the division into jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from eval.store.reading import content_of
from eval.store.records import DamagedFile, UnitRecord, lines_of
from eval.store.runs import Run, runs

SAMPLE = 64
"""Number of newest finished videos from which times are estimated."""


@dataclass(frozen=True)
class UnitCost:
    """Cost of a finished video: seconds, scoring included, and the bytes of its record; `size` includes its files."""

    run: Run
    seconds: float
    blocks: int
    record_bytes: int
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.record_bytes + sum(path.stat().st_size for path in self.files if path.exists())


def newest_units(among: Iterable[Run]) -> list[UnitCost]:
    """The newest finished videos of some runs, at least 64 if there are so many; the last record of a video counts.

    If scoring is separate, an earlier record does not include it. A truncated or damaged line, or one of another version, is skipped.
    """
    files = sorted(((Path(path), run) for run in among for path in run.record_files()), key=lambda pair: pair[0].name)
    units: dict[tuple[Run, str], UnitCost] = {}
    for path, run in reversed(files):
        if len(units) >= SAMPLE:
            break
        of_file = dict[tuple[Run, str], UnitCost]()
        for line in _lines(path):
            with contextlib.suppress(ValueError):
                for record in lines_of(line, UnitRecord, path)[0]:
                    if record.ok and record.dur_s is not None:
                        sides = tuple(filter(None, (run.side(record, kind) for kind in record.files)))
                        of_file[run, record.unit] = UnitCost(run, record.dur_s, record.blocks, len(line), sides)
        units = of_file | units
    return list(units.values())


def _lines(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError, DamagedFile):
        return content_of(path).splitlines(keepends=True)
    return []


def block_s(store: str, backbone: str, method: str, pace: tuple[int, int], alike: bool = True) -> float | None:
    """Median seconds per block of a method, scoring included; None if unknown.

    pace: latent frames and denoising steps of the block. alike: whether to use the backbone's other methods if this one has no videos yet;
    rendered rows never count.
    """
    own = _median_block_s(_runs_of(store, backbone, method, pace))
    if own is not None or not alike:
        return own
    others: dict[str, list[Run]] = {}
    for run in _runs_of(store, backbone, "*", pace):
        if not run.calibration:
            others.setdefault(run.place.method, []).append(run)
    speeds = [speed for like in others.values() if (speed := _median_block_s(like)) is not None]
    return median(speeds) if speeds else None


def block_bytes(store: str, backbone: str, method: str, pace: tuple[int, int]) -> float | None:
    """Bytes on disk per block of a method; None if unknown."""
    units = newest_units(_runs_of(store, backbone, method, pace))[:SAMPLE]
    blocks = sum(unit.blocks for unit in units)
    return sum(unit.size for unit in units) / blocks if blocks else None


def _runs_of(store: str, backbone: str, method: str, pace: tuple[int, int]) -> Iterable[Run]:
    """Runs of a backbone and method in blocks of a pace, whatever the task and seed."""
    return (run for run in runs(Path(store), f"{backbone}/*/{method}/seed=*/*") if run.spec.pace == pace)


def _median_block_s(among: Iterable[Run]) -> float | None:
    speeds = [unit.seconds / unit.blocks for unit in newest_units(among) if unit.blocks]
    return median(speeds) if speeds else None
