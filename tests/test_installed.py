"""The package as pip installs it, outside a clone: an sdist, the wheel that is built of it, and commands in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from echo.files import ROOT

CARRIED = ("conf", "data", "eval", "baselines", "echo", "jobs", "run.py")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def called(*words: object, cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_installed_without_a_clone(tmp_path: Path) -> None:
    """Nothing is fetched: the other packages are those of this environment."""
    names = called("git", "ls-files", *CARRIED, cwd=ROOT).splitlines()
    tree, dist, folder = tmp_path / "tree", tmp_path / "dist", tmp_path / "empty"
    for name in (*names, "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    called(sys.executable, "-c", BUILD, dist, cwd=tree)
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        assert set(names) <= {name.partition("/")[2] for name in file.getnames()}
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    called(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", dist, sdist, cwd=tmp_path)
    (wheel,) = dist.glob("*.whl")
    assert set(names) - {"run.py"} <= set(zipfile.ZipFile(wheel).namelist())

    venv = tmp_path / "venv"
    called(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    called(*pip, "--python", venv / "bin" / "python", "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    called("git", "init", "-q", tmp_path, cwd=tmp_path)  # whose commit is not the package's
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def harness(*words: str) -> str:
        return called(venv / "bin" / "echo-harness", *words, cwd=folder, environment=environment)

    told = harness("run", "method=echo,forget", "task=recall", "prompts=1", "seed=0", "duration_scale=0.1", "-m")
    assert "Failed runs: 0 of 2 videos." in told and "table: results/tables/recall.md" in told
    assert "echo-harness tables recall\n" in told and "echo-harness report\n" in told and max(map(len, told.splitlines())) <= 80
    assert "echo " in harness("tables", "recall") and (folder / "results" / "tables" / "recall.csv").is_file()
    assert "(1 task, 2 videos" in harness("report") and (folder / "results" / "report" / "all" / "index.html").is_file()
    assert "in all: 8 runs" in harness("plan", "experiment=bounds", "prompts=1", "seed=0")
    assert {path.name for path in folder.iterdir()} == {"results"}


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "files"), [("Dockerfile", r"^COPY (\S+) "), ("echo.def", r"^    (\S+) /echo/")])
def test_a_containers_recipe(recipe: str, files: str, tmp_path: Path) -> None:
    """No container is built: what it copies is in git, and its install line works in a fresh environment; nothing is fetched."""
    text = (ROOT / "docs" / "containers" / recipe).read_text(encoding="utf-8")
    tracked, tree = called("git", "ls-files", cwd=ROOT).splitlines(), tmp_path / "tree"
    copied = re.findall(files, text, flags=re.M)
    names = [name for name in tracked if copied == ["."] or name in copied]
    assert len(copied) in (1, 3) and (copied == ["."] or sorted(names) == sorted(copied))
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    (line,) = re.findall(r"pip install ([^&\n]+)$", text, flags=re.M)
    words = shlex.split(line)
    extras = re.fullmatch(r"\.\[(.+)\]", words[-1])
    assert extras and set(extras[1].split(",")) <= set(
        tomllib.loads((tree / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )
    venv = tmp_path / "venv"
    called(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", venv / "bin" / "python")
    called(*pip, "install", "-q", "--no-deps", "--no-build-isolation", *words, cwd=tree)
    # The image for clusters holds no harness: a job's PYTHONPATH names the clone.
    environment = os.environ | {"PYTHONPATH": str(ROOT) if recipe == "echo.def" else "", "OMP_NUM_THREADS": "1"}
    assert "Usage: echo-harness" in called(venv / "bin" / "echo-harness", "--help", cwd=tmp_path, environment=environment)
