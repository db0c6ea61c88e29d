"""How a sweep is cut into jobs, what the launcher is told and refuses, and in which environment it submits. No SLURM needed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from jobs import slurm, slurm_job, slurm_queue, slurm_wait, split
from jobs.config import ROOT
from jobs.mistakes import explain
from jobs.plan import prepare
from jobs.split import Measure, Piece
from jobs.store import Attempt, RunFolder, new_attempt
from tests.toy import changed, write_prompts

ONE = Measure(lambda job, prompt: 1.0, 4, "")


@pytest.fixture
def many(plain, tmp_path):
    """A run of 23 prompts that nobody has begun."""
    config = changed(plain, "task.prompt_set", str(write_prompts(tmp_path / "prompts.jsonl", 23)))
    return RunFolder(prepare(config | {"prompts": 23, "store": str(tmp_path / "store")})), config


def launcher(*words: str) -> dict:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", ["hydra/launcher=slurm", *words], return_hydra_config=True)
    return OmegaConf.to_container(config.hydra.launcher, resolve=True)


def given(**changes: object) -> dict:
    return {key: value for key, value in launcher().items() if key != "_target_"} | changes


@pytest.mark.parametrize("shard", [None, "2/3"])
@pytest.mark.parametrize("gone", [(), range(0, 23, 2), range(11)])
def test_shards_cover_what_is_missing_exactly_once_and_none_is_too_long(many, shard, gone):
    folder, config = many
    job = dataclasses.replace(folder.job, config=dataclasses.replace(folder.job.config, shard=shard))
    todo = [prompt for index, prompt in enumerate(job.asked) if prompt in job.mine and index not in gone]
    pieces = [piece for piece, _ in split.cut(RunFolder(job), config, todo, ONE)]
    assert all(0 < piece.units <= ONE.most for piece in pieces)
    shards = [set(dataclasses.replace(job, config=dataclasses.replace(job.config, shard=piece.shard)).mine) for piece in pieces]
    assert all(prompt in mine for prompt in todo for mine in shards if prompt in mine)
    assert [sum(prompt in mine for mine in shards) for prompt in todo] == [1] * len(todo)
    assert all(mine <= set(job.mine) for mine in shards), "a shard of a shard stays within it"
    for piece, mine in zip(pieces, shards):
        assert {index for index in range(23) if piece.covers(index)} == {index for index, p in enumerate(job.asked) if p in mine}


def test_short_runs_share_a_job_and_a_run_is_never_twice_in_one(many):
    job = many[0].job
    other = dataclasses.replace(job, config=dataclasses.replace(job.config, backbone=dataclasses.replace(job.config.backbone, name="x")))
    cuts = [(job, Piece(run, "", None, 23, 2), 2.0) for run in "abc"] + [(job, Piece("c", "", None, 23, 1), 1.0)]
    cuts += [(other, Piece("d", "", None, 23, 1), 1.0)]
    assert [[piece.run for piece in pack] for pack in split.packed(cuts, 4)] == [["a", "b"], ["c"], ["c"], ["d"]]


def test_a_job_is_as_long_as_was_asked_by_what_the_store_has_measured(many):
    folder, config = many
    assert "no speed of backbone tiny yet" in split.measure([folder.job], None, 10).line
    attempt = Attempt(folder, new_attempt(), {})
    for prompt, seconds in zip(folder.job.asked, (20.0, 30.0, 400.0)):
        attempt.ok(prompt, {}, {"latents_sha256": "", "blocks": split.blocks_of(folder.job, prompt), "dur_s": seconds})
    measure = split.measure([folder.job], None, 2.6)
    costs = [cost for _, cost in split.cut(folder, config, folder.missing(), measure)]
    assert len(costs) == 4 and sum(costs) == pytest.approx(20 * 30) and max(costs) == pytest.approx(150), "five of 30 s each"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"partitoin": "x"}, "unknown key launcher.partitoin: nearest is partition"),
        ({"gpus": -1}, "launcher.gpus=-1: it is at least 0"),
        ({"time_minutes": "4h"}, "launcher.time_minutes=4h: a whole number is expected here"),
        ({"time_minutes": 30}, "launcher.target_minutes=60: SLURM ends jobs after launcher.time_minutes=30; nearest is 30"),
        ({"setup": "module load cuda"}, "launcher.setup=module load cuda: a list of lines of shell is expected"),
        ({"wait": "no"}, "launcher.wait=no: true or false is expected here"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(changes, line):
    with pytest.raises(ValueError, match=line.replace("(", r"\(")) as error:
        slurm.settings(given(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_named_resources_reach_sbatch(name):
    chosen = slurm.settings({key: value for key, value in launcher(f"launcher={name}").items() if key != "_target_"})
    told = slurm.parameters(dataclasses.replace(chosen, setup=("module load x",), max_parallel=3, extra={"reservation": "mine"}), 10)
    assert told["cpus_per_task"] > 1 and told["mem"].endswith("M") and told.get("gpus_per_node") == (1 if name == "gpu" else None)
    assert told["setup"][-1] == "module load x" and told["array_parallelism"] == 3
    assert told["additional_parameters"] == {"requeue": True, "reservation": "mine"}


def test_an_outer_jobs_variables_do_not_reach_the_inner(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SBATCH_PARTITION", "SRUN_CPUS_PER_TASK", "CUDA_VISIBLE_DEVICES", "SLURM_CONF"):
        monkeypatch.setenv(name, "1")
    with slurm_queue.clean_environment():
        assert not [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "CUDA_")) and name != "SLURM_CONF"]
        assert os.environ["SLURM_CONF"] == "1"
    assert os.environ["SLURM_CPUS_PER_TASK"] == os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_without_slurm_there_is_one_line(many, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="no SLURM answers here .*nearest is hydra/launcher=local"):
        slurm.Launch([many[0].job], [many[1]], slurm.settings(given()))


def part(config: dict, tmp_path, run: str) -> slurm_job.Part:
    return slurm_job.Part((run,), (config,), ("run.py",), str(tmp_path / "launch"), 60)


def test_a_job_whose_run_has_another_name_by_now_is_refused(plain, tmp_path):
    config = changed(plain, "store", str(tmp_path))
    with pytest.raises(slurm_job.Incomplete, match="was other when it was submitted"):
        part(config, tmp_path, "other").make()


def test_a_job_that_never_finishes_a_video_ends(plain, tmp_path):
    config = changed(plain, "store", str(tmp_path))
    work = part(config, tmp_path, prepare(config).run_id)
    for left in (3, 3, 3, 2, 2, 2, 2, 2):
        work._fruitful(left)
    with pytest.raises(slurm_job.Incomplete, match="5 starts ended before one video was finished; launcher.time_minutes=60"):
        work._fruitful(2)


def test_last_words_of_a_job_are_its_own(tmp_path):
    log = tmp_path / "slurm" / "a" / "7_1_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback\njobs.slurm_job.Incomplete: echo hard seed=0: x failed\nsecond line\nsrun: error: node1: task 0: Exited\n")
    assert slurm_wait.last_words(tmp_path, "7_1") == "echo hard seed=0: x failed" and slurm_wait.last_words(tmp_path, "8") == "no log"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["launcher.partitoin=x"], "unknown key launcher.partitoin: nearest is partition"),
        (["hydra/launcher=slurm", "launcher.partitoin=x"], "unknown key launcher.partitoin: nearest is partition"),
        (["launcher.partition=x"], "launcher.partition: is a setting of jobs on a cluster; add hydra/launcher=slurm"),
        (["hydra/launcher=slrum"], "hydra/launcher=slrum: no such launcher; nearest is slurm"),
        (["launcher=gpuu"], "launcher=gpuu: no such launcher; nearest is gpu"),
    ],
)
def test_a_mistyped_launcher_is_one_line(words, line):
    told = [f"hydra.{word}" if word.startswith("launcher.") else word for word in words]
    assert explain(HydraException("what Hydra says"), [*told, "-m"]) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["launcher=gpu"], "launcher: cpus is a resource of jobs on a cluster; add hydra/launcher=slurm"),
        (["hydra/launcher=slurm", "launcher.gpus=-1"], "launcher.gpus=-1: it is at least 0"),
    ],
)
def test_a_launcher_is_refused_before_anything_is_written(words, line, tmp_path):
    store = tmp_path / "store"
    done = subprocess.run([sys.executable, "run.py", *words, f"store={store}", "-m"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip(), store.exists()) == (1, line, False)
