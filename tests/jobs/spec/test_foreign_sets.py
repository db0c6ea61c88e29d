"""Other people's prompt sets as tasks: what is planned of files of their forms, up to the block, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.sets.known import SETS
from echo.cache.policy import script_of
from jobs import cli
from jobs.spec.compose import one
from jobs.spec.plan import Job, prepare
from tests.helpers import foreign

TINY = ("backbone=self_forcing", "weights=random", "geometry=tiny", "method=echo", "seed=0")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """Where the tasks look for their sets, each made of a small file of its form."""
    folder = tmp_path_factory.mktemp("sets")
    prompts, numbers = foreign.rollf200(folder)
    files = {"memflow": foreign.memflow(folder), "helios": foreign.helios(folder), "vmem": foreign.vmem(folder)}
    files |= {"layerrecall": foreign.layerrecall(folder), "rollf200": prompts}
    for name, file in files.items():
        more = [f"lines={numbers}"] if name == "rollf200" else []
        words = ["data", "import", str(file), f"format={name}", *more, "--output", str(folder / "prompts" / f"{name}.jsonl")]
        assert cli.main(words) == 0
    return folder


def planned(checkpoints: Path, task: str, *words: str) -> Job:
    return prepare(one([*TINY, f"task={task}", f"checkpoints={checkpoints}", "eval=none", *words]))


BLOCKS = {"memflow": [80, 80], "helios": [7, 13, 80], "vmem": [40], "layerrecall": [85, 43], "rollf200": [80] * 3}


@pytest.mark.parametrize("task", SETS)
def test_a_task_plans_the_videos_of_its_set(checkpoints, task):
    job = planned(checkpoints, task)
    assert [job.blocks(prompt) for prompt in job.asked] == BLOCKS[task]
    recalled = [
        start.recalls
        for start in script_of(job.asked[0], job.policy, job.config.backbone.frames_per_block, lambda texts: [[1.0]] * len(texts)).starts
    ]
    assert recalled == {"vmem": [None, None, None, 1, None, 2], "layerrecall": [None, None, 0]}.get(task, [None] * len(recalled))


def test_a_set_that_is_not_there_names_its_command(tmp_path):
    with pytest.raises(ValueError, match=r"not there; `echo-harness data import FILE format=vmem --output \S+vmem.jsonl` makes it of VMem"):
        planned(tmp_path, "vmem")
    with pytest.raises(ValueError, match="task=memflow: has sentences of any words, backbone=tiny .* nearest is backbone=self_forcing"):
        prepare(one(["backbone=tiny", "task=memflow"]))
    with pytest.raises(ValueError, match="the authors have no prompts of task=vmem; nearest is task.prompts=own"):
        planned(tmp_path, "vmem", "task.prompts=released")


def test_returns_that_nobody_names_are_not_scored(checkpoints, tmp_path):
    path = tmp_path / "prompts" / "vmem.jsonl"
    path.parent.mkdir()
    line = json.loads((checkpoints / "prompts" / "vmem.jsonl").read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: value for key, value in line.items() if key != "recalls"}), encoding="utf-8")
    with pytest.raises(ValueError, match="none of 6 scenes says which one it recalls .* task=vmem"):
        planned(tmp_path, "vmem", "eval=vbench", "eval.vbench.dimensions=subject_consistency")
