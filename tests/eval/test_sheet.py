"""Contact sheets from a real store of short videos."""

from __future__ import annotations

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
    ],
)
def test_refusals(store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sheet.main([*words, f"store={store}"]) == 2
    assert message in capsys.readouterr().err
