"""Fig. 3 in numbers: which history tokens each scoring rule keeps, compared with the attention that later queries pay to them.

    run = record(backbone, policy, prompts, seed=0, blocks=40)
    moment = judge(run, layer=3, block=20)            # one choice: scores of every rule, and the truth
    compared = recall_at_k.compare([run])             # recall@K of every rule by prompt

A selection is made before block b from the 18 frames that end 3 frames before it. The rules are the project's own equations
(`echo.memory.compression`). The truth is the softmax attention that the queries of blocks b + 1 .. b + ahead pay to those frames' clean
keys, with equal weight for every pass; the distance under RoPE has three readings (`KINDS`).

Shapes: B prompts, T candidate frames, S tokens of a frame, N tokens of a block, H heads, D head_dim, A ages of the querying block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from echo.backbone import rope
from echo.backbone.interface import VideoModel
from echo.cache.policy import Policy
from echo.cache.store import FrameStore
from echo.generate import check, generate
from echo.geometry import Geometry
from echo.memory import compression
from echo.memory.settings import EchoSettings, RecentCentre
from echo.memory.state import EchoMemory
from echo.policy import settings_of
from echo.recording import Recorder
from echo.refusals import one_of
from echo.scene import Prompt

RULES = {
    "calibrated": "calibrated centre",
    "amplitude": "+ AMP",
    "gate": "+ AMP + drift gate",
    "recent": "recent query only",
    "post_rope": "post-RoPE attention",
}
"""The rules of Fig. 3, in its order; `gate` is the method."""
CONTROLS = {"newest": "newest frames", "size": "AMP alone"}
"""Control rules that the paper does not have: the newest candidates, and the size of keys without their direction."""
RECENT = ("clean", "first")
"""Queries of `recent` and `post_rope`: the last block's clean ones, or the block's own in its first pass (like the gate)."""
CHUNK = 1 << 24
"""Largest number of logits in memory."""


KINDS = {
    "time": "true distances in time",
    "window": "window of 21 frames",
    "slot": "in the compressed slots",
}
"""Positions of the candidates for later queries. time: at their true distance, as in eq. (3).
window: the same, but a query sees only the window that the backbone was trained with; candidates outside get no attention.
slot: at the temporal index of the method's compressed slots, in their own row and column, beside 3 recent frames."""
AHEAD = {"time": 5, "window": 2, "slot": 5}
"""Number of later blocks by default: 16 frames ahead are in the fifth; after the second, a window has lost most candidates."""


@dataclass(frozen=True)
class LaterAttention:
    """Definition of the truth. kind: of `KINDS`. ahead: number of later blocks whose queries count. recent: of `RECENT`.

    Raises ValueError for an unknown kind or `recent`, or a window that has lost all candidates.
    """

    kind: str = "time"
    ahead: int = 5
    recent: str = "clean"

    def __post_init__(self) -> None:
        for name, value, known in (("truth", self.kind, tuple(KINDS)), ("recent", self.recent, RECENT)):
            one_of(f"{name}={value}", value, known)
        most = 4 if self.kind == "window" else 99
        if not 1 <= self.ahead <= most:
            raise ValueError(f"ahead={self.ahead}: 1..{most} blocks with truth={self.kind}; nearest is {min(max(self.ahead, 1), most)}")


