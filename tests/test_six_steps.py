"""The README's six steps, carried out: a policy is added to a copy of the repository from the README's own text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from echo.files import ROOT


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


def fenced(language: str) -> str:
    """The README's block in a language, its indent taken off."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(found) == 1, f"{len(found)} blocks of {language}"
    return textwrap.dedent(found[0])


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

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    trace = run("-m", "eval.figures.trace", "method=ends", "task=recall", "--png", "trace.png").splitlines()
    assert len(trace) == 80 and (copy / "trace.png").stat().st_size > 1000
    assert '"keys": [["f0", 0], ["f1", 1], ["f2", 2], ["f3", 3], ["f4", 4], ["f5", 5], ["f9", 6]' in trace[7]
    assert "passed" in run("-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider", "tests/echo/test_policies.py", "-k", "ends")
    shown = run("run.py", "method=ends,self_forcing", "task=recall", "prompts=1", "duration_scale=0.1", "store=out", "-m")
    assert re.search(r"^ends +1 ", shown, flags=re.M), shown
