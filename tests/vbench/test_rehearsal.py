"""All tables of the paper by one command, at the paper's scale with random weights in tiny sizes: files, rows and columns as printed, no number claimed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

from data import published
from echo.files import ROOT
from eval.vbench.networks import packages
from jobs.watch.suite import tables_of

QUALITY = {"subject_consistency", "background_consistency", "aesthetic_quality", "imaging_quality"}
MOTION = {"motion_smoothness", "temporal_flickering", "dynamic_degree"}
COLUMNS = {  # as the paper prints them
    "table1": {"fps", *QUALITY, *MOTION}, "table2": {"text_alignment", *QUALITY}, "table3": {"background_consistency", *MOTION},
}  # fmt: skip
ROWS = {  # as the paper prints them, but for what stands beside: Deep-Forcing as released
    "table1": 7, "table2": 6, "table3": 3, "table6": 4, "table7": 4, "table8": 5, "table9a": 4, "table9b": 5,
}  # fmt: skip
TASKS = {"table1": 2, "table2": 3}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The suite's tables, from 51 videos of a twentieth of their length."""
    if packages.missing(packages.NATIVE):
        pytest.skip(f"needs {packages.INSTALL}")
    folder = tmp_path_factory.mktemp("rehearsal")
    words = ["weights=random", "geometry=tiny", "prompts=1", "seed=0", "duration_scale=0.05", f"store={folder}", "allow_dirty=true"]
    command = [sys.executable, "-c", "import sys; from jobs import cli; sys.exit(cli.main(sys.argv[1:]))", "suite", "paper", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "tables"


def rows_of(folder, table: str) -> list[dict[str, str]]:
    with open(folder / f"{table}.csv", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("table", ROWS)
def test_files_rows_and_columns_are_the_papers(table, rehearsed):
    assert set(ROWS) == set(tables_of("paper"))
    for ending in ("md", "csv", "tex", "meta.json"):
        assert (rehearsed / f"{table}.{ending}").stat().st_size
    rows = rows_of(rehearsed, table)
    methods = {(row["task"], row["backbone"], row["method"]) for row in rows}
    assert len(methods) == ROWS[table] * TASKS.get(table, 1), sorted(methods)
    measured = {row["metric"].rpartition(".")[2] for row in rows if row["mean"]}
    printed = {number.metric for number in published.numbers() if f"table{number.table}" == table} - {"video_quality"}
    assert printed | COLUMNS.get(table, set()) <= measured | {"fps"}, sorted(measured)
    assert {row["backbone"] for row in rows} == {
        "table2": {"self_forcing", "longlive"}, "table1": {"self_forcing", "longlive"}, "table9a": {"longlive"}, "table9b": {"longlive"},
    }.get(table, {"self_forcing"})  # fmt: skip


@pytest.mark.parametrize("table", ROWS)
def test_no_number_is_claimed(table, rehearsed):
    for ending in ("md", "tex"):
        assert "random weights" in (rehearsed / f"{table}.{ending}").read_text(encoding="utf-8").lower()
    behind = json.loads((rehearsed / f"{table}.meta.json").read_text(encoding="utf-8"))
    assert "RANDOM WEIGHTS" in json.dumps(behind)
