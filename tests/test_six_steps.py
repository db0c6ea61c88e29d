"""The six steps of the README, carried out from the text of docs/policies.md: in a copy of the repository and in a package of one's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from echo.files import ROOT
from tests.helpers.command import ECHO_HARNESS
from tests.helpers.packages import fenced, write_metadata, write_package


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that git knows or would take in, as they are in the working tree."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/golden"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.slow
def test_a_policy_from_the_readme(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*.py")}
    (copy / "baselines" / "ends.py").write_text(fenced("python"), encoding="utf-8")
    (copy / "conf" / "method" / "ends.yaml").write_text(fenced("yaml"), encoding="utf-8")
    rows = copy / "tests" / "helpers" / "policies.py"
    rows.write_text(
        rows.read_text(encoding="utf-8").replace('    ("echo", {}),\n', '    ("echo", {}),\n    ("ends", {}),\n'), encoding="utf-8"
    )
    changed = {path for path in copy.rglob("*.py") if before.get(path) != path.read_bytes()}
    assert {path.name for path in changed} == {"ends.py", "policies.py"}

    carried_out(copy, copy)


@pytest.mark.slow
def test_a_policy_from_the_readme_in_a_package_of_its_own(tmp_path: Path) -> None:
    """The same steps with this repository unchanged, and the package where pip would put it."""
    write_metadata(write_package(tmp_path))
    carried_out(ROOT, tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))


@pytest.mark.slow
def test_a_package_that_pip_installs_runs_by_one_command(tmp_path: Path) -> None:
    """In an environment of its own, which sees this one's packages and not those folders that happen to be on the path."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    sources = write_package(tmp_path / "sources")
    install = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--prefix", str(tmp_path / "venv")]
    run(Path(sys.executable), ROOT, *install, str(sources))
    shutil.rmtree(sources)
    words = ["method=ends,echo", "task=recall", "prompts=1", "duration_scale=0.1", f"store={tmp_path / 'out'}", "-m"]
    shown = run(python, ROOT, "run.py", *words, PYTHONPATH="")
    assert re.search(r"^ends +1 ", shown, flags=re.M) and re.search(r"^echo +1 ", shown, flags=re.M), shown
    (about,) = (tmp_path / "out").glob("runs/tiny/recall/ends/*/*/run.json")
    source = json.loads(about.read_text(encoding="utf-8"))["key"]["pixels"]["method.source"]
    assert (source["package"], source["version"]) == ("both-ends", "1.2")


def carried_out(repository: Path, out: Path, **environment: str) -> None:
    """Steps 3 to 5, in the repository's folder: the trace, the shared matrix, a run beside another method."""
    python = Path(sys.executable)
    png, store = out / "trace.png", out / "out"
    trace = run(python, repository, *ECHO_HARNESS[1:], "trace", "method=ends", "task=recall", "--png", str(png), **environment).splitlines()
    assert len(trace) == 80 and png.stat().st_size > 1000
    assert '"keys": [["f0", 0], ["f1", 1], ["f2", 2], ["f3", 3], ["f4", 4], ["f5", 5], ["f9", 6]' in trace[7]
    matrix = ["-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider", "tests/echo/test_policies.py", "-k", "ends"]
    assert "passed" in run(python, repository, *matrix, **environment)
    words = ["method=ends,self_forcing", "task=recall", "prompts=1", "duration_scale=0.1", f"store={store}", "-m"]
    shown = run(python, repository, "run.py", *words, **environment)
    assert re.search(r"^ends +1 ", shown, flags=re.M), shown


def run(python: Path, folder: Path, *words: str, **environment: str) -> str:
    """What a command writes, which must not fail."""
    done = subprocess.run([python, *words], cwd=folder, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
