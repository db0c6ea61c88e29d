"""Speeds that `python -m jobs.bench.command` measured, as a table beside those that others publish.

    python -m eval.tables.command speed [bench=FILE] [out=FOLDER]

Writes `speed.md`, `speed.csv` and `speed.tex`. Measured and published stand in columns of their own: the one on the device
that the caption names, the other on their authors' machines, with their source in the second table. Without bench= the newest
file of results/bench counts.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.published import Speed, speeds
from eval.arguments import parse
from eval.tables.latex import escape

FOLDER = Path("results") / "bench"
KINDS = ("smooth", "hard", "recall")
NONE = "-"


@dataclass(frozen=True)
class Row:
    """One method: all measured values by column, None where nothing was measured; `published` from the same method elsewhere."""

    method: str
    label: str
    values: Mapping[str, float | None]
    published: tuple[Speed, ...]
    notes: tuple[str, ...]


COLUMNS = (
    ("block_ms", "block, ms", 1),
    ("block_ms_p95", "p95", 1),
    ("first_pass_ms", "first pass, ms", 1),
    ("clean_pass_ms", "clean pass, ms", 1),
    ("fps_dit", "FPS, DiT", 2),
    ("fps_end_to_end", "FPS, end to end", 2),
    ("first_frames_ms", "first frames, ms", 0),
    ("gap_ms", "gap, ms", 1),
    ("gap_ms_p95", "gap p95", 1),
    ("overhead_percent", "overhead, %", 2),
    *((f"{kind}_ms", f"behind {kind}, ms", 1) for kind in KINDS),
    ("recache_ms", "recache, ms", 1),
    ("codec_ms", "codec, ms a block", 1),
    ("memory_gb", "memory, GB", None),
    ("computed_gb", "computed, GB", None),
    ("tflops", "TFLOP/s", 2),
    ("percent_of_peak", "% of peak", 1),
)
"""(key, heading, decimals) of what is measured; None: three digits, wherever the point is."""


def read(path: Path) -> dict[str, Any]:
    """A bench file. Raises ValueError for a file that is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"bench={path}: no such file; python -m jobs.bench.command backbone=self_forcing makes one") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"bench={path}: not JSON ({error.msg} in line {error.lineno})") from None
    if not isinstance(found, dict) or found.get("what") != "speed":
        raise ValueError(f'bench={path}: not a speed measurement of jobs.bench.command; nearest is a file whose "what" is "speed"')
    return found


def newest(folder: Path = FOLDER) -> Path:
    """The latest speed measurement of a folder. Raises ValueError where there is none."""
    for path in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        if '"what": "speed"' in path.read_text(encoding="utf-8")[:200]:
            return path
    raise ValueError(
        f"{folder}: no speed measurement; python -m jobs.bench.command backbone=self_forcing makes one, bench=FILE names another"
    )


def rows_of(bench: Mapping[str, Any]) -> list[Row]:
    """A row for each measured method."""
    return [_row(measured) for measured in bench["methods"]]


def _row(m: Mapping[str, Any]) -> Row:
    def median(value: Mapping[str, Any] | None) -> float | None:
        return None if value is None else value["median"]

    values: dict[str, float | None] = {
        "block_ms": m["block_ms"]["median"],
        "block_ms_p95": m["block_ms"]["p95"],
        "first_pass_ms": median(m["pass_ms"].get("denoise_1")),
        "clean_pass_ms": median(m["pass_ms"].get("clean")),
        "fps_dit": m["fps_dit"],
        "fps_end_to_end": m["fps_end_to_end"],
        "first_frames_ms": m["stream"]["first_frames_ms"],
        "gap_ms": m["stream"]["gap_ms"]["median"],
        "gap_ms_p95": m["stream"]["gap_ms"]["p95"],
        "overhead_percent": m["overhead"]["percent"],
        "recache_ms": median(m["switch_ms"].get("recache")),
        "codec_ms": median(m["codec_ms"]),
        "memory_gb": m["memory"]["measured_bytes"] / 1e9,
        "computed_gb": m["memory"]["computed_bytes"] / 1e9,
        "tflops": m["tflops"],
        "percent_of_peak": m["percent_of_peak"],
    } | {f"{kind}_ms": median(m["switch_ms"].get(kind)) for kind in KINDS}
    published = tuple(speed for speed in speeds() if speed.ours == m["method"] and speed.fps is not None)
    return Row(m["method"], m["label"] or m["method"], values, published, tuple(m["notes"]))


def caption(bench: Mapping[str, Any]) -> list[str]:
    """What was measured on what, in sentences."""
    height, width = bench["frame_px"]
    lines = [
        f"Speed of cache policies: {bench['label']}, {width}x{height}, on {bench['device_name']} ({bench['device']}), {bench['dtype']}, "
        f"attention kernel {bench['kernel']}, compile {bench['compile']}, window {bench['window']}, batch {bench['batch']}, "
        f"weights {bench['weights']}; decoder {bench['decoder']} in {bench['codec_dtype']}.",
        f"Measured after a warm-up with the window full; medians. Blocks and passes: {bench['clock']}; end to end, first frames, gaps and "
        "decoding: wall clock. Encoding of texts and drawing of noise are in no figure. "
        "Overhead: the policy's own work less Self-Forcing's at the same window, in percent of its block.",
    ]
    if bench["geometry"] != "native" or bench["device"] == "cpu":
        lines.append(
            f"This is a run of geometry={bench['geometry']} on device={bench['device']}: it shows that the command works, and says nothing "
            "of speed at 832x480 on a graphics card; the published figures beside it are of other sizes and machines."
        )
    facts = bench["provenance"]
    code = (facts["code"]["commit"] or "unknown")[:10] + (", changed" if facts["code"]["dirty"] else "")
    return [*lines, f"Code {code}; torch {facts['packages']['torch']}."]


