"""Every table of every experiment from one store: captions, definitions, published rows, failures, what stands behind, LaTeX."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from echo.files import ROOT
from eval import metrics
from eval.metrics import Column
from jobs import cli
from tests.helpers import raters
from tests.helpers.experiments import params
from tests.helpers.latex import document
from tests.helpers.stores import as_older, put, write

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
WORLD = {"recall": ("world.recall_fidelity", "world.leakage"), "hard": ("world.leakage", "world.half_life_blocks")}
PROXY = ("proxy.text_alignment", "proxy.subject_consistency", "proxy.background_consistency", "temporal_flickering")


def fill(store: Path, experiments: list[str], *, names: tuple[str, ...] = PROXY, lost: tuple[str, ...] = ()) -> None:
    """All runs of experiments with made-up scores of three prompts, and their sweeps; presets in `lost` fail on one prompt."""
    folders: dict[tuple[str, str], Path] = {}
    for experiment in experiments:
        swept = params(experiment)
        for task in swept["task"]:
            wishes = []
            for preset in swept["method"]:
                if (task, preset) not in folders:
                    folders[task, preset] = one(store, task, preset, names, preset in lost)
                folder = folders[task, preset]
                wish = json.loads(next((folder / "asked").iterdir()).read_text(encoding="utf-8"))
                wishes.append({"path": folder.relative_to(store / "runs").as_posix()} | wish)
            write(store / "sweeps" / f"{experiment}-{task}.json", {"v": 1, "experiment": experiment, "task": task, "runs": wishes})


def one(store: Path, task: str, preset: str, names: tuple[str, ...], failing: bool) -> Path:
    place = zlib.crc32(preset.encode()) % 11
    backbone = "tiny_long" if preset.startswith("longlive") else "tiny"
    values = {f"p{i}": dict.fromkeys((*names, *WORLD.get(task, ())), 80 + place / 3 + i * (1 + place / 7)) for i in range(3)}
    folder = put(store, task, preset, values, backbone=backbone, settings={"x": preset}, weights=f"{backbone}-weights")
    write(folder / "attempts" / "a.json", {"code": {"commit": "c0ffee", "dirty": "x" if preset == "echo" else None}})
    if failing:
        path = folder / "records" / "a.jsonl"
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        path.write_text(as_older(first, status="error", metrics={}) + "".join(f"{line}\n" for line in rest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of all experiments with its tables made, published numbers beside and simulated raters included."""
    store = tmp_path_factory.mktemp("whole")
    fill(store, EXPERIMENTS, lost=("infinity_rope",))
    assert cli.main(["tables", "--store", str(store), "compare=published"]) == 0
    for name in ("table4", "table5"):
        raters.write(name, store)
    return store / "tables"


def test_every_experiment_has_its_table_in_four_forms(whole):
    names = {*EXPERIMENTS, "table4", "table5"}
    for ending in ("tex", "csv", "md", "meta.json"):
        found = {path.name.removesuffix(f".{ending}") for path in whole.glob(f"*.{ending}")}
        assert {name for name in found if not name.endswith("-ratings-simulated")} == names


def test_a_reader_who_knows_nothing_finds_all_in_each_caption(whole):
    for path in sorted(whole.glob("*.tex")):
        captions = re.findall(r"\\caption\{(.*)\}\\smallskip", path.read_text(encoding="utf-8"))
        assert captions, path.name
        for caption in captions:
            people = path.stem in ("table4", "table5")
            for part in ("Backbone", "simulated raters" if people else "embedded", "Rule: ", " prompts", " seed", r"95 \% interval"):
                assert part in caption, f"{path.name}: {part} is not in: {caption}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: that the tables compile is not shown")
def test_all_tables_compile(whole, tmp_path):
    fragments = [path.read_text(encoding="utf-8") for path in sorted(whole.glob("*.tex"))]
    (tmp_path / "all.tex").write_text(document(fragments), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-800:]
    log = done.stdout
    assert len(fragments) == len(EXPERIMENTS) + 2 and (tmp_path / "all.pdf").stat().st_size > 10_000
    assert not re.search(r"Overfull|too large|multiply defined|Missing character", log), log[-2000:]


