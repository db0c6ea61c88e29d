"""Cost of each policy besides attention.

Whole blocks of the real rollout are timed without network and attention, so that only the policy's own work is left (gathering, rotating,
selecting, statistics, rewriting), on one thread. Overhead = (policy - Self-Forcing at the same window) / whole block of Self-Forcing.
A recache is an extra forward pass at a switch, timed with the network. `terms` measures the same work along each term of eq. (29),
O(N_cand + M + B), and fits lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from scipy.stats import linregress
from torch import Tensor, nn

from baselines.presets import make_policy
from echo.backbone.interface import latent_shape
from echo.backbone.packed import Network, pack
from echo.backbone.wan import Attend, TextStates, TimeStates, WanConfig, WanModel
from echo.cache.plan import Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.noise import Noise
from echo.refusals import one_of
from echo.rollout import Rollout
from echo.sampler import Schedule, schedule
from echo.scene import SceneStart, Transition
from eval.figures import style
from jobs.bench.stopwatch import Stopwatch
from jobs.memory.measured import keep_pages
from jobs.store.provenance import cpu

METHODS = (
    "self_forcing", "self_forcing_recache", "infinity_rope", "infinity_rope_official", "longlive", "longlive_relative", "longlive_flush",
    "longlive_echo", "rolling_sink", "deep_forcing_sink", "deep_forcing_official", "deep_forcing_table", "memrope",
    "memrope_per_position", "echo", "echo_official", "echo_paper", "echo_anchors_6",
)  # fmt: skip
SIZES = {
    "tiny": (Geometry(6, 6, 32, 4, 4), 768, torch.float32),
    "real": (Geometry(1, 12, 128, 30, 52), 8960, torch.bfloat16),
}
HOST = torch.device("cpu")
TERMS = {
    "n_cand": ("candidate frames of the compression, a block", (6, 12, 18, 24, 30, 36)),
    "m": ("candidate frames of a recall frame, at a switch", (1, 3, 5, 7, 9, 12)),
    "b": ("frames of the window, a block", (15, 18, 21, 24, 27, 30)),
}
"""Term of eq. (29) -> the quantity that it counts, and the measured values."""
HORIZON = 60
"""Number of block plans that are examined to find when a window is full."""


class AttentionOnly(nn.Module):
    """A stand-in for the network that only calls `attend`, with the same queries, keys and values each time."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.geometry = geometry
        self.patch_embedding = nn.Linear(1, 1, dtype=dtype)
        shape = (3, 1, geometry.block_tokens, geometry.heads, geometry.head_dim)
        self.states = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    def time_states(self, timesteps: Tensor) -> None:
        """Does nothing: this stand-in ignores the time."""

    def text_states(self, text: Tensor) -> None:
        """Does nothing: this stand-in ignores the text."""

    def text_keys(self, text: object) -> list[Tensor]:
        """Keys of a text with one row."""
        return [self.states[1, :, :1].transpose(1, 2)] * self.geometry.layers

    def forward(self, latents: Tensor, time: TimeStates, text: TextStates, attend: Attend) -> Tensor:
        """Call every layer's attention, with as many frames as there are latents."""
        blocks = latents.shape[1] // self.geometry.frames_per_block
        q, k, v = self.states.repeat(1, 1, blocks, 1, 1)
        for layer in range(self.geometry.layers):
            attend(layer, q, k, v)
        return latents


def still_noise(geometry: Geometry, batch: int, dtype: torch.dtype, device: torch.device, draws: int) -> Noise:
    """One block's noise, drawn once and returned every time: drawing is the host's work and the same for every policy."""
    shape = (draws, batch, *latent_shape(geometry))
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device=device, dtype=dtype)
    return lambda block, draw: drawn[draw]


