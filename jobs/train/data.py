"""Training data of the tiny backbone: the batch of a step is a function of (seed, step, plan of the run) only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from data.world.render import ALL, Truth, draw, draw_words, lit, render
from data.world.words import BEAM, DAY, UNLIT, Words, held_out, sentence
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
LIT = {DAY: 0.3, BEAM: 0.55, UNLIT: 0.15}
"""Shares of lights in a training under all of them."""


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
    codec: PatchCodec, seed: int, step: int, steps: int, frames_per_step: int = FRAMES_PER_STEP, share: tuple[int, int] = (0, 1),
    lights: bool = False,
) -> Batch:  # fmt: skip
    """The batch of `step` (0-based) of a run of `steps` steps.

    The first 15 % of a run show places without landmarks; later 85 % of clips have them. Short clips teach appearance and are cheap; long
    ones teach motion and memory and are drawn more often in the last 40 %. share: (rank, number of processes); only this rank's equal
    part of the step's clips is drawn, and all parts together are the step. lights: all of them, for a network that knows the world by
    day: landmarks from the first step, and most clips begin with another motion, at another moment or in another light, so that what is
    lit again must be copied from the past.
    """
    rng = np.random.default_rng([seed, step])
    done = step / steps + 0.3 if lights else step / steps
    late = (0.25, 0.15, 0.6) if lights else (0.4, 0.2, 0.4)
    blocks = int(rng.choice((1, 2, 7), p=(0.75, 0.15, 0.1) if done < 0.6 else late))
    # A clip with a past gets several noisy copies; without a past, more clips are better than more copies.
    copies = NOISY if blocks > 1 or done < EASY else 1
    size = max(1, frames_per_step // (BLOCK_FRAMES * (copies * blocks + blocks - 1)))
    easy = rng.uniform(size=size) < (1.0 if done < EASY else 0.15)
    history = np.zeros(size, dtype=np.int64)
    if blocks > 1:
        # Many clips begin with another motion: their first blocks are only context.
        most, often = (min(blocks, 6), 0.7) if lights else (min(blocks, 4), 0.35)
        history = np.where(rng.uniform(size=size) < often, rng.integers(1, most, size=size), 0)
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
            shown_words(np.random.default_rng([seed, step, index]), lights),
            int(history[index]) * BLOCK_PIXEL_FRAMES,
        )
        for index in mine
    ]
    if lights:
        truths = [lit_before(truth, (seed, step, index), int(history[index]) * BLOCK_PIXEL_FRAMES) for index, truth in zip(mine, truths)]
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


def shown_words(rng: np.random.Generator, lights: bool = False) -> Words:
    """Words of a training clip: uniform over combinations that are not held out, by day or under all lights."""
    while held_out(words := draw_words(rng)):
        pass
    return replace(words, light=str(rng.choice(list(LIT), p=list(LIT.values())))) if lights else words


def lit_before(truth: Truth, seed: tuple[int, ...], before: int) -> Truth:
    """The clip whose first `before` frames show its light or day at another moment, and then, up to them, any light."""
    rng = np.random.default_rng([*seed, before])
    time = np.arange(len(truth.centres), dtype=np.float64)
    cut = int(rng.integers(0, before // BLOCK_PIXEL_FRAMES + 1)) * BLOCK_PIXEL_FRAMES
    lights = str(rng.choice([DAY, truth.words.light])), str(rng.choice(list(LIT)))
    # The same beam goes as fast and the same way, wherever it was then.
    parts = [*(lit(light, seed, time + rng.uniform(-320, 320)) for light in lights), truth.beam]
    early, late, own = (np.full(len(time), ALL) if beam is None else beam for beam in parts)
    return replace(truth, beam=np.concatenate([early[:cut], late[cut:before], own[before:]]))


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