def test_tasks_are_blocks_with_rules_between(whole):
    tex = (whole / "table2.tex").read_text(encoding="utf-8").split(r"\end{tabular}")[0]
    heads = re.findall(r"\\midrule\n\\multicolumn\{\d+\}\{l\}\{\\textit\{(.*?)\}\}", tex)
    assert [head.split(",")[0] for head in heads] == [task for task in ("smooth", "hard", "recall") for _ in range(3)]
    md = (whole / "table2.md").read_text(encoding="utf-8")
    assert "| *hard, tiny*" in md and "| *recall, calibration*" in md
    rows = list(csv.DictReader((whole / "table2.csv").open(encoding="utf-8")))
    own = [row for row in rows if not row["source"]]
    assert len(own) == 27 and [row["task"] for row in own[::9]] == ["smooth", "hard", "recall"]
    assert {row["recall_fidelity_n"] for row in own if row["task"] != "recall"} == {"0"}, "a block without a column has dashes"


def test_published_numbers_stand_below_their_rows_with_their_source(whole):
    rows = list(csv.DictReader((whole / "table2.csv").open(encoding="utf-8")))
    place = next(i for i, row in enumerate(rows) if (row["task"], row["preset"], row["variant"]) == ("hard", "echo", "as published"))
    assert (rows[place]["text_alignment"], rows[place]["text_alignment_metric"]) == ("33.6700", "published.text_alignment")
    assert rows[place - 1]["preset"] == "echo" and "Table 2" in rows[place]["source"] and rows[place]["text_alignment_gap"] == ""
    md = (whole / "table2.md").read_text(encoding="utf-8")
    line = next(line for line in md.splitlines() if "`echo as published`" in line)
    assert "**" not in line and "27.94" in line and "compare orders of rows, not values" in md and "arXiv 2605.16003" in md
    first = list(csv.DictReader((whole / "table1.csv").open(encoding="utf-8")))
    assert sum(row["variant"] == "as published" for row in first) == 12


def test_failed_runs_are_counted_in_the_footer(whole):
    md = (whole / "table2.md").read_text(encoding="utf-8")
    assert "Failed runs: 3 of 81 videos (smooth: infinity_rope 1, hard: infinity_rope 1, recall: infinity_rope 1)." in md
    assert "Failed runs: 0 of" in (whole / "table3.md").read_text(encoding="utf-8")
    row = next(line for line in md.splitlines() if "`infinity_rope`" in line)
    assert "†" in row and "| 2 |" in row


def test_detectable_differences_stand_below_the_differences(whole):
    md = (whole / "table3.md").read_text(encoding="utf-8")
    assert md.index("difference to echo") < md.index("Detectable with 80 % power, at Holm's first step")
    row = next(csv.DictReader((whole / "table3.csv").open(encoding="utf-8")))
    assert float(row["text_alignment_detectable"]) > float(row["text_alignment_gap_ci95"]) > 0


def test_what_stands_behind_a_table(whole):
    behind = json.loads((whole / "table2.meta.json").read_text(encoding="utf-8"))
    assert [block["task"] for block in behind["blocks"]] == ["smooth", "hard", "recall"] and behind["statistics"]["level"] == 0.95
    block = behind["blocks"][2]
    assert block["backbones"]["tiny"]["weights"] == "tiny-weights" and set(block["commits"]) == {"c0ffee", "c0ffee-changed"}
    units = {column["metric"]: (column["unit"], column["best"]) for column in block["columns"]}
    assert units["world.leakage"] == ("percent, 0 to 100", "lowest") and units["proxy.text_alignment"][1] == "highest"
    own = [row for row in block["rows"] if "published" not in row]
    assert all(len(row["runs"]) == 1 and row["backbone"] for row in own) and own[1]["failed"] == 1
    assert block["prompts"] == {f"p{i}": f"d-p{i}" for i in range(3)} and block["seeds"] == [0]


VBENCH = tuple(f"{name}.{kind}" for kind in ("vbench", "vbench_long") for name in ("subject_consistency", "motion_smoothness"))
NAMES = (*VBENCH, "subject_consistency.pair_mean", "subject_consistency.pair_joined", "text_alignment.clip_b32", "text_alignment.viclip")


