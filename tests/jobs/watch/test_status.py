"""The grid of a store: done, running, failed, missing, the time left, why, and the exit status."""

from __future__ import annotations

import json
import os
import re

import msgspec
import pytest

from echo.files import write_atomic
from eval.store.records import Provenance, SweepEntry, SweepFile, encoded
from eval.store.rows import sources
from jobs import cli
from jobs.launch import sweep
from jobs.spec.plan import prepare
from jobs.store.claims import Claims
from jobs.store.folder import Attempt, RunFolder, new_attempt, write_sweep
from jobs.watch import status
from tests.helpers.toy import changed


@pytest.fixture
def run(plain, tmp_path):
    """A function that makes a run of three units: some done (60 s each), some failed."""

    def make(method="echo", seed=0, done=0, failed=0, task="hard", **more):
        config = changed(changed(plain, "method.name", method), "task.name", task) | {"seed": seed, "store": str(tmp_path)} | more
        job = prepare(config)
        folder = RunFolder(job)
        folder.describe()
        if done or failed:
            with Attempt(folder, new_attempt(), Provenance()) as attempt:
                for prompt in job.asked[:done]:
                    attempt.ok(prompt, {}, {"latents_sha256": "a", "dur_s": 60.0, "blocks": 8})
                for prompt in job.asked[done : done + failed]:
                    attempt.error(prompt, "ValueError: no such thing", "Traceback\n  one\n  two\n  three\nValueError: no such thing\n")
        return folder

    make.store = tmp_path
    return make


def told(run, capsys, *words, code):
    assert cli.main(["status", "--store", str(run.store), *words]) == code
    return capsys.readouterr().out.splitlines()


def test_everything_there_is_exit_status_0(run, capsys):
    run(done=3), run(seed=1, done=3)
    lines = told(run, capsys, code=0)
    assert lines[0].split() == ["task", "method", "seed=0", "seed=1", "left"] and lines[1].split() == ["hard", "echo", "3/3", "3/3"]
    assert lines[-1] == "6 of 6 videos done, 0 running, 0 failed, 0 missing"


def test_grid_tells_done_running_failed_and_missing_apart(run, capsys):
    run(done=3), run(seed=1, done=1, failed=1), run("self_forcing", done=1, task="recall"), run("self_forcing", seed=2)
    folder = run(seed=3, done=1)
    claims = Claims(folder.path, "other")
    assert claims.take(folder.job.unit_id(folder.job.asked[1]))
    lines = told(run, capsys, code=1)
    cells = [line.split("  ") for line in lines[1:4]]
    rows = [[word.strip() for word in row if word.strip()] for row in cells]
    assert rows[0] == ["hard", "echo", "3/3", "1/3 1f", "-", "1/3 1r", "4 min"]
    assert rows[1] == ["hard", "self_forcing", "-", "-", "0/3", "-", "3 min"], "by its neighbours of the same task"
    assert rows[2] == ["recall", "self_forcing", "1/3", "-", "-", "-", "2 min"]
    assert "6 of 15 videos done, 1 running, 1 failed, 7 missing; time left: 9 min of one process" in lines
    claims.release([folder.job.unit_id(folder.job.asked[1])])
    assert "6 of 15 videos done, 0 running, 1 failed, 8 missing; time left: 9 min of one process" in told(run, capsys, code=1)


def test_nothing_done_yet_has_no_time(run, capsys):
    run()
    lines = told(run, capsys, code=1)
    assert lines[1].split() == ["hard", "echo", "0/3", "?"] and lines[-1].endswith("time left: unknown, nothing of some line is done yet")


def test_other_seeds_that_are_done_say_how_long_it_takes(run, capsys):
    run(done=3), run(seed=1)
    assert told(run, capsys, code=1)[1].split() == ["hard", "echo", "3/3", "0/3", "3", "min"]


def test_an_attempt_that_has_just_begun_hides_no_speed(run, capsys):
    folder = run(done=1)
    with Attempt(folder, new_attempt(), Provenance()):
        assert told(run, capsys, code=1)[1].endswith("1/3     2 min")


def test_a_unit_that_was_scored_later_counts_once_and_whole(run, capsys):
    folder = run()
    first, second, _ = folder.job.asked
    with Attempt(folder, new_attempt(), Provenance()) as attempt:
        for seconds in (60.0, 600.0):
            for prompt in (first, second):
                attempt.ok(prompt, {}, {"latents_sha256": "a", "dur_s": seconds, "blocks": 8})
    assert told(run, capsys, code=1)[1].endswith("10 min")


def test_processes_are_counted_not_their_videos(run, capsys, monkeypatch):
    folder = run(done=1)
    units = [folder.job.unit_id(prompt) for prompt in folder.job.asked]
    owners = {units[1]: "process 1 on a", units[2]: "process 1 on a"}
    Claims(folder.path, "other").take(units[1])
    monkeypatch.setattr(status.Claims, "holders", lambda self, asked: {unit: owners[unit] for unit in asked})
    last = "1 of 3 videos done, 2 running, 0 failed, 0 missing; time left: 2 min of one process"
    assert told(run, capsys, code=1)[-1] == last
    owners[units[2]] = "process 1 on b"
    assert told(run, capsys, code=1)[-1] == f"{last}, 60 s of the 2 at work"


