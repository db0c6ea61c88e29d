"""Heads in groups, against a loop over samples and heads, each with a soft maximum of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from echo.backbone import rope
from echo.cache.groups import runs
from echo.cache.kinds import COMPRESSED, Kind, MemoryName
from echo.cache.plan import HeadGroup, Plan, Selection, Slot
from echo.cache.policy import Memory
from echo.cache.store import FrameStore, Named
from echo.cache.window import Pass, Window
from echo.geometry import Geometry
from tests.helpers.compare import report

SIZES = Geometry(layers=3, heads=5, head_dim=16, grid_height=2, grid_width=2)
TOKENS, BATCH = 4, 2
CONTEXT = (0, 0), (MemoryName("gem"), 4), (COMPRESSED, 7), (3, 8), (4, 9)
GROUPS = (HeadGroup("first", (0,)), HeadGroup("none", ()), HeadGroup("odd", (1, 2, 4)), HeadGroup("all", (0, 1, 2, 3, 4)))
HEADS = (
    ([0, 4, 6], [9], [1, 2, 7], [3, 5, 8]),
    (list(range(10)), [], [], []),
    ([], [2, 3], [0, 1, 4, 5, 9], [6, 7, 8]),
)
"""By layer and group, as sample * 5 + head: other heads in each layer and in each sample."""


class Divided(Memory):
    """Says which heads are in which group, and chooses the last tokens of the candidates."""

    def heads(self, layer: int, plan: Plan) -> Sequence[Tensor]:
        return [torch.tensor(rows, dtype=torch.long) for rows in HEADS[layer]]

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        return torch.tensor([[1, 3, 5, 6]] * BATCH) + layer % 2


BIAS = (0.5, -1.0, 0.0, -2.0, 1.0), (0.0, 0.0, -3.0, 1.0, 0.25)
"""Of the first pass, and of those behind it."""


def begun(shared: bool, clean: bool = False, bias: bool = False) -> tuple[Window, FrameStore, dict[object, tuple[Tensor, Tensor]]]:
    """A window before its first pass, and what its sources hold: [layers, B, S, H, D] of each."""
    random = torch.Generator().manual_seed(0)
    store = FrameStore(SIZES, 8, BATCH, dtype=torch.float32, device=torch.device("cpu"))
    store.admit(range(5))
    held: dict[object, tuple[Tensor, Tensor]] = {}
    for source in (*range(5), MemoryName("gem")):
        k, v = torch.randn(2, 3, BATCH, TOKENS, 5, 16, generator=random)
        held[source] = k, v
        for layer in range(3):
            if isinstance(source, int):
                store.write(layer, [source], k[layer], v[layer])
            else:
                store.remember(source, layer, Named(k[layer], v[layer]))
    context = tuple(Slot(source, position, Kind.RECENT) for source, position in CONTEXT)
    plan = Plan(3, 0, 9, context, (12, 13, 14), frozenset(range(5)), Selection((1, 2), 1), groups=GROUPS)
    window = Window(SIZES, store, Divided(), shared=shared)
    plan = replace(plan, bias=BIAS if bias else None)
    window.begin(replace(plan, clean=context[3:]) if clean else plan)
    return window, store, held


def head_by_head(
    layer: int, held: dict[object, tuple[Tensor, Tensor]], q: Tensor, k: Tensor, v: Tensor, added: Sequence[float] = (0.0,) * 5
) -> Tensor:
    """Attention of every head by itself over the frames of its group and the block."""
    turns = {slot: rope.frame_table([position], 2, 2, 16) for slot, (_, position) in enumerate(CONTEXT)}
    own = rope.frame_table((12, 13, 14), 2, 2, 16)
    chosen = [token + layer % 2 for token in (1, 3, 5, 6)]
    out = torch.empty_like(q)
    for number in range(10):
        sample, head = divmod(number, 5)
        (group,) = (group for group, rows in zip(GROUPS, HEADS[layer], strict=True) if number in rows)
        keys, values = [], []
        for slot in group.slots:
            source = CONTEXT[slot][0]
            two = (
                [torch.cat([held[1][part][layer], held[2][part][layer]], 1)[:, chosen] for part in (0, 1)]
                if source == COMPRESSED
                else [held[source][part][layer] for part in (0, 1)]
            )
            keys.append(rope.rotate(two[0], turns[slot])[sample, :, head])
            values.append(two[1][sample, :, head])
        keys.append(rope.rotate(k, own)[sample, :, head])
        values.append(v[sample, :, head])
        more = torch.tensor([*(added[slot] for slot in group.slots), 0.0, 0.0, 0.0]).repeat_interleave(TOKENS)
        weights = (rope.rotate(q, own)[sample, :, head] @ torch.cat(keys).T / 4 + more).softmax(-1)
        out[sample, :, head] = weights @ torch.cat(values)
    return out


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("shared", [False, True], ids=["resident", "shared"])
def test_groups_equal_a_loop_over_heads(shared: bool, bias: bool) -> None:
    """In the pass that lays the context down and in those that meet it again, layer after layer as the network asks."""
    window, _, held = begun(shared, bias=bias)
    random = torch.Generator().manual_seed(1)
    added = {Pass.FIRST: BIAS[0], Pass.NEXT: BIAS[1]} if bias else {}
    for turn in (window.turn_next, window.turn_next, window.turn_clean):
        for layer in range(3):
            q, k, v = torch.randn(3, BATCH, 12, 5, 16, generator=random)
            ours = window.attend(layer, q, k, v)
            if window.phase is Pass.CLEAN and layer == 2:
                break
            expected = head_by_head(layer, held, q, k, v, added.get(window.phase, (0.0,) * 5))
            assert torch.allclose(ours, expected, atol=1e-5), (window.phase, layer, report(ours, expected))
        turn()


def test_what_is_attended_to_is_the_mean_over_heads() -> None:
    window, _, _ = begun(False)
    by_hand = [len(group.slots) + 3 for rows in HEADS for group, heads in zip(GROUPS, rows, strict=True) for _ in heads]
    assert window.attended == pytest.approx(sum(by_hand) / 30)
    halves = HeadGroup("a", (0,), 0.25), HeadGroup("b", (1, 2, 3)), HeadGroup("c", (4,))
    assert replace(window.plan, groups=halves).attended == 3 + 0.25 * 1 + 0.75 * 3
    assert replace(window.plan, groups=()).attended == 8


@pytest.mark.parametrize("shared", [False, True], ids=["resident", "shared"])
def test_a_clean_pass_of_its_own_knows_no_groups(shared: bool) -> None:
    window, store, held = begun(shared, clean=True)
    q, k, v = torch.randn(3, BATCH, 12, 5, 16, generator=torch.Generator().manual_seed(1))
    window.attend(0, q, k, v)
    window.turn_next()
    window.turn_clean()
    store.admit((9, 10, 11))
    ours = window.attend(0, q, k, v)
    turn = rope.frame_table((8, 9, 12, 13, 14), 2, 2, 16)
    keys = rope.rotate(torch.cat([held[3][0][0], held[4][0][0], k], 1), turn)
    weights = torch.einsum("bnhd,bmhd->bhnm", rope.rotate(q, turn[8:]), keys).div(4).softmax(-1)
    expected = torch.einsum("bhnm,bmhd->bnhd", weights, torch.cat([held[3][1][0], held[4][1][0], v], 1))
    assert torch.allclose(ours, expected, atol=1e-5), report(ours, expected)


def test_slots_that_follow_each_other_are_one_copy() -> None:
    assert runs((0, 1, 4, 6, 7, 8)) == [(0, 0, 2), (2, 4, 1), (3, 6, 3)] and runs(()) == []
