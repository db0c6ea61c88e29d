"""The machine crashes: a real file system on a loop device, whose journal is aborted in mid-work; what a record names is on the disk."""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder, new_attempt
from jobs.work.worker import work
from tests.helpers.toy import changed

BYTES = 16 * 2**20


def command(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a file system of its own, and what checks it after a crash and mounts it again."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(BYTES)
    try:
        command("mkfs.ext4", "-q", "-F", image)
        command("mount", "-o", "loop", image, place)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device can be had here: {error}")

    def restart() -> None:
        gc.collect()  # a file that is open keeps it from being taken away
        command("umount", place)
        assert subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True).returncode in (0, 1)
        command("mount", "-o", "loop", image, place)

    yield place, restart
    command("umount", place)


def make(folder: RunFolder, config: dict) -> None:
    """What is missing of a run, here."""
    work(folder.job, new_attempt(), [], config, lambda event: None)


@pytest.fixture(scope="module")
def quiet(plain: dict, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str, str]]:
    """A config, and the hash of each video's latents where nothing crashes."""
    config = changed(plain, "store", str(tmp_path_factory.mktemp("quiet"))) | {"duration_scale": 0.25}
    folder = RunFolder(prepare(config))
    make(folder, config)
    return config, {record.unit: record.latents_sha256 for record in folder.reader.records()}


@pytest.mark.parametrize("rounds", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_what_a_record_names_is_on_the_disk(disk, quiet, rounds: int) -> None:
    """After each crash every video that a record names has the bytes that it says; the same command makes the rest.

    Crashes that come too late, behind the last video, move the later ones forward, on however slow a machine.
    """
    (place, restart), (config, latents) = disk, quiet
    chance, crashed, latest_s = random.Random(rounds), 0, 0.6
    for number in range(rounds):
        own = config | {"store": str(place / f"store{number}")}
        folder = RunFolder(prepare(own))
        abort = threading.Timer(chance.uniform(0.0, latest_s), command, ("mount", "-o", "remount,abort", place))
        abort.start()
        try:
            make(folder, own)
            latest_s *= 0.7
        except OSError:
            crashed, latest_s = crashed + 1, latest_s * 1.2
        abort.join()
        restart()
        records = folder.reader.records()
        assert not folder.reader.amiss(records, contents=True) and not folder.reader.settled(None).damaged, f"round {number}"
        shutil.rmtree(folder.path / "claims", ignore_errors=True)  # its owner would have died with the machine
        make(folder, own)
        made = {record.unit: record.latents_sha256 for record in folder.reader.records() if record.ok}
        assert made == latents and not folder.unfinished(), f"round {number}"
        shutil.rmtree(place / f"store{number}")
    assert crashed >= rounds // 4, "the crashes came too late: most after the last video, where all of them must be there"
