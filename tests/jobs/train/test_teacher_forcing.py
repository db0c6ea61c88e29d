"""Training's one-pass attention against a dense mask, and its batches against seeds and kills."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.world.render import draw
from data.world.words import DAY, UNLIT
from echo.backbone import rope
from jobs.train.data import BLOCK_FRAMES, NOISY, fit_codec, lit_before, make_batch, shown_words
from jobs.train.teacher_forcing import CopiesAttention

GRID = 2
TOKENS = BLOCK_FRAMES * GRID * GRID


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gaps: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """The same attention with one mask over all tokens, written from the rule."""
    blocks = len(gaps)
    owners = [(0, block) for block in range(blocks - 1)]
    owners += [(copy, block) for copy in range(1, NOISY + 1) for block in range(blocks)]
    frames = [BLOCK_FRAMES * block + step for _, block in owners for step in range(BLOCK_FRAMES)]
    turn = rope.frame_table(frames, GRID, GRID, q.shape[-1])
    q, k = rope.rotate(q, turn), rope.rotate(k, turn)
    seen = torch.zeros(len(owners), len(owners), dtype=torch.bool)
    for row, (copy, block) in enumerate(owners):
        for column, (other, past) in enumerate(owners):
            seen[row, column] = (copy, block) == (other, past) or (other == 0 and past in gaps[block])
    mask = seen.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~mask, float("-inf"))
    return torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v)


def test_attention_equals_dense_mask() -> None:
    for gaps in (((),), ((), (0,)), ((), (0,), (0, 1), (0, 2))):
        blocks = len(gaps)
        length = TOKENS * (blocks - 1 + NOISY * blocks)
        q, k, v = torch.randn(3, 2, length, 3, 12, generator=torch.Generator().manual_seed(blocks))
        attend = CopiesAttention(gaps, GRID, GRID, 12, torch.device("cpu"))
        assert torch.allclose(attend(0, q, k, v), dense(q, k, v, gaps), atol=1e-5)


def test_batch_is_a_function_of_seed_and_step() -> None:
    codec = fit_codec(8)
    first, again, other = (make_batch(codec, seed, 7, 100, 120) for seed in (3, 3, 4))
    assert torch.equal(first.latents, again.latents) and torch.equal(first.sigmas, again.sigmas)
    assert first.sentences == again.sentences and first.noise_seed == again.noise_seed
    assert first.sentences != other.sentences


@pytest.mark.slow
def test_history_is_not_learned_and_only_at_the_start() -> None:
    codec = fit_codec(8)
    batches = [make_batch(codec, 0, step, 100, 360) for step in range(30)]
    weights = [batch.weight for batch in batches if batch.weight.shape[1] > 1]
    assert any((weight == 0).any() for weight in weights)
    for weight in weights:
        assert (weight[:, -1] == 1).all() and (weight.diff(dim=1) >= 0).all()


def test_under_lights_what_is_learned_is_lit_as_it_is_said_and_what_comes_before_as_it_may() -> None:
    """By day and without light there is no doubt about a column; a beam is as fast before as after, and moves the same way."""
    before = set()
    for index in range(40):
        truth = draw((5, index), 84, words=shown_words(np.random.default_rng(index), lights=True))
        whole = np.ones((84, 48)) if truth.shade is None else truth.shade
        shade = lit_before(truth, (5, index), 36).shade
        assert shade is not None and np.array_equal(shade[36:], whole[36:])
        assert truth.words.light != DAY or (shade[36:] == 1).all()
        assert truth.words.light != UNLIT or (shade[36:] == 0).all()
        before |= {float(shade[0].mean()), float(shade[35].mean())}
        unchanged = lit_before(truth, (5, index), 0).shade
        assert unchanged is not None and np.array_equal(unchanged, whole)
    assert {0.0, 1.0} < before, "darkness, day and parts of the place come before"
    batch = make_batch(fit_codec(8), 0, 3, 100, 120, lights=True)
    assert len(batch.sentences) == batch.latents.shape[0]
