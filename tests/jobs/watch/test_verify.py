"""A store whose bits turn over: nothing of it changes in silence."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from echo.refusals import Unfinished
from eval.store.runs import runs
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder, new_attempt
from jobs.watch.verify import verify
from jobs.work.worker import work
from tests.helpers.toy import changed


@pytest.fixture(scope="module")
def made(plain: dict, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """A config, and the store of its three videos."""
    store = tmp_path_factory.mktemp("made")
    config = changed(plain, "store", str(store)) | {"duration_scale": 0.25}
    assert work(prepare(config), new_attempt(), [], config, lambda event: None) == 0
    return config, store


def said(store: Path, **how: bool) -> list[str]:
    """What is said of a store that is damaged."""
    lines = list[str]()
    with pytest.raises(Unfinished):
        for line in verify(store=store, **how):
            lines.append(line)
    return lines


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_bit_turns_over_in_silence(made: tuple[dict, Path], tmp_path: Path, count: int) -> None:
    """Records, traces and videos in turn, one bit of a store at a time: the file is named, and what is read of units is as before."""
    store, chance = shutil.copytree(made[1], tmp_path / "store"), random.Random(count)
    assert list(verify(store=store))[-1].startswith("1 runs, 3 records, 6 files beside them: all as they were written")
    kinds = [sorted(store.rglob(pattern)) for pattern in ("records/*.jsonl", "units/*.trace.jsonl", "units/*.mp4")]
    (run,) = runs(store)
    before, silent = run.settled(None).done, list[str]()
    for number in range(count):
        path = chance.choice(kinds[number % 3])
        content = path.read_bytes()
        place, bit = chance.randrange(len(content)), chance.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        lines, settled = said(store), run.settled(None)
        if not any(line.startswith(str(path)) for line in lines) or any(record != before[unit] for unit, record in settled.done.items()):
            silent.append(f"{path.name}, byte {place}, bit {bit}")
        assert len(settled.done) == len(before) or settled.damaged
        path.write_bytes(content)
    assert not silent, f"{len(silent)} of {count} bits turned over in silence: {silent[:5]}"


def test_what_is_damaged_is_named_taken_away_and_made_again(made: tuple[dict, Path], tmp_path: Path) -> None:
    store = shutil.copytree(made[1], tmp_path / "store")
    config = made[0] | {"store": str(store)}
    folder = RunFolder(prepare(config))
    video, cut, gone = (folder.side(prompt, ".mp4") for prompt in folder.job.asked)
    films = {path: path.read_bytes() for path in (video, cut, gone)}
    before = {unit: record.latents_sha256 for unit, record in folder.reader.settled(None).done.items()}
    video.write_bytes(films[video][:500] + bytes([films[video][500] ^ 8]) + films[video][501:])
    cut.write_bytes(films[cut][:-1])
    gone.unlink()
    (spec,) = store.rglob("run.json")
    lines = said(store, sizes=True)
    assert lines[:-1] == [f"{cut}: has {len(films[cut]) - 1} bytes, {len(films[cut])} were written", f"{gone}: is gone"]
    lines = said(store, remove=True)
    assert lines[0] == f"{video}: is not what was written" and "3 faults" in lines[-1] and not video.exists() and not cut.exists()
    assert work(folder.job, new_attempt(), [], config, lambda event: None) == 0
    assert {path: path.read_bytes() for path in films} == films and not list(folder.reader.settled(None).conflicts)
    assert {unit: record.latents_sha256 for unit, record in folder.reader.settled(None).done.items()} == before
    spec.write_text(spec.read_text(encoding="utf-8").replace('"epoch": 2', '"epoch": 3'), encoding="utf-8")
    assert said(store)[0] == f"{spec}: its settings are not those that its folder is named after"
