"""Contact sheets from a real store of short videos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval import sheet
from jobs.config import ROOT
from tests.toy import overrides


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two prompts, two scenes of 3 s."""
    folder = tmp_path_factory.mktemp("sheet")
    words = [sys.executable, "run.py", *overrides(folder, 2), "method=self_forcing,infinity_rope", "-m"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "store"


def test_rows_videos_and_borders(store: Path) -> None:
    rows = sheet.rows_of(store, "hard", 0)
    assert [row.label for row in rows] == ["Infinity-RoPE", "Self-Forcing"]
    path, borders = rows[0].videos["toy-000"]
    assert borders == [3.0]
    frames = sheet.stills(path, 1.0)
    assert frames.shape[0] == 6 and frames.dtype == np.uint8 and frames.shape[3] == 3


def test_a_sheet_is_drawn(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sheet.main(["task=hard", f"store={store}", "every_s=1", "prompt=toy-001"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name == "hard-toy-001-seed0.png" and path.stat().st_size > 2000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=hard", "prompt=toy-009"], "prompt 'toy-009' lacks a video"),
        (["task=recall"], "no videos of task 'recall'"),
        (["task=hard", "sed=1"], "sed: give task=TASK"),
        ([], "(no task=)"),
        (["task=hard", "seed=x"], "seed=x: a whole number of 0 or more, for example seed=0"),
        (["task=hard", "every_s=0"], "every_s=0: seconds between stills"),
        (["task=hard", "every_s=100"], "every_s=100: toy-000"),
        (["task=hard", "every_s=often"], "every_s=often: seconds between stills"),
        (["hard"], "hard: a word is key=value, for example task=recall"),
    ],
)
def test_refusals(store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sheet.main([*words, f"store={store}"]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def fake(store: Path, preset: str, run: str, attempt: str, settings: dict[str, object], weights: str) -> None:
    """A run of one video, its files empty but for what a sheet reads before it draws."""
    pixels = {"backbone.weights": weights, "seed": 0, "method.settings": settings}
    spec = {"seed": 0, "method": {"name": preset, "label": "Echo"}, "key": {"pixels": pixels}}
    record = {"unit": "u", "prompt": "p", "status": "ok", "latents_sha256": "0", "scores": None, "metrics": {}, "t": 0}
    files = {"run.json": spec, "records/a.jsonl": record | {"files": {"video": f"{run}.mp4", "trace": "t"}}, "units/t": {"scene": 0}}
    for name, content in (files | {f"attempts/{attempt}.json": {}}).items():
        path = store / "runs" / "tiny" / "hard" / preset / "seed=0" / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def test_newest_run_of_each_preset_and_settings_has_a_row(tmp_path: Path) -> None:
    fake(tmp_path, "echo", "a", "2", {"drift_gate_lambda": 3.0}, "new")
    fake(tmp_path, "echo", "b", "1", {"drift_gate_lambda": 3.0}, "old")
    fake(tmp_path, "echo", "c", "1", {"drift_gate_lambda": 1.0}, "new")
    fake(tmp_path, "echo_paper", "d", "1", {"drift_gate_lambda": 3.0}, "new")
    rows = sheet.rows_of(tmp_path, "hard", 0)
    assert {row.label: row.videos["p"][0].stem for row in rows} == {
        "Echo\necho\ndrift_gate_lambda=3.0": "a",
        "Echo\necho\ndrift_gate_lambda=1.0": "c",
        "Echo\necho_paper": "d",
    }
