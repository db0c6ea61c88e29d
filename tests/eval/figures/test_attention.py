"""Fig. 3's numbers against direct computation: attention by hand in numpy, the run's own attention, scores by their definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from baselines.presets import make_policy
from echo.backbone.load import load
from echo.cache.window import Pass
from echo.generate import generate
from echo.memory.settings import RecentCentre
from echo.recording import Recorder
from echo.scene import load_prompts
from eval.figures.recorded import attention, recall_at_k
from eval.figures.recorded.attention import LaterAttention
from tests.helpers.toy import TEXTS, write_backbone, write_prompts

BLOCKS, SIZE, TOKENS, HEADS, DIM = 14, 3, 4, 2, 16


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    prompts = load_prompts(write_prompts(folder / "prompts.jsonl", 2, scene_s=12.0, texts=TEXTS[:1]))
    return load(str(write_backbone(folder / "model.safetensors"))), prompts


@pytest.fixture(scope="module")
def run(toy):
    backbone, prompts = toy
    return attention.record(backbone, make_policy({"method": "echo"}), prompts, blocks=BLOCKS)


def turned(x, t, raster):
    """One token's vector [D] under RoPE at time t and its place on the 2 x 2 grid, in complex numbers."""
    time, side = DIM // 2 - 2 * (DIM // 2 // 3), DIM // 2 // 3
    angles = [t * 10000 ** (-i / time) for i in range(time)]
    angles += [(raster // 2) * 10000 ** (-i / side) for i in range(side)] + [(raster % 2) * 10000 ** (-i / side) for i in range(side)]
    return (np.asarray(x, np.float64)[0::2] + 1j * np.asarray(x, np.float64)[1::2]) * np.exp(1j * np.array(angles))


def by_hand(run, layer, block, asking, where, own_first):
    """Mean attention [H, T, S] of the first prompt's queries of block `asking` to the candidates of `block`, token by token.

    where: index in time by frame that is seen. own_first: that of the block's first frame.
    """
    wanted = attention.candidates(run, block)
    total, count = np.zeros((HEADS, len(wanted), TOKENS)), 0
    clean = {f: run.recorder.keys(layer, f // SIZE)[-1][0].reshape(SIZE, TOKENS, HEADS, DIM)[f % SIZE].numpy() for f in where}
    for step in range(1 if asking == block else 0, 5):
        queries, own = (part[step][0].numpy() for part in (run.recorder.queries(layer, asking), run.recorder.keys(layer, asking)))
        for head in range(HEADS):
            keys = [turned(clean[f][s, head], t, s) for f, t in where.items() for s in range(TOKENS)]
            keys += [turned(own[n, head], own_first + n // TOKENS, n % TOKENS) for n in range(SIZE * TOKENS)]
            for n in range(SIZE * TOKENS):
                q = turned(queries[n, head], own_first + n // TOKENS, n % TOKENS)
                weight = np.exp([(q * key.conj()).real.sum() / math.sqrt(DIM) for key in keys])
                share = dict(zip([(f, s) for f in where for s in range(TOKENS)], weight / weight.sum()))
                for (f, s), value in share.items():
                    if f in wanted:
                        total[head, f - wanted[0], s] += value
        count += SIZE * TOKENS
    return total / count


@pytest.mark.parametrize(("kind", "ahead"), [("time", 2), ("window", 2), ("slot", 1)])
def test_truth_is_full_attention_by_hand(run, kind, ahead):
    layer, block = 1, 9
    found = attention.later_attention(run, layer, block, LaterAttention(kind, ahead))
    for age in {0, ahead}:
        now = (block + age) * SIZE
        if kind == "slot":
            frames = [*attention.candidates(run, block), now - 3, now - 2, now - 1]
            where, own = dict(zip(frames, [13] * 18 + [15, 16, 17])), 18
        else:
            first = now - 18 if kind == "window" else block * SIZE - 21
            where, own = {f: f for f in range(max(first, block * SIZE - 21), now)}, now
        expected = by_hand(run, layer, block, block + age, where, own)
        assert np.allclose(found[age][0].numpy(), expected, atol=2e-6) and expected.max() > 1e-3


@dataclass
class Spy:
    """What self-attention of the first layer really computes with, by block: attention of all passes to each frame's tokens."""

    paid: dict = field(default_factory=dict)

    def watch(self, rollout):
        self.window, self.kernel = rollout.window, rollout.window.attention
        rollout.window.attention = self.attend

    def attend(self, q, k, v):
        plan = self.window.plan
        if k.data_ptr() == self.window.k[0].data_ptr():
            weight = torch.einsum("bnhd,bmhd->bhnm", q.double(), k.double()).div(math.sqrt(DIM)).softmax(-1).mean(2)
            for index, slot in enumerate(plan.context):
                self.paid.setdefault((plan.block, slot.source), []).append(weight[..., index * TOKENS : (index + 1) * TOKENS])
        return self.kernel(q, k, v)


def test_truth_is_what_a_sliding_window_really_pays(toy):
    backbone, prompts = toy
    policy, rules, spy = make_policy({"method": "self_forcing"}), make_policy({"method": "echo"}), Spy()
    run = attention.record(backbone, policy, prompts, blocks=BLOCKS, rules=rules)
    for block in generate(backbone, policy, prompts, 0, watch=spy.watch):
        if block.index == BLOCKS - 1:
            break
    found = attention.later_attention(run, 0, 9, LaterAttention("window", 2))
    for age in (1, 2):
        real = [spy.paid.get((9 + age, frame)) for frame in attention.candidates(run, 9)]
        assert [len(one) for one in real if one] == [5] * (15 - 3 * age)
        for frame, one in enumerate(real):
            expected = torch.stack(one).mean(0) if one else torch.zeros(2, HEADS, TOKENS)
            assert torch.allclose(found[age][:, :, frame].double(), expected.double(), atol=1e-6)


def test_scores_are_the_equations(run):
    moment = attention.judge(run, 1, 10, LaterAttention(ahead=1))
    clean = np.concatenate([run.recorder.queries(1, block)[-1][0].numpy() for block in range(7)]).astype(np.float64)
    q = clean[..., 0::2] + 1j * clean[..., 1::2]
    centre, magnitude = q.mean(0), np.abs(q).mean(0)
    first = run.recorder.queries(1, 10)[0][0].numpy().astype(np.float64).mean(0)
    flat = np.stack([centre.real, centre.imag], -1).reshape(-1)
    cosine = first.reshape(-1) @ flat / np.linalg.norm(first) / np.linalg.norm(flat)
    gate = math.exp(-3 * (1 - cosine))
    omega = np.array([10000 ** (-i / 4) for i in range(4)] + [0.0] * 4)
    for frame, s in ((0, 0), (7, 3), (17, 2)):
        raw = run.recorder.keys(1, moment.frames[frame] // SIZE)[-1][0].numpy().reshape(SIZE, TOKENS, HEADS, DIM)
        k = raw[moment.frames[frame] % SIZE, s].astype(np.float64)
        k = k[:, 0::2] + 1j * k[:, 1::2]
        far = [30 - moment.frames[frame] + o for o in (1, 2, 4, 8, 16)]
        gap = np.angle(centre * k.conj())
        phase = np.mean([(np.abs(centre) * np.abs(k) * np.cos(gap + omega * delta)).sum() for delta in far]) / HEADS
        amplitude = ((magnitude - np.abs(centre)) * np.abs(k)).sum() / HEADS
        for name, expected in (("calibrated", phase), ("amplitude", phase + amplitude), ("gate", phase + gate * amplitude)):
            assert float(moment.scores[name][0, frame, s]) == pytest.approx(expected, abs=1e-4)
        assert float(moment.by_head["gate"][:, 0, frame, s].mean()) == pytest.approx(phase + gate * amplitude, abs=1e-4)
    assert float(moment.facts["gate"][0]) == pytest.approx(gate, abs=1e-5)
    assert float(moment.facts["cosine_first"][0]) == pytest.approx(cosine, abs=1e-5)


def test_both_gates_by_block(run):
    """Path 2: the last clean and the own noisy queries against those of the first seven blocks, in double precision; mean of the layers."""
    found = attention.gates(run, [8, 11])
    for row, block in enumerate((8, 11)):
        for which, (asked, number) in {RecentCentre.clean: (block - 1, -1), RecentCentre.first_pass: (block, 0)}.items():
            for prompt in range(2):
                values = []
                for layer in (0, 1):
                    cleans = [run.recorder.queries(layer, each)[-1][prompt].numpy() for each in range(7)]
                    centre = np.concatenate(cleans).astype(np.float64).mean(0).reshape(-1)
                    recent = run.recorder.queries(layer, asked)[number][prompt].numpy().astype(np.float64).mean(0).reshape(-1)
                    values.append(math.exp(-3 * (1 - recent @ centre / np.linalg.norm(recent) / np.linalg.norm(centre))))
                assert float(found[which][row, prompt]) == pytest.approx(np.mean(values), abs=1e-5), (which, block, prompt)


def test_shares_of_channels_sum_to_one(run):
    frames = attention.candidates(run, 9)
    keys, (centre, _) = run.recorder.clean_keys(1, frames), run.calibration(1)
    ages = torch.tensor([27 - frame for frame in frames])
    shares = attention.channel_shares(run.policy, keys, centre, ages)
    assert shares.shape == (2, 5) and torch.allclose(shares.sum(1), torch.ones(2), atol=1e-5)
    flat = keys.clone()
    flat[..., 2:] = 0  # nothing but the fastest temporal channel
    assert torch.allclose(attention.channel_shares(run.policy, flat, centre, ages)[:, 0], torch.ones(2), atol=1e-5)


def test_the_gated_rule_is_the_method(run):
    for layer in (0, 1):
        for block in (7, 11):
            moment = attention.judge(run, layer, block, LaterAttention(ahead=1))
            best = moment.scores["gate"].flatten(1).topk(moment.keep).indices.sort(-1).values
            assert torch.equal(best, run.recorder.selected[layer, block]), "the rollout's own selection"


def test_recall_is_of_sets(run):
    moment = attention.judge(run, 0, 8)
    found = recall_at_k.measures(moment, [5])["post_rope"]
    score, truth = moment.scores["post_rope"][0].flatten(), moment.truth[1:, 0].mean((0, 1)).flatten()
    for count, value in ((12, found["recall"][0]), (5, found["curve"][0, 0])):
        ours, best = (set(np.argsort(-values.numpy())[:count].tolist()) for values in (score, truth))
        assert float(value) == pytest.approx(len(ours & best) / count)
    ours = np.argsort(-score.numpy())[:12]
    assert float(found["mass"][0]) == pytest.approx(float(truth[ours].sum()) / np.sort(truth.numpy())[-12:].sum(), rel=1e-5)


def test_comparison_by_prompt(run):
    found = recall_at_k.compare([run], 2, LaterAttention(ahead=2))
    assert found.prompts == [("toy-000", 0), ("toy-001", 0)] and (found.keep, found.tokens) == (12, 72)
    blocks = attention.moments(run, 2, LaterAttention(ahead=2))
    assert blocks == [7, 9, 11]
    each = [
        float(recall_at_k.measures(attention.judge(run, layer, b, LaterAttention(ahead=2)), [1])["gate"]["recall"][1])
        for layer in (0, 1)
        for b in blocks
    ]
    assert found.recall["gate"][1] == pytest.approx(np.mean(each)) and found.rules["gate"][1].curve[-1] == 1.0
    assert len(found.rules["gate"][0].by_age) == 3 and len(found.rules["gate"][0].by_layer) == 2 and set(found.facts) >= {"gate", "spread"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: attention.judge(run, 0, 6, LaterAttention(ahead=1)), "block=6: choices are made at blocks 7..13; nearest is 7"),
        (lambda run: attention.judge(run, 0, 9), "block=9: 5 blocks behind it are asked, 14 are recorded; nearest is 8"),
        (lambda run: LaterAttention("tme"), "truth=tme: one of time, window, slot; nearest is time"),
        (lambda run: LaterAttention(recent="old"), "recent=old: one of clean, first"),
        (lambda run: LaterAttention("window", 5), "ahead=5: 1..4 blocks with truth=window; nearest is 4"),
        (
            lambda run: recall_at_k.compare([run], 4, LaterAttention(ahead=7)),
            "blocks=14: no choice has all its later queries; nearest is 15",
        ),
        (lambda run: run.recorder.queries(2, 0), "layer 2, block 0: not recorded; layers [0, 1]"),
    ],
)
def test_refusals(run, call, message):
    with pytest.raises(ValueError, match="^" + message.replace("[", r"\[").replace(".", r"\.")):
        call(run)


def test_recording_leaves_the_pixels(toy, run):
    backbone, prompts = toy
    plain = [block.latents for block, _ in zip(generate(backbone, run.policy, prompts, 0), range(BLOCKS))]
    assert torch.equal(torch.cat(plain, 1), run.latents)
    with pytest.raises(ValueError, match="blocks=99: the first scene of 'toy-000' has 16; nearest is 16"):
        attention.record(backbone, run.policy, prompts, blocks=99)
    with pytest.raises(ValueError, match="policy SelfForcing has no scoring rules"):
        attention.record(backbone, make_policy({"method": "self_forcing"}), prompts)


def test_states_are_copies(run):
    recorder, q = Recorder(), torch.zeros(1, SIZE * TOKENS, HEADS, DIM)
    recorder._attend(0, run.recorder.plans[0], Pass.FIRST, q, q)
    q += 1  # a kernel may write its next pass to the same place
    assert not recorder.queries(0, 0).any() and not recorder.keys(0, 0).any()
