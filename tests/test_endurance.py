"""Many blocks in a row: the same time and memory at the end as at the beginning, measured on a real rollout."""

from __future__ import annotations

import json

import pytest

from tests.load import endurance


def test_summary_compares_first_and_last_tenth() -> None:
    flat = endurance.summary([2.0] * 100, [50.0] * 100)
    assert flat["time_ratio"] == 1 and flat["growth_mib"] == 0 and flat["blocks"] == 100
    growing = endurance.summary([1.0 + 0.01 * i for i in range(100)], [50.0 + i for i in range(100)])
    assert growing["time_ratio"] == pytest.approx((1 + 0.945) / 1.045, abs=1e-3) and growing["growth_mib"] == 90


@pytest.mark.slow
def test_endurance_runs_a_real_rollout(capsys: pytest.CaptureFixture[str]) -> None:
    endurance.main(["--blocks", "12"])
    result = json.loads(capsys.readouterr().out)
    assert result["blocks"] == 12 and result["block_cpu_ms_first_tenth"] > 0 and result["resident_mib_last_tenth"] > 100


def test_too_few_blocks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        endurance.main(["--blocks", "3"])
    assert "nearest is 10" in capsys.readouterr().err
