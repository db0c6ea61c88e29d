"""The one rule: which runs make a row, which rows may be compared, and over which videos."""

from __future__ import annotations

import json
import shutil

import pytest

from eval.store.rows import differences, gather, last_asked, left_out, newest, parts_of, pick
from eval.store.runs import runs, tasks
from tests.helpers.stores import as_older, put, write


def one(value: float) -> dict:
    return {"p0": {"m": value}}


def names(found):
    return {row.name: row.values("m")["p0", 0] for row in found}


def test_newest_weights_and_scores_count(tmp_path):
    put(tmp_path, "hard", "echo", one(1), weights="old", at=1)
    put(tmp_path, "hard", "echo", one(2), weights="new", at=2, scores="s1")
    put(tmp_path, "hard", "longlive", one(3), weights="old", at=1)
    put(tmp_path, "hard", "self_forcing", one(4), weights="new", at=1, scores="s1")
    put(tmp_path, "hard", "rolling_sink", one(5), weights="new", at=1, scores="s0")
    put(tmp_path, "hard", "echo", one(6), weights="other", at=1, backbone="tiny_long", scores="s1")
    put(tmp_path, "recall", "echo", one(7), weights="newest", at=9)
    assert names(newest(tmp_path, "hard")) == {"tiny/echo": 2, "tiny/self_forcing": 4, "tiny_long/echo": 6}
    assert tasks(tmp_path) == ["hard", "recall"] and newest(tmp_path, "smooth") == []


def test_backbone_of_added_weights_is_one_of_its_own(tmp_path):
    put(tmp_path, "hard", "echo", one(1), beside={"backbone.lora": None})
    put(tmp_path, "hard", "longlive", one(2), beside={"backbone.lora": "old"}, backbone="tiny_long", at=1)
    put(tmp_path, "hard", "longlive", one(3), beside={"backbone.lora": "new"}, backbone="tiny_long", at=2)
    put(tmp_path, "hard", "render_truth", one(4), weights=None)
    assert names(newest(tmp_path, "hard")) == {"tiny/echo": 1, "tiny_long/longlive": 3, "tiny/render_truth": 4}


def test_newest_version_of_the_code_counts(tmp_path):
    put(tmp_path, "hard", "echo", one(1), epoch=1, at=1)
    put(tmp_path, "hard", "memrope", one(2), epoch=2, at=2)
    assert names(newest(tmp_path, "hard")) == {"tiny/memrope": 2}


def test_settings_beside_the_method_of_most_videos_count(tmp_path):
    put(tmp_path, "hard", "echo", one(1) | {"p1": {"m": 1.0}}, at=1)
    put(tmp_path, "hard", "echo", one(2), at=2, beside={"duration_scale": 0.2})
    put(tmp_path, "hard", "render_truth", one(3), at=1, weights=None)
    put(tmp_path, "hard", "render_other", one(4), at=1, weights=None, beside={"duration_scale": 0.2})
    found = newest(tmp_path, "hard")
    assert names(found) == {"tiny/echo": 1, "tiny/render_truth": 3} and [row.calibration for row in found] == [False, True]


def test_of_a_presets_settings_the_newest_count_and_the_others_are_named(tmp_path):
    """As in the tables; however many videos older settings have."""
    put(tmp_path, "hard", "echo", one(1), at=5, settings={"anchors": 6, "pool": 12})
    for seed in (0, 1):
        put(tmp_path, "hard", "echo", one(2), at=1, seed=seed, settings={"anchors": 12, "pool": 12})
    put(tmp_path, "hard", "memrope", one(3), at=1)
    found = newest(tmp_path, "hard")
    assert found[0].settings["method.settings.anchors"] == 6 and list(found[0].videos.index) == [("p0", 0)]
    assert left_out(found) == ["left out, as tiny/echo has newer settings: anchors=12 (2 videos)"]


def test_rendered_rows_are_told_by_their_policy(tmp_path):
    """Not by their names, and so neither by where in the package one asks."""
    put(tmp_path, "hard", "ceiling", one(1), weights=None, policy="render"), put(tmp_path, "hard", "render_free", one(2), policy="echo")
    assert {row.preset: row.calibration for row in newest(tmp_path, "hard")} == {"ceiling": True, "render_free": False}
    assert {run.place.method: run.calibration for run in runs(tmp_path)} == {"ceiling": True, "render_free": False}


