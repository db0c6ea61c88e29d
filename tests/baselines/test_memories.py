"""What policies keep and choose on the device, against loops over layers, heads and tokens on the states that a recorder copied."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.dummy_forcing import NAMES, WhereHeadsLook, divided
from baselines.memflow import Bank
from baselines.relax_forcing import spread
from baselines.reward_ema import means
from baselines.tethercache import Tether, align
from echo.backbone import rope
from echo.backbone.wan import WanConfig, WanModel
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.recording import Recorder
from echo.rollout import Rollout
from tests.helpers.policies import HARD, make

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


def looks(recorder: Recorder, block: int, layer: int, front: int) -> NDArray[np.float64]:
    """p0 and p1 of the heads of a layer in a block's clean pass, [B, H, 2], one drawn query row after another."""
    plan = recorder.plans[block]
    at = [*(slot.position for slot in plan.context), *plan.queries]
    turn = rope.frame_table([int(position or 0) for position in at], 2, 3, 16)
    keys = torch.cat([recorder.clean_keys(layer, range(plan.first_frame)).flatten(1, 2), recorder.keys(layer, block)[-1]], 1)
    asked = rope.rotate(recorder.queries(layer, block)[-1], turn[-18:]).double().numpy()
    met = rope.rotate(keys, turn).double().numpy()
    rows = Random(f"0 {layer}").choices(range(18), k=2)
    mass = np.zeros((2, 2, 2))
    for sample, head, row in product(range(2), range(2), rows):
        weights = np.exp(met[sample, :, head] @ asked[sample, row, head] / 4)
        weights /= weights.sum()
        mass[sample, head] += weights[: 6 * front].sum() / 2, weights[6 * front : -18].sum() / 2
    return mass


@pytest.mark.parametrize(("name", "block", "front"), [("dummy_forcing", 1, 1), ("dummy_forcing_longlive", 2, 3)])
def test_dummy_forcing_divides_heads_by_where_they_look(name: str, block: int, front: int) -> None:
    """Path 2: heads sorted one by one, each video by itself."""
    rollout, recorder = recorded(name, block + 2)
    mass = np.stack([looks(recorder, block, layer, front) for layer in range(2)], 1)
    assert isinstance(rollout.memory, WhereHeadsLook)
    for sample in range(2):
        share = mass[sample] / mass[sample].sum((0, 1))
        costs = {(layer, head): share[layer, head].max() for layer, head in product(range(2), range(2))}
        dummies = sorted(costs, key=lambda place: costs[place])[:2]
        for layer, head in costs:
            kind = "dummy" if (layer, head) in dummies else "first" if share[layer, head, 0] >= share[layer, head, 1] else "mid"
            where = [NAMES[group] for group, heads in enumerate(rollout.memory.groups[layer]) if 2 * sample + head in heads.tolist()]
            assert where == [kind], (sample, layer, head, costs)


def test_the_share_of_dummy_heads_is_a_setting() -> None:
    mass = torch.rand(3, 30, 12, 2, generator=torch.Generator().manual_seed(5))
    for share, count in ((0.0, 0), (0.5, 180), (0.25, 90), (1.0, 360)):
        assert (divided(mass, share) == 2).sum((1, 2)).tolist() == [count] * 3


