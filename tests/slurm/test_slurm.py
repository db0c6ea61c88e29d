"""Whatever a cluster does: every unit exactly once, and the table of an undisturbed local run. Against a real SLURM.

`whole` asserts that, against a run of `hydra/launcher=local`, at the end of each of these:
array                               test_an_array
a raising job                       test_a_raising_job
kill -9 of a worker                 test_a_killed_worker; of a whole job, test_a_killed_job
preemption by a higher partition    test_preemption_by_a_higher_partition
time limit with requeues            test_a_time_limit_with_requeues
`scontrol requeue`                  test_an_administrators_requeue
a node set down                     test_a_node_set_down
more jobs than MaxArraySize         test_more_jobs_than_an_array_may_have
copies of weights on scratch        test_jobs_of_a_node_copy_the_weights_once
two launches at once                test_two_launches_at_once, test_two_jobs_at_the_same_videos
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from eval.store.runs import runs
from tests.helpers import slurm as sweeps
from tests.helpers.slurm import Maker, attempts, closed, finish, held, records, restarts, running, slurm, start
from tests.helpers.waiting import until
from tests.slurm.conftest import MOST

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster", "cancelled")]


def test_an_array(tmp_path, whole, monkeypatch):
    """Given from inside another job, whose variables would send it to a partition that is not there, with too many cores."""
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "7", "SLURM_MEM_PER_NODE": "9999999", "SBATCH_PARTITION": "no"}.items():
        monkeypatch.setenv(name, value)
    told = finish(start(tmp_path, "launcher.units_per_job=4", f"launcher.python='nice -n 1 {sys.executable}'"))
    assert "12 videos in 4 jobs" in told and "submitted array" in told
    whole(tmp_path)
    jobs = {(attempt["slurm"]["array_job_id"], attempt["slurm"]["array_task_id"]) for attempt in attempts(tmp_path).values()}
    assert len(jobs) == 4 and len({array for array, _ in jobs}) == 1
    before = len(list(tmp_path.glob("slurm/*")))
    assert "submitted" not in finish(start(tmp_path)) and len(list(tmp_path.glob("slurm/*"))) == before, "nothing is missing"


def test_a_raising_job(tmp_path, whole):
    """One unit cannot write its trace; the others continue, SLURM sees a failure, and the command names the unit."""
    with closed():
        finish(start(tmp_path, "launcher.wait=false"))
        run = next(run for run in runs(tmp_path) if "seed=1" in str(run.path))
        prompt, unit = next(iter(run.asked()[-1].units.items()))
        folder = run.path / "units" / f"{prompt}-{unit[:8]}.trace.jsonl"
        folder.mkdir(parents=True)
        command = start(tmp_path)
        assert "2 jobs of earlier commands on the way" in command.stdout.readline()
    told = finish(command, status=1)
    assert "IsADirectoryError" in told
    states = [line.split()[1] for line in told.splitlines() if line.split()[1:2] in (["FAILED"], ["COMPLETED"])]
    assert states == ["FAILED"], told
    assert len(records(tmp_path)) == sweeps.UNITS, "eleven good ones and the error"
    shown = slurm("scontrol", "-o", "show", "job")
    assert "JobState=FAILED" in shown and "JobState=COMPLETED" in shown
    folder.rmdir()
    finish(start(tmp_path))
    whole(tmp_path)


def test_a_killed_worker(tmp_path, whole):
    """The job notices and starts another process by itself."""
    command = start(tmp_path)
    with held(tmp_path) as working:
        os.kill(working[0].pid, signal.SIGKILL)
    finish(command)
    whole(tmp_path)
    assert len(attempts(tmp_path)) > 2


def test_a_killed_job(tmp_path, whole):
    """What a job leaves that dies whole, as by the kernel for memory, is submitted again.

    By kill -9 and not by scancel, which wakes what is stopped and leaves it five seconds: enough for all videos on a fast machine.
    """
    command = start(tmp_path)
    with held(tmp_path) as working:
        working[0].kill_job()
    told = finish(command)
    assert len([line for line in told.splitlines() if line.startswith("submitted ")]) == 2, told
    whole(tmp_path)


def test_preemption_by_a_higher_partition(tmp_path, whole):
    command = start(tmp_path, "launcher.partition=low")
    with held(tmp_path) as working:
        slurm("sbatch", "-p", "high", "-N", "2", "-o", str(tmp_path / "other"), "--wrap", "srun sleep 5")
        evicted(working)
    finish(command)
    whole(tmp_path)
    until(lambda: restarts(tmp_path))


def test_a_time_limit_with_requeues(tmp_path, whole):
    """All units in one job of one process, which has more to do when SLURM warns it, 35 seconds after its start."""
    given = {"units_per_job": 12, "time_minutes": 1, "warn_seconds": 25, "max_parallel": 1}
    command = start(tmp_path, *(f"launcher.{key}={value}" for key, value in given.items()))
    with held(tmp_path) as working:
        evicted(working)
    finish(command)
    whole(tmp_path)
    until(lambda: restarts(tmp_path))


def test_an_administrators_requeue(tmp_path, whole):
    command = start(tmp_path)
    with held(tmp_path) as working:
        for maker in working:
            slurm("scontrol", "requeue", maker.job)
    finish(command)
    whole(tmp_path)
    until(lambda: restarts(tmp_path))


def test_a_node_set_down(tmp_path, whole):
    command = start(tmp_path)
    with held(tmp_path) as working:
        node = slurm("squeue", "-h", "-r", "-j", working[0].job, "-o", "%N")
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        until(lambda: slurm("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i"), "a pending job")
    finish(command)
    whole(tmp_path)
    until(lambda: restarts(tmp_path))


def test_more_jobs_than_an_array_may_have(tmp_path, whole):
    more = "launcher.extra={comment:whatever}", f"launcher.setup=['touch {tmp_path}/here']"
    told = finish(start(tmp_path, "launcher.units_per_job=2", "launcher.max_parallel=2", "launcher.max_queued=5", *more))
    assert "Comment=whatever" in slurm("scontrol", "-o", "show", "job") and (tmp_path / "here").exists()
    line = next(line for line in told.splitlines() if line.startswith("submitted array"))
    assert "10 videos in 5 jobs" in told and "launcher.max_queued=5: 1 more job" in told and "2 videos in 1 job" in told
    assert len(line.removeprefix("submitted array").partition(";")[0].split()) == 2 and MOST < 5
    whole(tmp_path)


def test_jobs_of_a_node_copy_the_weights_once(tmp_path, whole, monkeypatch):
    """Two jobs on two nodes, which are one machine here; the name of the disk is read where the job runs."""
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    finish(start(tmp_path, "launcher.scratch=$NODE_DISK"))
    whole(tmp_path)
    assert len(list(tmp_path.glob("disk/echo-weights-*/*/model.safetensors"))) == 1
    logs = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("slurm/*/*_log.*"))
    assert logs.count(" copied to ") == 1, logs


def test_two_launches_at_once(tmp_path, whole):
    both = [start(tmp_path) for _ in range(2)]
    for command in both:
        finish(command)
    whole(tmp_path)
    jobs = [name for path in tmp_path.glob("slurm/*/launch.json") for name in json.loads(path.read_text(encoding="utf-8"))["jobs"]]
    assert len(jobs) in (2, 4), "each alone would have submitted two"


def test_two_jobs_at_the_same_videos(tmp_path, whole):
    """Two launches that did not see each other, each one job, on two nodes at once."""
    finish(start(tmp_path, "launcher.wait=false", "launcher.units_per_job=12"))
    for path in tmp_path.glob("slurm/*/launch.json"):
        path.rename(path.with_suffix(".unseen"))
    with held(tmp_path):
        command, before = start(tmp_path, "launcher.units_per_job=12"), len(records(tmp_path))
        until(lambda: len(records(tmp_path)) > before)
    assert "submitted job" in finish(command)
    whole(tmp_path)
    made = {record.attempt for record in records(tmp_path)}
    kept = attempts(tmp_path)
    assert len({kept[attempt]["slurm"]["job_id"] for attempt in made}) == 2, "each made some"


def test_nobody_waits_or_no_longer_and_a_later_command_does(tmp_path, whole):
    with closed():
        told = finish(start(tmp_path, "launcher.wait=false"))
        assert "submitted array" in told and "echo-harness tables" in told and not records(tmp_path)
        command = start(tmp_path)
        assert " of earlier commands on the way" in command.stdout.readline()
        time.sleep(2)  # it begins to wait
        command.send_signal(signal.SIGINT)
        assert "the jobs go on without this command" in finish(command, status=130)
        command = start(tmp_path)
        assert " of earlier commands on the way" in command.stdout.readline()
    finish(command)
    whole(tmp_path)
    assert len(list(tmp_path.glob("slurm/*"))) == 1


def test_who_waits_for_jobs_that_come_to_nothing_submits_its_own(tmp_path, whole):
    with closed():
        finish(start(tmp_path, "launcher.wait=false"))
        command = start(tmp_path)
        assert " of earlier commands on the way" in command.stdout.readline()
        slurm("scancel", "--full", "--user=root")
    assert "submitted array" in finish(command)
    whole(tmp_path)
    assert "array" not in finish(start(tmp_path, "launcher.wait=false")), "nothing is left to wait for, so there are tables"


def test_a_refusal_of_sbatch_is_one_line(tmp_path):
    told = finish(start(tmp_path, "launcher.partition=lwo"), status=1).strip().splitlines()
    assert "invalid partition specified: lwo" in told[-1] and "Traceback" not in "".join(told)


def evicted(working: list[Maker]) -> None:
    """Waits until SLURM has begun to end a job of some stopped makers: it wakes, kills or no longer counts it as running."""
    until(lambda: any(maker.state() != "T" or maker.job not in running() for maker in working))
