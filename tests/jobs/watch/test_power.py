"""`echo-harness plan --power`: from a store, from CSV and from VBench's results; what cannot be read is refused by line and reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.stats.power import Spread
from jobs import cli
from tests.eval.tables.test_tables import write  # noqa: F401 - a fixture

ROWS = ["label,seed,prompt,quality"] + [
    f"{label},{seed},{prompt},{0.8 + shift * (prompt % 3 + 1) + 0.001 * seed * (-1) ** prompt}"
    for label, shift in (("sf", 0.0), ("sf+rule", 0.01))
    for seed in (0, 1)
    for prompt in range(12)
]


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert cli.main(["plan", "--power", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert cli.main(["plan", "--power", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_of_a_csv(tmp_path: Path, capsys):
    """The differences are 0.01, 0.02 and 0.03 by prompt, alike in both seeds."""
    file = tmp_path / "scores.csv"
    file.write_text("\n".join(ROWS))
    said = told(capsys, file, "metric=quality", "method=sf+rule,sf", "difference=0.005")
    variance = float(np.var([0.01, 0.02, 0.03] * 4, ddof=1))
    seen = Spread(0.02, variance, 0.0, 12, 2)
    assert "sf+rule minus sf, quality: +0.02 over 12 prompts x 2 seeds" in said
    assert f"standard deviation {variance**0.5:.4g} between prompts, " in said
    # Seeds are alike, so it is the plain error of the mean of 12 prompts.
    assert f"the two are {0.02 / (variance / 12) ** 0.5:.1f} paired standard errors apart, of {(variance / 12) ** 0.5:.4g} each" in said
    assert f"needs {seen.needed(0.005, 1)} prompts with 1 seed, {seen.needed(0.005, 2)} prompts with 2 seeds" in said
    assert f"{seen.detects(64, 1):10.4g}" in next(line for line in said.splitlines() if line.startswith("       64"))
    file.write_text("\n".join(ROWS[:7] + ["sf,0,12,nan"]))
    assert f"{file}:8: quality 'nan' is no number" in refused(capsys, file, "metric=quality", "method=sf+rule,sf")
    file.write_text("\n".join([*ROWS, ROWS[1]]))
    assert f"{file}:{len(ROWS) + 1}: prompt '0' with seed 0 stands twice" in refused(capsys, file, "metric=quality")
    file.write_text("\n".join(ROWS[:20]))
    assert "method=sf,sf+rul: two different ones are meant" in refused(capsys, file, "metric=quality", "method=sf,sf+rul")
    assert "metric=qualty: no such column; nearest is quality" in refused(capsys, file, "metric=qualty")
    assert "0 prompt(s) with both: a spread needs two at least" in refused(
        capsys, _csv(tmp_path, "a,0,1,1", "b,0,2,1"), "metric=quality", "method=a,b"
    )
    assert "diference=1: not understood; nearest is difference=" in refused(capsys, file, "diference=1")
    assert "difference=0: a number above 0" in refused(capsys, file, "difference=0")


def _csv(folder: Path, *lines: str) -> Path:
    file = folder / "other.csv"
    file.write_text("\n".join([ROWS[0], *lines]))
    return file


def test_of_vbenchs_results(tmp_path: Path, capsys):
    files = []
    for name, shift in (("ours", 0.1), ("theirs", 0.0)):
        videos = [
            {"video_path": f"/x/a fox-{n}-{seed}.mp4", "video_results": 0.5 + shift * n + 0.01 * seed} for n in range(4) for seed in (0, 1)
        ]
        files.append(tmp_path / f"{name}_eval_results.json")
        files[-1].write_text(json.dumps({"subject_consistency": [0.5, videos]}))
    said = told(capsys, files[0], f"against={files[1]}", "metric=subject_consistency")
    assert "ours_eval_results.json minus theirs_eval_results.json, subject_consistency: +0.15 over 4 prompts x 2 seeds" in said
    assert "metric=: no such dimension; nearest is" in refused(capsys, files[0], f"against={files[1]}")
    files[1].write_text(json.dumps({"subject_consistency": [0.5, [{"video_path": "a-0.mp4", "video_results": "x"}]]}))
    assert "video 1: video_results 'x' is no number" in refused(capsys, files[0], f"against={files[1]}", "metric=subject_consistency")
    files[1].write_text(json.dumps({"subject_consistency": [0.5]}))
    assert "it has no videos" in refused(capsys, files[0], f"against={files[1]}", "metric=subject_consistency")


def test_of_a_store(write, capsys):  # noqa: F811
    for preset, shift in (("memrope", 0.0), ("echo", 3.0)):
        for seed in (0, 1):
            write(preset, shift=shift, seed=seed, task="recall")
    said = told(capsys, write.store, "metric=proxy.text_alignment", "method=echo,memrope", "difference=1")
    assert "echo minus memrope, proxy.text_alignment, recall: +3 over 3 prompts x 2 seeds; standard deviation" in said
    assert "standard errors" not in said, "all differences are alike, so there is no error to count in"
    assert "metric=proxy.text: task=recall has no such score of both; nearest is proxy.text_alignment" in refused(
        capsys, write.store, "metric=proxy.text"
    )
    assert "task=hard: store" in refused(capsys, write.store, "task=hard", "metric=proxy.text_alignment")
