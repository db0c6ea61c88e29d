"""A table of speeds that `echo-harness bench` measured, beside published ones, each with its machine and source."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from data.outgoing import without_formulas
from data.published import speeds
from echo.files import RESULTS, Json, read_json, read_text
from echo.refusals import first_line
from eval.store.records import Provenance
from eval.tables.grid import NOTHING
from eval.tables.latex import escape
from eval.tables.text import markdown_table, spaced

FOLDER = Path("results") / "bench"
KINDS = ("smooth", "hard", "recall")
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
"""(key, heading, decimals, path in the file) of each measurement; decimals None: three significant digits; bytes become GB."""
PRINTED = (
    "block_ms", "block_ms_p95", "fps_dit", "fps_end_to_end", "overhead_percent", "hard_ms", "recache_ms", "memory_gb", "percent_of_peak",
)  # fmt: skip
"""Columns that fit on a page in LaTeX."""
FACTS = ("backbone", "weights", "geometry", "device", "device_name", "dtype", "kernel", "compile", "window")
"""Facts of the measurement in each line of the CSV."""


class _Method(msgspec.Struct):
    method: str
    label: str | None
    notes: list[str]


class SpeedFile(msgspec.Struct):
    """A bench file, checked as far as tables read it."""

    label: str
    frame_px: tuple[int, int]
    backbone: str
    weights: str
    geometry: str
    device: str
    device_name: str
    dtype: str
    kernel: str
    compile: str
    window: str
    batch: str | int
    decoder: str
    codec_dtype: str
    clock: str
    provenance: Provenance
    methods: list[_Method]
    failed: dict[str, str] = {}


def read(path: Path) -> Json:
    """The content of a bench file. Raises ValueError for any other file."""
    if not path.exists():
        raise ValueError(f"bench={path}: no such file; echo-harness bench backbone=self_forcing makes one")
    try:
        bench = read_json(read_text(path), str(path))
    except ValueError as error:
        raise ValueError(f"bench={error}") from None
    if not isinstance(bench, dict) or bench.get("what") != "speed":
        raise ValueError(f'bench={path}: not a speed measurement of echo-harness bench; nearest is a file whose "what" is "speed"')
    try:
        said, numbers = msgspec.convert(bench, SpeedFile), measured(bench)
        if not said.methods or numbers.isin([math.inf, -math.inf]).any(axis=None) or "torch" not in said.provenance.packages:
            raise ValueError("no methods, a speed without end, or no version of torch")
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"bench={path}: not as echo-harness bench writes it ({first_line(error)[:200]}); measure again") from None
    return bench | {"provenance": msgspec.to_builtins(said.provenance)}


def newest(folder: Path = FOLDER) -> Path:
    """The latest speed measurement of a folder. Raises ValueError if there is none."""
    for path in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        with contextlib.suppress(OSError):
            if path.is_file() and b'"what": "speed"' in path.read_bytes()[:200]:
                return path
    raise ValueError(f"{folder}: no speed measurement; echo-harness bench backbone=self_forcing makes one, bench=FILE names another")


def measured(bench: Mapping[str, Any]) -> pd.DataFrame:
    """[methods, columns] of `COLUMNS`, float64, by preset; NaN for missing values."""
    numbers = pd.json_normalize(bench["methods"]).set_index("method").reindex(columns=[place for *_, place in COLUMNS]).astype("float64")
    sizes = [place for place in numbers if place.endswith("_bytes")]
    numbers[sizes] /= 1e9
    return numbers.set_axis([key for key, *_ in COLUMNS], axis=1)


def printed(bench: Mapping[str, Any], keys: Iterable[str]) -> pd.DataFrame:
    """A row of texts for each method, by preset: label, some columns under their headings, published FPS."""
    numbers = measured(bench)
    texts = {"method": [method["label"] or method["method"] for method in bench["methods"]]}
    for key, heading, decimals, _ in COLUMNS:
        if key in keys:
            texts[heading] = [_text(value, decimals) for value in numbers[key]]
    others = [[f"{speed.fps:g} ({speed.hardware})" for speed in speeds() if speed.ours == name and speed.fps] for name in numbers.index]
    return pd.DataFrame(texts | {"published FPS": ["; ".join(one) or NOTHING for one in others]}, numbers.index)


def caption(bench: Mapping[str, Any]) -> list[str]:
    """Description of the measurement, in sentences."""
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
    if value is None or value != value:
        return NOTHING
    return f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"


def as_markdown(bench: Mapping[str, Any]) -> str:
    """Measured and published speeds, with a caption above and notes below."""
    rows = printed(bench, [key for key, *_ in COLUMNS])
    lines = [[label, f"`{method}`", *texts] for method, label, *texts in rows.itertuples(name=None)]
    notes = [f"{label}: {note}." for label, method in zip(rows["method"], bench["methods"]) for note in method["notes"]]
    notes += [f"`{method}` was not measured: {error}" for method, error in bench.get("failed", {}).items()]
    notes.append("Published, by their authors and on their machines; frames of 832x480, decoding not included unless the remark says so:")
    published = [[s.method, _text(s.fps, 2), s.block_ms or NOTHING, s.hardware, s.remark, s.source] for s in speeds()]
    parts = [*spaced(caption(bench)), *markdown_table(["method", "preset"], rows.columns[1:], lines), "", *spaced(notes)]
    return "\n".join([*parts, *markdown_table(["method"], ["FPS", "block, ms", "hardware", "remark", "source"], published), ""])


def as_csv(bench: Mapping[str, Any]) -> str:
    """One table: a line for each measured method, then for each published speed, distinguished by `kind`."""
    own = measured(bench).reset_index().assign(kind="measured", source="echo-harness bench", **{name: bench[name] for name in FACTS})
    others = pd.DataFrame([vars(speed) for speed in speeds()]).assign(kind="published")
    others["method"] = others["ours"].fillna(others["method"])
    others = others.rename(columns={"block_ms": "published_block_ms", "hardware": "device_name"})
    head = ["kind", "method", *FACTS, *(key for key, *_ in COLUMNS), "fps", "published_block_ms", "remark", "source"]
    lines = pd.concat([own.assign(fps=own["fps_dit"]), others])
    return str(without_formulas(lines).to_csv(columns=head, index=False, float_format="%.4f", lineterminator="\n"))


def as_latex(bench: Mapping[str, Any]) -> str:
    """LaTeX for booktabs: speeds and memory, published FPS in the last column."""
    rows = printed(bench, PRINTED).replace(NOTHING, "--")
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        r"\caption{" + escape(" ".join(caption(bench))) + "}",
        r"\label{tab:speed}",
        r"\begin{tabular}{ll" + "r" * len(PRINTED) + "l}",
        r"\toprule",
        " & ".join(["Method & Preset", *map(escape, rows.columns[1:])]) + r" \\",
        r"\midrule",
    ]
    for method, label, *texts in rows.itertuples(name=None):
        lines.append(rf"{escape(label)} & \texttt{{{escape(method)}}} & {' & '.join(map(escape, texts))} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def table(bench: Path | None = None, *, output: Path = RESULTS / "tables") -> list[str]:
    """Write measured speeds beside published ones: speed.md, speed.csv and speed.tex.

        echo-harness tables speed
        echo-harness tables speed bench=results/bench/speed.json --output tables

    Args:
        bench: a file that `echo-harness bench` wrote; the newest in results/bench by default.
        output: the folder.
    """
    path = bench or newest()
    content = read(path)
    output.mkdir(parents=True, exist_ok=True)
    for ending, text in (("md", as_markdown(content)), ("csv", as_csv(content)), ("tex", as_latex(content))):
        (output / f"speed.{ending}").write_text(text, encoding="utf-8")
    return [as_markdown(content), f"table: {output / 'speed'}.md, .csv, .tex, from {path}"]
