"""The run store: atomic, append-only, resumed by reading."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from echo.files import digest, write_atomic
from eval.store.records import Provenance
from jobs.launch import local, sweep
from jobs.spec.plan import prepare
from jobs.store import unwritable
from jobs.store.folder import Attempt, RunFolder, new_attempt
from jobs.store.provenance import pixel_code
from jobs.watch import status
from jobs.work import worker
from tests.helpers.toy import changed


@pytest.fixture
def job(plain, tmp_path):
    return prepare(changed(plain, "store", str(tmp_path)))


def ok(attempt, prompt, latents="a", **metrics):
    attempt.ok(prompt, metrics, {"latents_sha256": latents})


def test_fresh_run_misses_everything(job):
    assert RunFolder(job).missing() == job.asked


def test_resume_reads_what_other_attempts_wrote(job):
    folder = RunFolder(job)
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[1])
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0])
    assert folder.missing() == job.asked[2:]


def test_torn_tail_is_passed_over_and_never_glued_to(job):
    folder = RunFolder(job)
    first = Attempt(folder, new_attempt(), Provenance())
    ok(first, job.asked[0])
    path = next((folder.path / "records").iterdir())
    with path.open("ab") as file:
        file.write(b'{"v":1,"unit":"torn')
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[1])
    assert folder.missing() == job.asked[2:] and len(folder.reader.records()) == 2


@pytest.mark.parametrize("how", [shutil.rmtree, lambda store: store.rename(store.with_name("elsewhere"))])
def test_a_store_that_is_deleted_or_renamed_meanwhile_is_told_in_a_line(how, plain, tmp_path, monkeypatch, capsys):
    """Writers report it, and so does the command, which makes no table; the same command repairs it."""
    store = tmp_path / "store"
    config = plain | {"store": str(store)}
    folder = RunFolder(prepare(config))
    folder.describe()
    with Attempt(folder, new_attempt(), Provenance()) as attempt:
        attempt.take(folder.job.asked[:1])  # its claim goes with the store, which is no other owner's doing
        how(store)
        for write in (
            lambda prompt: ok(attempt, prompt),
            lambda prompt: attempt.error(prompt, "no", "no"),
            lambda prompt: attempt.filmed(prompt, {}),
        ):
            with pytest.raises(unwritable.StoreGone, match="deleted or renamed while"):
                write(folder.job.asked[0])
        assert not store.exists(), "nothing is made in its place"
    monkeypatch.setattr(local, "_pass", lambda *_: (how(store), {})[1])
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    with pytest.raises(SystemExit) as end:
        sweep.carry_out([config], [None])
    told = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and len(told) == 1 and told[0].startswith(f"store={store}: cannot be written (it was deleted or renamed")
    folder.describe()
    assert folder.missing() == folder.job.asked


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000])
def test_what_this_project_knows_of_a_run_is_written_again_where_it_is_damaged(job, content):
    folder = RunFolder(job)
    folder.describe()
    path, (wish,) = folder.path / "run.json", (folder.path / "asked").iterdir()
    whole = path.read_bytes()
    path.write_bytes(content)
    wish.write_bytes(content)
    again = RunFolder(job)
    again.describe()
    assert path.read_bytes() == whole and [asked.units for asked in again.reader.asked()] == [folder.wish().units]


def test_a_wish_counts_after_one_of_a_clock_that_was_ahead(job):
    folder = RunFolder(job)
    folder.describe()
    (wish,) = (folder.path / "asked").iterdir()
    wish.rename(wish.with_name(f"{time.time_ns() + 10**15:020d}-00000000.json"))
    other = RunFolder(dataclasses.replace(job, config=dataclasses.replace(job.config, prompts=1)))
    other.describe()
    assert list(folder.reader.asked()[-1].units) == [job.asked[0].id] and len(folder.reader.asked()) == 2


@pytest.mark.parametrize("text", ["A fox sits on a hill. " * 12, "一只狐狸坐在山坡上看着大海" * 20, "x" * 233, "🦊" * 60])
def test_a_long_id_names_files_that_can_be_written(plain, toy, tmp_path, text):
    """225 to 232 bytes lost the finished video, as its trace could not be written."""
    prompts = tmp_path / "long.jsonl"
    first = json.loads(Path(plain["task"]["prompt_set"]).read_text(encoding="utf-8").splitlines()[0])
    prompts.write_text(json.dumps(first | {"id": text}) + "\n", encoding="utf-8")
    config = plain | {"store": str(tmp_path / "store"), "prompts": None, "task": plain["task"] | {"prompt_set": str(prompts)}}
    folder = RunFolder(prepare(config))
    assert worker.work(folder.job, new_attempt(), [], config, lambda event: None) == 0
    (record,) = folder.reader.records()
    assert record.ok and record.prompt == text and all((folder.reader.units / name).is_file() for name in record.files.values())
    assert max(len(path.name.encode()) for path in folder.reader.units.iterdir()) < 120 and record.pixel_code == pixel_code()


def test_first_ok_wins_and_a_different_second_is_told(job):
    folder, scores = RunFolder(job), job.scores_id
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0], x=1.0)
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0], x=1.0)
    assert not folder.reader.settled(scores).conflicts
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0], x=2.0)
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0], latents="b", x=1.0)
    settled = folder.reader.settled(scores)
    (record,) = settled.done.values()
    assert record.metrics == {"x": 1.0}
    assert len(settled.conflicts) == 2 and "other scores" in settled.conflicts[0] and "other latents" in settled.conflicts[1]


def test_errors_are_records_and_are_tried_three_times(job, plain):
    folder = RunFolder(job)
    for tries in range(3):
        assert job.asked[0] in folder.missing()
        Attempt(folder, new_attempt(), Provenance()).error(job.asked[0], f"ValueError: {tries}", "the whole trace")
    assert job.asked[0] not in folder.missing() and job.asked[0] in folder.unfinished()
    record = folder.reader.records()[-1]
    assert record.status == "error" and (folder.path / record.trace).read_text(encoding="utf-8") == "the whole trace"


def test_errors_are_left_alone_after_as_many_tries_as_asked(plain, tmp_path):
    job = prepare(changed(changed(plain, "store", str(tmp_path)), "max_tries", 1))
    folder = RunFolder(job)
    Attempt(folder, new_attempt(), Provenance()).error(job.asked[0], "x", "y")
    assert folder.missing() == job.asked[1:]


def test_an_ok_after_an_error_settles_it(job):
    folder = RunFolder(job)
    Attempt(folder, new_attempt(), Provenance()).error(job.asked[0], "x", "y")
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0])
    assert not folder.reader.settled(job.scores_id).failures and job.asked[0] not in folder.unfinished()


def test_other_scorer_asks_for_other_records(plain, tmp_path):
    """A video counts for a way of scoring only with that way's scores; without scores, any video counts."""
    weights = str(tmp_path / "scorer")
    write_atomic(tmp_path / "scorer", b"scorer")
    base = changed(plain, "store", str(tmp_path / "store"))
    scored = prepare(changed(changed(base, "eval.scorer", "embedded"), "eval.weights", weights))
    ok(Attempt(RunFolder(scored), new_attempt(), Provenance()), scored.asked[0], x=1.0)
    assert RunFolder(prepare(base)).missing() == scored.asked[1:]
    write_atomic(tmp_path / "scorer", b"another")
    other = prepare(changed(changed(base, "eval.scorer", "embedded"), "eval.weights", weights))
    assert other.run_id == scored.run_id and RunFolder(other).missing() == scored.asked


