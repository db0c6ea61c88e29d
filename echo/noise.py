"""Noise as a function of (seed, prompt id, block, draw): never of rank, order or batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Noise = Callable[[int, int], Tensor]
"""(block, draw) to Gaussian noise [B, frames, channels, height, width]; draw 0 starts a block, the others re-noise it."""


def stream_seed(seed: int, prompt_id: str, block: int, draw: int) -> int:
    """63-bit seed of one draw."""
    key = f"{seed}\0{prompt_id}\0{block}\0{draw}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def keyed_noise(
    seed: int, prompt_ids: Sequence[str], shape: Sequence[int], *,
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", repeat_initial: bool = False,
) -> Noise:  # fmt: skip
    """Noise of a batch of prompts, `shape` = [frames, channels, height, width] each; drawn in fp32 on the CPU, so that it is
    the same on every machine.

    repeat_initial: every block starts from the first block's noise, as in Rolling-Sink's released code; re-noise stays fresh.
    """

    def draw_noise(block: int, draw: int) -> Tensor:
        rows = []
        for prompt_id in prompt_ids:
            key = 0 if repeat_initial and draw == 0 else block
            generator = torch.Generator().manual_seed(stream_seed(seed, prompt_id, key, draw))
            rows.append(torch.randn(tuple(shape), generator=generator))
        noise = torch.stack(rows).to(dtype)
        pinned = noise.pin_memory() if torch.device(device).type == "cuda" else noise  # so that the host does not wait for the copy
        return pinned.to(device, non_blocking=True)

    return draw_noise
