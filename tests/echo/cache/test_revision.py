"""Memories that are chosen and edited in the clean pass, before its attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from echo.backbone import rope
from echo.cache.kinds import Kind, MemoryName
from echo.cache.plan import Plan, Selection, Slot
from echo.cache.policy import Memory
from echo.cache.store import FrameStore, Named
from echo.cache.window import Window
from echo.geometry import Geometry
from tests.helpers.attention import by_hand
from tests.helpers.compare import report

GEM = MemoryName("gem")


class Mean(Memory):
    """Makes a memory the mean of itself and all that leaves, and notes with which queries it was asked."""

    def __init__(self, store: FrameStore) -> None:
        self.store = store
        self.asked: list[Tensor] = []

    def revise(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.asked.append(q)
        old = self.store.named(layer, GEM)
        self.store.remember(
            GEM, layer, Named(torch.cat([old.k[:, None], k], 1).mean(1), torch.cat([old.v[:, None], v], 1).mean(1))
        )  # fmt: skip


@pytest.mark.parametrize("own", [False, True], ids=["plan's context", "context of its own"])
@pytest.mark.parametrize("shared", [False, True], ids=["resident", "shared"])
def test_noisy_passes_meet_what_was_and_the_clean_one_what_has_become(geometry: Geometry, shared: bool, own: bool) -> None:
    """The leaving frames' places in the store are the block's when the clean pass begins: they are read before it writes."""
    tokens, rng = geometry.tokens_per_frame, torch.Generator().manual_seed(0)
    store = FrameStore(geometry, 4, 1, dtype=torch.float32, device=torch.device("cpu"))
    store.admit(range(4))
    past_k, past_v = torch.randn(2, 1, 4 * tokens, 2, 16, generator=rng)
    gem_k, gem_v = torch.randn(2, 1, tokens, 2, 16, generator=rng)
    for layer in range(2):
        store.write(layer, range(4), past_k, past_v)
        store.remember(GEM, layer, Named(gem_k, gem_v))
    memory = Mean(store)
    window = Window(geometry, store, memory, shared=shared)
    context = Slot(GEM, 0, Kind.SUMMARY), Slot(3, 1, Kind.RECENT)
    clean, revision = context[:1] if own else None, Selection((GEM, 0, 1, 2), 1)
    plan = Plan(1, 0, 4, context, (2, 3, 4), frozenset({GEM, 3, 4, 5, 6}), clean=clean, revision=revision)
    window.begin(plan)
    newest_k, newest_v = (part[:, 3 * tokens :] for part in (past_k, past_v))
    for last in (False, False, True):
        if last:
            window.turn_clean()
            store.turn_over(range(4, 7), plan.keep)
            gem_k, gem_v = (torch.stack([gem, *past.split(tokens, 1)[:3]]).mean(0) for gem, past in ((gem_k, past_k), (gem_v, past_v)))
        q, k, v = torch.randn(3, 1, 3 * tokens, 2, 16, generator=rng)
        ours = window.attend(0, q, k, v)[0]
        read = [0, 2, 3, 4] if own and last else [0, 1, 2, 3, 4]
        keys = torch.cat([gem_k, *([] if own and last else [newest_k]), k], 1)
        values = torch.cat([gem_v, *([] if own and last else [newest_v]), v], 1)
        turn = rope.frame_table(read, 2, 3, 16)
        expected = by_hand(rope.rotate(q, turn[-3 * tokens :])[0], rope.rotate(keys, turn)[0], values[0])
        assert torch.allclose(ours, expected, atol=1e-5), (last, report(ours, expected))
        if not last:
            window.turn_next()
    assert len(memory.asked) == 1 and torch.equal(memory.asked[0], q)
    assert torch.equal(store.frames(0, [4, 5, 6])[0].flatten(1, 2), k)


def test_a_plan_that_revises_wants_a_memory_that_does(geometry: Geometry) -> None:
    with pytest.raises(NotImplementedError, match="plans a revision but has none"):
        Memory().revise(0, Plan(0, 0, 0, (), (0, 1, 2), frozenset()), *torch.zeros(3, 1))
