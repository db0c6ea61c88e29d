"""Who makes a unit: one living process at a time, succeeded when it is dead, never removed under its hands."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from echo.files import ROOT
from jobs.launch import local
from jobs.spec.plan import prepare
from jobs.store import claims
from jobs.store.claims import STALE_S, Claims
from jobs.store.folder import RunFolder, new_attempt
from jobs.work import worker
from jobs.work.events import UnitEnded
from tests.helpers.toy import changed

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
OTHER = "import sys; from pathlib import Path; from jobs.store.claims import Claims; "
OTHER += "print(Claims(Path(sys.argv[1]), 'b').take('u'), flush=True)"


def other(run, *after: str) -> subprocess.Popen[str]:
    """Another process that takes the unit `u`, says whether it could, and does what comes after."""
    return subprocess.Popen([sys.executable, "-c", "; ".join([OTHER, *after]), run], cwd=ROOT, text=True, stdout=subprocess.PIPE)


def test_one_at_a_time_and_free_again(tmp_path):
    first, second = Claims(tmp_path, "a"), Claims(tmp_path, "b")
    assert first.take("u") and not second.take("u") and second.take("v")
    assert "process" in second.holders(["u"])["u"] and not first.holders(["u"])
    first.release(["u"])
    assert second.take("u") and first.starts() == {"u": 1, "v": 1}
    second.release(["u", "v"])
    assert not list((tmp_path / "claims").iterdir())


def test_of_two_who_see_nobody_one_wins(tmp_path, monkeypatch):
    """As when both look before either has written, or a file server shows an old list."""
    monkeypatch.setattr(Claims, "_top", lambda self, unit: 0)
    assert [Claims(tmp_path, name).take("u") for name in "ab"] == [True, False]


RACER = """
import mmap, os, sys
from pathlib import Path
from jobs.store.claims import Claims
own, place = Claims(Path(sys.argv[1]), "ab"[int(sys.argv[2])]), int(sys.argv[2])
with open(sys.argv[3], "r+b") as file:
    at = memoryview(mmap.mmap(file.fileno(), 8)).cast("i")
for number in range(300):
    at[place] = number + 1
    while at[1 - place] <= number:
        os.sched_yield()
    if own.take(f"u{number}"):
        print(number)
at[place] = 301
while at[1 - place] <= 300:
    os.sched_yield()
"""
"""Takes three hundred units, each only when the other racer has come to it, too: in memory that both see stands how far each is.

Each lives until the other is through, else it would rightly be succeeded.
"""


def test_two_processes_that_want_the_same_units_at_the_same_moments_never_both_get_one(tmp_path):
    (tmp_path / "at").write_bytes(bytes(8))
    both = [subprocess.Popen([sys.executable, "-c", RACER, tmp_path, place, tmp_path / "at"], cwd=ROOT, **PIPES) for place in "01"]
    try:
        units = [[int(number) for number in process.communicate(timeout=300)[0].split()] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.wait() for process in both] == [0, 0] and sorted(units[0] + units[1]) == list(range(300))


def test_a_claim_that_cannot_be_written_stops_nobody(tmp_path, monkeypatch):
    """With a full disk the file exists by then, and belongs to nobody."""

    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="space"):
        patch.setattr(claims.os, "write", full)
        Claims(tmp_path, "a").take("u")
    assert Claims(tmp_path, "b").take("u")


def test_a_claim_of_the_same_number_by_another_is_not_ours(tmp_path):
    """Like after a long stop, in which another process took over and released the claim, and a third began again."""
    slow = Claims(tmp_path, "a")
    assert slow.take("u") and not slow.lost("u")
    (tmp_path / "claims" / "u.1").unlink()
    third = Claims(tmp_path, "c")
    assert third.take("u") and slow.lost("u")
    slow.release(["u"])
    assert not third.lost("u")


def test_a_killed_process_is_succeeded_at_once(tmp_path):
    process = other(tmp_path, "import time", "time.sleep(60)")
    assert process.stdout.readline() == "True\n" and not Claims(tmp_path, "a").take("u")
    process.kill()
    process.wait()
    successor = Claims(tmp_path, "a")
    assert successor.take("u") and successor.starts() == {"u": 2}
    successor.release(["u"])
    assert not list((tmp_path / "claims").iterdir()), "what the dead left goes too"


@pytest.mark.parametrize(("age_s", "dead"), [(0, False), (2 * STALE_S, True)])
def test_an_owner_elsewhere_lives_as_long_as_it_touches_its_claim(tmp_path, age_s, dead):
    path = tmp_path / "claims" / "u.1"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "machine": "another", "pid": os.getpid(), "start": "0", "job": "7", "restart": 0}))
    os.utime(path, (time.time() - age_s,) * 2)
    assert Claims(tmp_path, "a").take("u") == dead


def test_a_stamp_that_is_ahead_is_not_waited_for_without_end(tmp_path, monkeypatch):
    """Over two days a claim lives exactly as long as it is seen to change."""
    path = tmp_path / "claims" / "u.1"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "machine": "another", "pid": 1, "start": "0", "job": None, "restart": 0}))
    ahead, clock = time.time() + 2 * 86400, time.monotonic()
    os.utime(path, (ahead, ahead))
    for passed_s, beat_s in ((0, 0), (STALE_S - 1, 0), (STALE_S + 1, 60), (2 * STALE_S - 1, 60)):
        os.utime(path, (ahead + beat_s,) * 2)
        monkeypatch.setattr(claims.time, "monotonic", lambda passed_s=passed_s: clock + passed_s)
        assert not Claims(tmp_path, "a").take("u"), passed_s
    monkeypatch.setattr(claims.time, "monotonic", lambda: clock + 3 * STALE_S)
    assert Claims(tmp_path, "a").take("u")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"pid": "1"}', b'{"machine": 1}', b"[" * 100_000, b"\xff\xfe{", b'{"restart": null, "job": "7"}']
)
def test_a_damaged_claim_lives_by_its_age(tmp_path, monkeypatch, content):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    path = tmp_path / "claims" / "u.1"
    path.parent.mkdir()
    path.write_bytes(content)
    assert not Claims(tmp_path, "a").take("u") and Claims(tmp_path, "a").holders(["u"]) == {"u": "a process that left no name"}
    os.utime(path, (0, 0))
    (path.parent / f"u.{10**200}").mkdir()  # a number that nobody counts to
    os.utime(path.parent / f"u.{10**200}", (0, 0))
    own = Claims(tmp_path, "a")
    assert own.take("u")
    own.release(["u"])


def test_a_clock_that_is_wrong_makes_nobody_dead(tmp_path, monkeypatch):
    """Ages are measured by the clock that stamps the files, not by this machine's."""
    path = tmp_path / "claims" / "u.1"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "machine": "another", "pid": 1, "start": "0", "job": None, "restart": 0}))
    now = time.time()
    monkeypatch.setattr(claims.time, "time", lambda: now + 3600)
    assert not Claims(tmp_path, "a").take("u") and [file.name for file in path.parent.iterdir()] == ["u.1"]


