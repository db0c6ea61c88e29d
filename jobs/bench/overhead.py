"""What each policy costs beside attention: `python -m jobs.bench.overhead [--geometry tiny|real] [--methods NAME ...] [--blocks N]`.

Times whole blocks of the real rollout with the network and the attention product taken out, so that what is left is the policy's
own work (gathering, rotating, selecting, statistics, rewriting); the same for Self-Forcing at the same window; and, once, a block of
Self-Forcing with network and attention. Overhead = (policy - Self-Forcing) / whole block. A recache is an extra forward at a switch,
timed with the network (at `tiny` only). `real` is one layer of Wan2.1-1.3B at 480x832 (1560 tokens a frame, 12 heads of 128), `tiny`
the shipped backbone's sizes; both with random weights. Times are of the processor, one thread: other programs' load is not in them.
One JSON line a method; the last line names the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from baselines.presets import make_policy
from echo.backbone.packed import Network, pack
from echo.backbone.wan import Attend, TextStates, TimeStates, WanConfig, WanModel
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.noise import Noise
from echo.rollout import Rollout
from echo.scene import Transition
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


class AttentionOnly(nn.Module):
    """Stands where the network does and only asks `attend`, with the same queries, keys and values each time."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.geometry = geometry
        self.patch_embedding = nn.Linear(1, 1, dtype=dtype)
        shape = (3, 1, geometry.block_tokens, geometry.heads, geometry.head_dim)
        self.states = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    def time_states(self, timesteps: Tensor) -> None:
        """Nothing is derived from the time."""

    def text_states(self, text: Tensor) -> None:
        """Nor from the text."""

    def forward(self, latents: Tensor, time: TimeStates, text: TextStates, attend: Attend) -> Tensor:
        """Ask every layer's attention; a recache asks with as many frames as it has latents."""
        blocks = latents.shape[1] // self.geometry.frames_per_block
        q, k, v = self.states.repeat(1, 1, blocks, 1, 1)
        for layer in range(self.geometry.layers):
            attend(layer, q, k, v)
        return latents


def zero_noise(geometry: Geometry, dtype: torch.dtype) -> Noise:
    """No noise at all: its cost is every policy's."""
    shape = (1, geometry.frames_per_block, geometry.latent_channels, geometry.latent_height, geometry.latent_width)
    still = torch.zeros(shape, dtype=dtype)
    return lambda block, draw: still


def steady(times: list[float]) -> float:
    """The quietest pair of neighbouring blocks: caches and clocks only ever add time, and some policies work every other block."""
    return min((a + b) / 2 for a, b in zip(times[:-1], times[1:], strict=True))


def block_ms(rollout: Rollout, warm_up: int, blocks: int, switch: bool) -> tuple[float, float]:
    """Milliseconds of a steady block, and of the first block after a hard switch (0 if `switch` is off)."""
    rollout.switch(torch.zeros(1, 1, 1))
    times = []
    for index in range(warm_up + blocks):
        start = time.process_time()
        rollout.next()
        if index >= warm_up:
            times.append(1e3 * (time.process_time() - start))
    if not switch:
        return steady(times), 0.0
    rollout.switch(torch.zeros(1, 1, 1), Transition.hard, None, 45)
    start = time.process_time()
    rollout.next()
    return steady(times), 1e3 * (time.process_time() - start)


