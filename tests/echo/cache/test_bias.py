"""An added logit for each frame and pass, against soft maxima over heads and tokens written out."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from baselines.recency import added_logit
from echo.backbone import kernels, rope
from echo.backbone.wan import WanModel
from echo.cache.kinds import Kind
from echo.cache.plan import Plan, Slot
from echo.cache.policy import Memory
from echo.cache.store import FrameStore
from echo.cache.window import Window
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.rollout import Rollout
from tests.helpers.attention import by_hand
from tests.helpers.compare import report
from tests.helpers.policies import at, make

BIAS = (0.0, -4.0, 1.5), (-0.5, 2.0, -30.0)


@pytest.mark.parametrize("shared", [False, True], ids=["resident", "shared"])
def test_each_pass_adds_its_row_and_the_clean_one_nothing(geometry: Geometry, shared: bool) -> None:
    tokens, rng = geometry.tokens_per_frame, torch.Generator().manual_seed(0)
    store = FrameStore(geometry, 6, 1, dtype=torch.float32, device=torch.device("cpu"))
    store.admit(range(6))
    past_k, past_v = torch.randn(2, 1, 3 * tokens, 2, 16, generator=rng)
    for layer in range(2):
        store.write(layer, [0, 1, 2], past_k, past_v)
    window = Window(geometry, store, Memory(), shared=shared)
    context = tuple(Slot(frame, frame, Kind.RECENT) for frame in range(3))
    window.begin(Plan(1, 0, 3, context, (3, 4, 5), frozenset(range(6)), bias=BIAS))
    turn = rope.frame_table(range(6), 2, 3, 16)
    for number in range(4):  # two rows; the last holds for a third pass; then the clean one
        if number == 3:
            window.turn_clean()
        q, k, v = torch.randn(3, 1, 3 * tokens, 2, 16, generator=rng)
        ours = window.attend(0, q, k, v)[0]
        row = (0.0, 0.0, 0.0) if number == 3 else BIAS[min(number, 1)]
        added = [value for value in (*row, 0.0, 0.0, 0.0) for _ in range(tokens)]
        keys = rope.rotate(torch.cat([past_k, k], 1), turn)[0]
        expected = by_hand(rope.rotate(q, turn[3 * tokens :])[0], keys, torch.cat([past_v, v], 1)[0], added)
        assert torch.allclose(ours, expected, atol=1e-5), (number, report(ours, expected))
        window.turn_next()


def test_the_kernel_is_asked_with_a_bias_only_where_a_plan_has_one(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Per block the calls of layer 0: four noisy passes and the clean one. The rows are those of the formula, by frame."""
    calls: list[tuple[float, ...] | None] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, *bias: Tensor) -> Tensor:
        rows = [one[0, 0, 0].unflatten(0, (-1, geometry.tokens_per_frame)) for one in bias]
        assert all(bool((row == row[:, :1]).all()) for row in rows)
        calls.append(tuple(rows[0][:, 0].tolist()) if rows else None)
        return kernels.attention("sdpa")(q, k, v, *bias)

    def run(name: str, **changes: object) -> Tensor:
        calls.clear()
        rollout = Rollout(model, make(name, **changes), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), attention=spy)
        rollout.switch(texts[:1])
        return torch.cat([rollout.next().latents for _ in range(8)], 1)

    biased = run("recency")
    a_block = 4 * geometry.layers + geometry.layers - 1  # the last layer of a clean pass attends to nothing
    assert len(calls) == 8 * a_block and set(calls[: 3 * a_block]) == {None}
    for number in range(4):
        g = 0.1 * 2 ** (number + 1)
        chunks = [0.0 if d == 1 else -4 * min(1.0, max(0, d - 1) / 4) ** g for d in (5, 4, 3, 2, 1)]
        expected = [0.0] * 3 + [value for value in chunks for _ in range(3)] + [0.0] * 3
        assert calls[7 * a_block + number * geometry.layers] == pytest.approx(expected, abs=1e-6)
    assert calls[8 * a_block - 1] is None
    none = run("recency", bias_most=0)
    plain = run("streaming_llm")
    assert set(calls) == {None} and torch.allclose(none, plain, atol=1e-4), report(none, plain)
    assert not torch.allclose(biased, plain, atol=1e-3)


def test_a_plan_says_what_its_bias_leaves_and_can_be_printed() -> None:
    plan = at("recency", 10)
    assert plan.bias is not None and plan.as_json() == json.loads(json.dumps(plan.as_json())) and len(plan.as_json()["bias"]) == 4
    shares = plan.shares()
    assert shares[:3] == shares[-6:-3] == shares[-3:] == [1.0] * 3
    for slot in range(3, 15):
        assert shares[slot] == pytest.approx(sum(math.exp(row[slot]) for row in plan.bias) / 4)
    assert at("longlive", 10).shares() == [1.0] * 12


def test_a_newest_chunk_has_none_whatever_the_exponent() -> None:
    assert [added_logit(d, 1, 4.0, 4, 0.0) for d in (0, 1, 2)] == [0.0, 0.0, -4.0]


@pytest.mark.parametrize("name", ["cudnn", "flash", "flash3"])
def test_kernels_that_add_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"kernel '{name}': adds no bias to logits, .*; nearest is 'sdpa'"):
        kernels.resolve(name, "cuda", biased=True)
    assert kernels.resolve("auto", "cuda", biased=True) == kernels.resolve("sdpa", "cuda", biased=True) == "sdpa"
