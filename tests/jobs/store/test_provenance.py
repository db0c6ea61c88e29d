"""What is kept of where an attempt was made, and that the paper's tables want code that a commit names."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest

from echo.files import ROOT
from eval.store import origin
from eval.store.records import CodeState, encoded
from eval.vbench.networks.packages import DREAMSIM, INSTALL
from jobs.launch import sweep
from jobs.store import provenance
from jobs.work import child
from jobs.work.events import JobOrder


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository of one commit in place of this one."""
    root = tmp_path / "clone"
    (root / "eval").mkdir(parents=True)
    (root / "eval" / "a.py").write_text("a = 1\n", encoding="utf-8")
    (root / "README.md").write_text("words\n", encoding="utf-8")
    (root / ".gitignore").write_text("kept/\n", encoding="utf-8")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    monkeypatch.setattr(origin, "ROOT", root)
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


def test_every_attempt_says_where_it_ran(monkeypatch):
    for name, value in {"JOB_ID": "71", "ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "1", "RESTART_COUNT": "2", "NODELIST": "n3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = json.loads(encoded(provenance.describe(["run.py", "seed=0"], {"seed": 0})))
    assert found["slurm"] | {"job_id": "71", "array_job_id": "70", "array_task_id": "1", "restart_count": "2"} == found["slurm"]
    assert found["slurm"]["nodelist"] == "n3" and found["argv"] == ["run.py", "seed=0"] and found["config"] == {"seed": 0}
    assert set(found["code"]) == {"commit", "dirty"} and found["host"] and found["packages"]["torch"] and "gpu" in found


def test_versions_are_kept_of_all_that_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tests = ("dev", "browser", "notebooks", "docs")
    extras = [line for name, lines in project["optional-dependencies"].items() if name not in tests for line in lines]
    pinned = [word for word in (*INSTALL.split(), *DREAMSIM.split()) if "==" in word]
    wanted = {name for line in (*project["dependencies"], *extras, *pinned) for name in re.findall(r"^[a-z][\w-]*", line)}
    assert len(wanted) > 25 and wanted - {"echo-harness", "psutil"} <= set(provenance.PACKAGES)


def test_outside_a_job_there_are_no_ids(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    assert provenance.slurm() is None


def test_hash_of_what_differs_tells_changes_apart(clone):
    clean = provenance.commit()
    assert clean.commit and clean.dirty is None and not provenance.changes()
    (clone / "kept").mkdir()
    (clone / "kept" / "x.py").write_text("ignored", encoding="utf-8")
    assert provenance.commit() == clean
    hashes = set()
    for content in ("a = 2\n", "a = 3\n"):
        (clone / "eval" / "a.py").write_text(content, encoding="utf-8")
        hashes.add(provenance.commit().dirty)
    for content in ("b = 2\n", "b = 3\n"):  # a new file is no part of git's diff
        (clone / "eval" / "b.py").write_text(content, encoding="utf-8")
        hashes.add(provenance.commit().dirty)
    assert len(hashes) == 4 and None not in hashes


def test_a_table_of_the_paper_is_refused_from_changed_code_alone(clone):
    provenance.refuse_dirty("table1", False)
    (clone / "README.md").write_text("other words\n", encoding="utf-8")
    provenance.refuse_dirty("table1", False)  # no code
    (clone / "eval" / "b.py").write_text("b = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^experiment=table1: the code differs from its commit \(eval/b.py, new\).*allow_dirty=true$"):
        provenance.refuse_dirty("table1", False)
    (clone / "eval" / "a.py").write_text("a = 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"its commit \(eval/a.py; eval/b.py, new\), and"):
        provenance.refuse_dirty("table1", False)
    for experiment, allowed in (("table1", True), ("compare", False), (None, False)):
        provenance.refuse_dirty(experiment, allowed)


def test_a_git_that_fails_is_no_clean_tree(clone):
    """Like on a node where git is missing, or reports that the clone belongs to another user."""
    head = provenance.commit().commit
    (clone / ".git" / "index").write_bytes(b"torn")
    assert provenance.commit() == CodeState(head, "unknown") and origin.commit(["eval"]) == f"{head}-changed"
    with pytest.raises(ValueError, match=r"^experiment=table1: git does not say .*make `git status` work in .*clone, or allow_dirty=true$"):
        provenance.refuse_dirty("table1", False)
    (clone / ".git").rename(clone / "git")
    assert provenance.commit() == CodeState() and origin.commit(["eval"]) == "unknown"
    provenance.refuse_dirty("table1", False)  # no clone: nothing to differ from


def test_commands_and_workers_refuse_it_before_any_work(clone, plain, tmp_path):
    (clone / "eval" / "a.py").write_text("a = 2\n", encoding="utf-8")
    config = plain | {"store": str(tmp_path / "store")}
    with pytest.raises(SystemExit, match="experiment=table2: the code differs from its commit"):
        sweep.carry_out([config], ["table2"])
    assert not (tmp_path / "store").exists()
    told = []
    order = JobOrder(config=config | {"experiment": "table2"}, attempt="a", argv=[], log="/dev/null")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.os, "dup2", lambda *_: None)  # the test's own streams stay
        assert child._obey(order, told.append) == 2
    assert not told and not (tmp_path / "store").exists()
