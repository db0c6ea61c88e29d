"""Sweeps from a store: the points, their intervals and differences, and the same files from the same store."""

from __future__ import annotations

import csv

import pytest

from eval.figures import sweeps
from jobs import cli
from jobs.store.folder import write_sweep
from tests.eval.tables.test_tables import write  # noqa: F401 - a fixture

NAMES = ("proxy.text_alignment", "world.leakage", "proxy.motion_smoothness")


@pytest.fixture
def store(write):  # noqa: F811
    """Three values of lambda, the default last in order of asking, and a calibration row, on two tasks."""
    jobs = []
    for task in ("recall", "long60"):
        for preset, value, shift in (("echo_lambda_5", 5.0, 3.0), ("echo_lambda_1", 1.0, 0.0), ("echo", 3.0, 2.0)):
            jobs.append(write(preset, {"drift_gate_lambda": value}, shift=shift, task=task, names=NAMES).job)
        jobs.append(write("render_truth", shift=2.5, task=task, names=NAMES).job)
    write_sweep(write.store, jobs, "sweep_lambda")
    return write.store


def test_points_are_in_the_order_of_the_value(store):
    found = {sweep.task: sweep for sweep in sweeps.sweeps_of(store, "lambda")}
    assert set(found) == {"recall", "long60"}
    assert [(value, row.preset) for value, row in found["recall"].values] == [(1.0, "echo_lambda_1"), (3.0, "echo"), (5.0, "echo_lambda_5")]
    assert [row.preset for row in found["recall"].calibration] == ["render_truth"]
    assert [column.metric for _, column in found["recall"].panels] == ["world.leakage", "proxy.text_alignment"]
    assert [column.dimension for _, column in found["long60"].panels] == ["text_alignment", "motion_smoothness"]


def test_files_hold_the_numbers_and_come_again(store, tmp_path):
    files = sweeps.write(store, "lambda", tmp_path / "one")
    assert [path.suffix for path in files] == [".csv", ".pdf", ".png"] and all(path.stat().st_size > 400 for path in files)
    rows = list(csv.DictReader(files[0].open(encoding="utf-8")))
    row = next(row for row in rows if (row["task"], row["metric"], row["value"]) == ("recall", "proxy.text_alignment", "1"))
    assert (float(row["mean"]), float(row["gap"]), float(row["gap_ci95"]), row["videos"]) == (81.0, -2.0, 0.0, "3")
    assert float(row["ci95"]) > 1 and [row["value"] for row in rows if row["preset"] == "render_truth"] == [""] * 4
    again = sweeps.write(store, "lambda", tmp_path / "two")
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]


def test_panels_that_are_compared_have_one_scale_that_ends_where_scores_do(store):
    figure = sweeps.draw(sweeps.sweeps_of(store, "lambda"), "lambda")
    ends = {}
    for axis in figure.axes:
        ends.setdefault(axis.get_title(loc="left"), []).append(axis.get_ylim())
    assert len(ends["text alignment"]) == 2 and len(set(ends["text alignment"])) == 1
    assert all(0 <= low < high <= 100 for both in ends.values() for low, high in both), ends


def test_command(store, capsys, tmp_path):
    assert cli.main(["figures", "sweep", "lambda", "--store", str(store), "--output", str(tmp_path)]) == 0
    assert str(tmp_path / "sweep_lambda.png") in capsys.readouterr().out
    for words, part in ((["budget", "--store", str(store)], "experiment=sweep_budget"), (["lamda"], "nearest is lambda")):
        assert cli.main(["figures", "sweep", *words]) == 2
        told = capsys.readouterr().err
        assert part in told and told.count("\n") == 1
