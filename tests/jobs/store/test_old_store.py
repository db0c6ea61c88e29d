"""A store that commit c50a001 wrote reads the same today: names, outcomes, tables to the byte; nothing of it is made again.

tests/fixtures/store_c50a001.tar.gz was made there, of `WORDS` with a directory standing where the first recall video of self_forcing at
seed=1 should go, so that this one video failed, and of `REAL`:

    python run.py method=self_forcing,infinity_rope,echo task=recall,long60 seed=0,1 prompts=2 video.height_px=48 video.crf=51 -m
    python run.py backbone=self_forcing weights=random geometry=tiny method=echo task=hard seed=0 prompts=1 eval=none \
        video.height_px=48 video.crf=51

The cache of texts was left out, and a folder's name in the traceback of the failed video was changed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from echo.files import ROOT, digest
from echo.refusals import Unfinished
from eval import metrics
from eval.store import frame
from eval.store.runs import runs, sweeps
from eval.tables import command
from jobs.spec import compose
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder
from jobs.watch import status
from jobs.work import score

SMALL = ("prompts=2", "video.height_px=48", "video.crf=51")
WORDS = ("method=self_forcing,infinity_rope,echo", "task=recall,long60", "seed=0,1", *SMALL)
THEN = "eval.pairs=mean"
"""How pairs were scored then; today's default is another way of scoring (`test_pairs_are_scored_anew_unless_asked_as_then`)."""
REAL = ("backbone=self_forcing", "weights=random", "geometry=tiny", "method=echo", "task=hard", "seed=0", *SMALL, "prompts=1", "eval=none")
OTHER_WORDS: dict[str, dict[str, str]] = {}
"""By table's file, words of then and those that stand there now."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store, as it was written."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ROOT / "tests" / "fixtures" / "store_c50a001.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"


def asked_of(store: Path) -> list[RunFolder]:
    """What the same commands ask of a store today."""
    return [RunFolder(prepare(config | {"store": str(store)})) for config in (*compose.sweep((*WORDS, THEN)), compose.one(REAL))]


@pytest.fixture(scope="module")
def folders(store: Path) -> list[RunFolder]:
    """What the same commands ask for today."""
    return asked_of(store)


def test_names_are_the_same(store: Path, folders: list[RunFolder]) -> None:
    assert {folder.path for folder in folders} == {run.path for run in runs(store)} and len(folders) == 13
    for folder in folders:
        spec = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
        assert folder.reader.spec.run == folder.path.name == digest(spec["key"]) and folder.job.run_key == spec["key"]
        (asked,) = folder.reader.asked()
        (path,) = (folder.path / "asked").iterdir()
        wish = json.loads(path.read_text(encoding="utf-8"))
        assert (asked.units, asked.prompts, asked.scores) == (wish["units"], wish["prompts"], wish["scores"])
        assert folder.wish().units == asked.units and folder.wish().prompts == asked.prompts and folder.job.scores_id == asked.scores


def test_nothing_is_made_again_but_what_failed(folders: list[RunFolder]) -> None:
    missing = {folder.place: [prompt.id for prompt in folder.missing()] for folder in folders if folder.missing()}
    (failed,) = [folder for folder in folders if folder.place in missing]
    assert (failed.job.config.task.name, failed.job.config.method.name, failed.job.config.seed) == ("recall", "self_forcing", 1)
    assert missing[failed.place] == ["recall-000"] and not score.unscored(failed, failed.job.asked)


def test_pairs_are_scored_anew_unless_asked_as_then(store: Path) -> None:
    """What has no pairs keeps its scores; the videos keep their names in any case."""
    todays = [RunFolder(prepare(config | {"store": str(store)})) for config in compose.sweep(WORDS)]
    for then, folder in zip(asked_of(store), todays):
        task = folder.job.config.task.name
        assert then.path == folder.path and (then.job.scores_id == folder.job.scores_id) == (task != "recall"), task
        assert (len(folder.missing()) == 2) == (task == "recall"), task


def test_asking_again_writes_nothing(store: Path, tmp_path: Path) -> None:
    """Not even the request changes: it keeps its old bytes."""
    again = tmp_path / "store"
    shutil.copytree(store, again)
    before = {path: path.read_bytes() for path in again.rglob("*.json")}
    for folder in asked_of(again):
        folder.describe()
    assert {path: path.read_bytes() for path in again.rglob("*.json")} == before


def test_status_says_what_became_of_it(store: Path) -> None:
    told = list[str]()
    with pytest.raises(Unfinished):
        told.extend(status.status(store=store, failed=True))
    assert any(line.startswith("24 of 25 videos done, 0 running, 1 failed, 0 missing") for line in told)
    assert any("recall-000 failed (1 tries)" in line for line in told) and any("Error" in line for line in told)


def test_frame_has_every_video(store: Path) -> None:
    videos = frame.videos(store)
    assert Counter(videos["status"]) == {"done": 23, "failed": 1}
    unscored = frame.videos(store, scored=False)
    assert len(unscored) == 25 and (unscored["status"] == "done").sum() == 24
    assert all(Path(path).is_file() for path in unscored["video"].dropna())
    assert len(frame.blocks(store)) == 23 * 80 and set(frame.segments(store)["scene"]) == set(range(6))


def test_tables_are_the_same_to_the_byte(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the columns of cost, which tables have had since: they come behind all others."""
    again = tmp_path / "store"
    shutil.copytree(store, again)
    shutil.rmtree(again / "tables")
    assert {sweep.name for sweep in sweeps(again)} == {"recall", "long60"}
    command.make(again)
    heads = {name: (again / "tables" / f"{name}.csv").read_text(encoding="utf-8").partition("\n")[0] for name in ("recall", "long60")}
    monkeypatch.setattr(metrics, "METRICS", tuple(dataclasses.replace(one, trails=one.trails and not one.fact) for one in metrics.METRICS))
    command.make(again)
    names = sorted(path.name for path in (store / "tables").iterdir())
    assert names == sorted(path.name for path in (again / "tables").iterdir()) and len(names) == 8
    for name in names:
        before = (store / "tables" / name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            assert heads[name.removesuffix(".csv")].startswith(before.partition("\n")[0] + ",run_fps,")
        for old, new in OTHER_WORDS.get(name, {}).items():
            assert old in before
            before = before.replace(old, new)
        assert (again / "tables" / name).read_text(encoding="utf-8") == before, name
