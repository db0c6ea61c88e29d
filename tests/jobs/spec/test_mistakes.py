"""A command line's mistakes in one line, from the configuration that failed; paths as people have them."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from baselines import presets
from jobs.launch import sweep
from jobs.spec import compose
from jobs.spec.mistakes import explained

REAL = "backbone=self_forcing"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([REAL, "backbone.parts.kernel=sdpa", "methd=echo"], "unknown key methd: nearest is method"),
        ([REAL, "backbone.parts.krnel=sdpa"], "unknown key backbone.parts.krnel: nearest is backbone.parts.kernel"),
        (["backbone=tiny,self_forcing", "backbone.parts.kernel=sdpa", "methd=x", "-m"], "unknown key methd: nearest is method"),
        (["backbone.parts.kernel=sdpa"], "unknown key backbone.parts.kernel: nearest is backbone.prompts"),
        (["scale=paper", "scale.siut=1"], "unknown key scale.siut: nearest is scale"),
        (["method=null"], "method=null: no such method; nearest is "),
        (
            ["task=null"],
            "task=null: no such task; valid: hard, helios, layerrecall, long120, long60, memflow, recall, rollf200, smooth, vmem",
        ),
        (["method={a:1}"], "method={'a': 1}: no such method; nearest is echo_lambda_1"),
        (["=3"], "=3: has no key; a setting is key=value, for example seed=3"),
        (["seed"], "seed: not understood; a setting is key=value, sweeps are key=a,b"),
        (["a b"], "a b: not understood; a setting is key=value, sweeps are key=a,b"),
        (["seed=range(0,-3)", "-m"], "seed=range(0,-3): is a sweep over nothing; nearest is seed=0,1"),
        (["method=glob([])", "-m"], "method=glob([]): matches nothing; nearest is method="),
        (
            ["task=glob()", "-m"],
            "task=glob(): no such task; valid: hard, helios, layerrecall, long120, long60, memflow, recall, rollf200, smooth, vmem",
        ),
        (["task.prompt_set=/a,b"], "task.prompt_set=/a,b: asks for several runs; add -m, or, for one path, 'task.prompt_set=\"/a,b\"'"),
        (["-c", "job", "-m"], "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified"),
        (
            ["--mulitrun"],
            "unrecognized arguments: --mulitrun; flags are -m, --help, --cfg job and --config-dir DIR, settings are key=value",
        ),
        (["--config-name", "x"], "--config-name: there is one config here; nearest is --config-dir DIR, a folder of more choices"),
        (["hydra.run.dir=/etc/passwd/x"], "hydra.run.dir: Hydra's own folders and parts have no say here; nearest is store=DIR,"),
        (["hydra.sweep.dir=x", "-m"], "hydra.sweep.dir: Hydra's own folders and parts have no say here; nearest is store=DIR,"),
        (["hydra.launcher._target_=os.getcwd", "-m"], "hydra.launcher._target_: Hydra's own folders and parts have no say here;"),
        (["store=20240101"], "store=20240101: text is expected here, which of digits is 'store=\"20240101\"'"),
        (["seed=${sed}"], "Interpolation key 'sed' not found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_of_the_words_that_failed(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises((ValueError, SystemExit)) as raised:
        sweep.command(words)
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().err  # Hydra says nothing of its own


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x: 1\n\ty: 2\n", ", line 2: found character"),
        ("x: 1\nz: 3\nx: 2\n", ", line 3: found duplicate key x"),
        ("- a\n", ": a list; a choice is"),
    ],
    ids=["tab", "twice", "list"],
)
def test_a_choice_that_is_no_such_yaml_is_named_with_its_line(text, says, tmp_path, monkeypatch):
    path = tmp_path / "method" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr("baselines.registry.conf_folders", lambda: [tmp_path])
    with pytest.raises(ValueError) as raised:
        presets.preset("method", "mine")
    assert str(raised.value).startswith(f"{path}{says}") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "path",
    ["/a/b=c", "/a/[b].jsonl", "/a (1)/{b}", "/Wołęga/продукт/文件.jsonl", "/a'b", '/a "b"', "/a#b", "/a=b, c", "C:\\x=y\\", "/a\\'b\\"],
)
def test_a_path_is_taken_as_it_is(path):
    """Quoted for Hydra where its grammar has no such value; with a comma it might be two, and quoting is left to the person."""
    if "," in path:
        path = f'"{path}"'
    assert compose.value_of("store", ["seed=1,2", f"store={path}"], "results") == path.strip('"' if "," in path else "")


def test_any_path_is_taken_as_it_is():
    signs = random.Random(0)
    for _ in range(300):
        name = "".join(signs.choice("ab0.-_'\"=[]{}()~#: łя中&%$") for _ in range(signs.randint(1, 8)))
        path = f"/x{name}x"
        assert compose.value_of("store", [f"store={path}"], "") == path


def test_a_home_is_written_out_and_what_is_there_is_one_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    assert compose.hydra_words(["store=~/x", "task.prompt_set=~/a,b"]) == ['store="/home/me/x"', 'task.prompt_set="/home/me/a,b"']
    (tmp_path / "a,b").touch()
    both = [f"task.prompt_set={tmp_path}/a,b", f"task.prompt_set={tmp_path}/c,d"]
    assert compose.hydra_words(both) == [f'task.prompt_set="{tmp_path}/a,b"', both[1]]
    there, readable = ["method.x=1", "launcher.gpus=2", "launcher.extra.nice=5", "~seed", "-m", "seed=0,1", "method=glob(e*)"], 3
    assert compose.hydra_words(there) == ["++method.x=1", "hydra.launcher.gpus=2", "++hydra.launcher.extra.nice=5", *there[readable:]]


def test_plans_and_single_configs_read_words_alike(tmp_path):
    words = [f"store={tmp_path}/a=b", "method.drift_gate_lambda=2", "method.smooth=false"]
    one, (swept,) = compose.one(words), compose.sweep(words)
    assert one["store"] == swept["store"] == f"{tmp_path}/a=b" and one["method"]["drift_gate_lambda"] == 2
    with pytest.raises(ValueError, match="^unknown key methd: nearest is method$"), explained(["methd=echo"]):
        compose.one(["methd=echo"])


def test_hydras_grammar_has_no_such_values():
    """What is quoted here would be refused as it stands."""
    assert OverridesParser.create().parse_override('store="/a=b"').value() == "/a=b"
    assert Path(compose.value_of("store", [], "results")) == Path("results")