@pytest.mark.parametrize(("heads", "asked"), [((), [0, 1]), (("dd", "sd"), [1]), (("sd", "ss"), [0, 1])])
def test_forcing_kv_takes_the_chunks_that_change_most(heads: tuple[str, ...], asked: list[int]) -> None:
    """Path 2: chunk by chunk and token by token, each video by itself; a frame of six tokens has three chunks of two."""
    blocks = 9
    rollout, recorder = recorded("forcing_kv", blocks, chunks=4, heads=list(heads))
    picked = set()
    for block in range(2, blocks):
        first = 3 * block
        keys = recorder.clean_keys(1, range(first))
        turned = rope.rotate(keys.flatten(1, 2), rope.frame_table(range(first), 2, 3, 16)).unflatten(1, (first, 6)).double().numpy()
        for sample in range(2):
            alike = {}
            for place, frame in enumerate((first - 4, first - 3, first - 2)):
                for chunk in range(3):
                    cosines = []
                    for token in (2 * chunk, 2 * chunk + 1):
                        a, b = (turned[sample, at, token, asked].ravel() for at in (frame, frame + 1))
                        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                    alike[place, chunk] = np.mean(cosines)
            taken = sorted(sorted(alike, key=lambda one: alike[one])[:3])
            expected = [6 * place + 2 * chunk + token for place, chunk in taken for token in range(2)]
            assert recorder.selected[1, block][sample].tolist() == expected, (block, sample, alike)
            picked.add(tuple(taken))
    assert len(picked) > 3
    words = ("ss", *(heads[1:] or ("dd",)))
    for layer, word in enumerate(words):
        static, dynamic = ([2 * sample + h for sample in range(2) for h in range(2) if word[h] == kind] for kind in "sd")
        assert [rows.tolist() for rows in rollout.memory.heads(layer, recorder.plans[5])] == [static, dynamic]


def test_later_layers_take_what_layer_1_chose() -> None:
    torch.manual_seed(7)
    sizes = replace(GEOMETRY, layers=3)
    network = WanModel(WanConfig(dim=32, ffn_dim=48, heads=2, layers=3, freq_dim=32, text_dim=16, text_len=6))
    noise = keyed_noise(0, ["a", "b"], (3, 16, 4, 6))
    rollout = Rollout(network.eval().requires_grad_(False), make("forcing_kv"), sizes, noise, batch=2)
    recorder = Recorder()
    recorder.watch(rollout)
    rollout.switch(torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3)))
    for _ in range(6):
        rollout.next()
    for block in range(2, 6):
        assert torch.equal(recorder.selected[2, block], recorder.selected[1, block])
        assert recorder.plans[block].attended == 6


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


def asked_for(text: NDArray[np.float64], key: NDArray[np.float64]) -> float:
    """Mean of the products of every text row [H, L, D] with every rotated token [S, H, D], head by head, over sqrt(D)."""
    return float(np.mean([text[head, row] @ token[head] / 4 for head in range(2) for row in range(text.shape[1]) for token in key]))


def test_memflow_banks_what_the_text_asks_for() -> None:
    """Path 2: a list a layer and sample, into which the frame recorded last goes before each block, and of three the two stay that the
    text meets most; none is asked right behind the switch."""
    rollout, recorder = begun("memflow")
    texts = [torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    bank, recorded_frame, dropped = {(layer, row): list[int]() for layer in range(2) for row in range(2)}, -1, set()
    memory, sizes = rollout.memory, (GEOMETRY.grid_height, GEOMETRY.grid_width, GEOMETRY.head_dim)
    assert isinstance(memory, Bank)
    for block in range(20):
        if block == 14:
            rollout.switch(texts[1], HARD)
        rollout.next()
        keys = rollout.model.text_keys(rollout.model.text_states(texts[block >= 14]))
        for (layer, row), frames in bank.items():
            if len(frames) == 3:
                raw = recorder.clean_keys(layer, frames)[row]
                scores = [
                    asked_for(keys[layer][row].double().numpy(), rope.rotate(k[None], rope.frame_table([f], *sizes))[0].double().numpy())
                    for f, k in zip(frames, raw)
                ]
                least = 2 if block == 14 else int(np.argmin(scores))
                dropped.add((layer, row, frames.pop(least)))
            if block:
                frames.append(recorded_frame)
            ours = memory.places[layer, row, : len(frames)]
            assert (ours[:, 0] // 6).tolist() == frames and bool((ours == ours[:, :1] + torch.arange(6)).all()), (block, layer, row)
            if frames:
                assert torch.equal(memory.k[layer, row, : len(frames)], recorder.clean_keys(layer, frames)[row])
        if block % 3 == 0:
            recorded_frame = 3 * block
    assert len({tuple(frames) for frames in bank.values()}) > 1 and len(dropped) > 8 and any(f != 0 for _, _, f in dropped)
