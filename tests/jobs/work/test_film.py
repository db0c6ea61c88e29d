"""Calibration rows: what they show, that they are runs like any other, and where they are refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from data.world.film import Render, Way, truths
from data.world.render import SIZE
from data.world.words import parse
from echo.cache.plan import Step
from echo.files import ROOT
from echo.geometry import Geometry
from echo.scene import Prompt, SceneStart, load_prompts, scene_blocks
from eval.store.records import runs
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work.worker import work
from tests.helpers.toy import changed, write_backbone, write_prompts

RECALL = load_prompts(ROOT / "data" / "prompts" / "recall.jsonl")[0]
SMOOTH = load_prompts(ROOT / "data" / "prompts" / "smooth.jsonl")[0]
SHORT = dataclasses.replace(RECALL, durations_s=(1.5,) * 6)


def test_every_prompt_of_the_sets_can_be_rendered():
    for path in (ROOT / "data" / "prompts").glob("*.jsonl"):
        for prompt in load_prompts(path):
            Render().check_prompt(prompt)


def test_truth_shows_the_place_again_and_the_words_alone_another():
    """Scenes 4, 5, 6 recall 1, 2, 3. Compared by the renderer's truth, and by the medians of frames."""
    shown = truths(SHORT, 0, Render())
    alone = truths(SHORT, 0, Render(way=Way.other))
    for late, early in ((3, 0), (4, 1), (5, 2)):
        assert shown[late].place == shown[early].place and alone[late].place != alone[early].place
    assert len({truth.place for truth in shown}) == 3 and len({truth.place for truth in alone}) == 6
    assert [truth.words for truth in shown] == [parse(text) for text in SHORT.scenes] == [truth.words for truth in alone]
    assert len({truth.radius for truth in shown}) == 1
    film, other = Render().film(SHORT, 0), Render(way=Way.other).film(SHORT, 0)
    assert film.shape == other.shape == (6 * 24, SIZE, SIZE, 3)
    apart = [abs(np.median(video[72:96], 0) - np.median(video[:24], 0)).mean() for video in (film, other)]
    assert 3 * apart[0] < apart[1], apart


def test_a_smooth_transition_goes_on_where_the_subject_is():
    prompt = dataclasses.replace(SMOOTH, durations_s=(1.5,) * 6)
    shown = truths(prompt, 0, Render())
    assert len({truth.place for truth in shown}) == 1
    path = np.concatenate([truth.centres for truth in shown])
    steps = np.abs((np.diff(path, axis=0) + SIZE / 2) % SIZE - SIZE / 2).max(1)
    assert steps.max() < 2.5, steps.max()
    cut = np.concatenate([truth.centres for truth in truths(SHORT, 0, Render())])
    assert np.abs((np.diff(cut, axis=0) + SIZE / 2) % SIZE - SIZE / 2).max() > 2.5


def test_shuffled_has_the_same_frames_in_another_order():
    film, shuffled = Render().film(SHORT, 0), Render(way=Way.shuffled).film(SHORT, 0)
    assert not np.array_equal(film, shuffled)
    assert sorted(frame.tobytes() for frame in film) == sorted(frame.tobytes() for frame in shuffled)


def test_a_film_is_named_by_seed_and_prompt_alone():
    film = Render().film(SHORT, 0)
    assert np.array_equal(film, Render().film(SHORT, 0))
    assert not np.array_equal(film, Render().film(SHORT, 1))
    assert not np.array_equal(film, Render().film(dataclasses.replace(SHORT, id="another"), 0))


@pytest.mark.parametrize(
    ("scenes", "tags", "part"),
    [
        (("a red ball moving left over a plain meadow", "a red ball moving up over a plain desert"), ("", "@"), "recalls a plain desert"),
        (("a red ball moving left over a meadow",), ("",), "says no pattern"),
        (("a red bal moving left over a plain meadow",), ("",), "bal"),
    ],
)
def test_what_cannot_be_rendered_is_refused(scenes, tags, part):
    with pytest.raises(ValueError, match=part) as refusal:
        Render().check_prompt(Prompt("p", scenes, (3.0,) * len(scenes), tags))
    assert "'p'" in str(refusal.value) and "\n" not in str(refusal.value)


def test_it_is_no_policy():
    with pytest.raises(ValueError, match="rendered"):
        Render().plan(Step(0, (SceneStart(0),), Geometry(1, 1, 6, 1, 1)))
    with pytest.raises(ValueError, match="world 1: .* nearest is"):
        Render(world=1)


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
    assert [record["status"] for record in records] == ["ok", "ok"] and records[0]["blocks"] == 4
    assert len({record["latents_sha256"] for record in records}) == 2
    trace = (run.path / "units" / records[0]["files"]["trace"]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["scene"] for line in trace] == [0, 0, 1, 1]
    assert (run.path / "units" / records[0]["files"]["video"]).stat().st_size > 1000
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
