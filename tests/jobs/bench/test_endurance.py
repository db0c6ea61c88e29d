"""Many blocks in a row: the same time and memory at the end as at the beginning, measured on a real rollout."""

from __future__ import annotations

import json

import pytest

from jobs import cli
from jobs.bench import endurance


def test_summary_compares_first_and_last_tenth() -> None:
    flat = endurance.summary([2.0] * 100, [50.0] * 100)
    assert flat["time_ratio"] == 1 and flat["growth_mib"] == 0 and flat["blocks"] == 100
    growing = endurance.summary([1.0 + 0.01 * i for i in range(100)], [50.0 + i for i in range(100)])
    assert growing["time_ratio"] == pytest.approx((1 + 0.945) / 1.045, abs=1e-3) and growing["growth_mib"] == 90


@pytest.mark.slow
def test_endurance_runs_a_real_rollout(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["bench", "endurance", "blocks=12"])
    result = json.loads(capsys.readouterr().out)
    assert result["blocks"] == 12 and result["block_cpu_ms_first_tenth"] > 0 and result["resident_mib_last_tenth"] > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["blocks=3"], "nearest is 10"),
        (["method=eco"], "nearest is 'echo"),
        (["method=self_forcing"], "longest is 341 blocks"),
    ],
)
def test_endurance_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "endurance", *words]) == 2
    assert message in capsys.readouterr().err
