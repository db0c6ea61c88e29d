"""All tables by one command: its runs, its forecast, its refusals, and that it continues."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from jobs import cli
from jobs.launch import sweep as command
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder
from jobs.watch import forecast, suite
from tests.helpers.experiments import params
from tests.helpers.toy import write_backbone, write_prompts


@pytest.fixture
def words(tmp_path):
    """A backbone of the world's frame size with random weights, two prompts, nothing scored."""
    return [
        f"backbone.weights={write_backbone(tmp_path / 'model.safetensors', grid=4)}",
        "backbone.lora=null",
        f"task.prompt_set={write_prompts(tmp_path / 'prompts.jsonl', 8, 1.5)}",
        "eval=none",
        "allow_dirty=true",
        f"store={tmp_path / 'store'}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["laptop", "night"])
def test_every_row_of_every_experiment_is_there_once(size, words):
    """A second path: the product of the experiments' own parameters."""
    rows = [
        (experiment, plain["method"]["name"], plain["task"]["name"], str(plain["seed"]))
        for experiment, plain in suite.rows(size, suite.tables_of(size), words)
    ]
    expected = set()
    for experiment in suite.tables_of(size):
        swept = params(experiment, f"scale={size}")
        expected |= set(itertools.product([experiment], swept["method"], swept["task"], swept["seed"]))
    assert len(rows) == len(set(rows)) and set(rows) == expected
    assert [seed for *_, seed in rows] == sorted(seed for *_, seed in rows), "the first seed's are whole first"


def test_shared_units_are_one_run_and_backbones_are_the_rows_own(words):
    rows = suite.rows("laptop", ("table2", "table3", "table6"), [*words, "prompts=2", "seed=0"])
    names = {plain["method"]["name"]: plain["backbone"]["name"] for _, plain in rows}
    assert {name for name, backbone in names.items() if backbone == "tiny_long"} == {"longlive", "longlive_flush", "longlive_echo"}
    paths = [RunFolder(prepare(plain)).path for _, plain in rows if plain["task"]["name"] == "long60"]
    assert len(paths) == 6 + 8 and len(set(paths)) == 10, "echo and the three calibration rows are in both"
    assert all(plain["prompts"] == 2 for _, plain in rows)


@pytest.mark.slow
def test_says_what_is_missing_makes_it_and_goes_on(words, capsys):
    words = [*words, "video.height_px=48", "seed=0"]
    command = ["laptop", "only=table3", "prompts=1", *words]
    assert cli.main(["suite", *command]) == 0
    told = capsys.readouterr().out
    assert "6 of 6 videos are missing, 24 blocks; 37 ms a generated block by this project's own measure" in told and "about" in told
    assert cli.main(["suite", *command, "max_workers=1"]) == 0
    assert "all 6 videos are there" in capsys.readouterr().out
    (experiment, plain), *_ = rows = suite.rows("laptop", ("table3",), [*words, "prompts=2"])
    assert experiment == "table3" and "6 of 12 videos" in forecast.briefly([prepare(plain) for _, plain in rows])
    assert "as measured in this store" in forecast.briefly([prepare(plain) for _, plain in rows])


def test_a_failed_unit_leaves_its_status_and_all_else(words, monkeypatch, capsys):
    """Figures and the time are still printed, with the reason for a figure that cannot be drawn. A refusal before work draws nothing."""

    def make(store, name, out):
        if name == "lambda":
            raise ValueError("nothing of it")
        return [Path(f"sweep_{name}.png")]

    def carry_out(*given):
        raise SystemExit(1)

    monkeypatch.setattr(suite.sweeps, "write", make)
    monkeypatch.setattr(command, "carry_out", carry_out)
    given = ["laptop", "only=sweep_lambda,sweep_budget", *words]
    assert cli.main(["suite", *given]) == 1
    told = capsys.readouterr()
    assert "figure: sweep_budget.png\nlaptop: 1 min" in told.out and told.err == "no figure of sweep_lambda: nothing of it\n"
    monkeypatch.setattr(command, "carry_out", lambda *given: None)
    assert cli.main(["suite", *given]) == 1 and cli.main(["suite", "laptop", "only=sweep_budget", *words]) == 0
    capsys.readouterr()

    def refuse(*given):
        raise SystemExit("store=x: cannot be written")

    monkeypatch.setattr(command, "carry_out", refuse)
    assert cli.main(["suite", *given]) == 2
    told = capsys.readouterr()
    assert told.err == "store=x: cannot be written\n" and not told.out


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["laptp"], "laptp: nearest is laptop of laptop, night, paper"),
        ([], "SIZE: it is missing"),
        (["laptop", "only=table22"], "nearest is table2 of"),
        (["laptop", "only=bounds"], "only=bounds: not among the tables of laptop"),
        (["laptop", "task=recall"], "task=recall: laptop says that itself"),
        (["night", "backbone=tinny"], "backbone=tinny: no such backbone; nearest is tiny"),
        (["laptop", "stor=x"], "unknown key stor: nearest is store"),
    ],
)
def test_mistakes_are_one_line(given, part, capsys):
    assert cli.main(["suite", *given]) == 2
    told = capsys.readouterr()
    assert part in told.err and told.err.count("\n") == 1 and not told.out
