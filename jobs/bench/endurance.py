"""Endurance test of an open-ended rollout: memory and time of a block must not grow with the length of the video.

Time is CPU time of one thread, because the load of other programs changes within the hour that this may take.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from tqdm import tqdm

from baselines.presets import make_policy, preset
from echo.backbone.interface import latent_shape
from echo.backbone.load import Backbone, load
from echo.noise import keyed_noise
from echo.refusals import Unfinished
from echo.rollout import Rollout
from jobs.memory.measured import resident

SENTENCE = "A red ball circles over a striped meadow."
WARM_UP_BLOCKS = 50


def watch(backbone: Backbone, method: str, blocks: int, bar: bool) -> tuple[list[float], list[float]]:
    """CPU milliseconds and resident MiB of every block after the warm-up. Raises ValueError if the policy cannot make so many blocks."""
    policy = make_policy({"method": method})
    policy.check(backbone.geometry, blocks + WARM_UP_BLOCKS)
    noise = keyed_noise(0, ["endurance"], latent_shape(backbone.geometry), dtype=backbone.dtype, device=backbone.device)
    rollout = Rollout(backbone.network, policy, backbone.geometry, noise, steps=backbone.schedule)
    rollout.switch(backbone.text.encode([SENTENCE]).to(backbone.device, backbone.dtype))
    block_ms, memory_mib = [0.0] * blocks, [0.0] * blocks
    for index in tqdm(range(-WARM_UP_BLOCKS, blocks), unit="block", disable=not bar):
        start = time.process_time()
        rollout.next()
        if index >= 0:
            block_ms[index], memory_mib[index] = 1e3 * (time.process_time() - start), resident("VmRSS") / 2**20
    return block_ms, memory_mib


def summary(block_ms: list[float], memory_mib: list[float]) -> dict[str, float]:
    """First and last tenth: medians of time, means of memory."""
    tenth = max(1, len(block_ms) // 10)
    first, last = statistics.median(block_ms[:tenth]), statistics.median(block_ms[-tenth:])
    early, late = statistics.fmean(memory_mib[:tenth]), statistics.fmean(memory_mib[-tenth:])
    return {
        "blocks": len(block_ms),
        "block_cpu_ms_first_tenth": round(first, 3),
        "block_cpu_ms_last_tenth": round(last, 3),
        "time_ratio": round(last / first, 4),
        "resident_mib_first_tenth": round(early, 1),
        "resident_mib_last_tenth": round(late, 1),
        "growth_mib": round(late - early, 2),
    }


def endurance(blocks: int = 10000, method: str = "echo") -> Iterator[str]:
    """Measure whether memory and time of an open-ended rollout grow.

    Prints one JSON line: median CPU time of a block and resident memory, of the first and the last tenth, once the window is full. The
    exit status is 1 if time grew by over 5 % or memory by over 8 MiB.

        echo-harness bench endurance blocks=10000 method=echo

    Args:
        blocks: number of blocks after a warm-up of 50.
        method: a preset of conf/method.
    """
    if blocks < 10:
        raise ValueError(f"blocks={blocks}: ten or more, to compare a first and a last tenth; nearest is 10")
    torch.set_num_threads(1)
    backbone = load(preset("backbone", "tiny")["weights"])
    result = summary(*watch(backbone, method, blocks, sys.stderr.isatty()))
    yield json.dumps(result)
    if result["time_ratio"] > 1.05 or result["growth_mib"] > 8:
        raise Unfinished
