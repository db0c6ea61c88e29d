"""The window and the rollout against attention written out, and against the network run on a whole masked sequence."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import rope
from echo.backbone.wan import WanModel
from echo.cache.kinds import COMPRESSED, Kind, MemoryName
from echo.cache.plan import Plan, Selection, Slot
from echo.cache.policy import Memory
from echo.cache.store import FrameStore, Named
from echo.cache.window import Window
from echo.geometry import Geometry
from echo.noise import keyed_noise, stream_seed
from echo.rollout import Rollout
from echo.sampler import Schedule, schedule
from echo.scene import Transition
from tests.helpers.compare import report
from tests.helpers.policies import make

ANSWER = Slot(2, 0, Kind.ANCHOR), Slot(MemoryName("gem"), 1, Kind.RECALLED), Slot(COMPRESSED, 2, Kind.COMPRESSED), Slot(0, 9, Kind.RECENT)


class Fixed(Memory):
    """A memory that selects given tokens and fades the first slot."""

    def __init__(self, index: Tensor, fade: Tensor) -> None:
        self.index, self.fade = index, fade

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        return self.index

    def weights(self, layer: int, plan: Plan) -> Tensor:
        return self.fade


@pytest.mark.parametrize(("own_spatial", "shift"), [(False, None), (True, None), (True, 0), (True, -4)])
def test_window_equals_attention_written_out(geometry: Geometry, own_spatial: bool, shift: int | None) -> None:
    """Path 1: the window. Path 2: tokens gathered one by one, each rotated at its own (t, h, w), soft maximum by hand.

    With a shift, chosen tokens have their own time too, here also one before 0.
    """
    tokens, rng = geometry.tokens_per_frame, torch.Generator().manual_seed(0)
    store = FrameStore(geometry, 6, 2, dtype=torch.float32, device=torch.device("cpu"))
    store.admit([0, 1, 2])
    past_k, past_v = torch.randn(2, 2, 3 * tokens, 2, 16, generator=rng)
    gem = torch.randn(2, 2, tokens, 2, 16, generator=rng)
    for layer in range(2):
        store.write(layer, [0, 1, 2], past_k, past_v)
    for layer in range(2):
        store.remember(MemoryName("gem"), layer, Named(gem[0], gem[1]))
    store.admit([3, 4, 5])
    index = torch.tensor([[0, 2, 5, 7, 8, 11], [1, 3, 4, 6, 9, 10]])
    fade = torch.rand(2, tokens, generator=rng)
    window = Window(geometry, store, Fixed(index, fade))
    keep = frozenset(range(6))
    slots = tuple(dataclasses.replace(slot, position=None) if slot.source == COMPRESSED and shift is not None else slot for slot in ANSWER)
    window.begin(Plan(1, 0, 3, slots, (10, 11, 12), keep, Selection((1, 2), 1, own_spatial, shift or 0), faded=1))
    q, k, v = torch.randn(3, 2, 3 * tokens, 2, 16, generator=rng)
    ours = window.attend(1, q, k, v)
    window.turn_next()
    again = window.attend(1, q, k, v)
    assert torch.equal(ours, again)

    for b in range(2):
        rows: list[tuple[Tensor, Tensor, tuple[int, int, int]]] = []
        for u in range(tokens):
            rows.append((past_k[b, 2 * tokens + u] * fade[b, u], past_v[b, 2 * tokens + u] * fade[b, u], (0, u // 3, u % 3)))
        rows += [(gem[0, b, u], gem[1, b, u], (1, u // 3, u % 3)) for u in range(tokens)]
        for rank, token in enumerate(index[b].tolist()):
            place = token % tokens if own_spatial else rank
            time = 2 if shift is None else 1 + token // tokens + shift
            rows.append((past_k[b, tokens + token], past_v[b, tokens + token], (time, place // 3, place % 3)))
        rows += [(past_k[b, u], past_v[b, u], (9, u // 3, u % 3)) for u in range(tokens)]
        own = [(10 + n // tokens, n % tokens // 3, n % 3) for n in range(3 * tokens)]
        rows += [(k[b, n], v[b, n], own[n]) for n in range(3 * tokens)]

        def turned(x: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
            t, h, w = (torch.tensor(axis) for axis in zip(*places, strict=True))
            return rope.rotate(x[None], rope.table(t, h, w, 16))[0]

        keys = turned(torch.stack([row[0] for row in rows]), [row[2] for row in rows])
        values = torch.stack([row[1] for row in rows])
        weights = torch.einsum("nhd,mhd->hnm", turned(q[b], own), keys).div(4).softmax(-1)
        expected = torch.einsum("hnm,mhd->nhd", weights, values)
        assert torch.allclose(ours[b], expected, atol=1e-5), report(ours[b], expected)


@pytest.mark.parametrize("size", [3, 1])
def test_cached_rollout_equals_one_masked_forward(model: WanModel, geometry: Geometry, texts: Tensor, size: int) -> None:
    """Path 1: Self-Forcing's rollout inside its window. Path 2: the whole video at t = 0 and the last block's noisy latents in one
    forward under a block-causal mask; flow of the first denoising step must agree. In blocks of three frames and of one."""
    noise = keyed_noise(0, ["p"], (size, 16, 4, 6))
    rollout = Rollout(model, make("self_forcing"), dataclasses.replace(geometry, frames_per_block=size), noise)
    rollout.switch(texts[:1])
    clean = torch.cat([rollout.next().latents for _ in range(12 // size)], 1)
    seen: list[Tensor] = []
    forward = model.forward

    class Spy:
        """Keeps the first flow of the next block."""

        config, patch_embedding, text_states, time_states = model.config, model.patch_embedding, model.text_states, model.time_states

        def __call__(self, *arguments: object) -> Tensor:
            seen.append(forward(*arguments))
            return seen[-1]

    rollout.model = Spy()
    rollout.next()

    tokens = geometry.tokens_per_frame
    video = torch.cat([clean, noise(12 // size, 0)], 1)
    time = model.time_states(torch.cat([torch.zeros(1, 12), torch.full((1, size), 1000.0)], 1))
    block = torch.arange(12 + size).div(size, rounding_mode="floor").repeat_interleave(tokens)
    turn = rope.frame_table(range(12 + size), 2, 3, 16)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = [x.transpose(1, 2) for x in (rope.rotate(q, turn), rope.rotate(k, turn), v)]
        return fn.scaled_dot_product_attention(*heads_first, attn_mask=block[:, None] >= block[None]).transpose(1, 2)

    expected = model(video, time, model.text_states(texts[:1]), attend)[:, 12:]
    assert torch.allclose(seen[0], expected, atol=1e-5), report(seen[0], expected)


def test_noise_depends_on_its_key_alone() -> None:
    together, alone = keyed_noise(3, ["a", "b"], (3, 16, 4, 6)), keyed_noise(3, ["b"], (3, 16, 4, 6))
    late = together(7, 2)
    assert torch.equal(late[1], alone(7, 2)[0])
    keys = {stream_seed(s, p, b, d) for s in (0, 1) for p in ("a", "b") for b in (0, 1) for d in (0, 1)}
    assert len(keys) == 16
    repeated = keyed_noise(3, ["b"], (3, 16, 4, 6), repeat_initial=True)
    assert torch.equal(repeated(7, 0), alone(0, 0)) and torch.equal(repeated(7, 1), alone(7, 1))
    assert abs(float(torch.cat([together(b, 0) for b in range(40)]).std()) - 1) < 0.02


def test_a_rollout_takes_switches_between_blocks(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    rollout = Rollout(model, make("echo"), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)))
    with pytest.raises(ValueError, match="no scene yet"):
        rollout.next()
    with pytest.raises(ValueError, match="recall of scene 1: none has been shown yet"):
        rollout.switch(texts[:1], Transition.recall, 0)
    rollout.switch(texts[:1])
    stream = rollout.blocks()
    scenes = [next(stream).scene for _ in range(3)]
    rollout.switch(texts[1:2], Transition.hard, None, 45)
    scenes += [next(stream).scene for _ in range(2)]
    assert scenes == [0, 0, 0, 1, 1]


def test_steps_are_a_setting(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    def first(steps: list[int]) -> Tensor:
        rollout = Rollout(model, make("echo"), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), steps=schedule(steps))
        rollout.switch(texts[:1])
        return rollout.next().latents

    assert not torch.allclose(first([1000, 750, 500, 250]), first([1000, 500]), atol=1e-3)


def test_a_first_block_has_steps_of_its_own(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Path 2: a rollout of the first block's steps for block 0; passes are counted for both blocks."""

    def passes(steps: Schedule) -> tuple[list[int], Tensor]:
        seen: list[Tensor] = []
        rollout = Rollout(model, make("self_forcing"), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), steps=steps)
        attend = rollout.window.attend
        rollout.window.attend = lambda layer, *qkv: seen.append(qkv[0]) or attend(layer, *qkv)  # type: ignore[func-returns-value, method-assign]
        rollout.switch(texts[:1])
        counts, latents = [], []
        for _ in range(2):
            latents.append(rollout.next().latents)
            counts.append(len(seen) // geometry.layers)
            seen.clear()
        return counts, latents[0]

    own, first = passes(schedule([1000], first=[1000, 750, 500, 250]))
    usual, expected = passes(schedule())
    assert own == [5, 2] and usual == [5, 5] and torch.equal(first, expected)
    assert schedule([1000], first=[1000, 500]).draws == 2 and schedule([1000, 500], first=[1000]).clock == (1000, 5000 / 6, 0)


def test_the_store_forgets_and_reuses(geometry: Geometry) -> None:
    store = FrameStore(geometry, 3, 1, dtype=torch.float32, device=torch.device("cpu"))
    store.admit([0, 1, 2])
    k = torch.arange(18.0).reshape(1, 18, 1, 1).expand(1, 18, 2, 16)
    store.write(0, [0, 1, 2], k, -k)
    store.release(frozenset({1}))
    store.admit([3])
    assert store.frames(0, [1])[0][0, 0, :, 0, 0].tolist() == [6, 7, 8, 9, 10, 11]
    assert store.frames(0, [1])[1][0, 0, 0, 0, 0] == -6
    with pytest.raises(AssertionError, match="full"):
        store.admit([4, 5])


def test_geometry_refuses_impossible_sizes() -> None:
    small = Geometry(1, 1, 8, 1, 1)
    with pytest.raises(ValueError, match="nearest is 6"):
        dataclasses.replace(small, head_dim=4)
    with pytest.raises(ValueError, match="nearest is 6"):
        dataclasses.replace(small, window_frames=3)