def test_videos_without_scores_are_seen_on_demand(tmp_path):
    put(tmp_path, "hard", "echo", one(1), scores=None)
    assert newest(tmp_path, "hard") == [] and len(newest(tmp_path, "hard", scored=False)) == 1


def test_differences_are_over_shared_videos_of_the_same_text(tmp_path):
    put(tmp_path, "hard", "a", {"p0": {"m": 5.0}, "p1": {"m": 1.0}, "p2": {"m": 9.0}, "p4": {"n": 1.0}})
    put(tmp_path, "hard", "b", {"p0": {"m": 3.0}, "p1": {"m": None}, "p3": {"m": 4.0}, "p4": {"m": 1.0}})
    put(tmp_path, "hard", "c", one(4), edited=True)
    a, b, c = newest(tmp_path, "hard", texts=False)
    assert differences(a, b, "m").to_dict() == {("p0", 0): 2.0} and differences(a, c, "m").empty
    assert a.measured == ["m", "n"]


def test_an_edited_prompt_is_never_mixed_with_the_old_one(tmp_path):
    (
        put(tmp_path, "hard", "a", one(1), at=1),
        put(tmp_path, "hard", "b", one(2), at=3, edited=True),
        put(tmp_path, "hard", "c", one(3), at=2),
    )
    groups = gather(parts_of(tmp_path, "hard"))
    assert [[entry.preset for entry in group.entries.values()] for group in groups] == [["b"], ["a", "c"]]
    assert names(newest(tmp_path, "hard")) == {"tiny/b": 2}


def test_of_two_runs_of_one_video_the_better_outcome_counts_then_the_last(tmp_path):
    """As of two kernels, which are two runs of one row."""
    first = put(tmp_path, "hard", "a", {"p0": {"m": 1.0}, "p1": {"m": 2.0}})
    again = put(tmp_path, "hard", "a", {"p0": {"m": 5.0}, "p1": {"m": 6.0}})
    assert first == again  # the same pixels are the same run: the first record counts
    (entry,) = newest(tmp_path, "hard")
    assert entry.values("m").tolist() == [1.0, 2.0] and "p0 seed=0: other scores in attempt a" in entry.conflicts
    path = first / "run.json"
    other = first.with_name("zz")
    shutil.copytree(first, other)
    spec = json.loads(path.read_text(encoding="utf-8"))
    write(other / "run.json", spec | {"key": spec["key"] | {"kernel": "sdpa cuda"}})
    lines = (other / "records" / "a.jsonl").read_text(encoding="utf-8").splitlines()
    changed = as_older(lines[0], metrics={"m": 9.0}) + as_older(lines[1], status="error", metrics={})
    (other / "records" / "a.jsonl").write_text(changed, encoding="utf-8")
    (entry,) = newest(tmp_path, "hard")
    assert entry.values("m").to_dict() == {("p0", 0): 9.0, ("p1", 0): 2.0} and len(entry.runs) == 2
    assert set(entry.asked["status"]) == {"done"}


def test_what_a_store_is_to_become_is_the_last_wish_of_each_run_of_the_newest_code(tmp_path):
    put(tmp_path, "hard", "a", one(1), epoch=1), put(tmp_path, "hard", "b", one(1), epoch=2, at=1)
    put(tmp_path, "hard", "b", one(1) | {"p1": {"m": 2.0}}, epoch=2, at=2)
    ((run, asked),) = last_asked(tmp_path)
    assert run.place.method == "b" and list(asked.units) == ["p0", "p1"]


def test_picked_by_name(tmp_path):
    put(tmp_path, "hard", "a", one(1)), put(tmp_path, "hard", "b", one(2))
    found = newest(tmp_path, "hard")
    assert [row.preset for row in pick(found, ["b", "a"])] == ["b", "a"] and pick(found, []) == found
    with pytest.raises(ValueError, match="method=x: no videos of it here; there are a, b"):
        pick(found, ["x"])
