"""Speeds that `echo-harness bench` measured, as a table beside those that others publish.

Measured and published stand in columns of their own: the one on the device
that the caption names, the other on their authors' machines, with their source in the second table.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.published import Speed, speeds
from echo.files import RESULTS
from eval.tables.grid import NOTHING
from eval.tables.latex import escape
from eval.tables.text import markdown, markdown_head, spaced

FOLDER = Path("results") / "bench"
KINDS = ("smooth", "hard", "recall")


@dataclass(frozen=True)
class SpeedRow:
    """One method: all measured values by column, None where nothing was measured; `published` from the same method elsewhere."""

    method: str
    label: str
    values: Mapping[str, float | None]
    published: tuple[Speed, ...]
    notes: tuple[str, ...]


COLUMNS = (
    ("block_ms", "block, ms", 1, "block_ms.median"),
    ("block_ms_p95", "p95", 1, "block_ms.p95"),
    ("first_pass_ms", "first pass, ms", 1, "pass_ms.denoise_1.median"),
    ("clean_pass_ms", "clean pass, ms", 1, "pass_ms.clean.median"),
    ("fps_dit", "FPS, DiT", 2, "fps_dit"),
    ("fps_end_to_end", "FPS, end to end", 2, "fps_end_to_end"),
    ("first_frames_ms", "first frames, ms", 0, "stream.first_frames_ms"),
    ("gap_ms", "gap, ms", 1, "stream.gap_ms.median"),
    ("gap_ms_p95", "gap p95", 1, "stream.gap_ms.p95"),
    ("overhead_percent", "overhead, %", 2, "overhead.percent"),
    *((f"{kind}_ms", f"behind {kind}, ms", 1, f"switch_ms.{kind}.median") for kind in KINDS),
    ("recache_ms", "recache, ms", 1, "switch_ms.recache.median"),
    ("codec_ms", "codec, ms a block", 1, "codec_ms.median"),
    ("memory_gb", "memory, GB", None, "memory.measured_bytes"),
    ("computed_gb", "computed, GB", None, "memory.computed_bytes"),
    ("tflops", "TFLOP/s", 2, "tflops"),
    ("percent_of_peak", "% of peak", 1, "percent_of_peak"),
)
"""(key, heading, decimals, place in the file) of what is measured; None: three digits, wherever the point is; bytes become GB."""
PRINTED = (
    "block_ms", "block_ms_p95", "fps_dit", "fps_end_to_end", "overhead_percent", "hard_ms", "recache_ms", "memory_gb", "percent_of_peak",
)  # fmt: skip
"""Columns that a page in LaTeX has room for."""


def read(path: Path) -> dict[str, Any]:
    """A bench file. Raises ValueError for a file that is none."""
    try:
        bench = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"bench={path}: no such file; echo-harness bench backbone=self_forcing makes one") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"bench={path}: not JSON ({error.msg} in line {error.lineno})") from None
    if not isinstance(bench, dict) or bench.get("what") != "speed":
        raise ValueError(f'bench={path}: not a speed measurement of echo-harness bench; nearest is a file whose "what" is "speed"')
    return bench


def newest(folder: Path = FOLDER) -> Path:
    """The latest speed measurement of a folder. Raises ValueError where there is none."""
    for path in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        if '"what": "speed"' in path.read_text(encoding="utf-8")[:200]:
            return path
    raise ValueError(f"{folder}: no speed measurement; echo-harness bench backbone=self_forcing makes one, bench=FILE names another")


def rows_of(bench: Mapping[str, Any]) -> list[SpeedRow]:
    """A row for each measured method."""
    return [_row(measured) for measured in bench["methods"]]


def _row(measured: Mapping[str, Any]) -> SpeedRow:
    values = {key: _value(measured, place) for key, _, _, place in COLUMNS}
    published = tuple(speed for speed in speeds() if speed.ours == measured["method"] and speed.fps is not None)
    return SpeedRow(measured["method"], measured["label"] or measured["method"], values, published, tuple(measured["notes"]))


def _value(measured: Mapping[str, Any], place: str) -> float | None:
    """The number at a dotted place; None where the method has no such thing."""
    value: Any = measured
    for key in place.split("."):
        value = None if value is None else value.get(key)
    return value / 1e9 if place.endswith("_bytes") else value


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
        return NOTHING
    return f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"


def _texts(row: SpeedRow, columns: Iterable[tuple[str, str, int | None, str]]) -> list[str]:
    return [_text(row.values[key], decimals) for key, _, decimals, _ in columns]


def _published(row: SpeedRow) -> str:
    """FPS that others print for the method, each with its hardware."""
    return "; ".join(f"{speed.fps:g} ({speed.hardware})" for speed in row.published) or NOTHING


def as_markdown(bench: Mapping[str, Any]) -> str:
    """Both tables, a caption above, notes below."""
    rows = rows_of(bench)
    lines = [*spaced(caption(bench)), *markdown_head(["method", "preset"], [*(head for _, head, *_ in COLUMNS), "published FPS"])]
    lines += [markdown([row.label, f"`{row.method}`", *_texts(row, COLUMNS), _published(row)]) for row in rows]
    lines += ["", *spaced(f"{row.label}: {note}." for row in rows for note in row.notes)]
    lines += spaced(f"`{method}` was not measured: {error}" for method, error in bench.get("failed", {}).items())
    lines += ["Published, by their authors and on their machines; frames of 832x480, decoding not included unless the remark says so:", ""]
    lines += markdown_head(["method"], ["FPS", "block, ms", "hardware", "remark", "source"])
    lines += [markdown([s.method, _text(s.fps, 2), s.block_ms or NOTHING, s.hardware, s.remark, s.source]) for s in speeds()]
    return "\n".join([*lines, ""])


def as_csv(bench: Mapping[str, Any]) -> str:
    """One table: a line for each measured method, then for each published speed; `kind` tells them apart."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    facts = ("backbone", "weights", "geometry", "device", "device_name", "dtype", "kernel", "compile", "window")
    writer.writerow(["kind", "method", *facts, *(key for key, *_ in COLUMNS), "fps", "published_block_ms", "remark", "source"])
    for row in rows_of(bench):
        cells = ["" if row.values[key] is None else f"{row.values[key]:.4f}" for key, *_ in COLUMNS]
        writer.writerow(
            ["measured", row.method, *(bench[name] for name in facts), *cells, f"{row.values['fps_dit']:.4f}", "", "", "echo-harness bench"]
        )
    for s in speeds():
        device = ["", "", "", "", s.hardware, "", "", "", ""]
        fps = "" if s.fps is None else f"{s.fps:.4f}"
        writer.writerow(["published", s.ours or s.method, *device, *[""] * len(COLUMNS), fps, s.block_ms, s.remark, s.source])
    return out.getvalue()


