"""Each equation of Echo-Forcing against a second, slower path."""

from __future__ import annotations

import math

import pytest
import torch

from echo.backbone.rope import temporal_frequencies
from echo.memory import compression, decay, recall
from echo.memory.anchors import Rolling, anchors, insertion
from echo.memory.settings import DecayMap, RecallFrame, RecallPart
from tests.helpers.compare import report

B, T, S, H, D = 2, 5, 6, 3, 16
OFFSETS = (1, 2, 4, 8, 16)


@pytest.fixture
def keys() -> torch.Tensor:
    return torch.randn(B, T, S, H, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def queries() -> torch.Tensor:
    return torch.randn(B, 40, H, D, generator=torch.Generator().manual_seed(1)) + 0.5


def test_phase_score_closed_form_equals_its_definition(keys: torch.Tensor, queries: torch.Tensor) -> None:
    """Path 1: one dot product per token. Path 2: eq. (3) as written, angle by angle, then the mean over offsets and heads."""
    omega = temporal_frequencies(D)
    ages = torch.tensor([21, 20, 12, 5, 4])
    centre = compression.as_complex(queries).mean(1)
    ours = compression.phase_score(keys, centre, compression.offset_phase(omega, OFFSETS), omega, ages)

    k = compression.as_complex(keys).to(torch.complex128)
    q = centre.to(torch.complex128)[:, None, None]
    gap = torch.angle(q * k.conj())
    slow = torch.zeros(B, T, S, dtype=torch.float64)
    for offset in OFFSETS:
        distance = (ages + offset).double()[None, :, None, None, None]
        slow += (q.abs() * k.abs() * torch.cos(gap + omega * distance)).sum(-1).mean(-1) / len(OFFSETS)
    assert torch.allclose(ours.double(), slow, atol=1e-5), report(ours, slow)


def test_amplitude_and_gate(keys: torch.Tensor, queries: torch.Tensor) -> None:
    z = compression.as_complex(queries)
    centre, magnitude = z.mean(1), z.abs().mean(1)
    ours = compression.amplitude_score(keys, centre, magnitude)
    slow = torch.zeros(B, T, S)
    for b in range(B):
        for h in range(H):
            for f in range(D // 2):
                size = (keys[b, :, :, h, 2 * f] ** 2 + keys[b, :, :, h, 2 * f + 1] ** 2).sqrt()
                slow[b] += (magnitude[b, h, f] - centre[b, h, f].abs()) * size / H
    assert torch.allclose(ours, slow, atol=1e-5), report(ours, slow)

    recent = queries[:, :7].mean(1)
    gate = compression.drift_gate(recent, centre, 3.0)
    for b in range(B):
        a, c = recent[b].flatten(), queries[b].mean(0).flatten()
        cosine = float(a @ c / (a.norm() * c.norm()))
        assert float(gate[b]) == pytest.approx(math.exp(-3 * (1 - cosine)), rel=1e-5)
    same = compression.drift_gate(queries.mean(1), centre, 3.0)
    assert torch.allclose(same, torch.ones(B), atol=1e-6)


def test_top_tokens_are_the_best_in_time_order() -> None:
    score = torch.tensor([[0.1, 5.0, -1.0, 4.0, 3.0]])
    assert compression.top_tokens(score, 3).tolist() == [[1, 3, 4]]


def test_recall_frame_by_hand() -> None:
    keys = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]]).reshape(1, 2, 1, 1, 2)
    centre = torch.tensor([[[1.0, 1.0]]])
    weights = recall.recall_weights(keys, centre)
    second = math.exp(3) / (math.exp(1) + math.exp(3))
    assert weights[0, :, 0].tolist() == pytest.approx([1 - second, second])
    assert recall.fuse(keys, weights, 0.0)[0, 0, 0].tolist() == pytest.approx([1 - second, 3 * second])
    assert recall.fuse(keys, weights, 0.9)[0, 0, 0].tolist() == pytest.approx([0.9 + 0.1 * (1 - second), 0.3 * second])


def test_recall_candidates() -> None:
    assert RecallFrame().candidates(39) == (0, 4, 8)
    assert RecallFrame().candidates(6) == (0, 4)
    assert RecallFrame(part=RecallPart.stable, count=5).candidates(39) == (6, 10, 13, 16, 20)
    assert RecallFrame(part=RecallPart.stable, count=5).candidates(6) == (0,)


def test_decay_by_hand() -> None:
    old = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).reshape(1, 1, 3, 1, 2)
    new = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).reshape(1, 3, 1, 2)
    d = decay.discrepancy(old, new.unsqueeze(1))[0, 0]
    assert d.tolist() == pytest.approx([0, 1, 1 - math.sqrt(0.5)], abs=1e-6)
    delta = decay.normalise(d[None])[0]
    assert decay.retention(delta, 0.55, 0.9, DecayMap.rho)[:2].tolist() == pytest.approx([0.9, 0.55])
    halfway = torch.tensor([0.5])
    assert float(decay.retention(halfway, 0.55, 0.9, DecayMap.rho)) == pytest.approx(0.725)
    assert float(decay.retention(halfway, 0.55, 0.9, DecayMap.mu)) == pytest.approx(math.sqrt(0.55 * 0.9))


def test_equal_discrepancies_normalise_to_zero() -> None:
    assert decay.normalise(torch.full((1, 4), 0.3) + torch.tensor([0, 1e-7, 0, 0])).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("order", "pool", "expected"),
    [
        (Rolling.ping_pong, 12, [(11, 10, 9), (8, 7, 6), (5, 4, 3), (2, 1, 0), (0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (11, 10, 9)]),
        (Rolling.ping_pong, 18, [(17, 16, 15), (14, 13, 12), (11, 10, 9), (8, 7, 6), (5, 4, 3), (2, 1, 0), (0, 1, 2), (3, 4, 5)]),
        (Rolling.walk, 18, [(12, 13, 14), (15, 16, 17), (17, 16, 15), (14, 13, 12), (11, 10, 9)]),
        (Rolling.walk, 12, [(11, 10, 9), (8, 7, 6), (5, 4, 3), (2, 1, 0), (0, 1, 2)]),
        (Rolling.per_update, 12, [(3, 4, 5), (8, 7, 6), (9, 10, 11), (2, 1, 0), (3, 4, 5)]),
        (Rolling.forward, 12, [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (0, 1, 2)]),
        (Rolling.backward, 12, [(11, 10, 9), (8, 7, 6), (5, 4, 3), (2, 1, 0), (11, 10, 9)]),
    ],
)
def test_insertions(order: Rolling, pool: int, expected: list[tuple[int, ...]]) -> None:
    assert [insertion(r, 12, pool, 3, order) for r in range(1, len(expected) + 1)] == expected


def test_anchors_are_a_queue() -> None:
    for order in Rolling:
        for pool in (12, 18):
            queue = list(range(12))
            for update in range(1, 40):
                if order is not Rolling.static:
                    queue = (queue + list(insertion(update, 12, pool, 3, order)))[-12:]
                assert anchors(update, 12, pool, 3, order) == tuple(queue), (order, pool, update)
    assert anchors(4, 12, 12, 3, Rolling.ping_pong) == tuple(range(11, -1, -1))
    assert anchors(8, 12, 12, 3, Rolling.ping_pong) == tuple(range(12))
