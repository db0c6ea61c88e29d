"""The table of speeds: what was measured and what others publish, told apart, sourced and labelled."""

from __future__ import annotations

import csv
import io
import json

import pytest

from data.published import numbers, speeds
from echo.files import ROOT
from eval.tables import speed
from jobs import cli

MS = {"median": 500.0, "p95": 510.0, "list": [500.0, 490.0, 510.0]}


def method(name: str, label: str, recache: dict | None = None, notes: tuple[str, ...] = ()) -> dict:
    return {
        "method": name,
        "label": label,
        "block_ms": MS,
        "pass_ms": {"denoise_1": {"median": 104.0}, "clean": {"median": 95.0}},
        "fps_dit": 24.0,
        "fps_end_to_end": 15.5,
        "stream": {"first_frames_ms": 812.0, "gap_ms": {"median": 770.0, "p95": 790.0}},
        "codec_ms": {"median": 270.0},
        "switch_ms": {"smooth": {"median": 480.0}, "hard": {"median": 300.0}, "recall": {"median": 320.0}, "recache": recache},
        "overhead": {"percent": 1.25},
        "memory": {"measured_bytes": 15_250_000_000, "computed_bytes": 15_000_000_000},
        "tflops": 400.125,
        "percent_of_peak": 40.5,
        "notes": list(notes),
    }


def bench(**changes: object) -> dict:
    head = {
        "v": 1, "what": "speed", "backbone": "self_forcing", "label": "Self-Forcing, Wan2.1-1.3B", "weights": "random",
        "geometry": "native", "frame_px": [480, 832], "device": "cuda", "device_name": "NVIDIA H200", "dtype": "bfloat16",
        "kernel": "sdpa", "compile": "none", "clock": "CUDA events",
        "window": "shared", "decoder": "wan", "codec_dtype": "bfloat16", "batch": "1",
        "provenance": {"code": {"commit": "0123456789abcdef", "dirty": None}, "packages": {"torch": "2.13.0"}},
        "methods": [
            method("echo", "Echo-Forcing"),
            method("longlive", "LongLive", {"median": 240.0}, ("3 steady blocks instead of 20: time",)),
            method("forget", ""),
        ],
    }  # fmt: skip
    return head | changes


def test_markdown_has_measured_beside_published():
    text = speed.as_markdown(bench())
    line = next(line for line in text.splitlines() if line.startswith("| Echo-Forcing | `echo`"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:8] == ["500.0", "510.0", "104.0", "95.0", "24.00", "15.50"] and cells[-1] == "15.71 (H100)"
    assert "40.5" in cells and "15.2" in cells and "15" in cells
    longlive = next(line for line in text.splitlines() if "`longlive`" in line)
    assert "240.0" in longlive and "20.7 (H100); 18.16 (H100); 20.7 (H100); 23 (H100 SXM)" in longlive
    assert "| forget | `forget`" in text and text.count("LongLive: 3 steady blocks instead of 20: time.") == 1
    for words in ("NVIDIA H200 (cuda)", "bfloat16", "kernel sdpa", "weights random", "0123456789", "torch 2.13.0"):
        assert words in text.split("| method")[0]


def test_what_is_no_native_run_on_a_card_says_so():
    plain, warning = speed.as_markdown(bench()), "says nothing of speed at 832x480"
    assert warning not in plain
    for change in ({"geometry": "tiny", "frame_px": [64, 96]}, {"device": "cpu"}):
        for form in (speed.as_markdown, speed.as_latex):
            assert warning in form(bench(**change))


def test_a_method_that_failed_is_told():
    assert "`oracle` was not measured: CUDA out of memory." in speed.as_markdown(bench(failed={"oracle": "CUDA out of memory."}))


def test_csv_keeps_kinds_apart():
    rows = list(csv.DictReader(io.StringIO(speed.as_csv(bench()))))
    kinds = [row["kind"] for row in rows]
    assert kinds == ["measured"] * 3 + ["published"] * len(speeds())
    echo = rows[0]
    assert (echo["method"], echo["device_name"], echo["fps"], echo["recache_ms"], echo["percent_of_peak"]) == (
        "echo",
        "NVIDIA H200",
        "24.0000",
        "",
        "40.5000",
    )
    assert all(row["source"] for row in rows) and not any(row["block_ms"] for row in rows[3:])


def test_latex_escapes_and_has_dashes():
    text = speed.as_latex(bench())
    assert r"\texttt{echo}" in text and r"\%" in text and text.count(r"\begin{tabular}") == 1
    echo = next(line for line in text.splitlines() if line.startswith("Echo-Forcing"))
    assert "& -- &" in echo and echo.endswith(r"\\"), "no recache, so a dash"


def test_published_speeds_are_sourced_and_named():
    found = speeds()
    assert len(found) == 6 + 15 and all(s.source and s.hardware for s in found)
    assert {s.method for s in found if s.fps is None} == {"MemRoPE"}
    paper = {s.method: s.fps for s in found if s.source.startswith("Echo-Forcing")}
    assert (
        paper == {n.method: n.value for n in numbers() if (n.table, n.task, n.metric) == ("1", "60s", "fps")}
        and paper["Echo-Forcing"] == 15.71
    )


def test_our_names_of_published_speeds_exist():
    from baselines.presets import preset

    for name in {s.ours for s in speeds()} - {None}:
        assert preset("method", name)


def test_command_writes_three_forms(tmp_path, capsys):
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(bench()))
    assert cli.main(["tables", "speed", f"bench={file}", "--output", str(tmp_path / "tables")]) == 0
    said = capsys.readouterr().out
    assert "15.71 (H100)" in said and {path.name for path in (tmp_path / "tables").iterdir()} == {"speed.md", "speed.csv", "speed.tex"}


def test_what_the_bench_wrote_is_read():
    assert len(speed.measured(speed.read(ROOT / "docs" / "data" / "bench_tiny_cpu.json"))) > 1


def test_the_newest_measurement_counts(tmp_path):
    import os

    folder = tmp_path / "bench"
    folder.mkdir()
    for age, (name, what) in enumerate([("parity", "parity"), ("new", "speed"), ("old", "speed")]):
        (folder / f"{name}.json").write_text(json.dumps(bench(what=what), indent=1))
        os.utime(folder / f"{name}.json", (1000 - age, 1000 - age))
    assert speed.newest(folder).name == "new.json"
    with pytest.raises(ValueError, match="no speed measurement; echo-harness bench"):
        speed.newest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; echo-harness bench"),
        ("{", "not JSON"),
        ('{"what": "parity"}', "not a speed measurement"),
        ("[]", "not a speed"),
        ('{"a":' * 100_000, "lists or objects within each other without end"),
        (json.dumps(bench(clock=None)), "not as echo-harness bench writes it (Expected `str`, got `null` - at `$.clock`); measure again"),
        (json.dumps(bench(methods=[])), "not as echo-harness bench writes it"),
        (json.dumps(bench()).replace("24.0", "1e400"), "a speed without end"),
        (json.dumps(bench()).replace("24.0", '"fast"'), "not as echo-harness bench writes it"),
    ],
)
def test_other_files_are_refused(tmp_path, capsys, content, message):
    file = tmp_path / "x.json"
    if content is not None:
        file.write_text(content)
    assert cli.main(["tables", "speed", f"bench={file}"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_words_that_are_not_understood_are_refused(capsys):
    assert cli.main(["tables", "speed", "bnech=x"]) == 2
    assert "bnech=x: not understood; nearest is bench=" in capsys.readouterr().err
