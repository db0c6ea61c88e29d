"""Cost of a policy on a real network: blocks timed pass by pass with the device's own clock. `jobs.bench.command` is the command line.

A method is measured in stages: its window is filled; steady blocks are timed (only the rollout); then blocks with decoding and
frames on the host; then the first block after each kind of switch; at last the policy's own work, without network and attention.
Each stage has its share of the method's time; if that is too short for the requested blocks, fewer are made and a note says so.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from baselines.presets import make_policy
from echo.backbone.interface import VideoModel
from echo.backbone.sizes import WanConfig
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.rollout import Rollout
from echo.scene import PIXEL_FRAMES_PER_LATENT, SceneStart, Script, Transition
from jobs.bench import flops
from jobs.bench.overhead import Conditions, blocks_ms, same_window, steady_from, still_noise
from jobs.bench.stopwatch import Figures, Stopwatch, TimedNetwork
from jobs.memory.forecast import Setup, forecast
from jobs.memory.measured import Meter

LEAST_BLOCKS = 3
SHARES = {"steady": 0.45, "stream": 0.25, "switch": 0.30}
"""How a method's time is divided once its window is full; time that a stage leaves over goes to the next ones."""


def summary(values_ms: Sequence[float]) -> Figures:
    """Median, 95th percentile and the values, milliseconds."""
    ordered = sorted(values_ms)
    p95 = ordered[min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)]
    return {"median": round(statistics.median(ordered), 4), "p95": round(p95, 4), "list": [round(value, 4) for value in values_ms]}


@dataclass
class Rig:
    """What the methods share: a loaded backbone, text embeddings, and numbers of blocks."""

    backbone: VideoModel
    config: WanConfig
    rows_BLT: Tensor
    blocks: int
    method_s: float
    batch: int = 1
    memory: Figures = field(default_factory=dict)  # fields of `jobs.memory.forecast.Setup` that describe how the parts are computed
    meter: Meter | None = None  # started before anything was loaded
    references: dict[int, float] = field(default_factory=dict)
    compile: str = "none"  # how the network was compiled (echo.backbone.compiled)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.backbone.device)
        self.network = TimedNetwork(self.backbone.network, self.watch)
        self.geometry = self.backbone.geometry
        self.starts: list[SceneStart] = []

    @property
    def shown_frames(self) -> int:
        """Pixel frames of a block over the whole batch, except a video's first block."""
        return self.geometry.frames_per_block * PIXEL_FRAMES_PER_LATENT * self.batch

    def rollout(self, policy: Policy, geometry: Geometry | None = None) -> Rollout:
        """A fresh rollout of the timed network."""
        sizes, backbone = geometry or self.geometry, self.backbone
        noise = still_noise(sizes, self.batch, backbone.dtype, backbone.device, backbone.schedule.draws)
        self.starts.clear()
        return Rollout(
            self.network, policy, sizes, noise, batch=self.batch, steps=backbone.schedule,
            attention=backbone.attention, shared_window=backbone.shared_window,
        )  # fmt: skip

    def switch(self, rollout: Rollout, transition: Transition | None = None, recalls: int | None = None) -> None:
        """Begin another scene with the same text, and record it for the memory forecast."""
        self.starts.append(SceneStart(rollout.block, transition if self.starts else None, recalls))
        rollout.switch(self.rows_BLT, transition, recalls)

    def rehearse(self, methods: Sequence[str] = ()) -> None:
        """Run a little of everything that is timed later, so that compilation, autotuning and first memory accesses are in no figure.

        methods: all methods that will be measured. Passes with another number of frames, such as a recache from a full window, are
        compiled separately, so each method's switches are run with its own policy, and all of them before the first one is timed.
        """
        rollout, stream = self.rollout(make_policy({"method": "self_forcing"})), self.backbone.codec.stream()
        self.switch(rollout)
        for _ in range(LEAST_BLOCKS):
            stream.decode(rollout.next().latents).cpu()
        self.watch.wait()
        self.network.taken()
        del rollout, stream
        self.release()
        for method in methods if self.compile != "none" else ():
            with suppress(RuntimeError, ValueError):  # if it fails, its measurement fails too and reports it
                self._rehearse_switches(make_policy({"method": method}))
            self.network.taken()
            self.release()

    def _rehearse_switches(self, policy: Policy) -> None:
        """Every kind of switch from a full window; with CUDA graphs several times, since they are replayed from the third time on."""
        rollout = self.rollout(policy)
        self.switch(rollout)
        for _ in range(steady_from(policy, self.geometry)[0]):
            rollout.next()
        for _ in range(LEAST_BLOCKS if self.compile == "graphs" else 1):
            for transition in Transition:
                self.switch(rollout, transition, recalls_of(transition))
                rollout.next()
        self.watch.wait()

    def release(self) -> None:
        """Free a finished rollout's memory before the next one allocates its own."""
        gc.collect()
        if self.watch.cuda:
            torch.cuda.empty_cache()