@dataclass
class RecordedRun:
    """A recorded rollout of one scene. policy: settings of the rules. latents: [B, F, C, H, W], all blocks."""

    recorder: Recorder
    policy: EchoSettings
    prompts: tuple[str, ...]
    seed: int
    latents: Tensor
    _statistics: EchoMemory | None = field(default=None, repr=False)

    @property
    def geometry(self) -> Geometry:
        """Sizes of the rollout."""
        assert self.recorder.geometry is not None
        return self.recorder.geometry

    @property
    def blocks(self) -> int:
        """Blocks recorded."""
        return len(self.recorder.plans)

    def calibration(self, layer: int) -> tuple[Tensor, Tensor]:
        """Centre [B, H, C], complex, and magnitude [B, H, C] of eq. (2), as computed by the method's own memory."""
        if self._statistics is None:
            geometry, recorder = self.geometry, self.recorder
            store = FrameStore(geometry, 1, len(self.prompts), dtype=torch.float32, device=torch.device("cpu"))
            memory = EchoMemory(self.policy, geometry, store)
            for block in range(self.policy.calibration_frames // geometry.frames_per_block):
                for each in recorder.layers:
                    k = recorder.keys(each, block)[-1]
                    memory.observe(each, recorder.plans[block], recorder.queries(each, block)[-1], k, k)
                memory.scene_frames += geometry.frames_per_block
            self._statistics = memory
        statistics = self._statistics.layers[layer]
        return statistics.centre_BHC, statistics.magnitude_BHC


def record(
    backbone: VideoModel, policy: Policy, prompts: Sequence[Prompt], *, seed: int = 0, blocks: int = 40,
    layers: Sequence[int] | None = None, rules: EchoSettings | None = None,
) -> RecordedRun:  # fmt: skip
    """Roll out some prompts in one batch and record their first scene.

    Args:
        backbone: embedded or real.
        policy: of the rollout.
        prompts: with one script, whose first scene has at least `blocks` blocks.
        seed: of the noise.
        blocks: number of blocks to make.
        layers: those to record, all by default; a real backbone's 30 take gigabytes per block.
        rules: settings of the scoring rules, if the rollout's policy is not Echo.

    Raises:
        ValueError: for a first scene that is shorter, or rules without settings.
    """
    settings = rules or settings_of(policy)
    if settings is None:
        raise ValueError(f"policy {type(policy).__name__} has no scoring rules; give rules=, for example those of method=echo")
    for prompt in prompts:
        if (longest := check(backbone, policy, prompt).lengths()[0]) < blocks:
            raise ValueError(f"blocks={blocks}: the first scene of {prompt.id!r} has {longest}; nearest is {longest}")
    recorder = Recorder(layers)
    rollout = generate(backbone, policy, prompts, seed, watch=recorder.watch)
    made = [block.latents.cpu() for _, block in zip(range(blocks), rollout)]  # the count first: no block is made beyond it
    return RecordedRun(recorder, settings, tuple(prompt.id for prompt in prompts), seed, torch.cat(made, 1))


def first_choice(policy: EchoSettings, geometry: Geometry) -> int:
    """The first block before which the candidates and the calibration are complete."""
    return -(-max(policy.candidate_frames + policy.recent, policy.calibration_frames) // geometry.frames_per_block)


def candidates(run: RecordedRun, block: int) -> range:
    """Candidate frames of a selection before `block`. Raises ValueError if there are too few, or after the recording."""
    first, last = first_choice(run.policy, run.geometry), run.blocks - 1
    if not first <= block <= last:
        raise ValueError(f"block={block}: choices are made at blocks {first}..{last}; nearest is {min(max(block, first), last)}")
    newest = block * run.geometry.frames_per_block - run.policy.recent
    return range(newest - run.policy.candidate_frames, newest)


def moments(run: RecordedRun, every: int = 4, truth: LaterAttention | None = None) -> list[int]:
    """Every `every`-th block whose selection can be judged, with a full history before and all later queries recorded."""
    return list(range(first_choice(run.policy, run.geometry), run.blocks - (truth or LaterAttention()).ahead, every))


def attention_paid(q: Tensor, own: Tensor, past: Tensor, indices: Sequence[int], first: int, geometry: Geometry) -> Tensor:
    """Softmax attention that a block pays to past tokens, the mean over its queries, [B, H, T, S].

    Args:
        q: raw queries of the block, [B, N, H, D].
        own: its raw keys in the same pass, likewise.
        past: raw keys of some frames, [B, T, S, H, D].
        indices: temporal RoPE indices of these frames.
        first: that of the block's first frame.
        geometry: sizes.
    """
    grid, tokens = (geometry.grid_height, geometry.grid_width, geometry.head_dim), q.shape[1]
    turn = rope.frame_table([*indices, *range(first, first + tokens // geometry.tokens_per_frame)], *grid)
    keys = rope.rotate(torch.cat([past.flatten(1, 2), own], 1).float(), turn)
    queries = rope.rotate(q.float(), turn[-tokens:]) / geometry.head_dim**0.5
    step = max(1, CHUNK // (keys.shape[1] * keys.shape[2] * len(keys)))
    total = queries.new_zeros(len(keys), keys.shape[2], past.shape[1] * past.shape[2])
    for some in queries.split(step, 1):
        total += torch.einsum("bnhd,bmhd->bhnm", some, keys).softmax(-1)[..., : total.shape[-1]].sum(2)
    return total.unflatten(-1, past.shape[1:3]) / tokens


def seen_by(run: RecordedRun, block: int, asking: int, kind: str) -> tuple[list[int], list[int], int]:
    """Past frames that the queries of block `asking` see after a selection before `block`, their RoPE indices, and the block's own.

    RoPE depends only on distances, so the oldest candidate of `time` and `window` gets index 0.
    """
    wanted, policy, now = candidates(run, block), run.policy, asking * run.geometry.frames_per_block
    if kind == "slot":
        recent = list(range(now - policy.recent, now))
        slots = [policy.anchors + policy.compressed // 2] * len(wanted)
        behind = policy.anchors + policy.compressed
        return [*wanted, *recent], [*slots, *range(behind, behind + len(recent))], behind + len(recent)
    first = max(wanted[0], now - run.geometry.context_frames) if kind == "window" else wanted[0]
    return list(range(first, now)), list(range(first - wanted[0], now - wanted[0])), now - wanted[0]


def later_attention(run: RecordedRun, layer: int, block: int, truth: LaterAttention) -> Tensor:
    """Attention that blocks b .. b + ahead pay to the candidates, the mean over passes, [A, B, H, T, S]; without the first pass of b."""
    recorder, wanted, ages = run.recorder, candidates(run, block), []
    for asking in range(block, block + truth.ahead + 1):
        frames, indices, first = seen_by(run, block, asking, truth.kind)
        past = recorder.clean_keys(layer, frames)
        passes = list(zip(recorder.queries(layer, asking), recorder.keys(layer, asking)))[asking == block :]
        paid = torch.stack([attention_paid(q, own, past, indices, first, run.geometry) for q, own in passes]).mean(0)
        here = paid.new_zeros(*paid.shape[:2], len(wanted), paid.shape[3])
        there = [frame for frame in frames if frame in wanted]
        here[:, :, len(wanted) - len(there) :] = paid[:, :, : len(there)]
        ages.append(here)
    return torch.stack(ages)


@dataclass(frozen=True)
class Moment:
    """One selection of one layer. scores: by rule [B, T, S], over all heads as in the method; by_head: [H, B, T, S].

    truth: [A, B, H, T, S] as `later_attention`. keep: tokens that are kept. facts: [B] each, for the reasons: `gate`, g of eq. (5);
    `cosine_first` and `cosine_clean`, of the calibrated centre and the block's first-pass queries or the newest clean ones (the gate
    reads one of them); `spread`, the standard deviation over candidates of g AMP as a share of that of the phase score; `leading`,
    what share of the phase score's variance over frames comes from the one temporal channel that tells most.
    """

    layer: int
    block: int
    frames: tuple[int, ...]
    scores: Mapping[str, Tensor]
    by_head: Mapping[str, Tensor]
    truth: Tensor
    keep: int
    facts: Mapping[str, Tensor]

    @property
    def later(self) -> Tensor:
        """Attention of all later blocks, [B, H, T, S]."""
        return self.truth[1:].mean(0)


def recent_centres(run: RecordedRun, layer: int, block: int) -> tuple[Tensor, Tensor]:
    """The two recent centres for eq. (5), [B, H, D] each: of the block's first pass, and of the clean queries before it."""
    newest = range(block - run.policy.recent_blocks(run.geometry), block)
    clean = [run.recorder.queries(layer, each)[-1].float().mean(1) for each in newest]
    return run.recorder.queries(layer, block)[0].float().mean(1), torch.stack(clean).mean(0)


def gates(run: RecordedRun, blocks: Sequence[int]) -> dict[RecentCentre, Tensor]:
    """g of eq. (5) before each of some blocks, by recent centre, the mean over the recorded layers, [blocks, B]."""
    both = torch.stack([torch.stack([_gate(run, layer, block) for layer in run.recorder.layers]).mean(0) for block in blocks])
    return {which: both[:, place] for place, which in enumerate(RecentCentre)}


def _gate(run: RecordedRun, layer: int, block: int) -> Tensor:
    """The two gates of one layer, [2, B], as `RecentCentre` has them."""
    centre = run.calibration(layer)[0]
    both = recent_centres(run, layer, block)
    return torch.stack([compression.drift_gate(q, centre, run.policy.drift_gate_lambda) for q in both])


def judge(run: RecordedRun, layer: int, block: int, truth: LaterAttention | None = None) -> Moment:
    """All rules' scores for one selection, and the truth. Raises ValueError for a block that cannot be judged."""
    truth = truth or LaterAttention()
    if block + truth.ahead >= run.blocks:
        raise ValueError(
            f"block={block}: {truth.ahead} blocks behind it are asked, {run.blocks} are recorded; nearest is {run.blocks - 1 - truth.ahead}"
        )
    recorder, geometry, policy = run.recorder, run.geometry, run.policy
    frames, first = candidates(run, block), block * geometry.frames_per_block
    keys = recorder.clean_keys(layer, frames)
    centre, magnitude = run.calibration(layer)
    both = _gate(run, layer, block)
    gate = both[list(RecentCentre).index(policy.recent_centre)]
    before, which = (block - 1, -1) if truth.recent == "clean" else (block, 0)
    q, own = recorder.queries(layer, before)[which], recorder.keys(layer, before)[which]
    seen, indices, index = seen_by(run, block, before, "time")
    asked = attention_paid(q, own, recorder.clean_keys(layer, seen), indices, index, geometry)[:, :, : len(frames)]
    ages = torch.tensor([first - frame for frame in frames])
    parts = (keys, centre, magnitude, compression.as_complex(q.float().mean(1)), asked)
    heads = [_scores(policy, gate, ages, *(_head(part, head) for part in parts)) for head in range(geometry.heads)]
    scores = _scores(policy, gate, ages, *parts)
    cosines = [1 + gate.log() / policy.drift_gate_lambda if policy.drift_gate_lambda else gate for gate in both]
    spread = gate * scores["size"].flatten(1).std(1) / scores["calibrated"].flatten(1).std(1)
    return Moment(
        layer, block, tuple(frames), scores, {name: torch.stack([one[name] for one in heads]) for name in heads[0]},
        later_attention(run, layer, block, truth), policy.compressed * geometry.tokens_per_frame,
        {"gate": gate, "cosine_first": cosines[0], "cosine_clean": cosines[1], "spread": spread,
         "leading": channel_shares(policy, keys, centre, ages)[:, :-1].amax(1)},
    )  # fmt: skip


def channel_shares(policy: EchoSettings, keys: Tensor, centre: Tensor, ages: Tensor) -> Tensor:
    """Shares of the phase score's variance over frames: of each temporal channel, then of all spatial ones, [B, channels + 1].

    Shares are covariances with the whole score, so that they sum to 1.
    """
    omega = rope.temporal_frequencies(keys.shape[-1])
    phase, time = compression.offset_phase(omega, policy.offsets), rope.split(keys.shape[-1])[0]
    alone = torch.eye(len(omega))
    masks = torch.cat([alone[:time], alone[time:].sum(0, keepdim=True)])
    parts = torch.stack([compression.phase_score(keys, centre * mask, phase, omega, ages).mean(-1) for mask in masks], 1)
    parts = parts - parts.mean(-1, keepdim=True)
    whole = parts.sum(1, keepdim=True)
    return (parts * whole).sum(-1) / whole.square().sum(-1)


def _head(part: Tensor, head: int) -> Tensor:
    """One head's share: of keys [B, T, S, H, D] and [B, T, S, H], of statistics [B, H, ...], of attention [B, H, T, S]."""
    return part[:, :, :, head : head + 1] if part.dim() == 5 else part[:, head : head + 1]


def _scores(
    policy: EchoSettings, gate: Tensor, ages: Tensor, keys: Tensor, centre: Tensor, magnitude: Tensor, recent: Tensor, asked: Tensor
) -> dict[str, Tensor]:
    """Every rule's score [B, T, S], of as many heads as are given."""
    omega = rope.temporal_frequencies(keys.shape[-1])
    phase = compression.offset_phase(omega, policy.offsets)
    calibrated = compression.phase_score(keys, centre, phase, omega, ages)
    amplitude = compression.amplitude_score(keys, centre, magnitude)
    return {
        "calibrated": calibrated,
        "amplitude": calibrated + amplitude,
        "gate": calibrated + gate[:, None, None] * amplitude,
        "recent": compression.phase_score(keys, recent, phase, omega, ages),
        "post_rope": asked.mean(1),
        "newest": -ages[None, :, None].expand_as(calibrated).float(),
        "size": amplitude,
    }