def test_definitions_are_never_mixed(tmp_path, capsys):
    """Table 1 has VBench-Long, Table 2 plain formulas and joined pairs; headers, rule and data behind say so; `rule=` asks for others."""
    fill(tmp_path, ["table1", "table2"], names=NAMES)
    assert cli.main(["tables", "--store", str(tmp_path)]) == 0
    behind = {name: json.loads((tmp_path / "tables" / f"{name}.meta.json").read_text(encoding="utf-8")) for name in ("table1", "table2")}
    shown = {block["task"]: {column["metric"] for column in block["columns"]} for table in behind.values() for block in table["blocks"]}
    assert {"subject_consistency.vbench_long", "motion_smoothness.vbench_long", "text_alignment.clip_b32"} <= shown["long60"]
    assert {"subject_consistency.vbench", "motion_smoothness.vbench"} <= shown["hard"]
    assert "subject_consistency.pair_joined" in shown["recall"]
    long, interactive = ((tmp_path / "tables" / f"{name}.md").read_text(encoding="utf-8") for name in ("table1", "table2"))
    assert "subject consistency (vbench long)" in long and "clips of 2 s" in long and "CLIP ViT-B/32" in long
    assert "motion smoothness (vbench)" in interactive and "recall: " in interactive and "joined end to end" in interactive
    assert "subject consistency |" in interactive, "blocks differ in it: the rule tells each, the header none"
    assert cli.main(["tables", "table2", "--store", str(tmp_path), "rule=pair_mean,viclip"]) == 0
    told = capsys.readouterr().out
    assert "mean cosine across it" in told and "cosine of ViCLIP" in told and "table1" not in told.split("table: ")[-1]
    assert cli.main(["tables", "--store", str(tmp_path), "rule=pair_jointed"]) == 2
    assert "nearest is pair_joined of" in capsys.readouterr().err


def test_rule_of_each_task_is_the_protocol():
    columns = metrics.columns("recall", [f"proxy.{name}" for name in metrics.dimensions("long")])
    assert [column.metric for column in columns][:2] == ["proxy.text_alignment", "proxy.subject_consistency"]
    told = metrics.rule_of("recall", columns)
    assert "text alignment scene by scene" in told and "subject consistency and background consistency on each recalled scene" in told
    assert "background consistency scene by scene" in metrics.rule_of("hard", [Column("background_consistency", "vbench")])
    assert metrics.rule_of("nothing", [Column("text_alignment", "clip_l14")]) == metrics.RULES["clip_l14"].words


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["tabel3"], "tabel3: store"),
        (["tabel3"], "nearest is table3"),
        (["table3", "compare=publisht"], "compare=publisht: nearest is published"),
        (["table3", "task=hard"], "task=hard"),
        (["table3", "stor=x"], "nearest is --store"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, part):
    fill(tmp_path, ["table3"])
    assert cli.main(["tables", "--store", str(tmp_path), *words]) == 2
    told = capsys.readouterr()
    assert part in told.err and told.err.count("\n") == 1 and not (tmp_path / "tables").exists()


def test_making_tables_needs_no_torch_and_no_scipy_stats(tmp_path):
    fill(tmp_path, ["table3"])
    code = f"import sys; from jobs import cli; cli.main(['tables', 'table3', '--store', '{tmp_path}']); "
    code += "sys.exit(not {'torch', 'scipy.stats'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_networks_of_a_scorer_are_told(tmp_path):
    """A note at the top says RANDOM WEIGHTS, so that such numbers are not taken for scores."""
    fill(tmp_path, ["table1"], names=NAMES)
    networks = {"dino": ["random tiny 0", "fp32 cpu", {}], "raft": ["0123", "fp32 cpu", {}]}
    for path in (tmp_path / "sweeps").iterdir():
        content = json.loads(path.read_text(encoding="utf-8"))
        for run in content["runs"]:
            key = {"eval.weights": {"firsts": "dinov2_dreamsim", "networks": networks}, "task.borders": "seconds"}
            run["scorer"]["key"] = {"scores": key}
        write(path, content)
    assert cli.main(["tables", "--store", str(tmp_path)]) == 0
    text = (tmp_path / "tables" / "table1.md").read_text(encoding="utf-8").splitlines()[0]
    assert (
        "scenes cut where the prompt's seconds end" in text
        and "RANDOM WEIGHTS" in text
        and "clips compared by dinov2 and dreamsim" in text
        and re.search(r"networks [0-9a-f]{8}", text)
    )
