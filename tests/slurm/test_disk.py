"""Disks that are full or cannot be written: one line, no unit blamed, nothing lost. Real file systems, so root is needed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT
from jobs.launch.slurm import job, split
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder
from tests.helpers.toy import changed, overrides

pytestmark = pytest.mark.slow


@pytest.fixture
def plain(tmp_path):
    """The toy's config."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides(tmp_path)), resolve=True)


def part(config: dict, tmp_path) -> job.JobPart:
    return job.JobPart((split.wanted(prepare(config)),), (config,), ("run.py",), str(tmp_path / "launch"), 60)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 400 kB, which can be made read-only."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def make(plain: dict, store, expect: str | None) -> None:
    """The run in a process of its own, as a SLURM job does it; what it must say, None for nothing."""
    config = changed(plain, "store", str(store))
    code = "import json, sys; from jobs.launch.slurm.job import JobPart; given = json.loads(sys.argv[1]); print(JobPart(**given).make())"
    told = dataclasses.asdict(part(config, store.parent))
    done = subprocess.run([sys.executable, "-c", code, json.dumps(told)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (expect is None) and (expect or "") in done.stderr, done.stderr


def test_a_full_disk_and_a_read_only_store_lose_nothing(plain, small_disk):
    """A disk that fills during work gives one line, no failed unit and no torn record; later the same command continues."""
    store = small_disk / "store"
    make(plain | {"prompts": 1}, store, None)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="space"), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    with filler.open("ab") as file:
        file.truncate(filler.stat().st_size - 3 * 4096)  # enough to begin
    make(plain, store, "No space left on device); free some space; what is finished is kept, and the same command goes on")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    make(plain, store, "cannot be written (Read-only file system)")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    filler.unlink()
    make(plain, store, None)
    (path,) = store.glob("runs/*/*/*/*/*")
    records = RunFolder(prepare(changed(plain, "store", str(store)))).reader.records()
    lines = [line for file in (path / "records").iterdir() for line in file.read_bytes().splitlines()]
    assert len(records) == len(lines) == 3 and {record.status for record in records} == {"ok"}
