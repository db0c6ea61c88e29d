"""A hundred kills of two processes that write one store: nothing lost or made twice. `python -m tests.load.stress` kills whole sweeps."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from collections import Counter

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT
from eval.store.records import Provenance
from jobs.spec.plan import prepare
from jobs.store.folder import Attempt, RunFolder, new_attempt
from tests.helpers.toy import changed, overrides

pytestmark = pytest.mark.slow

KILLS = 100


def write_all(config: dict) -> None:
    """What a worker does around its videos, without the videos."""
    folder = RunFolder(prepare(config))
    with Attempt(folder, new_attempt(), Provenance()) as attempt:
        for prompt in folder.missing():
            own = attempt.take([prompt])
            for one in own:
                time.sleep(0.02)
                attempt.ok(one, {"x": 1.0}, {"latents_sha256": one.id, "tokens_cut": {"0": list(range(2000))}})
            attempt.release(own)


def begun(config: dict) -> multiprocessing.process.BaseProcess:
    """A process that writes; forked, since not what it imports is to be killed."""
    writer = multiprocessing.get_context("fork").Process(target=write_all, args=(config,))
    writer.start()
    return writer


def test_a_hundred_kills(tmp_path):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        plain = OmegaConf.to_container(compose("config", overrides(tmp_path, 150)), resolve=True)
    chance, kills, stores = random.Random(0), 0, 0
    while kills < KILLS:
        stores += 1
        config = changed(plain, "store", str(tmp_path / str(stores)))
        folder = RunFolder(prepare(config))
        folder.describe()
        writers = [begun(config) for _ in range(2)]
        while folder.missing():
            time.sleep(chance.uniform(0, 0.6))
            index = chance.randrange(2)
            kills += writers[index].is_alive()
            writers[index].kill()
            writers[index].join()
            writers[index] = begun(config)
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        lines = [line for path in (folder.path / "records").iterdir() for line in path.read_bytes().splitlines()]
        records = folder.reader.records()
        assert len(records) == len(lines), "torn"
        assert set(Counter(record.unit for record in records).values()) == {1}, "double"
        assert len(records) == 150, "lost"
    sys.stderr.write(f"{kills} kills, {stores} stores, {150 * stores} records\n")
