"""The registry of metrics: an entry there, and nothing else, brings a metric into every table, file and page."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from echo.files import ROOT
from eval import metrics
from eval.metrics import Column
from eval.world.places import scene_scores
from tests.helpers import reports
from tests.helpers.command import ECHO_HARNESS
from tests.helpers.stores import as_older

ENTRIES = """METRICS: Final = (
    Metric("colour_memory", "memory of colours", "how many colours came back", unit="marks, 0 to 20", lower=True,
           definitions=("world",), leads=True, note="memory of colours: a colour counts once."),
    Metric("rhythm", "beat of motion", "whether motion keeps its beat", scopes=dict.fromkeys(TASKS, Scope.segments), long=9, interactive=9),
"""
SCORES = {"world.colour_memory": 12.0, "proxy.rhythm": 64.0}


def with_scores(store: Path) -> Path:
    """The store with two more numbers of each video and scene."""
    for path in store.glob("runs/*/*/*/*/*/records/*.jsonl"):
        lines = enumerate(path.read_text(encoding="utf-8").splitlines())
        scored = []
        for i, line in lines:
            more = {name: value + i for name, value in SCORES.items()}
            scored.append(as_older(line, metrics=json.loads(line)["metrics"] | more))
        path.write_text("".join(scored), encoding="utf-8")
    for path in store.glob("runs/*/*/*/*/*/units/p??.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for scene in content["per_segment"]:
            scene |= SCORES
        path.write_text(json.dumps(content), encoding="utf-8")
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, and the tables and the report that a copy of the tree makes of it, two entries being added to its registry alone."""
    tree, store = tmp_path_factory.mktemp("tree"), with_scores(reports.store(tmp_path_factory.mktemp("store")))
    for room in ("echo", "baselines", "data", "eval", "jobs", "conf"):
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    registry = tree / "eval" / "metrics.py"
    text = registry.read_text(encoding="utf-8")
    assert text.count("METRICS: Final = (\n") == 1
    registry.write_text(text.replace("METRICS: Final = (\n", ENTRIES), encoding="utf-8")
    said = []
    for words in (["tables"], ["report", "--output", str(store / "report")]):
        done = subprocess.run(
            [*ECHO_HARNESS, *words, "--store", str(store)],
            cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        said.append(done.stdout)
    return store, said[0]


def test_a_new_metric_is_in_every_form_of_a_table(made):
    store, terminal = made
    tables = store / "tables"
    heads = [line.split() for line in terminal.splitlines()[2:7]]
    assert any("memory" in line for line in heads) and any("beat" in line for line in heads) and "13.00 ± " in terminal
    markdown = (tables / "smooth.md").read_text(encoding="utf-8")
    assert "| n | memory of colours (world) ↓ | text alignment |" in markdown and "| beat of motion (proxy) |" in markdown
    assert "memory of colours: a colour counts once." in markdown and "lower where ↓ stands" in markdown
    assert "Rule: text alignment and beat of motion scene by scene, all else over the whole video" in markdown
    latex = (tables / "smooth.tex").read_text(encoding="utf-8")
    assert r"\shortstack{memory \\ of \\ colours \\ (world) \\ $\downarrow$}" in latex and r"beat \\ of \\ motion" in latex
    row = next(csv.DictReader((tables / "smooth.csv").open(encoding="utf-8")))
    assert (row["colour_memory"], row["colour_memory_metric"], row["rhythm"]) == ("13.0000", "world.colour_memory", "65.0000")
    behind = json.loads((tables / "smooth.meta.json").read_text(encoding="utf-8"))["blocks"][0]["columns"]
    assert behind[0] == {
        "dimension": "colour_memory", "metric": "world.colour_memory", "unit": "marks, 0 to 20", "best": "lowest", "definition": "world",
    }  # fmt: skip


def test_a_new_metric_is_in_the_report(made):
    store, _ = made
    page = (store / "report" / "index.html").read_text(encoding="utf-8")
    known = json.loads(re.search(r"const DATA = (.*);</script>", page)[1])["metrics"]
    assert known["world.colour_memory"] == {
        "label": "memory of colours (world)", "unit": "marks, 0 to 20", "meaning": "how many colours came back", "better": "lower",
    }  # fmt: skip
    assert known["proxy.rhythm"]["label"] == "beat of motion (proxy)" and "memory of colours ↓" in re.sub(r"<br>.*?</th>", "", page)
    cell = next((store / "report" / "cells").rglob("*.js")).read_text(encoding="utf-8")
    assert '"world.colour_memory":12.0' in cell.replace(": ", ":") and '"proxy.rhythm":64.0' in cell.replace(": ", ":")


def test_a_metric_that_is_not_registered_has_no_column(made):
    store, _ = made
    done = subprocess.run([*ECHO_HARNESS, "tables", "--store", str(store)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "colours" not in done.stdout and "imaging" in done.stdout


def test_names_in_the_store_are_read_as_they_are_written():
    for name in ("proxy.text_alignment", "world.leakage", "subject_consistency.vbench_long", "temporal_flickering", "odd.name"):
        assert Column.named(name).metric == name
    assert Column.named("world.leakage").words == ("leakage", "(world)", "↓") and Column.named("odd").words == ("odd",)
    assert metrics.described("text_alignment.viclip")["unit"] == "100 x cosine"


def test_entries_agree_with_each_other():
    names = [metric.name for metric in metrics.METRICS]
    assert len(names) == len(set(names)) == len(metrics.KNOWN)
    for metric in metrics.METRICS:
        assert set(metric.scopes) in (set(), set(metrics.TASKS)) and set(metric.definitions) <= set(metrics.DEFINITIONS), metric.name
        assert bool(metric.scopes) == bool(metric.long) == bool(metric.interactive), f"{metric.name}: what a protocol scores has a column"
    for kind in ("long", "interactive"):
        places = [getattr(metric, kind) for metric in metrics.METRICS if getattr(metric, kind)]
        assert sorted(places) == list(range(1, len(places) + 1)), f"one metric for each place of {kind}"
    assert list(metrics.criteria()) == ["text_alignment", "subject_consistency", "motion_smoothness", "video_quality"]


def test_pairs_are_joined_unless_asked_otherwise():
    """In both scorers; a store from before has the mean alone."""
    for names in (
        ("subject_consistency.pair_mean", "subject_consistency.pair_joined"),
        ("proxy.subject_consistency", "proxy_joined.subject_consistency"),
    ):
        mean, joined = names
        assert metrics.column("recall", "subject_consistency", names).metric == joined
        assert metrics.column("recall", "subject_consistency", names, ["pair_mean"]).metric == mean
        assert metrics.column("recall", "subject_consistency", [mean], ["pair_joined"]).metric == mean
        shown = metrics.columns("recall", names, wanted=["subject_consistency"])
        assert "joined end to end" in metrics.rule_of("recall", shown) and "mean cosine" not in metrics.rule_of("recall", shown)
    assert Column.named("proxy_joined.subject_consistency").words == ("subject", "consistency", "(proxy joined)")


def test_vbench_long_is_a_rule_of_every_task():
    names = [f"motion_smoothness.{kind}" for kind in ("vbench", "vbench_long", "vbench_long_scenes")]
    assert metrics.column("hard", "motion_smoothness", names).metric == names[0]
    for rule in ("vbench_long", "vbench_long_scenes"):
        shown = metrics.columns("hard", names, [rule], ["motion_smoothness"])
        assert shown[0].metric == f"motion_smoothness.{rule}" and metrics.RULES[rule].words in metrics.rule_of("hard", shown)
    still = ["temporal_flickering.vbench_static", "temporal_flickering.vbench_long"]
    assert metrics.column("long60", "temporal_flickering", still).metric == still[0]


VBENCH_ROWS = """
0.8496631141369947; 0.6666666666666666, 0.9892220331470077, 0.9817275920568728, 0.6592743134895962, 0.6690690020720164, 0.9818686495192755, 0.970503656967633
0.8061574766004108; 0.26666666666666666, 0.9856576439878242, 0.9776092641182196, 0.721523537437121, 0.5588082094987233, 0.9782231168560815, 0.9652101230898383
0.634011633805536; 0.8333333333333334, 0.8535246880557186, 0.8371511218127083, 0.4049680148760478, 0.40746706326802573, 0.9129119947723481, 0.9462277612856148
"""  # noqa: E501
"""Quality; dynamic degree, smoothness, flickering, imaging, aesthetic, subject, background of three videos of Self-Forcing, 60 s, scored
with VBench-Long by commit-forcing's authors (results/vbench_long_60s.csv, Apache-2.0)."""
ORDER = (
    "dynamic_degree", "motion_smoothness", "temporal_flickering", "imaging_quality", "aesthetic_quality", "subject_consistency",
    "background_consistency",
)  # fmt: skip


def test_quality_is_vbenchs_to_the_last_digit():
    lines = [line.split(";") for line in VBENCH_ROWS.strip().splitlines()]
    table = np.array([[float(number) for number in rest.split(",")] for _, rest in lines])
    made = metrics.derived({f"{name}.vbench_long": 100 * values for name, values in zip(ORDER, table.T)})
    expected = [100 * float(quality) for quality, _ in lines]
    assert list(made) == ["quality.vbench_long", "consistency.vbench_long"]
    assert made["quality.vbench_long"] == pytest.approx(expected, abs=1e-11), (
        f"max difference {abs(made['quality.vbench_long'] - expected).max()}"
    )


def test_quality_needs_all_its_dimensions_of_one_definition():
    numbers = {f"{name}.vbench": np.full(2, 80.0) for name in ORDER}
    assert list(metrics.derived(numbers)) == ["quality.vbench", "consistency.vbench"]
    lacking = {name: values for name, values in numbers.items() if "aesthetic" not in name}
    for others in (lacking, lacking | {"aesthetic_quality.vbench_long": np.full(2, 80.0)}):
        assert list(metrics.derived(others)) == ["consistency.vbench"]
    pair = {name: values for name, values in numbers.items() if not name.startswith("subject")} | {
        "subject_consistency.pair_joined": np.full(2, 80.0)
    }
    assert metrics.derived(pair)["quality.vbench"] == pytest.approx(metrics.derived(numbers)["quality.vbench"])
    assert np.isnan(metrics.derived(numbers | {"dynamic_degree.vbench": np.array([1.0, np.nan])})["quality.vbench"][1])


def test_semantic_and_total_are_vbenchs():
    """The arithmetic by hand: each dimension at its most is 1, at its least 0; Total is four fifths Quality."""
    nine = metrics.KNOWN["vbench_semantic"].parts
    assert len(nine) == 9
    quality = {f"{name}.vbench": np.array([part.most, part.least]) for name, part in metrics.KNOWN["quality"].parts.items()}
    shown = {f"{name}.vbench": np.array([part.most, part.most]) for name, part in nine.items()}
    made = metrics.derived(quality | shown | {"scene.vbench": np.array([41.11, 82.22]), "temporal_style.vbench": np.array([0.0, 18.2])})
    assert made["quality.vbench"] == pytest.approx([100, 0])
    assert made["vbench_semantic.vbench"] == pytest.approx([100 * 7.5 / 9, 100 * 8.5 / 9])
    assert made["vbench_total.vbench"] == pytest.approx([(400 + 100 * 7.5 / 9) / 5, 100 * 8.5 / 9 / 5])
    assert "vbench_total.vbench" not in metrics.derived(quality)


def test_every_score_that_misleads_says_so_in_the_documents():
    text = (ROOT / "docs" / "vbench.md").read_text(encoding="utf-8")
    for metric in metrics.METRICS:
        sentence = metric.misleads.partition(": ")[2].rstrip(".")
        assert sentence in text or metric.name.startswith("vbench_"), metric.name
    assert all(
        metrics.KNOWN[name].misleads for name in ("quality", "quality_drift", "consistency", "frozen_time", "looping", "coherence_40")
    )


def test_scores_of_a_scene_are_numbers():
    scene = {"start": 0, "end": 96, "recall": {"fidelity": 75.5, "hue": 60.0}, "leakage": [0.5, None, 0.25, *[0] * 9], "fastest_px": None}
    assert scene_scores(scene) == {"start": 0, "end": 96, "world.recall_fidelity": 75.5, "world.leakage": 15.0}
    assert scene_scores({"start": 0, "leakage": [None], "recall": None}) == {"start": 0}


def test_pages_have_no_lists_of_metrics():
    for path in (ROOT / "eval" / "pages" / "templates").iterdir():
        words = set(re.split(r"\W+", path.read_text(encoding="utf-8")))
        assert not words & (set(metrics.KNOWN) | {"proxy"}), path.name
