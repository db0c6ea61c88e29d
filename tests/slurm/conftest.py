"""A real SLURM on this machine, started once; where there is none, these tests say so and are passed over."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from echo.files import ROOT
from eval.store.runs import runs
from tests.helpers import slurm as sweeps
from tests.helpers.waiting import until

SANDBOX = Path(__file__).with_name("sandbox.sh")
MOST = 4
"""MaxArraySize, lowered."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes of one core, partitions `low` and `high`; every command of the tests finds it by its environment."""
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons start jobs as their users, which takes root")
    if shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin") is None:
        pytest.skip("no slurmctld here: tests/slurm/sandbox.sh install, as root on Debian")
    place, port = str(tmp_path_factory.mktemp("slurm")), str(20000 + os.getpid() % 2000 * 5)
    told = {"SANDBOX": place, "SANDBOX_PORT": port, "SANDBOX_ARRAY": str(MOST), "SANDBOX_CPUS": "1", "SANDBOX_NODES": "2"}
    before = os.environ.copy()
    try:
        subprocess.run([SANDBOX, "start"], env=os.environ | told, check=True, timeout=120, stdout=subprocess.DEVNULL)
        os.environ |= {"SLURM_CONF": f"{told['SANDBOX']}/etc/slurm.conf", "PATH": os.environ["PATH"] + ":/usr/sbin"}
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        subprocess.run([SANDBOX, "stop"], env=os.environ | told, check=True, timeout=120)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """What the sweep gives on this machine without SLURM: the table's files and the hash of each video."""
    store = tmp_path_factory.mktemp("local")
    done = subprocess.run(sweeps.words(store, "hydra/launcher=local"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sweeps.tables(store) and len(sweeps.latents(store)) == sweeps.UNITS
    return sweeps.tables(store), sweeps.latents(store)


@pytest.fixture
def whole(undisturbed):
    """Asserts that a store holds every unit exactly once, whole, and makes the undisturbed table."""

    def check(store: Path) -> None:
        lines = [line for run in runs(store) for file in (run.path / "records").iterdir() for line in file.read_bytes().splitlines()]
        records = [record for run in runs(store) for record in run.records()]
        assert len(records) == len(lines), "a torn record"
        counts = Counter(record.unit for record in records if record.status == "ok")
        assert len(counts) == sweeps.UNITS and set(counts.values()) == {1}
        assert (sweeps.tables(store), sweeps.latents(store)) == undisturbed
        for run in runs(store):
            assert all((run.path / "units" / name).exists() for r in run.records() if r.status == "ok" for name in r.files.values())

    return check


@pytest.fixture
def cancelled(cluster):
    """Leaves no job behind."""
    yield
    sweeps.slurm("scancel", "--full", "--user=root")
    until(lambda: not sweeps.slurm("squeue", "-h"), "an empty queue")
    sweeps.slurm("scontrol", "update", "nodename=node[1-2]", "state=resume", check=False)
