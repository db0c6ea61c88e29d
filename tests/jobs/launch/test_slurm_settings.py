"""How a sweep is split into jobs, the launcher's settings and refusals, and its environment. No SLURM is needed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from echo.files import ROOT
from eval.store.records import Provenance
from jobs.launch.slurm import job as slurm_job
from jobs.launch.slurm import queue as slurm_queue
from jobs.launch.slurm import split, wait
from jobs.launch.slurm import submit as slurm
from jobs.launch.slurm.split import Measure, Piece
from jobs.spec.mistakes import explain
from jobs.spec.plan import prepare
from jobs.store.folder import Attempt, RunFolder, new_attempt
from tests.helpers.toy import changed, overrides, write_backbone, write_prompts

ONE = Measure(lambda job, prompt: 1.0, 4, "")


@pytest.fixture
def many(plain, tmp_path):
    """A run of 23 prompts that has not begun."""
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
    folder.describe()
    attempt = Attempt(folder, new_attempt(), Provenance())
    for prompt, seconds in zip(folder.job.asked, (20.0, 30.0, 400.0)):
        attempt.ok(prompt, {}, {"latents_sha256": "", "blocks": folder.job.blocks(prompt), "dur_s": seconds})
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
        ({"time_minutes": 1, "target_minutes": 1}, "launcher.warn_seconds=90: .* told to end when they begin; nearest is 59"),
        ({"setup": 3}, "launcher.setup=3: a list of lines of shell is expected"),
        ({"extra": "x"}, "launcher.extra=x: names and values are expected, for example launcher.extra={reservation:NAME}"),
        ({"gpu_type": "h100"}, "launcher.gpu_type=h100: of launcher.gpus=0 cards; nearest is launcher.gpus=1"),
        ({"max_queued": 0}, "launcher.max_queued=0: it is at least 1"),
        ({"wait": "no"}, "launcher.wait=no: true or false is expected here"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(changes, line):
    with pytest.raises(ValueError, match=line.replace("(", r"\(")) as error:
        slurm.settings(given(**changes))
    assert "\n" not in str(error.value)


def test_a_type_of_cards_and_what_starts_python(monkeypatch):
    assert slurm.parameters(slurm.settings(given(gpus=2, gpu_type="h100")), 1)["gpus_per_node"] == "h100:2"
    monkeypatch.setenv("ECHO_IMAGE", "/images/echo.sif")
    chosen = slurm.settings({key: value for key, value in launcher("launcher=apptainer").items() if key != "_target_"})
    assert chosen.gpus == 1 and chosen.python is not None
    assert chosen.python.startswith("apptainer exec --nv --bind /") and chosen.python.endswith(" /images/echo.sif python")


def test_scratch_is_named_as_the_node_knows_it():
    assert not any("SCRATCH" in line for line in slurm.parameters(slurm.settings(given()), 1)["setup"])
    chosen = slurm.settings({key: value for key, value in launcher("hydra.launcher.scratch=$NODE_DISK/me").items() if key != "_target_"})
    lines = slurm.parameters(chosen, 1)["setup"]
    environment = {"NODE_DISK": "/disk of this node", "APPTAINER_BIND": "/data"}
    done = subprocess.run(["bash", "-euc", "\n".join([*lines, "env"])], env=environment, capture_output=True, text=True, check=True)
    assert {"ECHO_SCRATCH=/disk of this node/me", "APPTAINER_BIND=/disk of this node/me,/data"} <= set(done.stdout.splitlines())


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_named_resources_reach_sbatch(name):
    chosen = slurm.settings({key: value for key, value in launcher(f"launcher={name}").items() if key != "_target_"})
    chosen = dataclasses.replace(chosen, partition="a", account="b", qos="c", constraint="d", max_parallel=3)
    told = slurm.parameters(dataclasses.replace(chosen, setup=("module load x",), extra={"reservation": "mine"}), 10)
    assert [told[name] for name in ("partition", "account", "qos", "constraint", "time")] == ["a", "b", "c", "d", chosen.time_minutes]
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


@pytest.mark.parametrize("name", ["100%", "a\\b", "a\nb"])
def test_a_store_that_slurm_would_read_otherwise_is_refused(plain, tmp_path, name):
    config = plain | {"store": str(tmp_path / name)}
    with pytest.raises(ValueError, match=r"SLURM reads % and .* nearest is store=.*/(100-|a-b)$") as refused:
        slurm.Launch([prepare(config)], [config], slurm.settings(given()))
    assert "\n" not in str(refused.value) and not (tmp_path / name).exists()


@pytest.fixture
def launch(plain, tmp_path, monkeypatch):
    """What a command would send, by run and shard, while SLURM has some jobs in its queue; no SLURM is asked."""
    monkeypatch.setattr(slurm_queue, "most_in_array", lambda: 4)
    sent = []
    monkeypatch.setattr(slurm.Launch, "_send", lambda self, packs: sent.extend(sum(packs, [])) or {})

    def submit(*changes: dict, queue: dict = {}, **more: object) -> list[Piece]:  # noqa: B006
        sent.clear()
        monkeypatch.setattr(slurm_queue, "queue", lambda: {name: slurm_queue.QueueEntry("RUNNING", "None", "node1") for name in queue})
        path = tmp_path / "store" / "slurm" / "earlier" / "launch.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"v": 1, "argv": [], "jobs": queue}))
        configs = [changed(plain, "store", str(tmp_path / "store")) | change for change in changes]
        made = slurm.Launch([prepare(config) for config in configs], configs, slurm.settings(given(units_per_job=2, **more)))
        made.submit()
        return list(sent)

    return submit


def test_what_is_under_way_is_not_submitted_again_and_nothing_else_is_taken_for_it(launch, plain):
    """A run has the same name in all tasks; its place tells them apart."""
    first, second = launch({})
    assert (first.units, second.units) == (2, 1) and first.run.split("/")[1] == "hard"
    row = [first.run, first.title, first.shard, first.asked, first.units]
    assert [piece.units for piece in launch({}, queue={"7_0": [row]})] == [1]
    assert not launch({}, queue={"7_0": [[*row[:2], None, 3, 3]]})
    assert launch({}, queue={"7_0": [[first.run.replace("/hard/", "/recall/"), *row[1:]]]}) == [first, second]


def test_a_cluster_that_limits_the_queue(launch, capsys):
    """Jobs of earlier commands on the way count."""
    first, second = launch({})
    assert launch({}, max_queued=1) == [first]
    assert "launcher.max_queued=1: 1 more job when these have ended" in capsys.readouterr().out
    row = [first.run, first.title, first.shard, first.asked, first.units]
    assert launch({}, queue={"7_0": [row]}, max_queued=1) == []
    assert [piece.units for piece in launch({}, queue={"7_0": [row]}, max_queued=2)] == [second.units]


def test_shards_of_a_run_that_one_command_sweeps_are_all_made(launch):
    pieces = launch({"shard": "1/3"}, {"shard": "2/3"}, {"shard": "3/3"}, {"shard": "3/3"})
    assert [(piece.shard, piece.units) for piece in pieces] == [("1/3", 1), ("2/3", 1), ("3/3", 1)]
    assert {(piece.asked, piece.units) for piece in launch({"prompts": 2}, {"prompts": 1})} == {(2, 2), (1, 1)}


def test_the_same_run_in_two_tasks_shares_a_job(launch, plain):
    job = prepare(plain)
    tasks = [dataclasses.replace(job.config, task=dataclasses.replace(job.config.task, name=name)) for name in ("hard", "recall")]
    both = [dataclasses.replace(job, config=config) for config in tasks]
    cuts = [(job, piece, cost) for job in both for piece, cost in split.cut(RunFolder(job), plain, job.asked[:2], ONE)]
    assert len(split.packed(cuts, 4)) == 1


def test_reasons_that_were_asked_for_are_not_told(monkeypatch, capsys):
    states = {"1_1": "JobArrayTaskLimit", "1_2": "Priority", "2": "PartitionTimeLimit", "3": "ReqNodeNotAvail, UnavailableNodes:node1"}
    monkeypatch.setattr(slurm_queue, "queue", lambda: {name: slurm_queue.QueueEntry("PENDING", why, "") for name, why in states.items()})
    told: set[str] = set()
    for _ in range(2):
        assert wait._living(dict.fromkeys(states, ()), told).keys() == states.keys()
    lines = sorted(capsys.readouterr().err.splitlines())
    assert lines == [f"job {name} waits, and SLURM says why: {states[name]}" for name in ("2", "3")]


def part(config: dict, tmp_path) -> slurm_job.JobPart:
    return slurm_job.JobPart((split.wanted(prepare(config)),), (config,), ("run.py",), str(tmp_path / "launch"), 60)


@pytest.mark.parametrize("name", ["weights", "prompts"])
def test_a_job_that_would_make_something_else_by_now_is_refused(tmp_path, name):
    """Files that changed while it waited."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        plain = OmegaConf.to_container(compose("config", overrides(tmp_path)), resolve=True)
    work = part(changed(plain, "store", str(tmp_path / "store")), tmp_path)
    if name == "weights":
        write_backbone(tmp_path / "model.safetensors", seed=1)
    else:
        write_prompts(Path(plain["task"]["prompt_set"]), 3, scene_s=2.0)
    with pytest.raises(slurm_job.Incomplete, match="something else than what was submitted"):
        work.make()
    assert not (tmp_path / "store").exists()


