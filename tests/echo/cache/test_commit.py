"""A clean pass with a context of its own, against the network run by hand on the newest frames alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone import rope
from echo.backbone.wan import WanModel
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.rollout import Rollout
from tests.helpers.compare import report
from tests.helpers.policies import GEOMETRIES, S, make


def rollout_of(model: WanModel, geometry: Geometry, name: str, commit: int, *, shared: bool = False) -> Rollout:
    policy = make(name, commit=commit)
    return Rollout(model, policy, geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), shared_window=shared)


def test_the_same_frames_give_the_same_bytes(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Self-Forcing's window is its newest 21 frames anyway."""

    def run(commit: int) -> Tensor:
        rollout = rollout_of(model, geometry, "self_forcing", commit)
        rollout.switch(texts[:1])
        return torch.cat([rollout.next().latents for _ in range(9)], 1)

    assert torch.equal(run(21), run(0))
    assert not torch.allclose(run(9), run(0), atol=1e-3)


@pytest.mark.parametrize("shared", [False, True], ids=["resident", "shared"])
@pytest.mark.parametrize(
    ("name", "commit", "blocks", "since"),
    [
        ("longlive", 12, 8, 0),
        ("streaming_llm", 21, 9, 0),
        ("rolling_sink", 15, 9, 0),
        ("echo", 12, 9, 0),
        ("echo", 12, 10, 8),
        ("memrope", 3, 6, 0),
    ],
)
def test_a_clean_pass_reads_the_newest_alone(
    model: WanModel, geometry: Geometry, texts: Tensor, name: str, commit: int, blocks: int, since: int, shared: bool
) -> None:
    """Path 1: what the last block left in the store. Path 2: its latents at t = 0, with the frames before it as they were stored,
    rotated to the indices right before the block's, through plain attention.
    `since`: block of a smooth transition, whose old scene is read for five blocks and never in a clean pass."""
    rollout = rollout_of(model, geometry, name, commit, shared=shared)
    rollout.switch(texts[:1])
    for block in range(blocks):
        if since and block == since:
            rollout.switch(texts[1:2], S)
        rollout.next()
    first = 3 * blocks
    newest = range(max(3 * since, first + 3 - commit), first)
    before = [tuple(part.clone() for part in rollout.store.frames(layer, newest)) for layer in range(geometry.layers)]
    made = rollout.next()
    turn = rope.frame_table([made.plan.queries[0] - first + f for f in (*newest, first, first + 1, first + 2)], 2, 3, 16)
    expected: list[tuple[Tensor, Tensor]] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        expected.append((k, v))
        keys, values = (torch.cat([past.flatten(1, 2), own], 1) for past, own in zip(before[layer], (k, v)))
        heads_first = [x.transpose(1, 2) for x in (rope.rotate(q, turn[-q.shape[1] :]), rope.rotate(keys, turn), values)]
        return fn.scaled_dot_product_attention(*heads_first).transpose(1, 2)

    text = model.text_states(texts[1:2] if since else texts[:1])
    model(made.latents, model.time_states(torch.zeros(1, 3)), text, attend)
    for layer, (k, v) in enumerate(expected):
        ours = torch.cat(rollout.store.frames(layer, range(first, first + 3)), 1).flatten(1, 2)
        assert torch.allclose(ours, torch.cat([k, v], 1), atol=1e-5), (layer, report(ours, torch.cat([k, v], 1)))


@pytest.mark.parametrize("name", ["longlive", "streaming_llm", "anchor_forcing", "echo", "memrope", "relax_forcing"])
def test_counts_that_cannot_be_are_refused(name: str) -> None:
    for commit in (-1, 2, 22):
        with pytest.raises(ValueError, match=f"commit .0 for none.*{commit}.*3..21"):
            make(name, commit=commit).check(GEOMETRIES[0], 3)
