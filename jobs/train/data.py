"""Training data of the tiny backbone: the batch of a step is a function of (seed, step, plan of the run) only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from data.world.render import draw, draw_words, render
from data.world.words import Words, held_out, sentence
from echo.backbone.parts.codec import PatchCodec
from echo.sampler import schedule, shifted

BLOCK_FRAMES = 3
"""Latent frames in a block."""
BLOCK_PIXEL_FRAMES = 12
NOISY = 2
"""Most noisy copies of each clip in one forward pass."""
EASY = 0.15
"""Share of a run in which places have no landmarks."""
FRAMES_PER_STEP = 704
"""Latent frames, over all copies, in one forward pass for clips of any length."""
UNTOLD = 0.1
"""Share of clips without a text, which train the unconditional flow for classifier-free guidance in the self-rollout phase."""
CODEC_SEED = 1_000_003


@dataclass(frozen=True)
class Batch:
    """One training step, or the share of it that one of several processes computes: rows `start` to `start + B` of `size`.

    sentences: B texts, some empty, so that the network also learns the unconditional flow. latents [B, J*3, C, h, w]: the clips.
    sigmas [copies, B, J]: noise level of each block of each noisy copy. weight [B, J]: 1 for a block whose flow is learned, 0 for one that
    is only context. context_sigma [B]: noise level of the clean copy. gaps: for each block the earlier blocks to which it attends.
    """

    sentences: list[str]
    latents: Tensor
    sigmas: Tensor
    weight: Tensor
    context_sigma: Tensor
    gaps: tuple[tuple[int, ...], ...]
    noise_seed: int
    start: int
    size: int
    learned: float
    """Number of blocks whose flow is learned, over all rows of the step."""


@cache
def fit_codec(clips: int = 768) -> PatchCodec:
    """Fit the world's codec: components of one block of each of `clips` clips, a third of them without landmarks."""
    truths = [draw((CODEC_SEED, index), BLOCK_PIXEL_FRAMES, easy=index % 3 == 0) for index in range(clips)]
    return PatchCodec.fit(torch.from_numpy(render(truths)))


def make_batch(
    codec: PatchCodec, seed: int, step: int, steps: int, frames_per_step: int = FRAMES_PER_STEP, share: tuple[int, int] = (0, 1)
) -> Batch:
    """The batch of `step` (0-based) of a run of `steps` steps.

    The first 15 % of a run show places without landmarks; later 85 % of clips have them. Short clips teach appearance and are cheap; long
    ones teach motion and memory and are drawn more often in the last 40 %. share: (rank, number of processes); only this rank's equal
    part of the step's clips is drawn, and all parts together are the step.
    """
    rng = np.random.default_rng([seed, step])
    done = step / steps
    lengths = (0.75, 0.15, 0.1) if done < 0.6 else (0.4, 0.2, 0.4)
    blocks = int(rng.choice((1, 2, 7), p=lengths))
    # A clip with a past gets several noisy copies; without a past, more clips are better than more copies.
    copies = NOISY if blocks > 1 or done < EASY else 1
    size = max(1, frames_per_step // (BLOCK_FRAMES * (copies * blocks + blocks - 1)))
    easy = rng.uniform(size=size) < (1.0 if done < EASY else 0.15)
    history = np.zeros(size, dtype=np.int64)
    if blocks > 1:
        # About a third of the clips begin with another motion: their first blocks are only context.
        history = np.where(rng.uniform(size=size) < 0.35, rng.integers(1, min(blocks, 4), size=size), 0)
    choices = rng.integers(0, 1 << 30, size=size)
    silent = rng.uniform(size=size) < UNTOLD
    weight = np.arange(blocks)[None, :] >= history[:, None]
    sigmas = _sigmas(rng, (copies, size, blocks))
    context_sigma = rng.uniform(0, 0.1, size=size).astype(np.float32)
    gaps = _gaps(rng, blocks)
    which, whole = share
    mine = range(size * which // whole, size * (which + 1) // whole)
    rows = slice(mine.start, mine.stop)
    truths = [
        draw(
            (seed, step, index),
            blocks * BLOCK_PIXEL_FRAMES,
            bool(easy[index]),
            shown_words(np.random.default_rng([seed, step, index])),
            int(history[index]) * BLOCK_PIXEL_FRAMES,
        )
        for index in mine
    ]
    said = [sentence(truth.words, int(choice)) for truth, choice in zip(truths, choices[rows], strict=True)]
    return Batch(
        ["" if quiet else text for quiet, text in zip(silent[rows], said, strict=True)],
        codec.encode(torch.from_numpy(render(truths))),
        torch.from_numpy(sigmas[:, rows]),
        torch.from_numpy(weight[rows].astype(np.float32)),
        torch.from_numpy(context_sigma[rows]),
        gaps,
        int(rng.integers(0, 1 << 62)),
        mine.start,
        size,
        float(weight.sum()),
    )


def shown_words(rng: np.random.Generator) -> Words:
    """Words of a training clip: uniform over combinations that are not held out."""
    while held_out(words := draw_words(rng)):
        pass
    return words


def _sigmas(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Noise levels: 70 % those of the four-step sampler, the rest from its shifted schedule; first blocks are noisier."""
    levels = np.array(schedule().sigmas)
    uniform = rng.uniform(size=shape)
    spread = shifted(uniform)
    fourth = levels[rng.integers(0, 4, size=shape)]
    first = levels[rng.choice(4, size=shape[:2], p=(0.4, 0.2, 0.2, 0.2))]
    fourth[..., 0] = first
    return np.where(rng.uniform(size=shape) < 0.7, fourth, spread).astype(np.float32)


def _gaps(rng: np.random.Generator, blocks: int) -> tuple[tuple[int, ...], ...]:
    """Earlier blocks to which each block attends: all of them, or in 30 % of steps the last and half of the others."""
    holes = rng.uniform() < 0.3
    keep = rng.uniform(size=(blocks, blocks)) < 0.5
    return tuple(tuple(past for past in range(block) if not holes or past == block - 1 or keep[block, past]) for block in range(blocks))