class Budget:
    """Time limit of one method, and the number of blocks that still fit."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def fitting(self, share: float, block_s: float) -> int:
        """Number of blocks that fit into a share of the time that is left."""
        return int(share * self.left() / max(block_s, 1e-9))


def measure(rig: Rig, method: str) -> Figures:
    """All figures of one method, as in the JSON file. Raises ValueError for an unknown method or one that cannot run here."""
    meter = rig.meter or Meter(rig.backbone.device)
    policy, budget = make_policy({"method": method}), Budget(rig.method_s)
    warm, lengths = steady_from(policy, rig.geometry)
    policy.check(rig.geometry, warm + 2 * rig.blocks + 3 * (warm + 2))
    notes = list[str]()
    meter.again()
    rollout, stream = rig.rollout(policy), rig.backbone.codec.stream()
    first_ms = _first(rig, rollout, stream)
    start = time.perf_counter()
    for _ in range(1, warm):
        rollout.next()
    rig.watch.wait()
    block_s = (time.perf_counter() - start) / max(1, warm - 1)
    lengths = [rollout.window.attended] if rollout.window.plan.groups else lengths  # a plan knows only an upper bound
    attended = max(lengths)
    rig.network.taken()
    result: Figures = {"method": method, "label": policy.label, "window_frames": round(attended, 4), "warm_up_blocks": warm}
    steady = steady_blocks(rig, rollout, _count(rig.blocks, budget.fitting(SHARES["steady"], block_s), "steady blocks", notes))
    result |= steady | {"fps_dit": round(1e3 * rig.shown_frames / steady["block_ms"]["median"], 3)}
    result |= _speeds(rig, rollout, stream, budget, block_s, first_ms, notes)
    result["switch_ms"] = _switches(rig, rollout, warm, budget, notes)
    computed = forecast(setup_of(rig, policy, Script(tuple(rig.starts), rollout.block)))
    result["memory"] = meter.compared(computed.rollout_phase) | {"forecast": computed.as_json()["bytes"]}
    result["tflop_a_block"] = round(statistics.fmean(_work(rig, frames) for frames in lengths) / 1e12, 6)
    result["tflops"] = round(1e3 * result["tflop_a_block"] / steady["block_ms"]["median"], 3)
    del rollout, stream
    rig.release()
    result["overhead"] = _overhead(rig, policy, same_window(attended, rig.geometry))
    result["notes"] = notes
    return result


def _work(rig: Rig, attended: float) -> int:
    """Operations of a block that attends to `attended` frames."""
    return flops.block(rig.config, rig.geometry, attended, len(rig.backbone.schedule.timesteps), rig.batch).total


def _count(asked: int, fitting: int, what: str, notes: list[str]) -> int:
    count = max(LEAST_BLOCKS, min(asked, fitting))
    if count < asked:
        notes.append(f"{count} {what} instead of {asked}: the time of this method allows no more")
    return count


def _first(rig: Rig, rollout: Rollout, stream: Any) -> float:
    """Milliseconds from text embeddings to the first frames on the host."""
    rig.watch.wait()
    start = time.perf_counter()
    rig.switch(rollout)
    stream.decode(rollout.next().latents).cpu()
    return 1e3 * (time.perf_counter() - start)


def steady_blocks(rig: Rig, rollout: Rollout, blocks: int) -> Figures:
    """Blocks one after the other with nothing in between: times of each block and of its passes."""
    whole = blocks_ms(rollout, rig.watch, blocks)
    passes = rig.network.taken()
    size = len(passes) // blocks
    rows = [[ms for _, ms in passes[index * size : (index + 1) * size]] for index in range(blocks)]
    names = [f"denoise_{i + 1}" for i in range(size - 1)] + ["clean"]
    by_pass = {name: summary([row[i] for row in rows]) for i, name in enumerate(names)}
    by_pass["beside_passes"] = summary([total - sum(row) for total, row in zip(whole, rows)])
    return {"block_ms": summary(whole), "pass_ms": by_pass}


def _speeds(
    rig: Rig, rollout: Rollout, stream: Any, budget: Budget, block_s: float, first_ms: float, notes: list[str]
) -> Figures:  # fmt: skip
    """Speeds of blocks that are decoded and copied to the host, by the wall clock. block_s: wall seconds of a block so far."""
    stream.decode(rollout.next().latents).cpu()  # a codec has a cache from its second latent frame on
    fitting = budget.fitting(SHARES["stream"] / (1 - SHARES["steady"]), 2 * block_s)
    blocks = _count(rig.blocks, fitting, "streamed blocks", notes)
    gaps, decode = list[float](), list[float]()
    for _ in range(blocks):
        start = time.perf_counter()
        latents = rollout.next().latents
        rig.watch.wait()
        made = time.perf_counter()
        stream.decode(latents).cpu()
        gaps.append(1e3 * (time.perf_counter() - start))
        decode.append(1e3 * (time.perf_counter() - made))
    rig.network.taken()
    return {
        "fps_end_to_end": round(rig.shown_frames * blocks / (sum(gaps) / 1e3), 3),
        "stream": {"first_frames_ms": round(first_ms, 3), "gap_ms": summary(gaps)},
        "codec_ms": summary(decode),
    }


def _switches(rig: Rig, rollout: Rollout, warm: int, budget: Budget, notes: list[str]) -> Figures:
    """The first block after each kind of switch from a full window, with the text's keys and values and the recache included."""
    start = time.perf_counter()
    rollout.next()
    rig.watch.wait()
    block_s = time.perf_counter() - start
    fill = min(warm, max(1, budget.fitting(1.0, 3 * block_s) - 1))
    rounds = max(1, min(3, budget.fitting(0.9, 3 * (fill + 1) * block_s)))
    if fill < warm:
        notes.append(f"windows before a switch filled by {fill} blocks instead of {warm}, for lack of time")
    by_kind: dict[str, list[float]] = {transition.value: [] for transition in Transition}
    recaches: list[float] = []
    for _ in range(rounds):
        for transition in Transition:
            rig.network.taken()
            begin = rig.watch.mark()
            rig.switch(rollout, transition, recalls_of(transition))
            rollout.next()
            by_kind[transition.value].append(rig.watch.ms(begin, rig.watch.mark()))
            kind, ms = rig.network.taken()[0]
            recaches += [ms] if kind == "clean" else []
            for _ in range(fill):
                rollout.next()
    rig.watch.wait()
    return {name: summary(values) for name, values in by_kind.items()} | {"recache": summary(recaches) if recaches else None}


