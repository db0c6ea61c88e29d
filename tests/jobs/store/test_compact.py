"""Records folded into Parquet: the same tables to the byte, whatever became of the store since, and from the JSON lines where need be."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from echo.files import ROOT
from eval.arguments import answer
from eval.store import compacted
from eval.store.records import Run
from eval.tables import command
from jobs.store import compact
from tests.helpers.stores import put
from tests.load import million

parquet = pytest.importorskip("pyarrow.parquet")
PROMPTS = [f"p{index}" for index in range(6)]


def scores(shift=0.0, names=("proxy.text_alignment", "temporal_flickering")):
    return {prompt: dict.fromkeys(names, 50 + shift + 3.7 * index) for index, prompt in enumerate(PROMPTS)}


@pytest.fixture
def store(tmp_path):
    """Two methods x two tasks x two seeds, with a metric that some lack and one that was never finite."""
    for task in ("hard", "recall"):
        for seed in (0, 1):
            put(tmp_path, task, "self_forcing", scores(0.3 * seed), seed=seed)
            values = scores(1.1 + seed)
            values["p1"]["dynamic_degree"] = 12.5
            values["p2"] |= {"temporal_flickering": None, "imaging_quality": None}
            put(tmp_path, task, "echo", values, seed=seed)
    return tmp_path


def append(folder, name="b", **changes):
    """Another record of the run's first unit, in a file of its own."""
    first = json.loads((folder / "records" / "a.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with (folder / "records" / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(first | {"t": 9, "attempt": name} | changes) + "\n")


def runs_of(store, method="echo", task="hard"):
    return sorted(path.parent for path in store.glob(f"runs/*/{task}/{method}/*/*/run.json"))


def made(store):
    """All tables, as they are; and as they are without what was folded."""
    command.make(store)
    found = {path.name: path.read_bytes() for path in (store / "tables").iterdir()}
    hidden = store / "hidden"
    (store / "compact").rename(hidden)
    command.make(store)
    hidden.rename(store / "compact")
    return found, {path.name: path.read_bytes() for path in (store / "tables").iterdir()}


def changed_in_place(store):
    """Other numbers in all record files, of the same size: whoever shows them has read the JSON lines."""
    for path in store.glob("runs/*/*/*/*/*/records/*.jsonl"):
        path.write_text(path.read_text(encoding="utf-8").replace(": 5", ": 9"), encoding="utf-8")


def test_tables_are_the_same_to_the_byte_and_really_from_parquet(store):
    assert compact.fold(store) == (48, 48)
    folded, lines = made(store)
    assert folded == lines and len(folded) >= 6 and b"imaging" in folded["hard.csv"]
    changed_in_place(store)
    again, lines = made(store)
    assert again == folded != lines


def test_videos_that_failed_or_have_no_scores_or_are_not_there_are_counted_alike(store):
    for folder in runs_of(store):
        path = folder / "records" / "a.jsonl"
        first, second, *rest = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        rows = [first | {"status": "error", "metrics": {}}, second | {"scores": None, "metrics": {}}, *rest[:-1]]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    compact.fold(store)
    folded, lines = made(store)
    assert folded == lines
    assert b"Failed runs: 2 of 24 videos" in folded["hard.md"] and b"2 more are made, not scored; 2 more are not made." in folded["hard.md"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="twice alike"),
        pytest.param({"metrics": {"proxy.text_alignment": 1.0}}, id="twice with other scores"),
        pytest.param({"latents_sha256": "other"}, id="twice with other latents"),
        pytest.param({"scores": "s1"}, id="another way of scoring"),
        pytest.param({"status": "error", "metrics": {}}, id="failed later"),
        pytest.param({"status": "error", "metrics": {}, "unit": "u-x", "prompt": "x"}, id="another failed"),
        pytest.param({"t": 0, "metrics": {"proxy.text_alignment": 1.0}}, id="an earlier one"),
    ],
)
def test_whatever_stands_in_a_run_is_read_alike(store, change):
    append(runs_of(store)[0], **change)
    compact.fold(store)
    folded, lines = made(store)
    assert folded == lines
    for path in runs_of(store):
        run = Run(path)
        here, there = compacted.scored(run, "s0"), compacted._from_records(run.settled("s0"))
        assert (list(here.units), here.attempts, here.names, here.failures, here.conflicts) == (
            list(there.units), there.attempts, there.names, there.failures, there.conflicts,
        )  # fmt: skip


def test_records_that_came_later_are_seen_before_they_are_folded(store):
    compact.fold(store)
    before, _ = made(store)
    append(runs_of(store)[0], name="a", unit="u-p9", prompt="p9")  # a file that has grown
    append(runs_of(store, "self_forcing")[0], name="new", t=0, metrics={"proxy.text_alignment": 99.0})
    folded, lines = made(store)
    assert folded == lines != before
    assert compact.fold(store) == (14, 50), "only the runs that changed are read again"
    assert made(store)[0] == folded and compact.fold(store) == (0, 50)


