"""Tables from a store: rows, marks, forms, and the same bytes however they are asked for."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import subprocess

import pytest

from echo.files import ROOT
from echo.scene import Prompt
from eval import metrics
from eval.protocol import TASKS
from eval.store.records import Provenance
from eval.store.rows import gather, sources
from eval.tables import command
from eval.tables.build import grid_of
from eval.tables.grid import TableCell, TableRow
from eval.tables.latex import PREAMBLE, as_latex, escape
from eval.tables.text import as_markdown, as_summary, as_text
from jobs import cli
from jobs.spec.config import BackboneConfig, EvalConfig, MethodConfig, NoiseConfig, RunConfig, TaskConfig, VideoConfig
from jobs.spec.plan import Job
from jobs.store.folder import Attempt, RunFolder, new_attempt, write_sweep
from tests.helpers.command import ECHO_HARNESS
from tests.helpers.latex import document

PROMPTS = tuple(Prompt(f"p{i}", ("a red ball",), (60.0,), ("",)) for i in range(3))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that puts one run with made-up scores into a store."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    store = tmp_path / "store"

    def run(method="echo", settings=None, seed=0, prompts=PROMPTS, asked=None, shift=0.0, task="recall", names=None, lost=(), **more):
        from baselines.registry import make
        from data.world.film import Render

        kind = "echo" if method.startswith(("echo", "longlive_echo")) else method
        rendered, backbone = method.startswith("render"), more.pop("backbone", "tiny")
        policy = Render(label=method) if rendered else make(kind, {"label": f"Label of {method}", **(settings or {})})
        config = RunConfig(
            backbone=BackboneConfig(backbone, backbone, str(weights), "float32", 1, 1, None),
            method=MethodConfig(method, "render" if rendered else "echo", settings or {}),
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
        config = dataclasses.replace(config, **more)
        scale = config.duration_scale
        asked = [dataclasses.replace(p, durations_s=tuple(d * scale for d in p.durations_s)) for p in asked or prompts]
        folder = RunFolder(Job(config, policy, tuple(asked)))
        folder.describe()
        attempt = Attempt(folder, new_attempt(), Provenance())
        for index, prompt in enumerate(prompts):
            if prompt not in lost:
                metrics = dict.fromkeys(names or ("proxy.text_alignment", "temporal_flickering"), 80 + shift + index + seed / 10)
                attempt.ok(asked[index], metrics, {"latents_sha256": "0"})
        return folder

    run.store = store
    return run


def read(store, task="recall"):
    return list(csv.DictReader((store / "tables" / f"{task}.csv").open(encoding="utf-8")))


def test_rows_columns_and_numbers(write):
    write("echo", shift=1.0), write("self_forcing")
    command.make(write.store)
    rows = read(write.store)
    assert [row["preset"] for row in rows] == ["echo", "self_forcing"]
    assert [float(row["text_alignment"]) for row in rows] == [82.0, 81.0]
    assert rows[0]["text_alignment_metric"] == "proxy.text_alignment" and rows[0]["temporal_flickering_metric"] == "temporal_flickering"
    assert rows[0]["aesthetic_quality"] == "" and rows[0]["aesthetic_quality_n"] == "0"
    dimensions = [name for name in rows[0] if name in metrics.dimensions("interactive")]
    assert dimensions == list(metrics.dimensions("interactive")) and len(dimensions) == 8


def test_columns_are_the_protocol():
    for task, dimensions in TASKS.items():
        shown = metrics.dimensions(metrics.kind_of(task))
        assert set(shown) == set(dimensions) and len(shown) == len(dimensions) == 8


def test_seeds_are_averaged_in_one_row(write):
    write("echo", seed=0), write("echo", seed=1)
    command.make(write.store)
    (row,) = read(write.store)
    assert row["videos"] == "6" and float(row["text_alignment"]) == pytest.approx(81.05)


def test_setting_that_varies_names_the_rows(write):
    write("echo", {"drift_gate_lambda": 1.0}), write("echo", {"drift_gate_lambda": 2.0}), write("self_forcing")
    command.make(write.store)
    names = [(row["preset"], row["variant"]) for row in read(write.store)]
    assert names == [("echo", "drift_gate_lambda=1.0"), ("echo", "drift_gate_lambda=2.0"), ("self_forcing", "")]


def test_fewer_than_asked_is_marked_and_not_ranked(write):
    write("echo", shift=5.0, lost=PROMPTS[:1]), write("self_forcing"), write("infinity_rope", shift=1.0)
    lines = "\n".join(command.make(write.store))
    assert "83" not in lines.split("self_forcing")[1].splitlines()[0]
    text = (write.store / "tables" / "recall.md").read_text(encoding="utf-8")
    echo = next(line for line in text.splitlines() if "`echo`" in line)
    best = next(line for line in text.splitlines() if "`infinity_rope`" in line)
    assert "†" in echo and "**" not in echo and "**82.00" in best and "fewer prompts or seeds" in text


def test_run_that_never_started_is_seen(write):
    write("echo"), write("self_forcing", lost=PROMPTS)
    command.make(write.store)
    rows = {row["preset"]: row for row in read(write.store)}
    assert rows["self_forcing"]["videos"] == "0" and rows["self_forcing"]["videos_asked"] == "3"


def test_a_video_without_scores_is_told_as_one(write):
    """Of three videos asked for one is scored, one is there and has no scores, one is not there."""
    write("self_forcing")
    folder = write("echo", lost=PROMPTS[1:])
    Attempt(folder, new_attempt(), Provenance()).filmed(PROMPTS[1], {"latents_sha256": "0"})
    command.make(write.store)
    text = (write.store / "tables" / "recall.md").read_text(encoding="utf-8")
    assert "Failed runs: 0 of 6 videos; 1 more are made, not scored; 1 more are not made." in text
    behind = json.loads((write.store / "tables" / "recall.meta.json").read_text(encoding="utf-8"))
    (row,) = (row for row in behind["blocks"][0]["rows"] if row["preset"] == "echo")
    assert (row["videos"], row["unscored"], row["absent"], row["failed"]) == (1, 1, 1, 0)


def test_edited_prompt_counts_only_as_last_asked(write):
    write("echo", shift=9.0)
    edited = (dataclasses.replace(PROMPTS[0], scenes=("a blue ring",)), *PROMPTS[1:])
    write("echo", prompts=edited[:1], asked=edited, shift=-9.0)
    command.make(write.store)
    (row,) = read(write.store)
    assert row["videos"] == "3" and float(row["text_alignment"]) == pytest.approx((71 + 90 + 91) / 3, abs=1e-3)


def test_tasks_have_files_of_their_own(write):
    write(task="recall"), write(task="long60")
    command.make(write.store, ["long60"])
    assert sorted(p.name for p in (write.store / "tables").iterdir()) == [f"long60.{end}" for end in ("csv", "md", "meta.json", "tex")]
    command.make(write.store)
    assert (write.store / "tables" / "recall.tex").exists()


def test_command_makes_the_same_bytes_from_the_store_alone(write, tmp_path):
    write("echo", shift=1.0), write("self_forcing", seed=1), write("infinity_rope", lost=PROMPTS[2:])
    swept = [write("echo", task="long60"), write("self_forcing", task="long60", shift=1.0)]
    assert write_sweep(write.store, [folder.job for folder in swept], "table3") == ["table3-long60"]
    command.make(write.store, ["recall", "table3-long60"])
    moved = tmp_path / "elsewhere"
    shutil.copytree(write.store, moved)
    shutil.rmtree(moved / "tables")
    done = subprocess.run(
        [*ECHO_HARNESS, "tables", "--store", str(moved)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert len(list((write.store / "tables").iterdir())) == len(list((moved / "tables").iterdir())) == 8
    for path in (write.store / "tables").iterdir():
        assert path.read_bytes() == (moved / "tables" / path.name).read_bytes()
    assert str(moved / "tables" / "recall.md") in done.stdout.replace("recall.md,", "recall.md")


def test_table_holds_what_its_command_asked_for(write):
    """A later and smaller command neither shrinks nor marks the table of an earlier one, and the other way round."""
    large = [write(method, seed=seed) for method in ("echo", "self_forcing") for seed in (0, 1)]
    write_sweep(write.store, [folder.job for folder in large], "compare")
    small = [write(method, prompts=PROMPTS[:2]) for method in ("echo", "infinity_rope")]
    write_sweep(write.store, [folder.job for folder in small], None)
    command.make(write.store)
    wide, narrow = read(write.store, "compare"), read(write.store)
    assert [(row["preset"], row["videos"], row["videos_asked"]) for row in wide] == [("echo", "6", "6"), ("self_forcing", "6", "6")]
    assert [(row["preset"], row["videos"], row["videos_asked"]) for row in narrow] == [("echo", "2", "2"), ("infinity_rope", "2", "2")]
    assert not any("†" in path.read_text(encoding="utf-8") for path in (write.store / "tables").glob("*.md"))


def test_last_command_of_a_name_counts(write):
    for method in ("echo", "self_forcing"):
        write_sweep(write.store, [write(method).job], None)
    command.make(write.store)
    assert [row["preset"] for row in read(write.store)] == ["self_forcing"]


def test_tables_of_one_experiment_or_task(write, capsys):
    write_sweep(write.store, [write("echo").job], "table2"), write_sweep(write.store, [write("echo", task="hard").job], None)
    assert cli.main(["tables", "--store", str(write.store), "experiment=table2"]) == 0
    assert {path.stem for path in (write.store / "tables").iterdir()} == {f"table2{end}" for end in ("", ".meta")}
    assert cli.main(["tables", "--store", str(write.store), "task=hard"]) == 0
    assert {path.name.split(".")[0] for path in (write.store / "tables").iterdir()} == {"table2", "hard"}
    wrong = {"task=hart": "nearest is hard", "task=hard experiment=table2": "no scores of task=hard", "experiment=table3": "is table2"}
    for words, part in wrong.items():
        assert cli.main(["tables", "--store", str(write.store), *words.split()]) == 2
        told = capsys.readouterr().err
        assert part in told and len(told.splitlines()) == 1


def test_settings_beside_the_method_are_told(write):
    """Rows that differ in a setting are distinguished whatever their presets; a setting that all share is in the caption."""
    write("echo", duration_scale=0.5), write("self_forcing", duration_scale=0.5)
    command.make(write.store)
    assert {row["settings"] for row in read(write.store)} == {"duration_scale=0.5"}
    assert "Settings: duration_scale=0.5." in (write.store / "tables" / "recall.md").read_text(encoding="utf-8")
    write("infinity_rope")
    command.make(write.store)
    assert [row["variant"] for row in read(write.store)] == ["duration_scale=0.5", "duration_scale=1.0", "duration_scale=0.5"]


def test_edited_prompts_are_never_mixed(write):
    edited = (dataclasses.replace(PROMPTS[0], scenes=("a blue ring",)), *PROMPTS[1:])
    write("echo"), write("self_forcing", prompts=edited), write("infinity_rope", prompts=PROMPTS[:2])
    command.make(write.store)
    rows = read(write.store)
    assert [row["preset"] for row in rows] == ["echo", "infinity_rope", "self_forcing"] or rows[0]["preset"] == "self_forcing"
    groups = {row["preset"]: row["settings"] for row in rows}
    assert groups["echo"] == groups["infinity_rope"] != groups["self_forcing"] and groups["echo"].startswith("prompts=")
    labels = [line for line in (write.store / "tables" / "recall.tex").read_text(encoding="utf-8").splitlines() if r"\label" in line]
    assert len(set(labels)) == len(labels) == 3 and "embedded-scorer" in labels[0], "two tables, and one of differences"


def test_wrong_store_is_refused(tmp_path):
    assert cli.main(["tables", "--store", str(tmp_path / "none")]) == 2
    assert cli.main(["tables", "stor=x"]) == 2


def test_a_table_that_was_not_run_is_told_with_its_command(write, capsys):
    write("echo")
    assert cli.main(["tables", "table2", "--store", str(write.store)]) == 2
    assert capsys.readouterr().err == f"table2: store {write.store} has no scores of it; python run.py experiment=table2 -m makes them\n"
    assert cli.main(["tables", "recal", "--store", str(write.store)]) == 2 and "nearest is recall of" in capsys.readouterr().err


def grids(write):
    write("echo", shift=1.0), write("self_forcing")
    (source,) = sources(write.store)
    groups = gather(source.wishes)
    return [grid_of(group, groups) for group in groups]


def test_latex_form(write):
    text = as_latex(grids(write))
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{82.00} $\pm$", r"\underline{81.00} $\pm$", r"\texttt{self\_forcing}"):
        assert part in text
    assert text.count("{") == text.count("}") and "_forcing" not in text.replace(r"\_forcing", "")
    body = [line for line in text.splitlines() if r"\texttt" in line]
    assert all(line.count("&") == 10 for line in body)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(write, tmp_path):
    text = document([as_latex(grids(write))])
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


LABELS = {
    "[ours] Echo*": "{[}ours{]} Echo$^*$",
    "Wołęga «Echo»": "Wołęga «Echo»",
    "β → γ, Λ ≤ 2": r"$\beta$ $\rightarrow$ $\gamma$, $\Lambda$ $\leq$ 2",
    "“Echo” – it’s 中文, カナ": r"``Echo'' -- it's \letters{中文}, \letters{カナ}",
    "Эхо|a\nb": r"\letters{Эхо}|a b",
    "Việt ☃ é": "Viet ? é",
}
"""Labels as people write them, and as LaTeX gets them."""


@pytest.mark.parametrize("label", LABELS)
def test_letters_by_place(label):
    assert escape(label) == LABELS[label]


def with_labels(write):
    made = []
    for grid in grids(write):
        rows = [dataclasses.replace(grid.rows[index % len(grid.rows)], label=label, reference="") for index, label in enumerate(LABELS)]
        made.append(dataclasses.replace(grid, rows=rows, title=" ".join(LABELS)))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pdflatex", "lualatex"])
def test_any_label_compiles(engine, write, tmp_path):
    if (
        shutil.which(engine) is None
        or subprocess.run(["kpsewhich", "CJKutf8.sty", "lmodern.sty", "fontspec.sty"], capture_output=True).returncode
    ):
        pytest.skip(f"no {engine} here, or not its packages: that any label compiles is not shown")
    fragment = as_latex(with_labels(write))
    assert all(f"% {line}" in fragment.splitlines() for line in PREAMBLE.splitlines())
    (tmp_path / "t.tex").write_text(document([fragment]), encoding="utf-8")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-1500:]
    assert "not set up" not in done.stdout and (tmp_path / "t.pdf").stat().st_size > 5000


def test_markdown_cells_stay_in_their_cell(write):
    lines = as_markdown(with_labels(write)).splitlines()
    (row,) = (line for line in lines if line.startswith("| Эхо"))
    (other,) = (line for line in lines if line.startswith("| Wołęga"))
    assert row.startswith(r"| Эхо\|a b |") and len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", other))


def test_every_form_says_where_numbers_come_from(write):
    (grid,) = grids(write)
    for text in (as_text(grid, False), as_markdown([grid]), as_latex([grid])):
        for part in ("tiny", grid.weights, "embedded world, embedded scorer", "(proxy)", "3 prompts"):
            assert part in text


def test_terminal_form_fits_and_styles(write):
    (grid,) = grids(write)
    assert max(len(line) for line in as_text(grid, False).splitlines() if not line.startswith(("Task", "proxy", "Columns"))) <= 150
    assert "\x1b[1m" in as_text(grid, True) and "\x1b" not in as_text(grid, False)


def test_a_terminal_repeats_no_caption_and_shows_no_empty_column(write):
    (grid,) = grids(write)
    told = as_text(grid, False)
    assert any(cell.estimate is None for cell in grid.rows[0].cells) and "no row has a number: subject consistency, " in told
    assert "difference to echo" in told
    assert not [line for line in told.splitlines() if line.startswith(("echo ", "self_forcing ")) and " - " in line]
    assert told.count("embedded world, embedded scorer") == 1 == told.count("3 prompts"), "of a grid with differences"


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_a_summary_fits_the_terminal(write, width):
    """Names are cut in the middle, then columns go; of each the best is marked, and the numbers are those of the table."""
    write("echo", {"drift_gate_lambda": 1.0})
    (grid,) = grids(write)
    text = as_summary(grid, False, width)
    head, *rows = [line.split() for line in text.split("\n\n")[1].splitlines() if not line.startswith(" ")]
    assert max(map(len, text.splitlines())) <= width and head[:2] == ["method", "n"] and "Failed runs: 0 of 9 videos." in text
    shown = [row for row in rows if set(row[0]) != {"-"}]
    assert len({" ".join(row[:2]) for row in shown}) == 3 and ("…" in text) == (width == 40)
    stars = [sum("*" in word for word in row) for row in shown]
    assert sorted(stars)[:2] == [0, 0] and max(stars) == (1 if width == 40 else 2) and "*82.00" in text and " 81.00" in text
    assert "\x1b[1m*82.00" in as_summary(grid, True, width)


def test_escaping():
    assert escape(r"a & b_c 50% {x} \ ~ ^ ∞") == (r"a \& b\_c 50\% \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} $\infty$")


def test_ties_share_a_place(write):
    write("echo"), write("self_forcing"), write("infinity_rope", shift=-1.0)
    command.make(write.store)
    text = (write.store / "tables" / "recall.md").read_text(encoding="utf-8")
    assert text.count("**81.00") == 4 and text.count("<u>80.00") == 2


def test_single_row_has_no_best(write):
    write("echo")
    command.make(write.store)
    assert "**" not in (write.store / "tables" / "recall.md").read_text(encoding="utf-8")


def test_row_name_without_variant():
    assert TableRow("L", "echo", "", 1, (TableCell(None, False, None),)).name == "echo"


def test_unit_that_came_out_differently_is_told(write):
    write("echo"), write("echo", shift=1.0)
    lines = command.make(write.store)
    assert sum("not reproduced: echo p" in line for line in lines) == 3
    assert float(read(write.store)[0]["text_alignment"]) == 81.0


def sweep(write, *rows, task="recall", **more):
    """Runs of one command, as (method, shift) or (method, shift, backbone), and its table made."""
    jobs = [write(row[0], shift=row[1], task=task, backbone=(*row, "tiny")[2], **more).job for row in rows]
    (name,) = write_sweep(write.store, jobs, "table2")
    cli.main(["tables", "--store", str(write.store), "experiment=table2", f"task={task}"])
    (path,) = (write.store / "tables").glob(f"table2{'-*' if len(list((write.store / 'sweeps').iterdir())) > 1 else ''}.md")
    return read(write.store, path.stem), path.read_text(encoding="utf-8")


def test_rows_stand_in_the_order_of_the_command(write):
    rows, _ = sweep(write, ("self_forcing", 0), ("infinity_rope", 1), ("echo", 2), ("render_truth", 9))
    assert [row["preset"] for row in rows] == ["self_forcing", "infinity_rope", "echo", "render_truth"]


def test_calibration_rows_stand_apart(write):
    """Under a rule, neither bold nor underlined nor compared, whatever their scores; the caption says what they are."""
    rows, text = sweep(write, ("render_truth", 15), ("self_forcing", 0), ("echo", 2), ("render_shuffled", -9))
    assert [row["preset"] for row in rows] == ["self_forcing", "echo", "render_truth", "render_shuffled"]
    lines = {row["preset"]: [line for line in text.splitlines() if f"`{row['preset']}`" in line] for row in rows}
    assert len(lines["render_truth"]) == len(lines["render_shuffled"]) == 1 and len(lines["self_forcing"]) == 2
    assert not any(mark in lines[name][0] for name in ("render_truth", "render_shuffled") for mark in ("**", "<u>"))
    assert "**83.00" in lines["echo"][0] and "<u>81.00" in lines["self_forcing"][0] and "rendered, not generated" in text
    assert text.index("*calibration*") > text.index("`echo`")
    assert [row["reference"] for row in rows] == ["echo", "", "", ""] and rows[2]["text_alignment_gap"] == ""
    tex = (write.store / "tables" / "table2.tex").read_text(encoding="utf-8")
    assert tex.split(r"\end{tabular}")[0].count(r"\midrule") == 2


def test_backbones_are_sections_of_one_table(write, tmp_path):
    """Each is ranked by itself and compared with its own full method, or with the table's if it has none."""
    rows, text = sweep(write, ("self_forcing", 0), ("longlive", 5, "long"), ("echo", 2), ("longlive_echo", 6, "long"))
    assert [(row["preset"], row["backbone"], row["reference"]) for row in rows] == [
        ("self_forcing", "tiny", "echo"), ("echo", "tiny", ""), ("longlive", "long", "longlive_echo"), ("longlive_echo", "long", ""),
    ]  # fmt: skip
    assert [float(row["text_alignment_gap"] or 0) for row in rows] == [-2, 0, -1, 0]
    assert "**83.00" in text and "**87.00" in text and "Backbones tiny (weights" in text
    rows, _ = sweep(write, ("echo", 2), ("longlive", 5, "long"), task="hard")
    assert [row["reference"] for row in rows] == ["", "echo"] and float(rows[1]["text_alignment_gap"]) == 3
    note = "longlive (long) is compared with echo on another backbone (tiny): its difference is the method's and the backbone's together."
    forms = [(write.store / "tables" / f"table2-hard.{end}").read_text(encoding="utf-8") for end in ("md", "tex")]
    shown = "\n".join(command.make(write.store, ["table2-hard"]))
    assert all(form.count(note) == 1 for form in (*forms, shown)) and "another backbone" not in text


