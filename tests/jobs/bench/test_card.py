"""All that a card can tell: a plan that fits, budgets by a clock of the test's own, files after every measurement, what a block asks."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from baselines.presets import make_policy
from echo.backbone import compiled, rope
from echo.backbone.interface import latent_shape
from echo.backbone.sizes import SIZES, geometry
from echo.backbone.wan import WanModel
from echo.rollout import Rollout
from echo.scene import Transition
from jobs import cli
from jobs.bench import card, sizing
from jobs.bench.card import USUAL, CardFile, Dispatched
from jobs.bench.sizing import BEST, CardSize, Measurement, Values, Variant, carry_out

NATIVE = SIZES["native"]
WIDE = geometry(NATIVE.network, NATIVE.height_px, NATIVE.width_px, 21)
H100 = CardSize(NATIVE.network, WIDE, blocks=USUAL.blocks, steps=4, tflops=989.0)
METHODS = USUAL.method.split(",")
PLAN = sizing.plan(H100, Variant("echo"), METHODS, ["wan", "taehv"])
"""Of an H100; no test writes to it."""


def test_twelve_minutes_hold_the_plan_of_an_h100() -> None:
    """And all that the plan should hold is in it: each method, kernel, kind of compiling, window, decoder and stream."""
    ways = [row.way for row in PLAN]
    assert sum(row.forecast_s for row in PLAN) <= USUAL.seconds == 720
    assert {way.method for way in ways} == {"echo", "self_forcing", "longlive", "deep_forcing_official"}
    for method in METHODS[:2]:
        own = [row.way for row in PLAN if row.kind == "block" and row.way.method == method]
        assert {way.kernel for way in own} == {"sdpa", "cudnn", "flash", "flash3", BEST}
        assert {way.compile for way in own} == {"none", "blocks", "graphs", BEST} and {"shared", "resident"} < {way.window for way in own}
    assert {(way.decoder, way.aside) for way in ways if way.decoder} == set(itertools.product(("wan", "taehv"), (False, True)))
    assert {row.kind for row in PLAN} == {"block", "decoded", "profile", "parity", "whole"}


def test_a_block_is_forecast_by_its_operations() -> None:
    """Written out: linear layers, cross-attention and attention of Self-Forcing at 21 frames, at a quarter of 989 TFLOP/s."""
    d, ffn, tokens, keys, passes, layers = 1536, 8960, 3 * WIDE.tokens_per_frame, 21 * WIDE.tokens_per_frame, 5, 30
    linear = passes * tokens * (layers * (12 * d * d + 4 * d * ffn) + 2 * d * 4 * 32)
    attention = (passes * layers - 1) * tokens * 4 * keys * d + passes * layers * tokens * 4 * 512 * d
    block_s = (linear + attention) / (0.25 * 989e12)
    row = PLAN[1]
    assert row.way.method == "self_forcing" and row.forecast_s == pytest.approx((7 + 6) * block_s + 1.0, abs=0.01)
    assert 12 / (block_s * 0.25) == pytest.approx(59.0, abs=0.1), "the roof of docs/performance.md, in frames a second"
    assert replace(H100, tflops=1e9).block_s(21) == 0.8e-3 * 30 * 5, "the host has to ask for every kernel"


class Told:
    """A clock that advances by a given share of each measurement's forecast."""

    def __init__(self, pace: float, fails: str = "") -> None:
        self.now, self.pace, self.fails = 1000.0, pace, fails
        self.kept: list[str] = []

    def do(self, row: Measurement) -> Values:
        self.now += self.pace * row.forecast_s
        if row.way.kernel == self.fails:
            raise RuntimeError("no such kernel\nand more")
        return Values(row.way, block_ms=1.0)

    def carry_out(self, seconds: float) -> list[Measurement]:
        rows = [msgspec.structs.replace(row) for row in PLAN]
        carry_out(rows, seconds, self.do, lambda row: self.kept.append(row.reason), lambda: self.now)
        return rows


@pytest.mark.parametrize("pace", [0.5, 1.0, 1.5, 4.0])
def test_the_budget_holds_whatever_the_card_does(pace: float) -> None:
    """Measurements that no longer fit are left out with a reason, and smaller ones are still made."""
    told = Told(pace)
    rows = told.carry_out(720)
    left = [row for row in rows if row.values is None]
    assert told.now - 1000 <= 720 and len(told.kept) == len(rows), "each is kept as soon as it is known"
    assert all(row.reason.startswith("left out: ") and row.seconds is None for row in left) and bool(left) == (pace > 1)
    smallest = min((row.forecast_s for row in left if row.way.compile in ("none", BEST)), default=1e9)
    assert pace * smallest > 720 - (told.now - 1000), "nothing that fitted was left out"


def test_the_second_way_of_a_compilation_does_not_compile_in_the_firsts_place() -> None:
    first = next(index for index, row in enumerate(PLAN) if row.way.compile == "blocks")
    before = sum(row.forecast_s for row in PLAN[:first])
    rows = Told(1.0).carry_out(before + 40)
    assert [row.values for row in rows if row.way.compile in ("blocks", "graphs")] == [None] * 4
    assert rows[first].reason == "left out: 62 s are forecast, 40 s are left"
    assert rows[first + 1].reason == "left out: the first way with compile=blocks did not fit"


def test_what_fails_is_a_reason_and_stops_nothing() -> None:
    rows = Told(1.0, fails="cudnn").carry_out(720)
    assert [row.reason for row in rows if row.way.kernel == "cudnn"] == ["no such kernel"] * 2
    assert all(row.values for row in rows if row.way.kernel != "cudnn")