def test_a_claim_of_a_dead_process_is_no_work(run, capsys):
    folder = run(done=1)
    unit = folder.job.unit_id(folder.job.asked[1])
    Claims(folder.path, "other").take(unit)
    path = folder.path / "claims" / f"{unit}.1"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"pid": 2**22 + 1}), encoding="utf-8")
    lines = told(run, capsys, "--failed", code=1)
    assert any(" done, 0 running, 0 failed, 2 missing" in line for line in lines)
    assert lines[-2] == f"echo hard seed=0: {folder.job.asked[1].id} was begun and not ended"
    assert re.fullmatch(rf"    1 times, at last by process {2**22 + 1} on \S+, which has died", lines[-1])
    with Attempt(folder, new_attempt(), Provenance()) as attempt:  # made by another process; what the dead one left says nothing any more
        attempt.ok(folder.job.asked[1], {}, {"latents_sha256": "a", "dur_s": 1.0, "blocks": 8})
    assert path.exists() and "begun" not in "".join(told(run, capsys, "--failed", code=1))


def test_failures_end_with_what_was_said(run, capsys):
    folder = run(done=1, failed=1)
    dead = run(seed=1)
    (dead.path / "attempts").mkdir(parents=True)
    (dead.path / "attempts" / f"{new_attempt()}.log").write_text("loading\nOut of memory\n", encoding="utf-8")
    assert told(run, capsys, code=1)[-1] == f"echo-harness status --failed says why (--store {run.store})"
    lines = told(run, capsys, "--failed", code=1)
    start = lines.index(f"echo hard seed=0: {folder.job.asked[1].id} failed (1 tries)")
    assert lines[start + 1 : start + 5] == ["      one", "      two", "      three", "    ValueError: no such thing"]
    start = lines.index("echo hard seed=1: its last process said")
    assert lines[start + 1 :] == ["    loading", "    Out of memory"]


def test_an_experiment_is_what_its_command_asked_for(run, capsys):
    """Also without scores: an experiment of which only videos were requested is known, and replaces no table."""
    first, second = run(done=3), run(seed=1)
    wish = msgspec.structs.asdict(msgspec.structs.replace(first.wish(), scores="s0"))
    write_atomic(run.store / "sweeps" / "table2-hard.json", encoded(SweepFile("table2", "hard", [SweepEntry(path=first.place, **wish)])))
    assert told(run, capsys, "experiment=table2", code=1)[-1].startswith("0 of 3"), "made, not scored"
    assert write_sweep(run.store, [first.job], "table2") == [] == write_sweep(run.store, [second.job], "table3"), "no table without scores"
    assert [source.name for source in sources(run.store)] == ["table2-hard"]
    assert told(run, capsys, "experiment=table2", code=0)[-1].startswith("3 of 3")
    assert told(run, capsys, "experiment=table3", code=1)[-1].startswith("0 of 3")
    assert told(run, capsys, code=1)[3].startswith("3 of 6")


def test_many_seeds_are_told_in_sum():
    line = status.Line("tiny", "hard", "echo", {seed: status.Cell(3, 3 - (seed > 1)) for seed in range(20)})
    head, row = status.grid([line])
    assert "20 seeds  of which not complete" in head
    assert "42/60" in row and "2,3,4,5,6,7,8,9,10,11,12,13 and 6 more" in row


def test_only_some_rows(run, capsys):
    run(done=3), run("self_forcing", done=1)
    assert told(run, capsys, "method=echo", "task=hard", code=0)[-1].startswith("3 of 3")


def test_an_experiment_is_known_while_its_command_is_at_work(plain, tmp_path, capsys):
    """Asked from within the work, before the first video is made."""
    write_atomic(tmp_path / "scorer", b"scorer")
    config = changed(changed(plain, "eval.scorer", "embedded"), "eval.weights", str(tmp_path / "scorer"))
    config = changed(config, "store", str(tmp_path / "store")) | {"allow_dirty": True}
    told = []

    def make(jobs, _):
        RunFolder(jobs[0]).describe()
        told.append(cli.main(["status", "--store", str(tmp_path / "store"), "experiment=table2"]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.carry_out([config], ["table2"], make=make)
    assert told == [1] and f"0/{config['prompts']}" in capsys.readouterr().out


def test_scores_that_are_asked_for_later_take_the_place_of_videos_alone(plain, tmp_path):
    """So that a table is of its last command, and status counts nothing twice."""
    write_atomic(tmp_path / "scorer", b"scorer")
    scored = changed(changed(plain, "eval.scorer", "embedded"), "eval.weights", str(tmp_path / "scorer"))
    for config, named, kept in ((plain, [], "table2-hard-unscored"), (scored, ["table2-hard"], "table2-hard")):
        job = prepare(config | {"store": str(tmp_path / "store")})
        assert write_sweep(tmp_path / "store", [job], "table2") == named
        assert [path.stem for path in (tmp_path / "store" / "sweeps").iterdir()] == [kept]


def test_the_last_wish_counts(run, capsys):
    run(done=2)
    assert told(run, capsys, code=1)
    run(prompts=2)
    assert told(run, capsys, code=0)[-1].startswith("2 of 2")


def test_a_store_that_can_only_be_read_is_told_of(run, capsys, monkeypatch):
    folder = run(done=1)
    Claims(folder.path, "other").take(folder.job.unit_id(folder.job.asked[1]))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(status.Claims, "holders", refuse)
    assert "1 of 3 videos done, 0 running" in told(run, capsys, code=1)[-1]
    assert os.path.isdir(folder.path / "claims")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--store", "/nowhere"], "--store /nowhere: no run store"),
        (["stor=x"], "stor=x: not understood; nearest is --store"),
        (["task=hrd"], "task=hrd: store {store} has no run of it; nearest is hard"),
        (["method=ech"], "method=ech: store {store} has no run of it; nearest is echo"),
        (["experiment=table2"], "experiment=table2: store {store} was never asked for it; it has none at all"),
    ],
)
def test_mistakes_are_one_line(run, capsys, words, part):
    run()
    assert cli.main(["status", "--store", str(run.store), *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(part.format(store=run.store)) and said.err.count("\n") == 1 and not said.out
