"""All tables by one command: which runs they are, what it says beforehand, what it refuses, and that it goes on."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jobs import cli
from jobs.launch import sweep as command
from jobs.spec.compose import CONF
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder
from jobs.watch import forecast, suite
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


@pytest.mark.parametrize("size", suite.SIZES)
def test_every_row_of_every_experiment_is_there_once(size, words):
    """A second path: the product of the experiments' own parameters, at the size's prompts and seeds."""
    chosen = suite.SIZES[size]
    found = [
        (experiment, plain["method"]["name"], plain["task"]["name"], plain["seed"])
        for experiment, plain in suite.rows(chosen, suite.TABLES, words)
    ]
    expected = set()
    for experiment in suite.TABLES:
        params = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml").hydra.sweeper.params
        asked = [task for task in params.task.split(",") if task in chosen.tasks.get(experiment, (task,))]
        expected |= set(itertools.product([experiment], params.method.split(","), asked, chosen.seeds))
    assert len(found) == len(set(found)) and set(found) == expected
    assert set(suite.TABLES) == {experiment for experiment, *_ in found} | ({"bounds"} if size == "quick" else set())


def test_shared_units_are_one_run_and_backbones_are_the_rows_own(words):
    rows = list(suite.rows(suite.SuiteSize(2, (0,), {}), ("table2", "table3", "table6"), words))
    names = {plain["method"]["name"]: plain["backbone"]["name"] for _, plain in rows}
    assert {name for name, backbone in names.items() if backbone == "tiny_long"} == {"longlive", "longlive_flush", "longlive_echo"}
    paths = [RunFolder(prepare(plain)).path for _, plain in rows if plain["task"]["name"] == "long60"]
    assert len(paths) == 6 + 8 and len(set(paths)) == 10, "echo and the three calibration rows are in both"
    assert all(plain["prompts"] == 2 for _, plain in rows)


def test_says_what_is_missing_makes_it_and_goes_on(words, monkeypatch, capsys):
    monkeypatch.setitem(suite.SIZES, "quick", suite.SuiteSize(1, (0,), {}, ("video.height_px=48",)))
    command = ["quick", "only=table3", *words]
    assert cli.main(["suite", *command]) == 0
    told = capsys.readouterr().out
    assert "6 of 6 videos are missing, 24 blocks; 37 ms a generated block by this project's own measure" in told and "about" in told
    assert cli.main(["suite", *command, "max_workers=1"]) == 0
    assert "all 6 videos are there" in capsys.readouterr().out
    monkeypatch.setitem(suite.SIZES, "quick", suite.SuiteSize(2, (0,), {}))
    (experiment, plain), *_ = rows = list(suite.rows(suite.SIZES["quick"], ("table3",), words))
    assert experiment == "table3" and "6 of 12 videos" in forecast.briefly([prepare(plain) for _, plain in rows])
    assert "as measured in this store" in forecast.briefly([prepare(plain) for _, plain in rows])


def test_a_failed_unit_leaves_its_status_and_all_else(words, monkeypatch, capsys):
    """Figures and the time are told all the same; of one that cannot be drawn the reason is. A refusal before work draws nothing."""

    def make(store, name, out):
        if name == "lambda":
            raise ValueError("nothing of it")
        return [Path(f"sweep_{name}.png")]

    def carry_out(*given):
        raise SystemExit(1)

    monkeypatch.setattr(suite.sweeps, "write", make)
    monkeypatch.setattr(command, "carry_out", carry_out)
    given = ["quick", "only=sweep_lambda,sweep_budget", *words]
    assert cli.main(["suite", *given]) == 1
    told = capsys.readouterr()
    assert "figure: sweep_budget.png\nquick: 1 min" in told.out and told.err == "no figure of sweep_lambda: nothing of it\n"
    monkeypatch.setattr(command, "carry_out", lambda *given: None)
    assert cli.main(["suite", *given]) == 1 and cli.main(["suite", "quick", "only=sweep_budget", *words]) == 0
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
        (["quik"], "quik: nearest is quick of quick, night"),
        ([], "SIZE: it is missing"),
        (["quick", "only=table22"], "nearest is table2 of"),
        (["quick", "only=bounds"], "not among the tables of quick"),
        (["quick", "seed=3"], "seed=3: quick says that itself"),
        (["night", "backbone=tinny"], "backbone=tinny: no such backbone; nearest is tiny"),
        (["quick", "stor=x"], "unknown key stor: nearest is store"),
    ],
)
def test_mistakes_are_one_line(given, part, capsys):
    assert cli.main(["suite", *given]) == 2
    told = capsys.readouterr()
    assert part in told.err and told.err.count("\n") == 1 and not told.out
