"""The bench on a tiny network with random weights: what it measures is whole and consistent; its arithmetic against counting."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from baselines.presets import make_policy
from echo.backbone import sizes
from echo.cache.plan import Step
from echo.rollout import Rollout
from echo.scene import SceneStart
from jobs import cli
from jobs.bench import command, flops, measure
from jobs.bench.measure import LEAST_BLOCKS, Budget, summary
from jobs.bench.overhead import steady_from
from jobs.bench.stopwatch import Stopwatch, TimedNetwork
from jobs.store import provenance
from tests.helpers.policies import PRESETS

torch.set_num_threads(1)
TINY = sizes.SIZES["tiny"]
SMALL = sizes.geometry(TINY.network, TINY.height_px, TINY.width_px, 21)
TOO_MANY = 150
"""Blocks that no machine makes in a second."""


def values(**changes: Any) -> command.Ways:
    """Settings of a command line on the processor."""
    return command.resolved("speed", command.Ways(device="cpu", geometry="tiny", **changes))


@pytest.fixture(scope="module")
def measured():
    lines: list[str] = []
    return command.speed(values(blocks=TOO_MANY, seconds=1, decoder="taehv"), ["echo", "longlive"], lines.append), lines


def test_every_pass_and_block_is_listed(measured):
    result, lines = measured
    assert [row["method"] for row in result["methods"]] == ["echo", "longlive"] and len(lines) == 2
    for row in result["methods"]:
        blocks = len(row["block_ms"]["list"])
        assert blocks >= LEAST_BLOCKS and set(row["pass_ms"]) == {
            "denoise_1",
            "denoise_2",
            "denoise_3",
            "denoise_4",
            "clean",
            "beside_passes",
        }
        sums = [sum(part["list"][i] for part in row["pass_ms"].values()) for i in range(blocks)]
        assert sums == pytest.approx(row["block_ms"]["list"], abs=0.01), "a block is its passes and what lies beside them"
        assert all(value > 0 for value in row["block_ms"]["list"])
    assert json.loads(json.dumps(result)) == result


def test_speeds_are_of_one_making(measured):
    for row in measured[0]["methods"]:
        assert row["fps_dit"] == pytest.approx(12e3 / row["block_ms"]["median"], rel=1e-3)
        gaps = row["stream"]["gap_ms"]["list"]
        assert row["fps_end_to_end"] == pytest.approx(12e3 * len(gaps) / sum(gaps), rel=1e-3)
        assert row["tflops"] == pytest.approx(1e3 * row["tflop_a_block"] / row["block_ms"]["median"], abs=1e-3)
        assert row["stream"]["first_frames_ms"] > 0 and row["codec_ms"]["median"] < max(gaps)


def test_switches_recaches_overhead_and_memory(measured):
    echo, longlive = measured[0]["methods"]
    assert echo["window_frames"] == 21 and longlive["window_frames"] == 12
    for row in (echo, longlive):
        assert all(len(row["switch_ms"][kind]["list"]) >= 1 for kind in ("smooth", "hard", "recall"))
        assert row["overhead"]["own_work_ms"] > 0 and row["overhead"]["block_ms"] > row["overhead"]["self_forcing_ms"]
        assert row["memory"]["computed_bytes"] > 0 and row["memory"]["measured"].startswith("growth of resident memory")
    assert echo["switch_ms"]["recache"] is None and longlive["switch_ms"]["recache"]["median"] > 0


def test_too_little_time_is_said(measured):
    result, _ = measured
    for row in result["methods"]:
        assert len(row["block_ms"]["list"]) < TOO_MANY and f" steady blocks instead of {TOO_MANY}: " in " ".join(row["notes"])
        assert len(row["stream"]["gap_ms"]["list"]) < TOO_MANY
    assert result["seconds"] > 0


class Watching(TimedNetwork):
    """Remembers of how many frames the passes were."""

    frames: set[int] = set()

    def __call__(self, latents, time, text, attend):
        self.frames.add(latents.shape[1])
        return super().__call__(latents, time, text, attend)

    def leave_states(self, latents, time, text, attend):
        self.frames.add(latents.shape[1])
        super().leave_states(latents, time, text, attend)


@pytest.mark.slow
def test_compiled_code_meets_every_size_of_a_pass_before_it_is_timed(monkeypatch):
    """A recache from a full window is a pass of its own size, which another method's policy may never ask for."""
    from echo.backbone.real import RealBackbone
    from jobs.work.models import parts_to_load

    monkeypatch.setattr(measure, "TimedNetwork", Watching)
    monkeypatch.setattr(Watching, "frames", set())
    parts = parts_to_load(command.config_of(values(decoder="taehv", dtype="float32")))
    backbone = RealBackbone(parts)
    backbone.codec = types.SimpleNamespace(stream=lambda: types.SimpleNamespace(decode=lambda latents: latents))
    rig = measure.Rig(backbone, parts.network, command.text_rows(parts, 1), 3, 0.0, 1, command.memory_fields(parts))
    rig.rehearse(["longlive"])
    assert Watching.frames == {3}, "what is not compiled needs no more"
    rig.compile = "blocks"
    with monkeypatch.context() as failing:
        failing.setattr(measure, "steady_from", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        rig.rehearse(["longlive"])
    rig.rehearse(["longlive"])
    met = set(Watching.frames)
    policy = make_policy({"method": "longlive"})
    rollout, warm = rig.rollout(policy), steady_from(policy, rig.geometry)[0]
    rig.switch(rollout)
    for _ in range(warm):
        rollout.next()
    measure._switches(rig, rollout, warm, Budget(0.0), [])
    assert met == Watching.frames and len(met) > 1, f"passes of {sorted(Watching.frames - met)} frames were timed and never rehearsed"


def test_a_method_that_fails_does_not_cost_the_others(monkeypatch):
    def fail(rig, method):
        if method == "echo":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GB")
        return measured_row

    measured_row = {"method": "memrope", "block_ms": summary([1.0]), "fps_dit": 1.0, "fps_end_to_end": 1.0, "tflops": 1.0, "notes": []}
    measured_row |= {"overhead": {"percent": 0.0}, "memory": {"measured_bytes": 1, "computed_bytes": 1}}
    monkeypatch.setattr(command, "measure", fail)
    lines: list[str] = []
    result = command.speed(values(blocks=3, seconds=1, decoder="taehv"), ["echo", "memrope"], lines.append)
    assert result["failed"] == {"echo": "CUDA out of memory."} and [row["method"] for row in result["methods"]] == ["memrope"]
    assert lines[0] == "echo: not measured: CUDA out of memory."


def test_what_was_measured_is_told(measured):
    result, _ = measured
    assert (result["weights"], result["geometry"], result["device"], result["kernel"], result["dtype"]) == (
        "random",
        "tiny",
        "cpu",
        "sdpa",
        "bfloat16",
    )
    facts = result["provenance"]
    assert facts["code"]["commit"] and torch.__version__.startswith(facts["packages"]["torch"]) and "gpu" in facts
    assert result["clock"] == "processor time of one thread"
    assert result["device_peak_tflops"] is None and all(row["percent_of_peak"] is None for row in result["methods"])


COUNTED = [("self_forcing", None, 21, 0), ("dummy_forcing", 1.0, 4, 0), ("dummy_forcing", 0.25, None, 3e-3)]


@pytest.mark.parametrize(("method", "share", "attended", "near"), COUNTED)
def test_operations_are_those_that_torch_counts(method, share, attended, near):
    """Whole blocks of the real rollout, the window full, attention by plain products so that the counter sees them.

    near: how far both may lie apart where layers differ, for the clean pass asks nothing of the last one.
    """
    from echo.backbone.wan import WanModel

    torch.manual_seed(1)  # which heads see less, and so how near both are, depends on the weights
    model = WanModel(TINY.network).eval().requires_grad_(False)
    noise = torch.zeros(1, 3, SMALL.latent_channels, SMALL.latent_height, SMALL.latent_width)
    policy = make_policy({"method": method} | ({} if share is None else {"method.dummy_share": share}))
    rollout = Rollout(model, policy, SMALL, lambda block, draw: noise)
    with sdpa_kernel(SDPBackend.MATH):
        rollout.switch(torch.zeros(1, TINY.network.text_len, TINY.network.text_dim))
        for _ in range(6):
            rollout.next()
        with FlopCounterMode(display=False) as counter:
            block = rollout.next()
    assert block.attended == attended if attended else 4 < block.attended < 6
    whole, told = counter.get_total_flops(), flops.block(TINY.network, SMALL, block.attended).total
    assert abs(told - whole) <= near * whole, f"{told} told, {whole} counted"
    assert flops.block(TINY.network, SMALL, block.attended, batch=3).total == pytest.approx(3 * told, abs=3)


def test_operations_of_the_true_size():
    """A block of Self-Forcing at a full window: 4 N K E for each layer's attention is most of it."""
    native = sizes.SIZES["native"]
    geometry = sizes.geometry(native.network, native.height_px, native.width_px, 21)
    work = flops.block(native.network, geometry, 21)
    assert work.self_attention == (4 * 30 + 4 * 30 // 4 - 1) * 4 * 4680 * 32760 * 1536
    assert 195e12 < work.total < 205e12


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX A6000", 154.8),
        ("AMD EPYC", None),
        ("", None),
    ],
)
def test_peaks_by_name(name, peak):
    assert flops.peak_tflops(name, "bfloat16") == peak and flops.peak_tflops(name, "float32") is None