def recalls_of(transition: Transition) -> int | None:
    """The scene that a recall goes back to, the first one; None for other transitions."""
    return 0 if transition is Transition.recall else None


def setup_of(rig: Rig, policy: Policy, script: Script) -> Setup:
    """The measured run, as input of the memory forecast."""
    window = "shared" if rig.backbone.shared_window else "resident"
    return Setup(rig.config, rig.geometry, policy, script, rig.batch, window=window, **rig.memory)


def _overhead(rig: Rig, policy: Policy, attended: int) -> Figures:
    """The policy's own work minus that of Self-Forcing at the same window, in percent of Self-Forcing's whole block.

    The two are measured alternately, so that both meet the same load, and the faster turn of each counts.
    """
    base, same = make_policy({"method": "self_forcing"}), replace(rig.geometry, window_frames=attended)
    backbone = rig.backbone
    conditions = Conditions(
        rig.watch, backbone.dtype, backbone.device, rig.batch, backbone.shared_window, backbone.schedule
    )  # fmt: skip
    turns = []
    for _ in range(2):
        turns.append([conditions.own_work(*pair, 2 * LEAST_BLOCKS + 1)[0] for pair in ((policy, rig.geometry), (base, same))])
        rig.release()
    own_ms, base_ms = (min(times) for times in zip(*turns))
    whole_ms = reference(rig, attended)
    percent = 100 * (own_ms - base_ms) / whole_ms
    return {
        "own_work_ms": round(own_ms, 4),
        "self_forcing_ms": round(base_ms, 4),
        "block_ms": round(whole_ms, 4),
        "percent": round(percent, 3),
    }


def reference(rig: Rig, attended: int) -> float:
    """Milliseconds of Self-Forcing's whole block at a window; measured once per window."""
    if attended not in rig.references:
        policy, geometry = make_policy({"method": "self_forcing"}), replace(rig.geometry, window_frames=attended)
        rollout = rig.rollout(policy, geometry)
        rig.switch(rollout)
        for _ in range(steady_from(policy, geometry)[0]):
            rollout.next()
        whole = steady_blocks(rig, rollout, LEAST_BLOCKS)
        del rollout
        rig.release()
        rig.references[attended] = whole["block_ms"]["median"]
    return rig.references[attended]
