"""Rows that are rendered instead of generated: runs like any other, with names of their own, refused beside another backbone."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from echo.cache.plan import Plan
from echo.files import ROOT
from echo.scene import scene_blocks
from eval.report.cells import parts
from eval.store.rows import gather, sources
from eval.store.runs import runs
from eval.tables import captions
from eval.tables.build import grid_of
from eval.tables.meta import MadeGrid
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder, new_attempt, write_sweep
from jobs.work.blocks import developed
from jobs.work.worker import Film, work
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
    assert sum(scene_blocks(base.asked[0].durations_s, base.policy.durations, 3)) == 4


def test_another_backbone_is_refused_in_one_line(config, plain):
    with pytest.raises(ValueError, match="renders the embedded world, 48x48 px, but backbone=tiny makes frames of 24 px") as refusal:
        prepare(changed(config, "backbone.weights", plain["backbone"]["weights"]))
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="way.*truth"):
        prepare(changed(config, "method.way", "trueth"))


def numbered(value: float, part: str):
    """A batch's first block, one number of whose latents, or of whose pixels, is this one."""
    import torch

    from echo.backbone.finite import Finite
    from echo.rollout import Block

    class Stream:
        finite = Finite()

        def decode(self, latents):
            pixels = torch.rand(2, 12, 24, 24, 3)
            pixels[1, 3, 2, 1, 0] = value if part == "codec" else 0
            self.finite.see(pixels)
            return (pixels * 255).to(torch.uint8)

    latents = torch.randn(2, 3, 16, 4, 4)
    latents[1, 2, 5, 0, 1] = value if part == "network" else 0
    return Block(7, 0, latents, Plan(7, 0, 21, (), (), frozenset()), 3, 3), Stream()


@pytest.mark.parametrize("part", ["network", "codec"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5])
def test_what_is_not_finite_names_block_and_part(part, value):
    block, stream = numbered(value, part)
    if value == 0.5:
        made = developed(block, [0, 1], stream)
        assert len(made.content()) == len(made.frames()) == 2
        return
    with pytest.raises(ValueError, match=f"^block 7: the {part}'s (latents|pixels) are not finite"):
        developed(block, [0, 1], stream).frames()


FILMS = {
    "space": lambda random: random.integers(0, 256, (24, 1, 1, 3)).repeat(8, 1).repeat(8, 2),
    "time": lambda random: random.integers(0, 250, (1, 8, 8, 3)).repeat(24, 0) + random.integers(0, 3, (24, 8, 8, 3)),
    "": lambda random: random.integers(0, 256, (24, 8, 8, 3)),
}


@pytest.mark.parametrize("dead", FILMS)
def test_a_video_that_shows_nothing_or_does_not_move_is_dead(dead, config):
    job = prepare(config)
    frames = FILMS[dead](np.random.default_rng(0)).astype(np.uint8)
    still = float(np.ptp(frames.astype(float), axis=(1, 2)).max()), float(np.ptp(frames.astype(float), axis=0).max())
    assert (still[0] <= 2, still[0] > 2 >= still[1]) == (dead == "space", dead == "time")
    with ExitStack() as stack:
        film = Film(RunFolder(job), job.asked[0], stack)
        for part in np.split(frames, 2):
            film.add(b"", part, {"keys": []}, 0, 0)
    assert film.dead == dead


def test_a_dead_video_is_said_of_in_record_and_footer(config, monkeypatch):
    monkeypatch.setattr("jobs.work.worker.UNSEEN", 300)
    config = config | {"eval": {"name": "embedded", "label": "", "scorer": "embedded", "weights": "data/weights/scorer/model.safetensors"}}
    job = prepare(config)
    assert work(job, new_attempt(), [], config, lambda event: None) == 0
    (run,) = runs(ROOT / config["store"])
    assert [record.dead for record in run.records()] == ["space", "space"]
    write_sweep(ROOT / config["store"], [job], None)
    (source,) = sources(ROOT / config["store"])
    (group,) = groups = gather(source.wishes)
    made = MadeGrid(grid_of(group, groups), group)
    assert "Dead videos, of one colour or without motion: render_truth 2." in captions.notes(made.grid)[-1]
    (method,) = next(iter(parts(source, [made]))).methods
    assert {cell.status for cell in method.cells.values()} == {"dead"}
    assert {cell.note for cell in method.cells.values()} == {"each frame is of one colour"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("model.blocks.1.ffn.0.weight", float("nan"), "model.blocks.1.ffn.0.weight holds a NaN or an infinity"),
        ("codec.basis", float("inf"), "codec.basis holds a NaN or an infinity"),
        ("model.blocks.0.self_attn.q.weight", 0.0, "model.blocks.0.self_attn.q.weight is a matrix of zeros alone"),
    ],
)
def test_a_damaged_backbone_is_an_error_of_each_video_and_no_black_film(plain, tmp_path, name, value, told):
    from safetensors import safe_open
    from safetensors.torch import save_file

    source, weights = plain["backbone"]["weights"], tmp_path / "damaged.safetensors"
    with safe_open(source, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tensors[name] = spoiled(tensors[name], value)
        save_file(tensors, weights, metadata=file.metadata())
    config = changed(plain, "backbone.weights", str(weights)) | {"store": str(tmp_path / "store"), "prompts": 2}
    assert work(prepare(config), new_attempt(), [], config, lambda event: None) == 2
    (run,) = runs(tmp_path / "store")
    assert [record.err for record in run.records()] == [f"ValueError: {weights}: {told}"] * 2
    assert not list((tmp_path / "store").rglob("*.mp4"))


def spoiled(tensor, value):
    """Zeros, or the tensor with one number in its middle."""
    tensor = tensor.clone()
    tensor.view(-1)[slice(None) if value == 0 else tensor.numel() // 2] = value
    return tensor


def test_a_number_that_overflows_on_the_way_is_an_error_that_names_the_block(plain, tmp_path, monkeypatch):
    from echo.rollout import Rollout

    following = Rollout.next

    def overflowing(self):
        block = following(self)
        if block.index == 1:
            block = replace(block, latents=block.latents * float("inf"))
        return block

    monkeypatch.setattr(Rollout, "next", overflowing)
    config = plain | {"store": str(tmp_path / "store"), "prompts": 1}
    assert work(prepare(config), new_attempt(), [], config, lambda event: None) == 1
    (run,) = runs(tmp_path / "store")
    (record,) = run.records()
    assert record.err.startswith("ValueError: block 1: the network's latents are not finite") and not record.files
