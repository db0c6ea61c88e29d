"""Tables from a store: rows, marks, forms, and the same bytes however they are asked for."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import subprocess
import sys

import pytest

from echo.scene import Prompt
from eval import tables
from eval.grid import Cell, Row, as_latex, as_markdown, as_text, escape
from eval.protocol import TASKS
from jobs.config import ROOT, BackboneConfig, EvalConfig, MethodConfig, NoiseConfig, RunConfig, TaskConfig, VideoConfig
from jobs.plan import Job
from jobs.store import Attempt, RunFolder, new_attempt

PROMPTS = tuple(Prompt(f"p{i}", ("a red ball",), (60.0,), ("",)) for i in range(3))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that puts one run with made-up scores into a store."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    store = tmp_path / "store"

    def run(method="echo", settings=None, seed=0, prompts=PROMPTS, asked=None, shift=0.0, task="recall", names=None, lost=()):
        from echo.cache.policy import make

        policy = make("echo" if method.startswith("echo") else method, {"label": f"Label of {method}", **(settings or {})})
        config = RunConfig(
            backbone=BackboneConfig("tiny", "tiny", str(weights), "float32", 1, 1, None),
            method=MethodConfig(method, "echo", settings or {}),
            task=TaskConfig(task, f"Task {task}", "none"),
            eval=EvalConfig("embedded", "embedded world, embedded scorer", "embedded", str(weights)),
            noise=NoiseConfig(repeat_initial=False),
            video=VideoConfig(256, 18),
            seed=seed,
            batch=1,
            duration_scale=1.0,
            prompts=len(asked or prompts),
            shard=None,
            store=str(store),
            max_workers=None,
            max_tries=3,
        )
        folder = RunFolder(Job(config, policy, asked or prompts))
        folder.describe()
        attempt = Attempt(folder, new_attempt(), {})
        for index, prompt in enumerate(prompts):
            if prompt not in lost:
                metrics = dict.fromkeys(names or ("proxy.text_alignment", "temporal_flickering"), 80 + shift + index + seed / 10)
                attempt.ok(prompt, metrics, {"latents_sha256": "0"})
        return folder

    run.store = store
    return run


def read(store, task="recall"):
    return list(csv.DictReader((store / "tables" / f"{task}.csv").open(encoding="utf-8")))


def test_rows_columns_and_numbers(write):
    write("echo", shift=1.0), write("self_forcing")
    tables.make(write.store)
    rows = read(write.store)
    assert [row["preset"] for row in rows] == ["echo", "self_forcing"]
    assert [float(row["text_alignment"]) for row in rows] == [82.0, 81.0]
    assert rows[0]["text_alignment_metric"] == "proxy.text_alignment" and rows[0]["temporal_flickering_metric"] == "temporal_flickering"
    assert rows[0]["aesthetic_quality"] == "" and rows[0]["aesthetic_quality_n"] == "0"
    dimensions = [name for name in rows[0] if name in tables.INTERACTIVE]
    assert dimensions == list(tables.INTERACTIVE) and set(tables.LONG) == set(tables.INTERACTIVE) and len(tables.LONG) == 8


def test_columns_are_the_protocol():
    for task, dimensions in TASKS.items():
        assert set(tables.ORDER[task]) == set(dimensions) and len(tables.ORDER[task]) == len(dimensions)


def test_seeds_are_averaged_in_one_row(write):
    write("echo", seed=0), write("echo", seed=1)
    tables.make(write.store)
    (row,) = read(write.store)
    assert row["videos"] == "6" and float(row["text_alignment"]) == pytest.approx(81.05)


def test_setting_that_varies_names_the_rows(write):
    write("echo", {"drift_gate_lambda": 1.0}), write("echo", {"drift_gate_lambda": 2.0}), write("self_forcing")
    tables.make(write.store)
    names = [(row["preset"], row["variant"]) for row in read(write.store)]
    assert names == [("echo", "drift_gate_lambda=1.0"), ("echo", "drift_gate_lambda=2.0"), ("self_forcing", "")]


def test_fewer_than_asked_is_marked_and_not_ranked(write):
    write("echo", shift=5.0, lost=PROMPTS[:1]), write("self_forcing"), write("infinity_rope", shift=1.0)
    lines = "\n".join(tables.make(write.store))
    assert "83" not in lines.split("self_forcing")[1].splitlines()[0]
    text = (write.store / "tables" / "recall.md").read_text(encoding="utf-8")
    echo = next(line for line in text.splitlines() if "`echo`" in line)
    best = next(line for line in text.splitlines() if "`infinity_rope`" in line)
    assert "†" in echo and "**" not in echo and "**82.00" in best and "fewer prompts or seeds" in text


def test_run_that_never_started_is_seen(write):
    write("echo"), write("self_forcing", lost=PROMPTS)
    tables.make(write.store)
    rows = {row["preset"]: row for row in read(write.store)}
    assert rows["self_forcing"]["videos"] == "0" and rows["self_forcing"]["videos_asked"] == "3"


def test_edited_prompt_counts_only_as_last_asked(write):
    write("echo", shift=9.0)
    edited = (dataclasses.replace(PROMPTS[0], scenes=("a blue ring",)), *PROMPTS[1:])
    write("echo", prompts=edited[:1], asked=edited, shift=-9.0)
    tables.make(write.store)
    (row,) = read(write.store)
    assert row["videos"] == "3" and float(row["text_alignment"]) == pytest.approx((71 + 90 + 91) / 3, abs=1e-3)


def test_tasks_have_files_of_their_own(write):
    write(task="recall"), write(task="long60")
    tables.make(write.store, ["long60"])
    assert sorted(p.name for p in (write.store / "tables").iterdir()) == ["long60.csv", "long60.md", "long60.tex"]
    tables.make(write.store)
    assert (write.store / "tables" / "recall.tex").exists()


def test_command_makes_the_same_bytes_from_the_store_alone(write, tmp_path):
    write("echo", shift=1.0), write("self_forcing", seed=1), write("infinity_rope", lost=PROMPTS[2:])
    tables.make(write.store, ["recall"])
    moved = tmp_path / "elsewhere"
    shutil.copytree(write.store, moved)
    shutil.rmtree(moved / "tables")
    done = subprocess.run(
        [sys.executable, "-m", "eval.tables", f"store={moved}"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    for path in (write.store / "tables").iterdir():
        assert path.read_bytes() == (moved / "tables" / path.name).read_bytes()
    assert str(moved / "tables" / "recall.md") in done.stdout.replace("recall.md,", "recall.md")


def test_wrong_store_is_refused(tmp_path):
    assert tables.main([f"store={tmp_path / 'none'}"]) == 1
    assert tables.main(["stor=x"]) == 1


def grids(write):
    write("echo", shift=1.0), write("self_forcing")
    return [tables._grid(block) for block in tables.gather(write.store)]


def test_latex_form(write):
    text = as_latex(grids(write))
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{82.00} $\pm$", r"\underline{81.00} $\pm$", r"\texttt{self\_forcing}"):
        assert part in text
    assert text.count("{") == text.count("}") and "_forcing" not in text.replace(r"\_forcing", "")
    body = [line for line in text.splitlines() if r"\texttt" in line]
    assert all(line.count("&") == 10 for line in body)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(write, tmp_path):
    text = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + as_latex(grids(write)) + r"\end{document}"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_every_form_says_where_numbers_come_from(write):
    (grid,) = grids(write)
    for text in (as_text(grid, False), as_markdown([grid]), as_latex([grid])):
        for part in ("tiny", grid.weights, "embedded world, embedded scorer", "(proxy)", "3 prompts"):
            assert part in text


def test_terminal_form_fits_and_styles(write):
    (grid,) = grids(write)
    assert max(len(line) for line in as_text(grid, False).splitlines()[2:-2]) <= 150
    assert "\x1b[1m" in as_text(grid, True) and "\x1b" not in as_text(grid, False)


def test_escaping():
    assert escape(r"a & b_c 50% {x} \ ~ ^ ∞") == (
        r"a \& b\_c 50\% \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} $\infty$"
    )


def test_ties_share_a_place(write):
    write("echo"), write("self_forcing"), write("infinity_rope", shift=-1.0)
    tables.make(write.store)
    text = (write.store / "tables" / "recall.md").read_text(encoding="utf-8")
    assert text.count("**81.00") == 4 and text.count("<u>80.00") == 2


def test_single_row_has_no_best(write):
    write("echo")
    tables.make(write.store)
    assert "**" not in (write.store / "tables" / "recall.md").read_text(encoding="utf-8")


def test_row_name_without_variant():
    assert Row("L", "echo", "", 1, (Cell(None, False, None),)).name == "echo"


def test_unit_that_came_out_differently_is_told(write):
    write("echo"), write("echo", shift=1.0)
    lines = tables.make(write.store)
    assert sum("not reproduced: echo p" in line for line in lines) == 3
    assert float(read(write.store)[0]["text_alignment"]) == 81.0