def own_work(policy: Policy, geometry: Geometry, dtype: torch.dtype, blocks: int) -> tuple[float, float, int]:
    """Milliseconds of a steady block and of a switch without network and attention; frames attended to at most."""
    rollout = Rollout(AttentionOnly(geometry, dtype), policy, geometry, zero_noise(geometry, dtype))  # type: ignore[arg-type]
    longest = 0

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nonlocal longest
        longest = max(longest, k.shape[1] // geometry.tokens_per_frame)
        return q

    rollout.window.attention = attention  # type: ignore[method-assign]
    return *block_ms(rollout, geometry.window_frames // geometry.frames_per_block + 2, blocks, switch=True), longest


def network(geometry: Geometry, ffn_dim: int, dtype: torch.dtype) -> Network:
    """The transformer at these sizes with random weights, laid out as runs have it."""
    torch.manual_seed(0)
    width = geometry.heads * geometry.head_dim
    model = WanModel(WanConfig(width, ffn_dim, geometry.heads, geometry.layers, 256, 1, 512 if ffn_dim > 1000 else 8))
    return pack(model.to(dtype).eval().requires_grad_(False))


def whole_block(geometry: Geometry, ffn_dim: int, dtype: torch.dtype, blocks: int) -> float:
    """Milliseconds of a Self-Forcing block with network and attention, the window full."""
    rollout = Rollout(network(geometry, ffn_dim, dtype), make_policy({"method": "self_forcing"}), geometry, zero_noise(geometry, dtype))
    full = geometry.context_frames // geometry.frames_per_block
    rollout.window.attention = lambda q, k, v: q  # type: ignore[method-assign] # while the window fills, its products count for nothing
    rollout.switch(torch.zeros(1, 1, 1, dtype=dtype))
    for _ in range(full):
        rollout.next()
    del rollout.window.attention
    times = []
    for _ in range(blocks):
        start = time.process_time()
        rollout.next()
        times.append(1e3 * (time.process_time() - start))
    return steady(times)


def recache_percent(method: str, geometry: Geometry, ffn_dim: int, dtype: torch.dtype) -> float | None:
    """Time of a recache forward, in percent of a steady block, with the network; None for a policy that has none."""
    policy = make_policy({"method": method})
    if not policy.recache_frames(geometry):
        return None
    rollout = Rollout(network(geometry, ffn_dim, dtype), policy, geometry, zero_noise(geometry, dtype))
    text, ratios = torch.zeros(1, 1, 1, dtype=dtype), []
    rollout.switch(text)
    for index in range(24):
        if index >= 12:
            rollout.switch(text, Transition.hard)
        start = time.process_time()
        rollout.next()
        ratios.append(1e3 * (time.process_time() - start))
    return round(100 * (min(ratios[12:]) / min(ratios[8:12]) - 1), 1)


@dataclass(frozen=True)
class Reference:
    """Self-Forcing at one window: its own work in a steady block and at a switch, and a whole block, in milliseconds."""

    own_ms: float
    switch_ms: float
    whole_ms: float


@cache
def reference(size: str, window_frames: int, blocks: int) -> Reference:
    """Measured once for each window."""
    geometry, ffn_dim, dtype = SIZES[size]
    same = replace(geometry, window_frames=window_frames)
    own_ms, switch_ms, _ = own_work(make_policy({"method": "self_forcing"}), same, dtype, blocks)
    return Reference(own_ms, switch_ms, whole_block(same, ffn_dim, dtype, 2 if size == "real" else blocks))


def measure(method: str, size: str, blocks: int) -> dict[str, object]:
    """One row."""
    geometry, ffn_dim, dtype = SIZES[size]
    own_ms, switch_ms, window = own_work(make_policy({"method": method}), geometry, dtype, blocks)
    base = reference(size, window, blocks)
    return {
        "method": method,
        "window_frames": window,
        "own_work_ms": round(own_ms, 2),
        "self_forcing_ms": round(base.own_ms, 2),
        "whole_block_ms": round(base.whole_ms, 1),
        "overhead_percent": round(100 * (own_ms - base.own_ms) / base.whole_ms, 2),
        "switch_percent": round(100 * (switch_ms - base.switch_ms) / base.whole_ms, 2),
        "recache_percent": recache_percent(method, geometry, ffn_dim, dtype) if size == "tiny" else None,
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.overhead", description="What each policy costs beside attention.")
    parser.add_argument("--geometry", choices=SIZES, default="tiny")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--blocks", type=int, default=9, help="blocks timed for each method, after the window is full (default 9)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        own_work(make_policy({"method": "self_forcing"}), *SIZES[options.geometry][::2], 2)  # first touches of memory count for nobody
        for method in options.methods:
            print(json.dumps(measure(method, options.geometry, options.blocks)), flush=True)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps({"geometry": options.geometry, "cpu": cpu(), "torch": torch.__version__, "threads": 1}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
