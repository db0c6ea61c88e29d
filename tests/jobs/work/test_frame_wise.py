"""Runs in blocks of one latent frame and of other steps: clock, trace, scenes, names, forecasts and speeds, beside those of three."""

from __future__ import annotations

import json
import math
import re

import pytest

from baselines.presets import preset
from echo.files import ROOT
from eval.report.memory_strips import kept, read
from eval.store.runs import Run, runs
from eval.vbench import borders
from eval.vbench.video import Facts
from jobs import cli
from jobs.spec.plan import Job, prepare
from jobs.store import speeds
from jobs.store.folder import new_attempt, write_sweep
from jobs.watch import forecast
from jobs.work.worker import work
from tests.helpers.toy import changed, write_backbone, write_prompts

RENDER = {"name": "render_truth", "policy": "render", "label": "Ground-truth render", "way": "truth"}


@pytest.fixture
def config(plain, tmp_path):
    """LongLive in blocks of one frame and one step, two scenes of 4.25 s: 17 blocks each, of three frames 6 and 5."""
    weights = write_backbone(tmp_path / "large.safetensors", grid=4)
    prompts = write_prompts(tmp_path / "prompts.jsonl", 1, 4.25)
    base = changed(changed(plain, "backbone.weights", str(weights)), "task.prompt_set", str(prompts))
    own = {"store": str(tmp_path / "store"), "prompts": 1, "method": preset("method", "longlive")}
    return changed(changed(base, "backbone.frames_per_block", 1), "backbone.steps", [1000]) | own


def made(config) -> tuple[Job, Run]:
    job = prepare(config)
    assert work(job, new_attempt(), [], config, lambda event: None) == 0
    return job, next(run for run in runs(ROOT / config["store"]) if run.path.name == job.run_id)


def test_a_run_counts_in_its_own_blocks(config):
    """Video, trace, record and scenes tell one length; who scores its file finds the scenes where they are."""
    job, run = made(config)
    (record,) = run.records()
    assert (record.blocks, record.denoising_steps, record.attended_frames) == (34, 1, 12)
    sizes = {"sides": 2, "layers": 2, "tokens": 16, "width": 32, "bytes": 4}
    assert record.kept_mb == pytest.approx(record.kept_frames * math.prod(sizes.values()) / 1e6), "keys and values of all layers"
    trace, video = (run.side(record, kind) for kind in ("trace", "video"))
    assert trace is not None and video is not None
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    assert [line["queries"] for line in lines] == [[frame] for frame in range(34)] and [line["scene"] for line in lines] == [0] * 17 + [
        1
    ] * 17
    assert job.spans(job.asked[0]) == [(0, 68), (68, 136)] == borders.borders(Facts(video, "", 136, 16.0, 24, 24), None)[0]
    strip = kept(read(trace.read_text(encoding="utf-8")), job.policy)
    assert strip.certain and list(strip.borders) == [0, 17] and len(strip.blocks[-1].keys) == 12


def test_a_rendered_row_beside_it_has_the_same_scenes(config):
    job, run = made(config | {"method": RENDER})
    (record,) = run.records()
    video = run.side(record, "video")
    assert video is not None and record.blocks == 34
    assert borders.borders(Facts(video, "", 136, 16.0, 48, 48), None) == (job.spans(job.asked[0]), borders.TRACE)
    with pytest.raises(ValueError, match="34 blocks are 136 or 133 frames, scene after scene, the video has 134"):
        borders.borders(Facts(video, "", 134, 16.0, 48, 48), None)


def test_names_tell_blocks_and_steps_apart(config):
    """At three frames and four steps nothing enters a name."""
    usual = changed(changed(config, "backbone.frames_per_block", 3), "backbone.steps", [1000, 750, 500, 250])
    without = {key: value for key, value in usual["backbone"].items() if key not in ("frames_per_block", "steps")}
    assert prepare(usual).run_id == prepare(usual | {"backbone": without}).run_id
    others = [config, changed(usual, "backbone.frames_per_block", 1), changed(usual, "backbone.steps", [1000, 500])]
    others += [changed(usual, "backbone.shift", 8), changed(usual, "backbone.warp", False)]
    assert len({prepare(one).run_id for one in [usual, *others]}) == 6


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("frames_per_block", 0, "backbone.frames_per_block=0: it is at least 1"),
        ("frames_per_block", 11, "window_frames 21: at least two blocks of 11; nearest is 22"),
        ("steps", [500, 1000], r"denoising steps \[500, 1000\]: must fall strictly within 1..1000"),
        ("steps", [], r"denoising steps \[\]: must fall"),
        ("shift", 0.5, "backbone.shift 0.5: within 1..100; nearest is 1"),
    ],
)
def test_what_no_backbone_has_is_one_clear_line(config, key, value, words):
    with pytest.raises(ValueError, match=words) as told:
        prepare(changed(config, f"backbone.{key}", value))
    assert "\n" not in str(told.value)


def test_speeds_are_of_blocks_of_one_pace(config):
    """What blocks of one frame took says nothing of blocks of three, whose backbone has the same name."""
    job, run = made(config)
    store, names = config["store"], (run.place.backbone, run.place.method)
    usual = prepare(changed(changed(config, "backbone.frames_per_block", 3), "backbone.steps", [1000, 750, 500, 250]))
    assert run.spec.pace == job.pace == (1, 1) and usual.pace == (3, 4)
    assert speeds.block_s(store, *names, job.pace) and speeds.block_bytes(store, *names, job.pace)
    assert speeds.block_s(store, *names, usual.pace) is None is speeds.block_bytes(store, *names, usual.pace)
    (load,) = forecast.loads([prepare(config | {"seed": 1})], None)
    assert load.blocks == 34 and load.source == f"measured in {store}"
    (fresh,) = forecast.loads([prepare(config | {"store": store + "-other"})], None)
    assert fresh.seconds is None and fresh.source == "no speed known of such blocks"
    (asked,) = forecast.loads([prepare(config | {"seed": 2})], 4.0)
    assert asked.seconds == 34.0, "four frames a block at four frames a second"


def test_a_report_shows_blocks_where_they_are(config, tmp_path):
    job, _ = made(config)
    write_sweep(ROOT / config["store"], [job], None)
    out = tmp_path / "report"
    assert cli.main(["report", "--store", config["store"], "--output", str(out)]) == 0
    (cell,) = (out / "cells").glob("*/*.js")
    content = json.loads(cell.read_text(encoding="utf-8").partition(",")[2].removesuffix(")\n"))
    assert (content["blocks"], content["block_frames"], content["frames"], content["lead"]) == (34, 4, 136, 0)
    page = json.loads(re.search(r"const DATA = (.*);</script>", (out / "index.html").read_text(encoding="utf-8"))[1])
    assert content["borders"] == [0, 17] and page["parts"][0]["prompts"][0]["borders"] == [0, 17 / 3], "in readings of 12 frames"
