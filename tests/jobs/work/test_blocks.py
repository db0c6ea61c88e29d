"""Rows that are rendered instead of generated: runs like any other, with names of their own, refused beside another backbone."""

from __future__ import annotations

import json

import pytest

from echo.files import ROOT
from echo.scene import scene_blocks
from eval.store.runs import runs
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work.worker import work
from tests.helpers.toy import changed, write_backbone, write_prompts


@pytest.fixture
def config(plain, tmp_path):
    """A run of a calibration row beside a backbone whose frames are as large as the world's."""
    weights = write_backbone(tmp_path / "large.safetensors", grid=4)
    method = {"name": "render_truth", "policy": "render", "label": "Ground-truth render", "way": "truth"}
    prompts = write_prompts(tmp_path / "prompts.jsonl", 2, 1.5)
    more = {"method": method, "store": str(tmp_path / "store"), "prompts": 2}
    return changed(changed(plain, "backbone.weights", str(weights)), "task.prompt_set", str(prompts)) | more


def test_a_row_is_a_run_like_any_other(config):
    """Made in the worker, stored, found again, and nothing is made twice; its trace has a line a block."""
    job = prepare(config)
    assert work(job, new_attempt(), [], config, lambda event: None) == 0
    (run,) = runs(ROOT / config["store"])
    records = run.records()
    assert [record.status for record in records] == ["ok", "ok"] and records[0].blocks == 4
    assert len({record.latents_sha256 for record in records}) == 2
    trace = (run.path / "units" / records[0].files["trace"]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["scene"] for line in trace] == [0, 0, 1, 1]
    assert (run.path / "units" / records[0].files["video"]).stat().st_size > 1000
    assert work(job, new_attempt(), [], config, lambda event: None) == 0 and len(run.records()) == 2


def test_ways_seeds_and_worlds_are_runs_of_their_own(config, monkeypatch):
    base = prepare(config)
    ids = {base.run_id, prepare(changed(config, "method.way", "other")).run_id, prepare(changed(config, "seed", 1)).run_id}
    monkeypatch.setattr("data.world.film.VERSION", 3)
    ids.add(prepare(changed(config, "method.world", 3)).run_id)
    assert len(ids) == 4 and base.run_key["pixels"]["method.settings"]["world"] == 2
    assert sum(scene_blocks(base.asked[0].durations_s, base.policy.durations)) == 4


def test_another_backbone_is_refused_in_one_line(config, plain):
    with pytest.raises(ValueError, match="renders the embedded world, 48x48 px, but backbone=tiny makes frames of 24 px") as refusal:
        prepare(changed(config, "backbone.weights", plain["backbone"]["weights"]))
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="way.*truth"):
        prepare(changed(config, "method.way", "trueth"))
