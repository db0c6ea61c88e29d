"""Tables of a store against an independent reading of its files as plain JSON; their columns and dtypes are those that are documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval.store import columns, frame
from eval.store.columns import FACTS, FILES, STATUS, TEXTS, finished
from eval.store.records import UnitRecord
from eval.store.rows import newest
from eval.store.runs import Run, runs
from tests.helpers.stores import append, as_older, put, write
from tests.load import million

METRICS = ("alignment", "world.recall")
BLOCKS = [{"place_right": 1, "quality": 80.5}, {"place_right": None, "quality": 81.0}]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two tasks, methods and seeds; a number that is not finite, a metric that some lack, and videos of every status."""
    for task in ("hard", "recall"):
        for place, preset in enumerate(("echo", "self_forcing")):
            for seed in (0, 1):
                values = {f"p{i}": {"alignment": 50.0 + 10 * place + i + seed / 2} for i in range(3)}
                values["p1"]["world.recall"] = 7.25
                values["p2"] |= {"alignment": None} if seed else {}
                blocks = dict.fromkeys(values, BLOCKS)
                more = {"settings": {"anchors": 6} if preset == "echo" else {}, "beside": {"method.policy": preset}}
                put(tmp_path, task, preset, values, seed=seed, at=place + 1, per_block=blocks, **more)
    run = next(runs(tmp_path, "*/recall/echo/*/*"))
    more = {name: f"u-{name}" for name in ("p3", "p4", "p5")}
    (path,) = (run.path / "asked").iterdir()
    wish = json.loads(path.read_text(encoding="utf-8"))
    write(path, wish | {"units": wish["units"] | more})
    like = {"attempt": "b", "seed": 0, "t": 9.0, "metrics": {}}
    append(run, UnitRecord(unit="u-p3", prompt="p3", scores="s0", status="error", err="ValueError", **like))
    append(run, UnitRecord(unit="u-p4", prompt="p4", scores=None, status="ok", latents_sha256="1", **like))
    return tmp_path


def plain(store: Path) -> dict[tuple[str, str, str, int], dict]:
    """Task, preset, prompt and seed -> status and metrics, by nothing but the json module."""
    found = {}
    for folder in (path.parent for path in store.glob("runs/*/*/*/*/*/run.json")):
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("records/*.jsonl"))]
        lines = [json.loads(line) for text in texts for line in text.splitlines()]
        spec = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        for path in folder.glob("asked/*.json"):
            wish = json.loads(path.read_text(encoding="utf-8"))
            for prompt, unit in wish["units"].items():
                own = [line for line in lines if line["unit"] == unit]
                done = [line for line in own if line["status"] == "ok" and line["scores"] == wish["scores"]]
                rest = "failed" if any(line["status"] == "error" for line in own) else "unscored" if own else "missing"
                told = {"status": "done", **done[0]["metrics"]} if done else {"status": rest}
                found[wish["task"]["name"], spec["method"]["name"], prompt, spec["seed"]] = told
    return found


def test_videos_are_what_the_files_say(store: Path) -> None:
    expected, found = plain(store), frame.videos(store)
    assert len(found) == len(expected) == 27 and set(found["status"]) == set(STATUS)
    for row in found.to_dict("records"):
        told = expected[row["task"], row["preset"], row["prompt"], row["seed"]]
        assert row["status"] == told["status"], row
        for metric in METRICS:
            value = told.get(metric)
            assert np.isnan(row[metric]) if value is None else row[metric] == value
        assert str(row["video"]).endswith(f"/units/{row['prompt']}.mp4") is (told["status"] == "done")


def test_columns_and_dtypes_are_those_of_the_documentation(store: Path) -> None:
    found = frame.videos(store)
    kinds = {name: str(kind) for name, kind in found.dtypes.items()}
    assert {name for name, kind in kinds.items() if kind == "category"} == set(frame.CATEGORIES)
    assert {name for name, kind in kinds.items() if kind == "str"} == {"prompt", "unit", *FILES.values(), *TEXTS}
    assert {name for name, kind in kinds.items() if kind == "int64"} == {"seed", "epoch", "group"} and kinds["calibration"] == "bool"
    assert {name for name, kind in kinds.items() if kind == "float64"} == {*METRICS, *FACTS} - set(TEXTS)
    told = set(re.findall(r"\w+", frame.videos.__doc__ or ""))
    assert set(kinds) - set(METRICS) <= told, "every column is documented"
    assert list(found)[-len(frame.LAST) :] == list(frame.LAST)
    light = frame.videos(store, facts=False)
    pd.testing.assert_frame_equal(light, found[list(light)])
    assert set(found) - set(light) == set(frame.LAST)
    empty = frame.videos(store / "nowhere")
    assert empty.empty and set(frame.CATEGORIES) <= set(empty.columns)


