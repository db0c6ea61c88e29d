"""Folders that a command finds stay, whatever Hydra notes in them; names that become folders are checked first."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from echo.files import ROOT
from jobs.launch import sweep
from jobs.spec.config import from_plain
from tests.helpers.toy import changed


def test_a_prepared_store_keeps_its_rights_after_a_refused_sweep(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o2775)
    words = [sys.executable, ROOT / "run.py", "seed=-1,0", f"store={store}", "-m"]
    done = subprocess.run(words, cwd=tmp_path, text=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode and done.stderr.count("\n") == 1 and "seed=-1" in done.stderr
    assert store.stat().st_mode & 0o7777 == 0o2775 and os.listdir(tmp_path) == ["store"] and not os.listdir(store)


def test_each_command_has_a_note_of_its_own(tmp_path, monkeypatch):
    """Two at once in one store: the end of one took away the folder in which the other was about to write."""
    file = sweep.PLUGINS / "hydra_plugins" / "echo_launchers" / "launchers.py"
    spec = importlib.util.spec_from_file_location("launchers", file)
    launchers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launchers)
    foreseen = []
    monkeypatch.setattr(sweep, "foresee", foreseen.append)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": f"{tmp_path}/hydra"}}}, flags={"readonly": True, "struct": True})
    launchers.LocalLauncher().setup(hydra_context=None, task_function=None, config=config)
    assert foreseen == [Path(config.hydra.sweep.dir)] == [tmp_path / f"hydra-{os.getpid()}"]


def test_only_what_was_not_there_goes(tmp_path):
    (tmp_path / "a").mkdir()
    sweep.foresee(tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "multirun.yaml").touch()
    sweep.forget()
    assert os.listdir(tmp_path) == ["a"] and not os.listdir(tmp_path / "a")
    (tmp_path / "a" / "multirun.yaml").write_text("mine", encoding="utf-8")
    sweep.foresee(tmp_path / "a")
    sweep.forget()
    assert os.listdir(tmp_path / "a") == ["multirun.yaml"]


@pytest.mark.parametrize("name", ["ours/v2", "", "../x", ".hidden", "a\nb", "*", "狐" * 40])
@pytest.mark.parametrize("key", ["backbone", "method", "task", "eval", "experiment"])
def test_names_that_become_folders_are_checked_where_they_are_typed(plain, key, name):
    path = key if key == "experiment" else f"{key}.name"
    with pytest.raises(ValueError, match="it names folders" if name else "nothing is said") as told:
        from_plain(changed(plain | {"experiment": None}, path, name))
    assert str(told.value).startswith(f"{path}=") and str(told.value).count("\n") == 0
    if name == "ours/v2":
        assert str(told.value).endswith("nearest is ours-v2")


@pytest.mark.parametrize("name", ["ours-v2", "echo_official", "我的方法", "a b", "x" * 80, "lambda=0.5", "v1.2+x"])
def test_good_names_are_taken(plain, name):
    assert from_plain(changed(plain, "method.name", name)).method.name == name


def test_the_next_commands_show_what_was_made():
    """Tables by experiment where there was one, the report of it alone; nothing where videos alone were made; other stores by name."""
    tables, report = sweep.next_commands("results", ["table2-hard", "table2-recall"], ["table2"])
    assert tables.endswith("echo-harness tables table2") and report.endswith("echo-harness report experiment=table2")
    tables, report = sweep.next_commands("a store", ["recall", "table2-hard"], [None, "table2"])
    assert tables.endswith("tables recall table2 --store 'a store'") and report.endswith("report --store 'a store'")
    assert [line.partition("echo-")[2] for line in sweep.next_commands("results", [], [None])] == ["harness report"]