def test_less_is_better_where_the_arrow_stands(write):
    rows, text = sweep(write, ("self_forcing", 0), ("echo", 2), names=("world.leakage", "world.recall_fidelity"))
    line = next(line for line in text.splitlines() if "`self_forcing`" in line)
    assert [cell.strip()[:3] for cell in line.split("|")[4:6]] == ["<u>", "**8"] and "leakage (world) ↓" in text
    assert rows[0]["leakage_metric"] == "world.leakage" and "lower where" in text


def test_half_life_is_told_to_be_cut_off(write):
    _, text = sweep(write, ("self_forcing", 0), ("echo", 2), names=("world.leakage", "world.half_life_blocks"))
    assert "says at least 13" in text
    _, text = sweep(write, ("echo", 2), names=("world.leakage",), task="hard")
    assert "at least 13" not in text


def test_differences_are_paired(write):
    """Videos that one row lacks count for neither; the interval is of the differences, not of the rows."""
    rows, text = sweep(write, ("self_forcing", 1.5), ("echo", 0))
    assert float(rows[0]["text_alignment_gap"]) == 1.5 and float(rows[0]["text_alignment_gap_ci95"]) == 0
    assert float(rows[0]["text_alignment_ci95"]) > 1 and float(rows[0]["text_alignment_gap_p"]) < 0.05 and "+1.50 ± 0.00*" in text