@pytest.mark.parametrize(("name", "changes"), PRESETS)
def test_a_steady_block_is_like_all_later_ones(name, changes):
    policy = make_policy({"method": name} | {f"method.{key.replace('__', '.')}": value for key, value in changes.items()})
    first, lengths = steady_from(policy, SMALL)
    later = {policy.plan(Step(block, (SceneStart(0),), SMALL)).attended for block in range(first, first + 90)}
    assert later == set(lengths) and first <= 12, f"{first}: {later}, {set(lengths)} expected"


def test_blocks_that_do_not_fit_are_left_out():
    notes: list[str] = []
    assert measure._count(20, 7, "steady blocks", notes) == 7 and measure._count(20, 0, "x", notes) == LEAST_BLOCKS
    assert notes[0].startswith("7 steady blocks instead of 20") and measure._count(5, 9, "y", notes) == 5 and len(notes) == 2
    assert Budget(0.0).left() == 0 and Budget(100.0).fitting(0.5, 1.0) in (49, 50)


def test_summary():
    found = summary([1.0, 2.0, 3.0, 4.0, 100.0])
    assert found == {"median": 3.0, "p95": 100.0, "list": [1.0, 2.0, 3.0, 4.0, 100.0]}
    assert summary([float(i) for i in range(1, 101)])["p95"] == 95.0


