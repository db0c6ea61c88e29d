"""The figure of coherence over distance, from a store: means and intervals of what the records say."""

from __future__ import annotations

import json

import pytest

from eval.stats.statistics import estimate
from jobs import cli
from tests.eval.tables.test_tables import write  # noqa: F401 - a fixture


def test_a_figure_of_a_store(write, tmp_path, capsys):  # noqa: F811
    names = tuple(f"proxy.coherence_{lag}" for lag in (1, 2, 5))
    for preset, shift in (("memrope", 0.0), ("echo", 3.0)):
        for seed in (0, 1):
            write(preset, shift=shift, seed=seed, task="long60", names=names)
    assert cli.main(["figures", "coherence", "--store", str(write.store), "--output", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "coherence.json").read_text(encoding="utf-8"))["numbers"]["rows"]
    for shift, name in ((0.0, "memrope"), (3.0, "echo")):
        expected = estimate({(f"p{index}", seed): 80 + shift + index + seed / 10 for index in range(3) for seed in (0, 1)})
        own = [row for row in rows if name in row["row"]]
        assert [row["seconds"] for row in own] == [1, 2, 5] and {round(row["mean"], 6) for row in own} == {round(expected.mean, 6)}
        assert [row["half"] for row in own] == pytest.approx([expected.half_width] * 3, abs=1e-3)
    assert (tmp_path / "out" / "coherence.png").stat().st_size > 4000
    assert cli.main(["figures", "coherence", "--store", str(tmp_path / "none")]) == 2
    assert "no coherence over distance" in capsys.readouterr().err
