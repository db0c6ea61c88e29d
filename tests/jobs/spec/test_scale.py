"""Experiments at the paper's scale: rows, backbones, prompts and seeds as printed; bases of ours; all that is missing at once."""

from __future__ import annotations

import pytest

from baselines.ours import RENDERED
from echo.backbone import extras
from jobs import cli
from jobs.launch import sweep as command
from jobs.spec import compose
from tests.helpers.experiments import PAPER, TASKS, params

PROMPTS = {"long60": 128, "long120": 64, "smooth": 64, "hard": 64, "recall": 64}


@pytest.mark.parametrize("table", PAPER)
def test_the_papers_scale_is_the_papers_setting(table):
    swept = params(table, "scale=paper")
    assert swept["method"] == PAPER[table] and swept["task"] == TASKS.get(table, ["long60"]) and swept["seed"] == ["0", "1", "2", "3"]
    runs = compose.sweep([f"experiment={table}", "scale=paper"])
    assert len(runs) == len(swept["method"]) * len(swept["task"]) * 4
    for run in runs:
        assert run["backbone"]["name"] == ("longlive" if run["method"]["name"].startswith("longlive") else "self_forcing")
        assert run["eval"]["name"] == "vbench" and run["duration_scale"] == 1.0 and run["prompts"] == PROMPTS[run["task"]["name"]]
        assert run["task"]["prompts"] == "released" and run["task"]["prompt_set"].endswith(
            f"prompts/echo_forcing/{run['task']['name']}.jsonl"
        )


@pytest.mark.parametrize(("scale", "backbone"), [("paper", "self_forcing"), ("night", "tiny"), ("laptop", "tiny")])
def test_the_zoo_is_on_one_backbone(scale, backbone):
    """Also presets that name another one: what is compared are policies."""
    runs = compose.sweep(["experiment=zoo", f"scale={scale}", "task=recall", "seed=0"])
    assert {run["backbone"]["name"] for run in runs} == {backbone}
    assert {"longlive", "anchor_forcing", "streaming_llm_commit", "oracle"} < {run["method"]["name"] for run in runs}


def test_a_rehearsal_needs_no_file_and_what_the_command_says_stays():
    words = ["experiment=table2", "scale=paper", "weights=random", "geometry=tiny", "prompts=1", "seed=0"]
    runs = compose.sweep(words)
    assert len(runs) == 18 and {(run["prompts"], run["seed"], run["duration_scale"], run["task"]["prompts"]) for run in runs} == {
        (1, 0, 0.1, "own")
    }
    chosen = compose.sweep([*words, "backbone=causal_forcing", "eval=none", "task.prompts=released", "duration_scale=0.2"])
    assert {(run["backbone"]["name"], run["eval"]["name"]) for run in chosen} == {("causal_forcing", "none")}
    assert {(run["task"]["prompts"], run["duration_scale"]) for run in chosen} == {("released", 0.2)}


def test_bases_stand_side_by_side_and_a_change_to_what_a_base_is_already_is_the_base():
    both = params("table8", "scale=laptop", "ours=official+paper")["method"]
    assert [name for name in both if not name.startswith("render")] == [
        *("echo_official_lambda_05", "echo_official_lambda_1", "echo_official_lambda_2", "echo_official", "echo_official_lambda_5"),
        *("echo_paper_lambda_05", "echo_paper_lambda_1", "echo_paper", "echo_paper_lambda_3", "echo_paper_lambda_5"),
    ]
    assert params("table9a", "ours=official")["method"][-5:] == [
        *("longlive_echo_official", "longlive_echo_official_recall_fused"),
        *RENDERED,
    ]
    assert params("table3")["method"] == ["echo_no_amp", "echo_no_gate", "echo", *RENDERED], "as it always was"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["experiment=table2", "ours=ofical", "-m"], "ours=ofical: nearest is official of echo, official, paper"),
        (["experiment=table2", "ours=official,paper", "-m"], "ours=official,paper: nearest is official"),
        (
            ["method=echo", "ours=paper"],
            "ours=paper: says which rows of an experiment are ours, and there is none; nearest is method=echo_paper",
        ),
        (["experiment=table2", "scale=night,paper", "-m"], "scale=night,paper: a sweep is of one scale; nearest is scale=night"),
        (["experiment=table2", "scale=papr", "-m"], "scale=papr: no such scale; nearest is paper"),
    ],
)
def test_mistakes_are_one_line(words, line, capsys):
    assert cli.ended(lambda: command.command(words)) == 2
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == 1


def test_all_that_is_missing_is_one_line_with_the_commands_that_bring_it(tmp_path, capsys):
    words = ["experiment=table2", "scale=paper", f"checkpoints={tmp_path}", f"store={tmp_path / 'store'}", "allow_dirty=true"]
    with pytest.raises(SystemExit) as refused:
        command.carry_out([*compose.sweep(words)], ["table2"] * 72)
    line = str(refused.value)
    for part in ("self_forcing", "longlive"):
        assert f"backbone={part} (echo-harness data download backbone={part})" in line
    assert "the authors' prompts (echo-harness data download prompts=echo_forcing)" in line and "weights=random geometry=tiny" in line
    assert "(echo-harness data download eval=vbench" in line and "\n" not in line and not (tmp_path / "store").exists()


def test_a_plan_of_both_backbones_needs_no_file_and_no_package(tmp_path, capsys, monkeypatch):
    """4,608 videos of 80 blocks (60 s), on a login node with the bare project."""
    monkeypatch.setattr(extras, "PACKAGES", ("no_such_package",))
    words = [f"checkpoints={tmp_path}", f"store={tmp_path / 'store'}"]
    assert cli.main(["plan", "experiment=table2", "scale=paper", *words]) == 0
    told = capsys.readouterr().out
    assert "echo_official on self_forcing: 12 runs, 768 of 768 videos missing, 13.1 GPU-hours" in told  # 768 x 960 frames / 15.71 a second
    assert "in all: 72 runs, 4608 videos, 0 there, 4608 to make (368640 blocks)" in told and "disk: " in told and "jobs with" in told
    assert "this machine lacks packages no_such_package" in told and "counted as though nothing was made" in told


@pytest.mark.slow
def test_a_plan_of_the_suite_counts_videos_that_tables_share_once(tmp_path, capsys):
    """By hand: each method of each task once."""
    assert cli.main(["suite", "paper", "--plan", f"checkpoints={tmp_path}", f"store={tmp_path / 'store'}"]) == 0
    videos = {
        (method, task): PROMPTS[task] * 4 for table, rows in PAPER.items() for method in rows for task in TASKS.get(table, ["long60"])
    }
    assert f"in all: {len(videos) * 4} runs, {sum(videos.values())} videos" in capsys.readouterr().out