def test_a_graphics_cards_clock_is_read_after_its_event(monkeypatch):
    """No card here: events that only remember what is asked of them."""
    asked: list[str] = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            asked.append(f"record {stream}")

        def synchronize(self):
            asked.append("synchronize")

        def elapsed_time(self, other):
            return 2.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "now")
    watch = Stopwatch(torch.device("cuda"))
    assert watch.ms(watch.mark(), watch.mark()) == 2.5 and asked == ["record now", "record now", "synchronize"]


def test_parity_of_types():
    from dataclasses import replace

    from echo.backbone.real import RealBackbone
    from jobs.bench.command import gap, latents
    from jobs.work.models import parts_to_load

    parts = parts_to_load(command.config_of(values(blocks=3, dtype="float32")))
    policy, rows = make_policy({"method": "echo"}), command.text_rows(parts, 1)
    one, same, lower = (latents(RealBackbone(replace(parts, dtype=dtype)), policy, rows, 2) for dtype in ("float32", "float32", "bfloat16"))
    assert max(gap(one, same)["max"]) == 0
    found = gap(one, lower)
    assert 0 < max(found["mean"]) < 0.1 * found["std"], found["words"]


def test_one_block():
    result = command.one_block(values(method="echo"))
    assert result["finite"] and len(result["pass_s"]) == 5 and result["forecast"]["stored"] == 3
    sizes_of = result["forecast"]["bytes"]
    assert result["memory"]["computed_bytes"] == sizes_of["rollout_phase"] and sizes_of["codec"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=echo", "blocks=0"], "blocks=0: a whole number from 1 on"),
        (["blocks=2"], "blocks=2: a median wants some; nearest is 3"),
        (["geometry=tiney"], "geometry=tiney: nearest is tiny of native, tiny"),
        (["metod=echo"], "metod=echo: not understood; nearest is method="),
        (["parety"], "parety: not understood; nearest is parity"),
        (["device=cpu", "geometry=tiny", "method=eco"], "unknown method 'eco'; nearest is 'echo"),
        (["device=cpu", "backbone=tiny"], "backbone=tiny: has no parts to be measured"),
        (["device=cpu", "backbone=selfforcing"], "unknown backbone 'selfforcing'; nearest is 'self_forcing'"),
        (["device=cpu", "geometry=tiny", "kernel=flash4"], "kernel"),
        (["device=cpu", "geometry=tiny", "compile=graphs"], "graphs"),
    ],
)
def test_mistakes_get_one_line(words, message, capsys):
    assert cli.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_the_file_is_named_after_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = {"what": "speed", "backbone": "self_forcing", "geometry": "tiny", "device_name": "AMD EPYC 7B13"}
    assert command.write(head, None).as_posix() == "results/bench/speed-self-forcing-tiny-amd-epyc-7b13.json"
    assert json.loads(command.write(head, tmp_path / "a" / "b.json").read_text()) == head


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\nGCC version: 12.2.0\n", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n", "570.124.06"),
    ],
)
def test_driver(tmp_path, monkeypatch, text, version):
    monkeypatch.setattr(provenance, "DRIVER", tmp_path / "version")
    assert provenance.driver() is None
    provenance.DRIVER.write_text(text)
    assert provenance.driver() == version
