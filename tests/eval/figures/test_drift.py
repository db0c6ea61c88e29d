"""Curves over blocks and the figure of how policies drift."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from eval.figures import drift
from eval.stats import curves, statistics
from eval.stats.curves import curve
from eval.stats.statistics import estimate
from eval.store.rows import newest
from jobs import cli
from tests.helpers.stores import put

BLOCKS = 40


def values(seed: int, prompts: int = 8, seeds: int = 2, length: int = BLOCKS) -> dict:
    generator = np.random.default_rng(seed)
    level = generator.normal(50, 10, size=prompts)
    return {(f"p{p}", s): list(level[p] + generator.normal(0, 3, size=length)) for p in range(prompts) for s in range(seeds)}


def table(series: dict) -> pd.DataFrame:
    """Values by prompt and seed as `curve` takes them."""
    blocks = {unit: pd.Series(blocks, dtype="float64") for unit, blocks in sorted(series.items())}
    return pd.DataFrame(blocks).T


@pytest.mark.parametrize(("draws", "allowed"), [(curves.RESAMPLES, 0.05), (statistics.RESAMPLES, 1e-12)])
def test_one_block_is_what_the_tables_would_say(monkeypatch, draws, allowed):
    """A second path: `eval.stats.statistics` over the same values of each block; the same interval with as many draws."""
    monkeypatch.setattr(curves, "RESAMPLES", draws)
    series = values(0)
    found = curve(table(series), 1)
    for block in (0, 7, BLOCKS - 1):
        one = estimate({unit: blocks[block] for unit, blocks in series.items()})
        assert found.mean[block] == pytest.approx(one.mean)
        assert found.half_width[block] == pytest.approx(one.half_width, rel=allowed), f"{found.half_width[block]} against {one.half_width}"
    assert (found.videos, found.prompts, found.seeds) == (16, 8, 2)


def test_moving_mean_is_the_plain_one():
    series = values(1)
    found = curve(table(series), 5)
    array = np.array(list(series.values()))
    plain = np.array([array[:, max(0, t - 2) : t + 3].mean() for t in range(BLOCKS)])
    error = np.abs(found.mean - plain)
    assert error.max() < 1e-9, f"max {error.max()}, mean {error.mean()}"


def test_what_is_not_known_is_left_out_and_not_zero():
    series = {("a", 0): [1.0, None, None, 4.0], ("b", 0): [3.0, 5.0, None]}
    found = curve(table(series), 1)
    assert found.mean[:2].tolist() == [2.0, 5.0] and np.isnan(found.mean[2]) and found.mean[3] == 4.0
    assert np.isnan(found.half_width[2]) and found.half_width[0] > 0


def test_one_prompt_leaves_the_band_unknown():
    assert np.isnan(curve(table({("a", 0): [1.0, 2.0], ("a", 1): [2.0, 2.0]}), 1).half_width).all()


def test_a_line_has_no_band_that_is_unknown():
    assert [drift._number(81.23, half) for half in (2.0, np.nan)] == ["81.2 ± 2.0", "81.2"] and drift._number(np.nan, np.nan) == "-"


@pytest.mark.parametrize("window", [0, 2])
def test_even_windows_are_refused(window):
    with pytest.raises(ValueError, match=f"window={window}: an odd number of blocks, nearest is {window + 1}"):
        curve(table({("a", 0): [1.0]}), window)


def fill(store, preset: str, right: float, **more) -> None:
    """A policy that is right up to a share of its blocks and wrong after."""
    blocks = [
        {"place_right": int(b < right * BLOCKS), "subject_right": int(b < right * BLOCKS / 2), "quality": 90.0} for b in range(BLOCKS)
    ]
    names = [f"p{p}" for p in range(4)]
    put(store, "long120", preset, dict.fromkeys(names, {"m": 1.0}), per_block=dict.fromkeys(names, blocks), **more)


def test_curves_of_a_store(tmp_path, capsys):
    fill(tmp_path, "self_forcing", 0.25), fill(tmp_path, "echo", 0.75), fill(tmp_path, "render_truth", 1.1, weights=None)
    fill(tmp_path, "longlive", 0.5, backbone="tiny_long")
    put(tmp_path, "long120", "memrope", {"p0": {"m": 1.0}})
    found, without = drift.drifts(newest(tmp_path, "long120"), 1)
    assert without == ["tiny/memrope"]
    assert [one.row.preset for one in found] == ["render_truth", "echo", "longlive", "self_forcing"]
    assert {one.label for one in found} >= {"Echo", "Longlive\n(tiny_long)"}
    for one in found:
        share = {"render_truth": 40, "echo": 30, "longlive": 20, "self_forcing": 10}[one.row.preset]
        assert one.curves["place_right"].mean.tolist() == [100.0] * share + [0.0] * (BLOCKS - share)
        assert one.curves["quality"].mean.tolist() == [90.0] * BLOCKS
    picture, data = tmp_path / "docs" / "d.png", tmp_path / "docs" / "d.json"
    words = ["--store", str(tmp_path), "window=3", "--output", str(picture), "--data", str(data)]
    assert cli.main(["figures", "drift", *words]) == 0
    told = capsys.readouterr().out
    assert "tiny/echo" in told and "15 s 100.0 ± 0.0   30 s 0.0 ± 0.0" in told and "no readings of blocks: tiny/memrope" in told
    content = json.loads(data.read_text(encoding="utf-8"))
    assert (
        content["window_blocks"] == 3
        and content["block_s"] == 0.75
        and {row["row"] for row in content["rows"]} == {one.row.name for one in found}
    )
    (echo,) = [row for row in content["rows"] if row["row"] == "tiny/echo"]
    assert echo["place_right"]["mean"][28:32] == [100.0, 66.67, 33.33, 0.0]
    assert cv2.imread(str(picture)).shape[1] > 800 and picture.stat().st_size < 400_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=long121"], "task=long121: store"),
        (["window=4"], "window=4: an odd number of blocks"),
        (["method=echo,eco"], "method=eco: no videos of it here; there are echo"),
        (["taks=x"], "taks=x: not understood; nearest is task="),
    ],
)
def test_refusals(tmp_path, words, message, capsys):
    fill(tmp_path, "echo", 0.5)
    assert cli.main(["figures", "drift", "--store", str(tmp_path), *words]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_store_without_readings_is_told(tmp_path, capsys):
    put(tmp_path, "long120", "echo", {"p0": {"m": 1.0}})
    assert cli.main(["figures", "drift", "--store", str(tmp_path)]) == 2
    assert "no scores in" in capsys.readouterr().err
