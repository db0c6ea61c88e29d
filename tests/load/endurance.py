"""Memory and time of a block must not grow with the length of the video: `python -m tests.load.endurance [--blocks 10000] [--method echo]`.

Prints one JSON line: median time of a block and resident memory, of the first and the last tenth, once the window is full. The exit status
is 1 if time grew by over 5 % or memory by over 8 MiB. Time is CPU time of one thread, because the load of other programs changes within the
hour that this may take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence

import torch
from tqdm import tqdm

from baselines.presets import make_policy, preset
from echo.backbone.interface import latent_shape
from echo.backbone.load import Backbone, load
from echo.noise import keyed_noise
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.endurance", description="Measure whether an open-ended rollout grows.")
    parser.add_argument("--blocks", type=int, default=10000, help="blocks behind a warm-up of 50 (default 10000)")
    parser.add_argument("--method", default="echo", help="a preset of conf/method (default echo)")
    options = parser.parse_args(argv)
    if options.blocks < 10:
        parser.error(f"--blocks {options.blocks}: ten or more, to compare a first and a last tenth; nearest is 10")
    torch.set_num_threads(1)
    backbone = load(preset("backbone", "tiny")["weights"])
    found = summary(*watch(backbone, options.method, options.blocks, sys.stderr.isatty()))
    print(json.dumps(found))
    return int(found["time_ratio"] > 1.05 or found["growth_mib"] > 8)


if __name__ == "__main__":
    sys.exit(main())