def test_a_claim_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    own = Claims(tmp_path, "a")
    assert own.take("u")
    path = tmp_path / "claims" / "u.1"
    os.utime(path, (0, 0))
    end = time.monotonic() + 60
    while not path.stat().st_mtime and time.monotonic() < end:
        time.sleep(0.01)
    assert path.stat().st_mtime > time.time() - 120


@pytest.mark.parametrize(("restart", "dead"), [("1", True), ("0", False)])
def test_an_earlier_start_of_the_same_job_is_dead(tmp_path, monkeypatch, restart, dead):
    path = tmp_path / "claims" / "u.1"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "machine": "another", "pid": 1, "start": "0", "job": "7", "restart": 0}))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    assert Claims(tmp_path, "a").take("u") == dead


def test_who_stood_still_for_too_long_records_nothing(plain, tmp_path, monkeypatch):
    """Another took over while this process slept; its record counts and no second is written."""
    config = changed(plain, "store", str(tmp_path)) | {"prompts": 1}
    folder = RunFolder(prepare(config))
    unit = folder.job.unit_id(folder.job.asked[0])
    finish = worker._Maker._finish

    def late(*given):
        (folder.path / "claims" / f"{unit}.2").write_text("{}")
        return finish(*given)

    monkeypatch.setattr(worker._Maker, "_finish", late)
    assert worker.work(folder.job, new_attempt(), [], config, lambda event: None) == 0
    assert not folder.reader.records()
    monkeypatch.setattr(worker._Maker, "_finish", finish)
    os.utime(folder.path / "claims" / f"{unit}.2", (0, 0))
    assert worker.work(folder.job, new_attempt(), [], config, lambda event: None) == 0 and not folder.missing()


def test_what_was_begun_and_never_ended_comes_last(plain, tmp_path):
    """A unit that kills its process stops no other."""
    config = changed(plain, "store", str(tmp_path))
    folder = RunFolder(prepare(config))
    first = folder.job.asked[0]
    process = subprocess.run([sys.executable, "-c", OTHER.replace("'u'", "sys.argv[2]"), folder.path, folder.job.unit_id(first)], cwd=ROOT)
    assert process.returncode == 0
    told = []
    assert worker.work(folder.job, new_attempt(), [], config, told.append) == 0
    assert [event.prompt for event in told if isinstance(event, UnitEnded)] == [prompt.id for prompt in (*folder.job.asked[1:], first)]


@pytest.mark.slow
def test_a_second_command_waits_for_the_first_and_takes_over_when_it_dies(plain, tmp_path, monkeypatch, capfd):
    config = changed(plain, "store", str(tmp_path)) | {"prompts": 1}
    folder = RunFolder(prepare(config))
    unit = folder.job.unit_id(folder.job.asked[0])
    code = OTHER.replace("'u'", "sys.argv[2]") + "; sys.stdin.readline()"
    process = subprocess.Popen([sys.executable, "-c", code, folder.path, unit], cwd=ROOT, **PIPES)
    assert process.stdout.readline() == "True\n"
    lines = local.run([folder.job], [config], 1, patience_s=0)
    assert len(lines) == 1 and "1 video is being made by another command" in lines[0] and not folder.reader.records()
    held, looks = local.held, []

    def looked(folders):
        """Alive for the first looks, whatever they take; killed before the fourth."""
        if len(looks) == 3:
            process.kill()
            process.wait()
        looks.append(held(folders))
        return looks[-1]

    monkeypatch.setattr(local, "held", looked)
    assert local.run([folder.job], [config], 1) == [] and list(map(len, looks[:4])) == [1, 1, 1, 0]
    assert len(folder.reader.records()) == 1 and "waiting for it" in capfd.readouterr().err
