"""What policies keep and choose on the device, against loops over layers, heads and tokens on the states that a recorder copied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.relax_forcing import spread
from baselines.reward_ema import means
from baselines.tethercache import Tether, align
from echo.backbone.wan import WanConfig, WanModel
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.recording import Recorder
from echo.rollout import Rollout
from tests.helpers.policies import make

GEOMETRY = Geometry(layers=2, heads=2, head_dim=16, grid_height=2, grid_width=3)


def begun(name: str, **changes: object) -> tuple[Rollout, Recorder]:
    torch.manual_seed(7)
    network = WanModel(WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6))
    rollout = Rollout(
        network.eval().requires_grad_(False), make(name, **changes), GEOMETRY, keyed_noise(0, ["a", "b"], (3, 16, 4, 6)), batch=2
    )
    recorder = Recorder()
    recorder.watch(rollout)
    rollout.switch(torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3)))
    return rollout, recorder


def recorded(name: str, blocks: int, **changes: object) -> tuple[Rollout, Recorder]:
    rollout, recorder = begun(name, **changes)
    for _ in range(blocks):
        rollout.next()
    return rollout, recorder


@pytest.mark.parametrize("rate", [0.001, 0.25])
def test_the_sink_of_reward_forcing_is_a_running_mean(rate: float) -> None:
    """Path 2: place by place in float64, from the clean keys of every frame."""
    blocks = 8
    rollout, recorder = recorded("reward_ema", blocks, rate=rate)
    for layer in range(2):
        frames = recorder.clean_keys(layer, range(3 * (blocks - 2))).double().numpy()
        expected = frames[:, :3].copy()
        for block in range(1, blocks - 2):  # those that have left the window, in the order in which they left
            for i in range(3):
                expected[:, i] = (1 - rate) * expected[:, i] + rate * frames[:, 3 * block + i]
        ours = np.stack([rollout.store.named(layer, name).k.numpy() for name in means(3)], 1)
        gap = np.abs(ours - expected)
        assert gap.max() < 1e-5, f"layer {layer}: largest {gap.max():.2e}, mean {gap.mean():.2e}"
        assert np.abs(expected - frames[:, :3]).max() > 1e-3


def prototype(frames: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over tokens, then over heads, to length 1."""
    heads = [np.mean([token[head] for frame in frames for token in frame], 0) for head in range(2)]
    mean = np.mean(heads, 0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_relax_forcing_takes_what_is_like_the_sink_and_unlike_the_tail() -> None:
    blocks = 12
    _, recorder = recorded("relax_forcing", blocks)
    picked = set()
    for block in range(2, blocks):
        plan = recorder.plans[block]
        assert plan.selection is not None
        keys = recorder.clean_keys(0, range(plan.first_frame)).double().numpy()
        middle = list(range(plan.first_frame))[2:-1]
        half = len(middle) // 2
        line = np.floor(np.linspace(half, len(middle) - 1, min(4, len(middle) - half) + 1)).astype(int)
        candidates = [middle[place] for place in sorted(set(line.tolist()))[:-1]]
        assert list(plan.selection.candidates) == candidates
        for row in range(2):
            sink, tail = prototype([keys[row, 0], keys[row, 1]]), prototype([keys[row, plan.first_frame - 1]])
            scores = [prototype([keys[row, frame]]) @ sink - 2 * (prototype([keys[row, frame]]) @ tail) for frame in candidates]
            best = int(np.argmax(scores))
            for layer in range(2):
                index = recorder.selected[layer, block][row].tolist()
                assert index == list(range(6 * best, 6 * best + 6)), (block, row, layer, scores)
            picked.add(best)
    assert len(picked) > 1


@pytest.mark.parametrize("middle", [2, 3, 4, 5, 9, 40, 117])
def test_candidates_are_spread_over_the_newer_half(middle: int) -> None:
    half = middle // 2
    line = np.unique(np.floor(np.linspace(half, middle - 1, min(4, middle - half) + 1)).astype(int)).tolist()
    assert list(spread(middle, 4)) == (line[:-1] or line)


def copied(rollout: Rollout, frames: list[int]) -> list[list[NDArray[np.float64]]]:
    """Keys and values of frames by layer, [B, T, S, H, D]."""
    return [[part.double().numpy() for part in rollout.store.frames(layer, frames)] for layer in range(2)]


def aligned(x: NDArray[np.float64], reference: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """0.65 x + 0.35 AdaIN(x) of one frame [S, H, D], number by number."""
    out = np.zeros_like(x)
    for head in range(x.shape[1]):
        for channel in range(x.shape[2]):
            own, others = x[:, head, channel], np.array([token[head, channel] for frame in reference for token in frame])
            stretched = (own - own.mean()) / np.sqrt(own.var() + 1e-5) * np.sqrt(others.var() + 1e-5) + others.mean()
            out[:, head, channel] = 0.65 * own + 0.35 * stretched
    return out


def chosen_by_hand(queries: NDArray[np.float64], keys: list[NDArray[np.float64]], frames: list[int], count: int) -> list[int]:
    """Places of the `count` best: a soft maximum over frames of every product of a query and a token, and how near others are."""
    logits = []
    for key in keys:
        products = [queries[n, head] @ token[head] / 4 for n in range(len(queries)) for token in key for head in range(2)]
        logits.append(sum(products) / len(products))
    mass = np.exp(logits) / np.exp(logits).sum()
    sigma = max(1.0, (max(frames) - min(frames) + 1) / 2)
    scores = []
    for i, frame in enumerate(frames):
        near = max(np.exp(-abs(frame - frames[j]) / sigma) * mass[j] for j in range(len(frames)) if j != i)
        scores.append(mass[i] + 0.35 * (1 - near))
    return sorted(sorted(range(len(frames)), key=lambda i: -scores[i])[:count])


@pytest.mark.parametrize("commit", [0, 4])
def test_tethercache_keeps_what_is_asked_for_and_far_apart(commit: int) -> None:
    """Path 2: mass by every query, head and token, diversity by every pair, alignment number by number, from copies of the states."""
    rollout, recorder = begun("tethercache", commit=commit)
    for _ in range(7):
        rollout.next()
    memory, sink, admitted = rollout.memory, copied(rollout, [0, 1, 2]), set()
    assert isinstance(memory, Tether)
    assert torch.equal(memory.k[1], recorder.clean_keys(1, range(3, 17)))
    places = {(layer, row): list(range(3, 17)) for layer in range(2) for row in range(2)}
    for block in range(7, 12):
        leaving, old = list(range(3 * block - 4, 3 * block - 1)), [memory.k.double().numpy().copy(), memory.v.double().numpy().copy()]
        gone = copied(rollout, leaving)
        made = rollout.next()
        assert made.plan.revision is not None and list(made.plan.revision.candidates[14:]) == leaving and made.kept == 21
        for (layer, row), frames in places.items():
            queries = recorder.queries(layer, block)[-1][row].double().numpy()
            stay = chosen_by_hand(queries, [*old[0][layer, row], *gone[layer][0][row]], frames + leaving, 14)
            for which, ours in enumerate((memory.k, memory.v)):
                stands = list(old[which][layer, row])
                new = [aligned(x, [*sink[layer][which][row], *stands]) for x in gone[layer][which][row]]
                expected = np.stack([[*stands, *new][place] for place in stay])
                gap = np.abs(ours[layer, row].numpy() - expected)
                assert gap.max() < 1e-5, f"block {block}, layer {layer}: largest {gap.max():.2e}, mean {gap.mean():.2e}"
            places[layer, row] = [(frames + leaving)[place] for place in stay]
            assert memory.frames_LBT[layer, row].tolist() == places[layer, row]
            admitted |= {(layer, row, place) for place in stay if place >= 14}
    assert len(admitted) > 2 and len({tuple(frames) for frames in places.values()}) > 1


def test_no_share_of_alignment_changes_nothing() -> None:
    x, reference = torch.randn(2, 2, 3, 6, 2, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(align(x, reference, 0.0), x)
    whole = align(x, reference, 1.0)
    gap = (whole.mean((2,)) - reference.mean((1, 2))[:, None]).abs()
    assert gap.max() < 1e-5, f"largest {gap.max():.2e}, mean {gap.mean():.2e}"