def test_numbers_that_are_not_finite_are_null_and_flagged(job):
    folder = RunFolder(job)
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[0], good=1.0, bad=float("nan"))
    record = folder.reader.records()[0]
    assert record.metrics == {"good": 1.0, "bad": None} and record.flags == ["bad"]


def test_run_is_described_once_and_wishes_only_when_they_change(job, plain):
    folder = RunFolder(job)
    folder.describe()
    before = os.stat(folder.path / "run.json")
    folder.describe()
    after = os.stat(folder.path / "run.json")
    # Not the whole record: it has the time of reading, which may pass a second here.
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns) and len(folder.reader.asked()) == 1
    RunFolder(prepare(changed(changed(plain, "store", job.config.store), "prompts", 2))).describe()
    assert [len(wish.units) for wish in folder.reader.asked()] == [3, 2]


def test_run_names_what_it_is_made_of(job):
    folder = RunFolder(job)
    folder.describe()
    spec = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
    assert digest(spec["key"]) == spec["run"] == folder.path.name


def test_attempts_never_share_a_file(job):
    folder, name = RunFolder(job), new_attempt()
    Attempt(folder, name, Provenance())
    with pytest.raises(FileExistsError):
        Attempt(folder, name, Provenance())


def test_atomic_write_leaves_no_part_behind(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", b"old")

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_a_kill_left_half_written_goes_and_what_a_living_writer_writes_stays(job):
    folder = RunFolder(job)
    parts = [folder.side(prompt, ending) for prompt in job.asked[:2] for ending in (".mp4", ".trace.jsonl")]
    parts = [path.with_name(f".{path.name}.0badc0de") for path in parts]
    for part in parts:
        write_atomic(part, b"half")
    first = Attempt(folder, new_attempt(), Provenance())
    assert not any(part.exists() for part in parts)
    assert first.take(job.asked[:1]) == [job.asked[0]]
    for part in parts:
        write_atomic(part, b"half")
    Attempt(folder, new_attempt(), Provenance())
    assert [part.exists() for part in parts] == [True, True, False, False]


def test_a_record_says_size_and_digest_of_each_file(job):
    folder = RunFolder(job)
    path = folder.side(job.asked[0], ".mp4")
    write_atomic(path, b"video")
    attempt = Attempt(folder, new_attempt(), Provenance())
    attempt.ok(job.asked[0], {}, {"files": {"video": path.name}})
    attempt.ok(job.asked[1], {}, {"files": {"video": path.name}, "sizes": {"video": 9}, "digests": {"video": "as it was"}})
    first, second = folder.reader.records()
    assert first.sizes == {"video": 5} and first.digests == {"video": hashlib.blake2b(b"video", digest_size=16).hexdigest()}
    assert second.sizes == {"video": 9} and second.digests == {"video": "as it was"}, "of a video that is scored, as it was made"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(b"vid"), "has 3 bytes, 5 were written"),
        (lambda path: path.write_bytes(b""), "has 0 bytes, 5 were written"),
    ],
)
def test_what_is_gone_or_cut_is_made_again_and_everybody_says_so(job, harm, told):
    folder = RunFolder(job)
    folder.describe()
    attempt = Attempt(folder, new_attempt(), Provenance())
    for prompt in job.asked:
        write_atomic(folder.side(prompt, ".mp4"), b"video")
        attempt.ok(prompt, {}, {"files": {"video": folder.side(prompt, ".mp4").name}})
    assert not folder.missing() and not folder.again()
    path = folder.side(job.asked[1], ".mp4")
    harm(path)
    assert folder.missing() == folder.unfinished() == job.asked[1:2]
    assert folder.again() == [f"{job.title}: {job.asked[1].id} is made again: {path.name} {told}"]
    lines, reasons = status.gather(Path(job.config.store))
    assert (lines[0].total.done, lines[0].total.missing) == (2, 1) and reasons[0][1] == f"{path.name} {told}"
    for tries in range(job.config.max_tries):
        assert job.asked[1] in folder.missing(), f"{tries} errors since"
        attempt.error(job.asked[1], "ValueError: no", "no")
    assert not folder.missing() and folder.unfinished() == job.asked[1:2]
    write_atomic(path, b"anew")
    attempt.ok(job.asked[1], {}, {"files": {"video": path.name}})
    assert not folder.unfinished() and not folder.again(), "the last record of a file says what is in it"


def test_a_damaged_record_is_made_again_and_told_of(job):
    folder = RunFolder(job)
    folder.describe()
    for prompt in job.asked:
        ok(Attempt(folder, new_attempt(), Provenance()), prompt)
    path = sorted((folder.path / "records").iterdir())[1]
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    assert folder.missing() == job.asked[1:2] and folder.again() == [f"{job.title}: {path}:1 is damaged and left out"]
    _, reasons = status.gather(Path(job.config.store))
    assert reasons[-1][1] == f"{path}:1 is damaged"
    ok(Attempt(folder, new_attempt(), Provenance()), job.asked[1])
    assert not folder.missing() and not folder.again()


def test_commands_in_turn_leave_a_wish_each(job, plain):
    other = prepare(changed(changed(plain, "store", job.config.store), "prompts", 2))
    for _ in range(5):
        RunFolder(job).describe()
        RunFolder(other).describe()
    wishes = RunFolder(job).reader.asked()
    assert [len(wish.units) for wish in wishes] == [3, 2] and wishes[0].name < wishes[1].name
    RunFolder(job).describe()
    assert [len(wish.units) for wish in RunFolder(job).reader.asked()] == [2, 3], "the last command's comes last"