def test_the_best_way_is_made_of_the_fastest_choices() -> None:
    times = {
        Variant("echo"): 9.0,
        Variant("echo", kernel="flash3"): 5.0,
        Variant("echo", compile="graphs"): 8.0,
        Variant("echo", window="resident"): 9.5,
    }
    times |= {Variant("self_forcing", kernel="cudnn"): 1.0, Variant("echo", kernel="flash", compile="blocks"): 2.0}
    rows = [Measurement("block", way, 1.0, values=Values(way, block_ms=ms)) for way, ms in times.items()]
    rows.append(Measurement("block", Variant("echo", compile="blocks"), 1.0, reason="no compiler"))
    way = sizing.best(rows, Variant("longlive", BEST, BEST, BEST, "wan"), Variant("echo"))
    assert way == Variant("longlive", "flash3", "graphs", "shared", "wan")
    assert sizing.best([], Variant("echo", BEST), Variant("echo", "cudnn")) == Variant("echo", "cudnn"), (
        "the base's where nothing was measured"
    )


def test_a_kill_loses_one_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real network at tiny sizes; the second measurement is stopped while it runs."""
    done = card.CardBench.do

    def killed(self: card.CardBench, row: Measurement) -> Values:
        if row.way.method == "longlive":
            raise KeyboardInterrupt
        return done(self, row)

    monkeypatch.setattr(card.CardBench, "do", killed)
    words = ["method=echo,longlive", "blocks=3", "device=cpu", "--output", str(tmp_path / "c.json")]
    assert cli.main(["bench", "card", *words]) == 130
    file = msgspec.json.decode((tmp_path / "c.json").read_bytes(), type=CardFile)
    values = [row.values for row in file.rows]
    assert [value is not None for value in values[:3]] == [True, False, False] and file.rows[2].reason == "not reached"
    echo = values[0]
    assert echo and echo.window_frames == 21 and echo.percent_of_peak is None and echo.fps == pytest.approx(12e3 / echo.block_ms, abs=1e-2)
    assert file.provenance.argv[0] == "echo-harness bench card" and file.geometry == "tiny"
    shown = (tmp_path / "c.md").read_text()
    assert "A rehearsal on cpu" in shown and f"| echo | sdpa | none | shared | 21 | {echo.block_ms:.1f} |" in shown


@pytest.mark.slow
def test_a_rehearsal_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of measurement on a processor; what it lacks has its reason, a compiler among it."""
    monkeypatch.setattr(compiled, "compiler", lambda device: False)
    words = ["method=echo", "decoder=taehv", "blocks=3", "seconds=100000", "device=cpu", "--output", str(tmp_path / "c.json")]
    assert cli.main(["bench", "card", *words]) == 0
    rows = msgspec.json.decode((tmp_path / "c.json").read_bytes(), type=CardFile).rows
    lacking = {row.way.kernel: row.reason for row in rows if row.values is None}
    assert set(lacking) == {"cudnn", "flash", "flash3", "sdpa"} and "CUDA device only" in lacking["cudnn"] and "compile" in lacking["sdpa"]
    made = {row.kind: row.values for row in rows if row.values is not None}
    assert set(made) == {"block", "decoded", "profile", "parity", "whole"}, capsys.readouterr().out
    assert made["decoded"].way.aside and made["decoded"].fps > 0 and made["profile"].waits == 0 and made["profile"].kernels
    assert "largest difference 0," not in made["parity"].differences["bfloat16 against float32"]
    assert made["whole"].whole["switch_ms"]["recall"]["median"] > 0
    assert "## Not measured" in (tmp_path / "c.md").read_text()


def test_the_plan_is_told_without_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "card", "--dry-run"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PLAN) and total.startswith(f"{sum(row.forecast_s for row in PLAN):6.0f} s in all on ")


def test_waits_are_counted() -> None:
    x = torch.arange(6.0)
    with Dispatched() as asked:
        x.view(2, 3).sum().item()
        bool((x > 3).any())
        x.nonzero()
        torch.arange(3)[x[:3] > 1]  # a mask as an index is a nonzero
    assert asked.waits.total() == 4 and asked.operations["view"] == 0 and asked.operations["sum"] == 1


def asked_of_a_block(method: str, layers: int) -> Counter[str]:
    """A steady block behind a hard switch, the window full, in the type and with the window of a card."""
    config = replace(SIZES["tiny"].network, layers=layers)
    model = WanModel(config).to(torch.bfloat16).eval().requires_grad_(False)
    sizes = geometry(config, SIZES["tiny"].height_px, SIZES["tiny"].width_px, 21)
    noise, text = torch.zeros(1, *latent_shape(sizes), dtype=torch.bfloat16), torch.zeros(1, 2, config.text_dim, dtype=torch.bfloat16)
    rollout = Rollout(model, make_policy({"method": method}), sizes, lambda block, draw: noise, shared_window=True)
    asked = Dispatched()
    for transition, blocks in ((None, 1), (Transition.hard, 8)):
        with asked:
            rollout.switch(text, transition)
            rollout.next()
        for _ in range(blocks):
            rollout.next()
    asked.operations.clear()
    rope._frame_table.cache_clear()  # a card keeps no tables
    with asked:
        rollout.next()
    assert not asked.waits.total(), f"the host waits for the device: {asked.waits.most_common(3)}"
    return asked.operations


@pytest.mark.parametrize(("method", "a_layer", "beside"), [("self_forcing", 277, 106), ("echo", 344, 108)])
def test_what_a_block_asks_of_a_card(method: str, a_layer: int, beside: int) -> None:
    """No wait of the host, and so many operations a block: of each layer, and of all that layers share. More is slower."""
    one, two = (asked_of_a_block(method, layers) for layers in (1, 2))
    layer = two.total() - one.total()
    assert layer <= a_layer and one.total() - layer <= beside, f"{layer}, {one.total() - layer}: {(two - one).most_common()}"
