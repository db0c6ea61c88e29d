"""Token selection inside real rollouts against a slow path that follows the definitions, on several geometries, fp32 and bf16.

Path 1: the engine's device code. Path 2: Python loops over frames, tokens, heads and channels on the same stored keys and queries.
"""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

from baselines.deep_forcing import DeepForcing, Participation
from echo.backbone import rope
from echo.backbone.wan import WanConfig, WanModel
from echo.cache.plan import Plan
from echo.geometry import Geometry
from echo.memory.state import EchoMemory
from echo.noise import keyed_noise
from echo.policy import Echo
from echo.rollout import Rollout
from tests.helpers.policies import make

GEOMETRIES = [Geometry(2, 2, 16, 2, 3), Geometry(1, 3, 8, 1, 2), Geometry(1, 1, 32, 3, 2)]


def watched(geometry: Geometry, name: str, dtype: torch.dtype, blocks: int) -> list[tuple[Rollout, int, Plan, Tensor, Tensor]]:
    """Every selection of a rollout: (rollout, layer, plan, the block's first-pass raw queries [N, H, D], chosen indices)."""
    torch.manual_seed(1)
    width = geometry.heads * geometry.head_dim
    model = WanModel(WanConfig(width, 2 * width, geometry.heads, geometry.layers, 16, 8, 4)).to(dtype).eval().requires_grad_(False)
    noise = keyed_noise(0, ["p"], (3, 16, geometry.latent_height, geometry.latent_width), dtype=dtype)
    rollout = Rollout(model, make(name), geometry, noise)
    rollout.switch(torch.randn(1, 4, 8).to(dtype))
    rows: list[tuple[Rollout, int, Plan, Tensor, Tensor]] = []
    select = rollout.memory.select

    def spy(layer: int, plan: Plan, q: Tensor) -> Tensor:
        expected = slow_echo if isinstance(rollout.policy, Echo) else slow_deep
        scores = expected(rollout, layer, plan, q[0].double())
        index = select(layer, plan, q)
        rows.append((rollout, layer, plan, scores, index[0]))
        return index

    rollout.memory.select = spy  # type: ignore[method-assign]
    for _ in range(blocks):
        rollout.next()
    return rows