def _text(value: float | None, decimals: int | None) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"


def _published(row: Row) -> str:
    """FPS that others print for the method, each with its hardware."""
    return "; ".join(f"{speed.fps:g} ({speed.hardware})" for speed in row.published) or NONE


def as_markdown(bench: Mapping[str, Any]) -> str:
    """Both tables, a caption above, notes below."""
    rows = rows_of(bench)
    heads = ["method", "preset", *(head for _, head, _ in COLUMNS), "published FPS"]
    body = [
        [row.label, f"`{row.method}`", *(_text(row.values[key], places) for key, _, places in COLUMNS), _published(row)] for row in rows
    ]  # fmt: skip
    lines = [*_spaced(caption(bench)), *_grid(heads, body, 2), ""]
    lines += _spaced(f"{row.label}: {note}." for row in rows for note in row.notes)
    lines += _spaced(f"`{method}` was not measured: {error}" for method, error in bench.get("failed", {}).items())
    lines += ["Published, by their authors and on their machines; frames of 832x480, decoding not included unless the remark says so:", ""]
    said = [[s.method, _text(s.fps, 2), s.block_ms or NONE, s.hardware, s.remark, s.source] for s in speeds()]
    return "\n".join([*lines, *_grid(["method", "FPS", "block, ms", "hardware", "remark", "source"], said, 1), ""])


def _spaced(lines: Iterable[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]


def _grid(heads: Sequence[str], body: Sequence[Sequence[str]], words: int) -> list[str]:
    """A Markdown table whose first `words` columns are words."""
    rule = "|" + "---|" * words + "---:|" * (len(heads) - words)
    return [f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(line)} |" for line in body)]


def as_csv(bench: Mapping[str, Any]) -> str:
    """One table: a line for each measured method, then for each published speed; `kind` tells them apart."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    told = ("backbone", "weights", "geometry", "device", "device_name", "dtype", "kernel", "compile", "window")
    writer.writerow(["kind", "method", *told, *(key for key, *_ in COLUMNS), "fps", "published_block_ms", "remark", "source"])
    for row in rows_of(bench):
        cells = ["" if row.values[key] is None else f"{row.values[key]:.4f}" for key, *_ in COLUMNS]
        writer.writerow(
            ["measured", row.method, *(bench[name] for name in told), *cells, f"{row.values['fps_dit']:.4f}", "", "", "jobs.bench.command"]
        )
    for s in speeds():
        device = ["", "", "", "", s.hardware, "", "", "", ""]
        fps = "" if s.fps is None else f"{s.fps:.4f}"
        writer.writerow(["published", s.ours or s.method, *device, *[""] * len(COLUMNS), fps, s.block_ms, s.remark, s.source])
    return out.getvalue()


def as_latex(bench: Mapping[str, Any]) -> str:
    """For booktabs: speeds and memory, published FPS in the last column."""
    keys = (
        "block_ms",
        "block_ms_p95",
        "fps_dit",
        "fps_end_to_end",
        "overhead_percent",
        "hard_ms",
        "recache_ms",
        "memory_gb",
        "percent_of_peak",
    )
    shown = [column for column in COLUMNS if column[0] in keys]
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{" + escape(" ".join(caption(bench))) + "}",
        r"\label{tab:speed}",
        r"\begin{tabular}{ll" + "r" * len(shown) + "l}",
        r"\toprule",
        "Method & Preset & " + " & ".join(escape(head) for _, head, _ in shown) + r" & published FPS \\",
        r"\midrule",
    ]
    for row in rows_of(bench):
        cells = ["--" if row.values[key] is None else _text(row.values[key], places) for key, _, places in shown]
        published = escape(_published(row)) if row.published else "--"
        lines.append(rf"{escape(row.label)} & \texttt{{{escape(row.method)}}} & {' & '.join(cells)} & {published} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def command(words: Sequence[str]) -> list[str]:
    """`bench=FILE out=FOLDER`, both optional; the lines to show. Raises ValueError for words or files that are not understood."""
    given, _ = parse(words, {"bench": "", "out": str(Path("results") / "tables")})
    path = Path(given["bench"]) if given["bench"] else newest()
    bench, folder = read(path), Path(given["out"])
    folder.mkdir(parents=True, exist_ok=True)
    for ending, content in (("md", as_markdown(bench)), ("csv", as_csv(bench)), ("tex", as_latex(bench))):
        (folder / f"speed.{ending}").write_text(content, encoding="utf-8")
    return [as_markdown(bench), f"table: {folder / 'speed'}.md, .csv, .tex, from {path}"]