def as_latex(bench: Mapping[str, Any]) -> str:
    """For booktabs: speeds and memory, published FPS in the last column."""
    shown = [column for column in COLUMNS if column[0] in PRINTED]
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{" + escape(" ".join(caption(bench))) + "}",
        r"\label{tab:speed}",
        r"\begin{tabular}{ll" + "r" * len(shown) + "l}",
        r"\toprule",
        "Method & Preset & " + " & ".join(escape(head) for _, head, *_ in shown) + r" & published FPS \\",
        r"\midrule",
    ]
    for row in rows_of(bench):
        cells = ["--" if text == NOTHING else text for text in _texts(row, shown)]
        published = escape(_published(row)) if row.published else "--"
        lines.append(rf"{escape(row.label)} & \texttt{{{escape(row.method)}}} & {' & '.join(cells)} & {published} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def table(bench: Path | None = None, *, output: Path = RESULTS / "tables") -> list[str]:
    """Put measured speeds beside those that others publish: speed.md, speed.csv and speed.tex.

        echo-harness tables speed
        echo-harness tables speed bench=results/bench/speed.json --output tables

    Args:
        bench: a file that `echo-harness bench` wrote; the newest in results/bench by default.
        output: the folder.
    """
    path = bench or newest()
    measured = read(path)
    output.mkdir(parents=True, exist_ok=True)
    for ending, content in (("md", as_markdown(measured)), ("csv", as_csv(measured)), ("tex", as_latex(measured))):
        (output / f"speed.{ending}").write_text(content, encoding="utf-8")
    return [as_markdown(measured), f"table: {output / 'speed'}.md, .csv, .tex, from {path}"]