def complex_channels(x_HD: Tensor) -> list[list[complex]]:
    return [[complex(float(head[2 * f]), float(head[2 * f + 1])) for f in range(len(head) // 2)] for head in x_HD]


def slow_echo(rollout: Rollout, layer: int, plan: Plan, q_NHD: Tensor) -> Tensor:
    """Eqs. (2) to (5): offset by offset, angle by angle."""
    memory, policy, geometry = rollout.memory, rollout.policy, rollout.geometry
    assert isinstance(memory, EchoMemory) and isinstance(policy, Echo) and plan.selection is not None
    statistics = memory.layers[layer]
    centre, magnitude = statistics.centre_BHC[0].tolist(), statistics.magnitude_BHC[0].tolist()
    recent = complex_channels(q_NHD.mean(0))
    flat = [(a, b) for rows in zip(recent, centre, strict=True) for a, b in zip(*rows, strict=True)]
    norm = math.sqrt(sum(abs(a) ** 2 for a, _ in flat)) * math.sqrt(sum(abs(b) ** 2 for _, b in flat))
    gate = math.exp(-policy.drift_gate_lambda * (1 - sum((a * b.conjugate()).real for a, b in flat) / norm))
    times = rope.split(geometry.head_dim)[0]
    scores = []
    for frame in plan.selection.candidates:
        for key in rollout.store.keys(layer, frame)[0].double():
            total = 0.0
            for head, k_row in enumerate(complex_channels(key)):
                for f, k in enumerate(k_row):
                    bar, omega = centre[head][f], 10000 ** (-f / times) if f < times else 0.0
                    gap = cmath.phase(bar * k.conjugate())
                    for offset in policy.offsets:
                        total += abs(bar) * abs(k) * math.cos(gap + omega * (plan.first_frame - frame + offset)) / len(policy.offsets)
                    total += gate * (magnitude[head][f] - abs(bar)) * abs(k)
            scores.append(total / geometry.heads)
    return torch.tensor(scores, dtype=torch.float64)


def slow_deep(rollout: Rollout, layer: int, plan: Plan, q_NHD: Tensor) -> Tensor:
    """Sum over recent queries of rotated dot products, token by token, with the reuse cap kept in a dictionary by place."""
    memory, policy, store, geometry = rollout.memory, rollout.policy, rollout.store, rollout.geometry
    assert isinstance(memory, Participation) and isinstance(policy, DeepForcing) and plan.selection is not None
    tokens, uses = geometry.tokens_per_frame, rollout.__dict__.setdefault("_uses", {})

    def turned(x_HD: Tensor, place: int) -> Tensor:
        index = (
            torch.tensor([place // tokens]),
            torch.tensor([place % tokens // geometry.grid_width]),
            torch.tensor([place % geometry.grid_width]),
        )
        return rope.rotate(x_HD[None, None].float(), rope.table(*index, geometry.head_dim))[0, 0].double()

    past = memory.past[layer]
    assert past is not None
    first = plan.first_frame - past.shape[1] // tokens
    queries = [(q, first * tokens + n) for n, q in enumerate(past[0].double())]
    queries += [(q, plan.first_frame * tokens + n) for n, q in enumerate(q_NHD)]
    total = torch.stack([turned(q, place) for q, place in queries])
    scores = []
    places = store.places(layer, plan.selection.candidates)[0].tolist()
    keys = store.sources(layer, plan.selection.candidates)[0].flatten(1, 2)[0].double()
    for key, place in zip(keys, places, strict=True):
        rotated = turned(key, place)
        capped = uses.get((layer, place), 0) >= policy.reuse_limit
        scores.append(-math.inf if capped else sum(float((q * rotated).sum()) for q in total))
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[: plan.selection.frames * tokens]
    chosen = {places[i]: uses.get((layer, places[i]), 0) + 1 for i in best}
    for key in [key for key in uses if key[0] == layer]:
        del uses[key]
    uses.update({(layer, place): count for place, count in chosen.items()})
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["2x3", "1x2", "3x2"])
@pytest.mark.parametrize(("name", "blocks"), [("echo", 11), ("deep_forcing_official", 27), ("deep_forcing_table", 19)])
def test_selection_equals_its_definition(name: str, blocks: int, geometry: Geometry, dtype: torch.dtype) -> None:
    rows = watched(geometry, name, dtype, blocks)
    assert rows
    for _, layer, plan, scores, index in rows:
        count = len(index)
        expected = scores.topk(count).indices.sort().values
        if torch.equal(expected, index):
            continue
        # A different choice is allowed only between scores that rounding cannot tell apart.
        ours, best = scores[index].sort().values, scores[expected].sort().values
        slack = 1e-4 * float(scores[scores.isfinite()].abs().max())
        gap = (ours - best).abs()
        assert float(gap.max()) <= slack, f"{name} layer {layer} block {plan.block}: max {gap.max():.3g}, mean {gap.mean():.3g}"


def test_the_reuse_cap_bites() -> None:
    """With a cap of one, no place is ever chosen twice in a row."""
    geometry = GEOMETRIES[0]
    torch.manual_seed(1)
    model = WanModel(WanConfig(32, 64, 2, 2, 16, 8, 4)).eval().requires_grad_(False)

    def overlaps(limit: int) -> int:
        rows: list[set[int]] = []

        def keep(layer: int, plan: Plan, index: Tensor) -> None:
            if layer == 0 and plan.selection is not None:
                places = rollout.store.places(0, plan.selection.candidates)[0]
                rows.append(set(places[index[0]].tolist()))

        policy = make("deep_forcing_official", reuse_limit=limit)
        rollout = Rollout(model, policy, geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), on_select=keep)
        rollout.switch(torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)))
        for _ in range(25):
            rollout.next()
        return sum(len(a & b) for a, b in zip(rows[:-1], rows[1:], strict=True))

    assert overlaps(1) == 0 < overlaps(7)
