"""The frontier of the zoo: which policies none beats at their cost, against every pair looked at, and a figure from a store."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from eval.figures.frontier import best
from jobs import cli
from jobs.store.folder import write_sweep
from tests.eval.tables.test_tables import write  # noqa: F401 - a fixture
from tests.helpers.stores import as_older


@pytest.mark.parametrize("lower", [False, True])
def test_the_frontier_is_what_no_other_beats(lower: bool) -> None:
    """Path 2: all pairs. At the same cost the better one beats, at the same score the cheaper one."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [SimpleNamespace(kept=int(cost), score=int(score)) for cost, score in rng.integers(0, 6, (8, 2))]

        def beats(a, b):
            gain = b.score - a.score if lower else a.score - b.score
            return a.kept <= b.kept and gain >= 0 and (a.kept < b.kept or gain > 0)

        expected = {(b.kept, b.score) for b in points if not any(beats(a, b) for a in points)}
        assert {(point.kept, point.score) for point in best(points, "kept", lower)} == expected


def test_a_figure_of_a_store(write, tmp_path, capsys):  # noqa: F811
    costs = {"memrope": (12, 12, 0.0), "echo": (21, 33, 3.0), "echo_commit": (21, 36, 4.0)}
    jobs = []
    for preset, (attended, kept, shift) in costs.items():
        folder = write(preset, shift=shift, task="recall", names=("world.recall_fidelity", "proxy.text_alignment"))
        for path in (folder.path / "records").glob("*.jsonl"):
            lines = path.read_text(encoding="utf-8").splitlines()
            path.write_text("".join(as_older(line, attended_frames=attended, kept_frames=kept) for line in lines), encoding="utf-8")
        jobs.append(folder.job)
    write_sweep(write.store, jobs, "zoo")
    assert cli.main(["figures", "frontier", "--store", str(write.store), "--output", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out" / "frontier.json").read_text(encoding="utf-8"))["numbers"]["rows"]
    assert {row["preset"]: (row["attended"], row["kept"]) for row in rows} == {name: cost[:2] for name, cost in costs.items()}
    assert {row["metric"] for row in rows} == {"world.recall_fidelity"} and {row["score"] for row in rows} == {81.0, 84.0, 85.0}
    assert (tmp_path / "out" / "frontier.png").stat().st_size > 4000
    assert cli.main(["figures", "frontier", "--store", str(tmp_path / "none")]) == 2
    told = capsys.readouterr().err
    assert "experiment=zoo" in told and told.count("\n") == 1