def test_scenes_and_blocks_are_those_of_the_scores_files(store: Path) -> None:
    for path in store.glob("runs/*/*/*/*/*/units/*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        write(path, content | {"per_segment": [{"start": 0, "end": 12, "m": 1.5}, {"start": 12, "end": 24, "m": 2.5}]})
        path.with_name(f"{path.stem}.trace.jsonl").write_text('{"scene": 0}\n{"scene": 1}\n', encoding="utf-8")
    blocks, scenes = frame.blocks(store), frame.segments(store)
    assert len(blocks) == len(scenes) == 2 * 24
    assert blocks["scene"].tolist() == blocks["block"].tolist() == scenes["scene"].tolist() == [0, 1] * 24
    assert blocks["quality"].tolist() == [80.5, 81.0] * 24 and blocks["place_right"].isna().tolist() == [False, True] * 24
    assert scenes["m"].tolist() == [1.5, 2.5] * 24 and scenes["end"].tolist() == [12, 24] * 24
    (echo, _) = newest(store, "recall")
    assert frame.readings(echo)["quality"].tolist() == [80.5, 81.0] * 6


def test_the_fast_way_of_reading_says_what_the_other_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = [finished(run, "s0") for run in runs(store)]
    with monkeypatch.context() as patch:
        patch.setattr(columns, "_plain", lambda run, scores: None)
        slow = [finished(run, "s0") for run in runs(store)]
    for one, other in zip(fast, slow, strict=True):
        assert (one.units, one.attempts, list(one.metrics)) == (other.units, other.attempts, list(other.metrics))
        assert all(np.array_equal(one.metrics[name], other.metrics[name], equal_nan=True) for name in one.metrics)
        assert (dict(one.failures), one.conflicts, one.unscored) == (dict(other.failures), other.conflicts, other.unscored)


def like(number: int, **changes: object) -> UnitRecord:
    content = {"unit": f"u{number}", "prompt": f"p{number}", "metrics": {"m": float(number)}, "t": float(number), "latents_sha256": "0"}
    return UnitRecord(**{"scores": "s0", "attempt": "a", "seed": 0, "status": "ok", **content, **changes})


@pytest.mark.parametrize(
    ("records", "taken"),
    [
        ([like(0), like(1)], True),
        ([like(0), like(1, metrics={"m": None})], True),
        ([like(0), like(1, status="error")], False),
        ([like(0), like(1, scores="s1")], False),
        ([like(0), like(1, scores=None)], False),
        ([like(0), like(1, metrics={"n": 1.0})], False),
        ([like(0), like(1, metrics={"m": 1.0, "n": 1.0})], False),
        ([like(0), like(0, metrics={"m": 9.0}, latents_sha256="1")], False),
        ([like(1), like(0)], False),
    ],
)
def test_the_fast_way_takes_what_it_can_read_alone(store: Path, records: list[UnitRecord], taken: bool) -> None:
    run = next(runs(store))
    for path in (run.path / "records").iterdir():
        path.unlink()
    append(run, *records)
    assert (columns._plain(run, "s0") is not None) is taken
    settled, told = run.settled("s0"), finished(run, "s0")
    assert told.units == list(settled.done) and told.conflicts == settled.conflicts and dict(told.failures) == settled.failures


def test_a_torn_line_is_passed_over_by_both(store: Path) -> None:
    run = next(runs(store, "*/hard/echo/seed=0/*"))
    (path,) = (run.path / "records").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert finished(run, "s0").units == ["u-p0", "u-p1"] and len(run.records()) == 2
    path.write_bytes(whole.replace(b'"p1"', b'"p1', 1))
    assert finished(run, "s0").units == ["u-p0", "u-p2"] == [record.unit for record in run.records()]


def test_a_record_of_the_wrong_kind_costs_that_record(store: Path) -> None:
    run: Run = next(runs(store))
    (path,) = (run.path / "records").iterdir()
    first, *rest = path.read_bytes().splitlines()
    path.write_text("".join([as_older(first), *(as_older(line, seed="none") for line in rest)]), encoding="utf-8")
    settled = run.settled("s0")
    assert [record.unit for record in run.records()] == ["u-p0"]
    assert [str(line) for line in settled.damaged] == [f"{path}:{number}" for number in (2, 3)]


def test_a_table_of_nothing_is_empty(store: Path) -> None:
    found, conflicts, damaged = columns.table([])
    assert (
        isinstance(found, pd.DataFrame) and found.empty and not conflicts and not damaged and list(found.index.names) == ["prompt", "seed"]
    )


@pytest.mark.slow
def test_the_load_test_runs_and_is_read_the_fast_way(tmp_path: Path) -> None:
    found = million.measure(tmp_path, 600, 4)
    assert found["records"] == 600 and found["tables"]["peak_mb"] < 1000
    assert all(columns._plain(run, million.SCORES) is not None for run in runs(tmp_path))
