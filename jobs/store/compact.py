"""Records folded into Parquet, so that tables of a million videos take seconds.

    python -m jobs.store.compact [store=DIR]

reads what is new since the last time and leaves the JSON lines in place: they stay the truth, and the folder `compact` may be
deleted at any time. Who makes tables while more records are written gets those too, whether folded or not. Needs pyarrow
(`pip install "echo-harness[parquet]"`). Layout: `eval.store.compacted`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo.files import replacing, write_atomic
from eval.arguments import answer, parse
from eval.store.compacted import METRIC, VERSION, index_of, record_files
from eval.store.records import VERSION as RECORDS
from eval.store.records import Run, runs
from jobs.store import unwritable
from jobs.store.folder import new_attempt

if TYPE_CHECKING:
    import pyarrow as pa

Index = dict[str, dict[str, Any]]
ABANDONED_S = 3600.0
"""A file that is not finished and has not grown for so long is nobody's."""


def fold(store: Path) -> tuple[int, int]:
    """Bring the folder `compact` of a store up to date.

    Returns:
        How many records were read anew, and how many are folded in all.

    Raises:
        ValueError: in one line, without pyarrow, or for a record of an unknown version.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValueError('jobs.store.compact writes Parquet and pyarrow is not there; pip install "echo-harness[parquet]"') from error
    old, index, read, whole = index_of(store), Index(), 0, 0
    groups: dict[str, list[Run]] = {}
    for run in runs(store):
        groups.setdefault("--".join(run.path.parts[-5:-3]), []).append(run)
    for name, members in groups.items():
        anew, rows, found = _group(store, name, members, old)
        index |= found
        read, whole = read + anew, whole + rows
    write_atomic(store / "compact" / "index.json", json.dumps({"v": VERSION, "records": RECORDS, "runs": index}).encode())
    needed = {place["file"] for place in (*old.values(), *index.values())}  # who began to read a moment ago may still want the old ones
    for path in (store / "compact").glob("*.parquet"):
        if path.name not in needed and not _being_written(path):
            path.unlink(missing_ok=True)
    return read, whole


def _being_written(path: Path) -> bool:
    """Whether another fold may be at a file; one that was killed leaves such a file too."""
    try:
        return path.name.startswith(".") and time.time() - path.stat().st_mtime < ABANDONED_S
    except FileNotFoundError:
        return True


def _group(store: Path, name: str, members: Sequence[Run], old: Mapping[str, Any]) -> tuple[int, int, Index]:
    """Fold the runs of one backbone and task: how many records were read anew, how many there are, and their places."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = {_key(run): record_files(run.path) for run in members}
    kept = {key: old[key] for key in files if key in old and old[key]["files"] == files[key]}
    whole = {file for file in {place["file"] for place in kept.values()} if _readable(store / "compact" / file)}
    kept = {key: place for key, place in kept.items() if place["file"] in whole}
    stale = {key for key in old if key.startswith(name.replace("--", "/", 1) + "/")} - kept.keys()
    if len(kept) == len(files) and not stale:
        return 0, sum(place["stop"] - place["start"] for place in kept.values()), Index(kept)
    sources = {file: pq.read_table(store / "compact" / file) for file in whole}
    target = f"{name}-{new_attempt()}.parquet"
    parts, index, start, read = list["pa.Table"](), Index(), 0, 0
    for run in members:
        key = _key(run)
        if key in kept:
            part, plain = sources[kept[key]["file"]].slice(kept[key]["start"], kept[key]["stop"] - kept[key]["start"]), kept[key]["plain"]
        else:
            records = run.records()
            read += len(records)
            part, plain = table_of(records)
        index[key] = {"file": target, "start": start, "stop": start + len(part), "plain": plain, "files": files[key]}
        start += len(part)
        parts.append(part)
    joined = pa.concat_tables(parts, promote_options="default")
    with replacing(store / "compact" / target) as part_file:
        pq.write_table(joined, part_file, compression="zstd", row_group_size=2**18)
    return read, start, index


def _key(run: Run) -> str:
    return "/".join(run.path.parts[-5:])


def _readable(path: Path) -> bool:
    """Whether a file is there and whole, by its footer."""
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, ValueError):
        return False
    return True


def table_of(records: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, bool]:
    """Records of one run, in the order of time, as a table; whether none of them contradicts another."""
    import pyarrow as pa

    first, plain = firsts(records)
    names = dict.fromkeys(name for record in records for name in record["metrics"])
    text = pa.dictionary(pa.int32(), pa.string())
    columns = {
        "unit": pa.array([record["unit"] for record in records], pa.string()),
        "scores": pa.array([record["scores"] for record in records], pa.string()).cast(text),
        "attempt": pa.array([record["attempt"] for record in records], pa.string()).cast(text),
        "prompt": pa.array([record["prompt"] for record in records], pa.string()).cast(text),
        "seed": pa.array([record["seed"] for record in records], pa.int64()),
        "status": pa.array([record["status"] == "ok" for record in records], pa.bool_()),
        "first": pa.array(first, pa.bool_()),
        "t": pa.array([record["t"] for record in records], pa.float64()),
        "dur_s": pa.array([record.get("dur_s") for record in records], pa.float64()),
        "blocks": pa.array([record.get("blocks") for record in records], pa.int64()),
    }
    for name in names:  # null: the record lacks it; NaN: it was not finite
        values = [_value(record["metrics"], name) for record in records]
        columns[METRIC + name] = pa.array(values, pa.float64(), from_pandas=False)
    return pa.table(columns), plain


def _value(metrics: Mapping[str, float | None], name: str) -> float | None:
    if name not in metrics:
        return None
    value = metrics[name]
    return float("nan") if value is None else float(value)


def firsts(records: Sequence[Mapping[str, Any]]) -> tuple[list[bool], bool]:
    """For each record whether it is the first ok one of its unit and way of scoring; whether all agree on latents and scores."""
    latents: dict[str, str] = {}
    metrics: dict[tuple[str, str | None], Mapping[str, Any]] = {}
    first, plain = [], True
    for record in records:
        if record["status"] != "ok":
            first.append(False)
            continue
        unit, key = record["unit"], (record["unit"], record["scores"])
        first.append(key not in metrics)
        plain &= latents.setdefault(unit, record["latents_sha256"]) == record["latents_sha256"]
        plain &= metrics.setdefault(key, record["metrics"]) == record["metrics"]
    return first, plain


def _command(words: Sequence[str]) -> list[str]:
    given, _ = parse(words, {"store": "results"})
    store, start = Path(given["store"]), time.monotonic()
    if not (store / "runs").is_dir():
        raise ValueError(f"store={store}: no run store; it has no folder runs")
    try:
        read, whole = fold(store)
    except OSError as error:
        raise ValueError(unwritable.refusal(str(store), error)) from error
    size_mb = sum(path.stat().st_size for path in (store / "compact").iterdir()) / 1e6
    return [f"{store / 'compact'}: {whole} records, {read} of them new, {size_mb:.1f} MB, {time.monotonic() - start:.1f} s"]


if __name__ == "__main__":
    sys.exit(answer(_command, sys.argv[1:]))