def test_a_job_that_never_finishes_a_video_ends(plain, tmp_path):
    config = changed(plain, "store", str(tmp_path))
    work = part(config, tmp_path)
    for left in (3, 3, 3, 2, 2, 2, 2, 2):
        work._fruitful(left)
    with pytest.raises(slurm_job.Incomplete, match="5 starts ended before one video was finished; launcher.time_minutes=60"):
        work._fruitful(2)


def test_last_words_of_a_job_are_its_own(tmp_path):
    log = tmp_path / "slurm" / "a" / "7_1_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback\njobs.slurm_job.Incomplete: echo hard seed=0: x failed\nsecond line\nsrun: error: node1: task 0: Exited\n")
    assert wait.last_words(tmp_path, "7_1") == "echo hard seed=0: x failed" and wait.last_words(tmp_path, "8") == "no log"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["launcher.partitoin=x"], "unknown key launcher.partitoin: nearest is partition"),
        (["hydra/launcher=slurm", "launcher.partitoin=x"], "unknown key launcher.partitoin: nearest is partition"),
        (["launcher.partition=x"], "launcher.partition: is a setting of jobs on a cluster; add hydra/launcher=slurm"),
        (["hydra/launcher=slurm", "launcher.extra={a:b}", "launcher.extra.nice=5", "prompst=1"], "unknown key prompst: nearest is prompts"),
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
        (["hydra/launcher=slurm", "launcher.extra={reservation:x}", "launcher.gpus=-1"], "launcher.gpus=-1: it is at least 0"),
        (["launcher.extra.reservation=x"], "launcher: extra is a resource of jobs on a cluster; add hydra/launcher=slurm"),
    ],
)
def test_a_launcher_is_refused_before_anything_is_written(words, line, tmp_path):
    store = tmp_path / "store"
    done = subprocess.run([sys.executable, "run.py", *words, f"store={store}", "-m"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip(), store.exists()) == (1, line, False)