def test_records_that_were_taken_away_are_gone(store):
    compact.fold(store)
    shutil.rmtree(runs_of(store)[0] / "records")
    folded, lines = made(store)
    assert folded == lines and compact.fold(store) == (0, 42)
    shutil.rmtree(runs_of(store)[1])
    assert compact.fold(store) == (0, 36)


def test_files_that_nobody_needs_are_taken_away_a_fold_later(store):
    for _ in range(4):
        append(runs_of(store)[0], name="more")
        compact.fold(store)
    assert len(list((store / "compact").glob("*.parquet"))) == 3, "one a task, and the one before"


@pytest.mark.parametrize("content", ["{", {"v": 9}, {"records": 9}], ids=["torn", "newer", "of newer records"])
def test_an_index_that_cannot_be_read_costs_nothing(store, content):
    compact.fold(store)
    before, _ = made(store)
    path = store / "compact" / "index.json"
    path.write_text(content if content == "{" else json.dumps(json.loads(path.read_bytes()) | content), encoding="utf-8")
    assert made(store)[0] == before and compact.fold(store) == (48, 48)


class Died(BaseException):
    """As if the process had been killed."""


@pytest.mark.parametrize("step", [0, 2, 5, 7, 8])
def test_a_fold_that_dies_anywhere_costs_nothing(store, monkeypatch, step):
    """Two Parquet files and the index are written, synced and renamed, and it ends before one of these steps."""
    compact.fold(store)
    for task in ("hard", "recall"):
        append(runs_of(store, task=task)[0], metrics={"proxy.text_alignment": 99.0}, unit="u-p9", prompt="p9")
    calls = []
    with monkeypatch.context() as patch:
        for owner, name in ((parquet, "write_table"), (os, "fsync"), (type(store), "rename"), (os, "replace")):
            patch.setattr(owner, name, dies(getattr(owner, name), calls, step))
        with pytest.raises(Died):
            compact.fold(store)
    assert len(calls) == step + 1
    folded, lines = made(store)
    assert folded == lines and compact.fold(store)[1] == 50
    assert made(store) == (folded, folded) and compact.fold(store) == (0, 50)


def dies(call, calls, step):
    def instead(*given, **named):
        calls.append(call)
        if len(calls) > step:
            raise Died
        return call(*given, **named)

    return instead


def test_a_full_disk_is_one_line_and_no_fuller(store, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert answer(compact._command, [f"store={store}"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"store={store}: cannot be written (No space left on device); free some space") and told.count("\n") == 1
    assert not list((store / "compact").iterdir())


def test_an_unfinished_file_of_another_fold_stays_and_of_a_dead_one_goes(store):
    compact.fold(store)
    young, old = (store / "compact" / f".{name}.parquet" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"PAR1")
    os.utime(old, (1e9, 1e9))
    compact.fold(store)
    assert young.exists() and not old.exists()


@pytest.mark.parametrize("torn", [False, True], ids=["gone", "torn"])
def test_a_damaged_file_costs_nothing(store, torn):
    compact.fold(store)
    for path in (store / "compact").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100]) if torn else path.unlink()
    folded, lines = made(store)
    assert folded == lines and compact.fold(store) == (48, 48) and compact.fold(store) == (0, 48)


def test_without_pyarrow_the_lines_are_read(store, monkeypatch, capsys):
    compact.fold(store)
    changed_in_place(store)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    compacted._index.cache_clear()
    folded, lines = made(store)
    assert folded == lines
    with pytest.raises(ValueError, match=r'pip install "echo-harness\[parquet\]"$'):
        compact.fold(store)
    compacted._index.cache_clear()


def test_command_says_what_it_did(store):
    words = [sys.executable, "-m", "jobs.store.compact", f"store={store}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"{store / 'compact'}: 48 records, 48 of them new, "), done.stderr
    words[-1] = "store=/nowhere"
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "store=/nowhere: no run store; it has no folder runs\n"


def test_benchmark_compares_both_ways(tmp_path):
    found = million.measure(tmp_path, 600, 4, lines=True)
    assert found["records"] == 600 and found["from_parquet"]["peak_mb"] < 1000


def test_benchmark_refuses_tables_that_differ(tmp_path, monkeypatch):
    answers = iter([({}, {"a": b"1", "b": b"1"}), ({}, {"a": b"2", "b": b"1"})])
    monkeypatch.setattr(million, "tables_of", lambda store: next(answers))
    with pytest.raises(ValueError, match=": a: other bytes from Parquet$"):
        million.measure(tmp_path, 600, 4, lines=True)