def steady_from(policy: Policy, geometry: Geometry) -> tuple[int, list[float]]:
    """The first block from which an endless scene is steady, and the frames that each later block attends to (for heads in groups, an
    upper bound of their mean).

    Windows that shrink after they were full, or change with each selection, are steady once they repeat.
    """
    plans = [policy.block_plan(Step(block, (SceneStart(0),), geometry)) for block in range(HORIZON)]
    lengths = [plan.attended for plan in plans]
    later = set(lengths[HORIZON // 2 :])
    odd = max((block for block, length in enumerate(lengths) if length not in later), default=-1)
    full = next(block for block, length in enumerate(lengths) if block > odd and length == max(later))
    selects = next((block for block, plan in enumerate(plans) if plan.selection is not None), 0)
    return max(full, selects) + 1, lengths[HORIZON // 2 :]


def same_window(attended: float, geometry: Geometry) -> int:
    """Frames of Self-Forcing's window for the comparison with a policy that attends to `attended` frames; at least one past block."""
    return max(2 * geometry.frames_per_block, math.ceil(attended))


def steady(times: Sequence[float]) -> float:
    """Mean of the fastest pair of neighbouring blocks: disturbances only add time, and some policies work only at every other block."""
    return min((a + b) / 2 for a, b in zip(times[:-1], times[1:], strict=True))


def blocks_ms(rollout: Rollout, watch: Stopwatch, blocks: int) -> list[float]:
    """Milliseconds of each of the next blocks, with nothing in between."""
    marks = [watch.mark()]
    for _ in range(blocks):
        rollout.next()
        marks.append(watch.mark())
    watch.wait()
    return [watch.ms(start, end) for start, end in zip(marks[:-1], marks[1:])]


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement of policies' own work."""

    watch: Stopwatch
    dtype: torch.dtype
    device: torch.device
    batch: int = 1
    shared_window: bool = False
    steps: Schedule = field(default_factory=schedule)

    def rollout(self, policy: Policy, geometry: Geometry) -> tuple[Rollout, Tensor]:
        """A rollout without network and attention, with its first scene begun, and the text of all scenes."""
        stand_in = AttentionOnly(geometry, self.dtype).to(self.device)
        stand_in.states = stand_in.states.to(self.device).repeat(1, self.batch, 1, 1, 1)
        noise = still_noise(geometry, self.batch, self.dtype, self.device, self.steps.draws)
        network = cast(Network, stand_in)  # it replaces the network
        rollout = Rollout(
            network, policy, geometry, noise, batch=self.batch, steps=self.steps,
            attention=lambda q, k, v, bias=None: q, shared_window=self.shared_window,
        )  # fmt: skip
        text = torch.zeros(1, 1, 1, device=self.device)
        rollout.switch(text)
        return rollout, text

    def own_work(self, policy: Policy, geometry: Geometry, blocks: int) -> tuple[float, float]:
        """Milliseconds of a steady block without network and attention, and of the first block after a hard switch."""
        rollout, text = self.rollout(policy, geometry)
        for _ in range(steady_from(policy, geometry)[0]):
            rollout.next()
        own_ms = steady(blocks_ms(rollout, self.watch, blocks))
        start = self.watch.mark()
        rollout.switch(text, Transition.hard, None, 45)
        rollout.next()
        return own_ms, self.watch.ms(start, self.watch.mark())


def whole_block(geometry: Geometry, ffn_dim: int, dtype: torch.dtype, blocks: int) -> float:
    """Milliseconds of a Self-Forcing block with network and attention and a full window."""
    rollout = processor_rollout(make_policy({"method": "self_forcing"}), geometry, ffn_dim, dtype)
    rollout.window.attention = lambda q, k, v, bias=None: q  # type: ignore[method-assign] # while the window fills, its products count for nothing
    rollout.switch(torch.zeros(1, 1, 1, dtype=dtype))
    for _ in range(geometry.context_frames // geometry.frames_per_block):
        rollout.next()
    del rollout.window.attention
    return steady(blocks_ms(rollout, Stopwatch(HOST), blocks))


def processor_rollout(policy: Policy, geometry: Geometry, ffn_dim: int, dtype: torch.dtype) -> Rollout:
    """A rollout with a transformer of these sizes and random weights, on the CPU, set up like a run's."""
    torch.manual_seed(0)
    width = geometry.heads * geometry.head_dim
    model = WanModel(WanConfig(width, ffn_dim, geometry.heads, geometry.layers, 256, 1, 512 if ffn_dim > 1000 else 8))
    network = pack(model.to(dtype).eval().requires_grad_(False))
    return Rollout(network, policy, geometry, still_noise(geometry, 1, dtype, HOST, 4))


def recache_percent(method: str, geometry: Geometry, ffn_dim: int, dtype: torch.dtype) -> float | None:
    """Time of a recache, in percent of a steady block with the network; None for a policy without one."""
    policy = make_policy({"method": method})
    if not policy.recache_frames(geometry):
        return None
    rollout, watch = processor_rollout(policy, geometry, ffn_dim, dtype), Stopwatch(HOST)
    text, recached = torch.zeros(1, 1, 1, dtype=dtype), []
    rollout.switch(text)
    usual = blocks_ms(rollout, watch, 12)
    for _ in range(12):
        rollout.switch(text, Transition.hard)
        recached += blocks_ms(rollout, watch, 1)
    return round(100 * (min(recached) / min(usual[8:]) - 1), 1)


@cache
def reference(size: str, window_frames: int, blocks: int) -> tuple[float, float, float]:
    """Milliseconds of Self-Forcing at a window, measured once: own work in a steady block, own work at a switch, and a whole block."""
    geometry, ffn_dim, dtype = SIZES[size]
    same = replace(geometry, window_frames=window_frames)
    own = processor(dtype).own_work(make_policy({"method": "self_forcing"}), same, blocks)
    return *own, whole_block(same, ffn_dim, dtype, 2 if size == "real" else blocks)


def processor(dtype: torch.dtype) -> Conditions:
    """One thread of this machine's CPU."""
    return Conditions(Stopwatch(HOST), dtype, HOST)


def measure(method: str, size: str, blocks: int) -> dict[str, object]:
    """One method's row."""
    geometry, ffn_dim, dtype = SIZES[size]
    policy = make_policy({"method": method})
    own_ms, switch_ms = processor(dtype).own_work(policy, geometry, blocks)
    window = same_window(max(steady_from(policy, geometry)[1]), geometry)
    base_own_ms, base_switch_ms, whole_ms = reference(size, window, blocks)
    return {
        "method": method,
        "window_frames": window,
        "own_work_ms": round(own_ms, 2),
        "self_forcing_ms": round(base_own_ms, 2),
        "whole_block_ms": round(whole_ms, 1),
        "overhead_percent": round(100 * (own_ms - base_own_ms) / whole_ms, 2),
        "switch_percent": round(100 * (switch_ms - base_switch_ms) / whole_ms, 2),
        "recache_percent": recache_percent(method, geometry, ffn_dim, dtype) if size == "tiny" else None,
    }


def along(term: str, frames: int, geometry: Geometry) -> tuple[Policy, Geometry]:
    """`echo_paper` with `frames` frames of a term of eq. (29), and the geometry with its window."""
    if term == "n_cand":
        return make_policy({"method": "echo_paper", "method.candidate_frames": frames}), geometry
    if term == "m":
        changes = {"method.recall_frame.part": "first", "method.recall_frame.stride": 1, "method.recall_frame.count": frames}
        return make_policy({"method": "echo_paper"} | changes), geometry
    anchors = frames - geometry.frames_per_block - 6  # 3 compressed and 3 recent frames follow them
    changes = {"method.anchors": anchors, "method.pool_frames": max(18, anchors)}
    return make_policy({"method": "echo_paper"} | changes), replace(geometry, window_frames=frames)


def term_ms(term: str, frames: int, size: str, blocks: int) -> float:
    """Milliseconds of own work at one value of a term: the fastest block with everything full or, for `m`, first block after a switch."""
    geometry, _, dtype = SIZES[size]
    policy, sizes = along(term, frames, geometry)
    rollout, text = processor(dtype).rollout(policy, sizes)
    watch = Stopwatch(HOST)
    if term == "m":
        times = []
        for _ in range(blocks):
            for _ in range(frames // sizes.frames_per_block + 1):  # a scene with as many frames as are fused
                rollout.next()
            rollout.switch(text, Transition.hard)
            times += blocks_ms(rollout, watch, 1)
        return min(times)
    if term == "b":
        rollout.next()
        rollout.switch(text, Transition.smooth)  # from here on old memory fades in front
    for _ in range(1 + (max(36, frames) + 6) // sizes.frames_per_block):
        rollout.next()
    return min(blocks_ms(rollout, watch, blocks))


def term_lines(terms: Sequence[str], size: str, blocks: int, output: Path | None) -> Iterator[str]:
    """Points of each term and the line through them, one JSON line each; with a folder, also `overhead_terms.pdf` and `.png`."""
    geometry, _, dtype = SIZES[size]
    plots = style.pyplot()
    figure, axes = plots.subplots(1, len(terms), figsize=(3.1 * len(terms), 2.6), layout="constrained", squeeze=False)
    for axis, term in zip(axes[0], terms):
        words, counts = TERMS[term]
        points = []
        for frames in counts:
            points.append(term_ms(term, frames, size, blocks))
            tokens = frames * geometry.tokens_per_frame
            yield json.dumps({"term": term, "frames": frames, "tokens": tokens, "own_work_ms": round(points[-1], 4)})
        fit: Any = linregress(counts, points)
        fitted = {"ms_per_frame": round(fit.slope, 5), "ms_at_none": round(fit.intercept, 4), "r_squared": round(fit.rvalue**2, 4)}
        yield json.dumps({"term": term, "line": fitted})
        axis.plot(counts, points, "o", color=style.SERIES[0])
        axis.plot(counts, [fit.intercept + fit.slope * count for count in counts], color=style.SERIES[1], linewidth=1)
        axis.set(title=f"{term.upper()}: {fit.slope:.3g} ms a frame", xlabel=words, ylabel="own work, ms", ylim=(0, 1.15 * max(points)))
        axis.locator_params(axis="x", integer=True)
    if output is None:
        plots.close(figure)
    else:
        yield from map(str, style.save_pair(figure, output / "overhead_terms"))


def overhead(
    geometry: Literal["tiny", "real"] = "tiny", method: Sequence[str] = METHODS, blocks: int = 9, terms: Sequence[str] = (),
    *, output: Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """Measure the cost of each policy besides attention, one JSON line per method; the last line names the machine.

        echo-harness bench overhead geometry=real method=echo,longlive blocks=4
        echo-harness bench overhead geometry=real terms=n_cand,m,b blocks=4 --output docs/figures

    Args:
        geometry: tiny: the embedded backbone's sizes; real: one layer of Wan2.1-1.3B at 480x832.
        method: presets of conf/method.
        blocks: number of blocks timed for each method, once the window is full.
        terms: measure, instead of methods, echo_paper's own work along terms of eq. (29): n_cand, m, b.
        output: folder for the picture of the terms.
    """
    for term in terms:
        one_of(f"terms={term}", term, tuple(TERMS))
    torch.set_num_threads(1)
    keep_pages()
    sizes, _, dtype = SIZES[geometry]
    processor(dtype).own_work(make_policy({"method": "self_forcing"}), sizes, 2)  # so that first memory accesses are in no figure
    if terms:
        yield from term_lines(terms, geometry, blocks, output)
    for name in () if terms else method:
        yield json.dumps(measure(name, geometry, blocks))
    yield json.dumps({"geometry": geometry, "cpu": cpu(), "torch": torch.__version__, "threads": 1})
