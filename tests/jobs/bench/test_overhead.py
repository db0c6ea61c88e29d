"""What policies cost beside attention: measured on real rollouts, by the clock and by counting the work."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.presets import make_policy
from echo.geometry import Geometry
from echo.sampler import schedule
from jobs import cli
from jobs.bench import overhead, stopwatch


def test_steady_is_the_quietest_pair() -> None:
    assert overhead.steady([9.0, 2.0, 4.0, 30.0, 1.0]) == 3.0


class Work(TorchDispatchMode):
    """Counts what is computed, the same on every machine: elements of all results, and of products those that are added up, too."""

    done = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.done += sum(part.numel() for part in tree_leaves(out) if isinstance(part, torch.Tensor))
        if "mm" in str(func):
            left, right = [part for part in args if isinstance(part, torch.Tensor)][-2:]
            self.done += left.numel() * right.shape[-1]
        return out


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["processor", "work"])
def test_overhead_measures_policies_against_self_forcing(
    clock: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the clock, and by a clock that counts the work: times of a busy machine cannot be compared."""
    overhead.reference.cache_clear()
    with Work() if clock == "work" else nullcontext() as work:
        if work is not None:
            monkeypatch.setattr(stopwatch, "time", SimpleNamespace(process_time=lambda: work.done / 1e9, perf_counter=None))
        cli.main(["bench", "overhead", "method=echo,longlive", "blocks=4"])
    overhead.reference.cache_clear()
    echo, longlive, machine = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert echo["window_frames"] == 21 and longlive["window_frames"] == 12
    assert all(row[f"{name}_ms"] > 0 for row in (echo, longlive) for name in ("own_work", "self_forcing", "whole_block"))
    if work is not None:
        assert echo["own_work_ms"] > echo["self_forcing_ms"], "choosing tokens costs something"
        assert echo["whole_block_ms"] > 3 * echo["self_forcing_ms"] and longlive["recache_percent"] > 10
    assert echo["recache_percent"] is None and longlive["recache_percent"] is not None
    assert machine["geometry"] == "tiny" and machine["threads"] == 1


def test_own_work_is_linear_in_each_term_of_equation_29(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Work counted, not timed, along candidates, recall candidates and window: straight lines that rise."""
    monkeypatch.setattr(overhead, "TERMS", {term: (words, counts[::2]) for term, (words, counts) in overhead.TERMS.items()})
    with Work() as work:
        monkeypatch.setattr(stopwatch, "time", SimpleNamespace(process_time=lambda: work.done / 1e9, perf_counter=None))
        cli.main(["bench", "overhead", "terms=n_cand,m,b", "blocks=2", "--output", str(tmp_path)])
    *told, pdf, png, _ = capsys.readouterr().out.splitlines()
    lines = {row["term"]: row["line"] for row in map(json.loads, told) if "line" in row}
    assert set(lines) == {"n_cand", "m", "b"}
    for term, line in lines.items():
        assert line["r_squared"] > 0.98 and line["ms_per_frame"] > 0, (term, line)
    assert [Path(pdf).name, Path(png).name] == ["overhead_terms.pdf", "overhead_terms.png"] and Path(png).stat().st_size > 3000
    assert cli.main(["bench", "overhead", "terms=n"]) == 2
    assert "terms=n" in capsys.readouterr().err


def test_blocks_of_one_frame_and_one_step_have_their_own_work() -> None:
    """Two passes a block, of one frame each, the noisy one and the clean one."""
    geometry, steps = Geometry(1, 1, 8, 1, 1, frames_per_block=1), schedule([1000])
    conditions = replace(overhead.processor(torch.float32), steps=steps)
    rollout, _ = conditions.rollout(make_policy({"method": "longlive"}), geometry)
    seen: list[int] = []
    attend = rollout.window.attend
    rollout.window.attend = lambda layer, q, k, v: seen.append(q.shape[1]) or attend(layer, q, k, v)  # type: ignore[func-returns-value, method-assign]
    assert rollout.next().latents.shape[1] == 1 and seen == [1, 1]
    assert min(conditions.own_work(make_policy({"method": "longlive"}), geometry, 3)) > 0
