"""Train the embedded scorer's encoder on the small world, which takes minutes on one core."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn

from data.world import render
from data.world.render import LANDMARK, PERIOD, Truth, draw, under
from data.world.words import LIGHT, LIT, SAYABLE, UNLIT, VOCABULARY, sentence
from echo.backbone.parts.codec import FRAMES, PatchCodec
from echo.files import ROOT
from eval.world.calibrate import fit_quality, hidden_share, measure_anchors, measure_lit_anchors, motion_accuracy
from eval.world.encoder import ANGLES, CELLS, LANDMARKS, SHOWN, VISIBLE, FrameEncoder, Seen
from eval.world.scorer import EmbeddedScorer
from jobs.train.checkpoint import describe, write_record
from jobs.train.data import LIT as LIGHTS
from jobs.train.data import fit_codec

SHIPPED = ROOT / "data" / "weights" / "scorer"
CLIPS = 64
PICKED = 2
"""Frames of each clip in a batch."""
CODED = 0.6
"""Share of the clips in a batch that go through the codec."""
DARK, CLEAR = 0.3, 0.5
"""Mean light on a landmark's square below which the cell is dark, and from which on it shows what it holds."""
UNSEEN = -100
"""Label of what cannot be told."""


@dataclass(frozen=True)
class Examples:
    """Frames [N, 3, 48, 48] in 0..255 and their labels.

    words: kind -> class index [N], -100 for a place without light. landmarks [N, 16]: 0 for none, 1 + colour, or 1 + number of colours
    for darkness, for each cell of the coarse grid, -100 if less than half of it is visible. hue [N], NaN without light. angles [N, 4]: of
    the pattern's shift, in the order of ANGLES. shown [N, 4]: 1 if the pattern shows the angle. centres [N, 2]: the subject's (x, y) in
    pixels. sentences: N texts.
    """

    frames: Tensor
    words: dict[str, Tensor]
    landmarks: Tensor
    hue: Tensor
    angles: Tensor
    shown: Tensor
    centres: Tensor
    sentences: list[str]


def examples(
    codec: PatchCodec, seed: int, step: int, clips: int = CLIPS, coded: float = CODED, rough: bool = True, lights: bool = False
) -> Examples:
    """The batch of `step`: a share `coded` of the clips passes through the codec, some with noisy latents; then all are roughened.

    rough: whether latents get noise, and frames noise, blur and exposure; otherwise frames are unchanged from the world or the codec.
    lights: whether clips are under all lights, or by day.
    """
    rng = np.random.default_rng([seed, step])
    truths = []
    for index in range(clips):
        truth = draw((seed, step, index), 96, easy=rng.uniform() < 0.15, before=12)
        truth = under_lights(truth, (seed, step, index)) if lights else truth
        start = int(rng.integers(0, 92))
        truths.append(truth.part(start, start + FRAMES))
    shown = render.render(truths)
    hidden = hidden_share(shown, truths)
    videos = torch.from_numpy(shown)
    through = torch.from_numpy(rng.uniform(size=clips) < coded)
    latents = codec.encode(videos[through])
    spread = torch.from_numpy(rng.uniform(0, 0.35 * rough, size=(len(latents), 1, 1, 1, 1)).astype(np.float32))
    videos[through] = codec.decode(latents + spread * torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32)))
    order = np.arange(clips).repeat(PICKED)
    times = rng.integers(0, FRAMES, size=len(order))
    frames = videos[order, torch.from_numpy(times)].permute(0, 3, 1, 2).float()
    labels = _labelled([truths[index] for index in order], times, frames, rng)
    held = (labels.landmarks > 0) & (labels.landmarks <= len(LANDMARKS))
    labels.landmarks[torch.from_numpy(hidden[order, times] > 0.5) & held] = UNSEEN
    return dataclasses.replace(labels, frames=_roughen(frames, rng)) if rough else labels


def _roughen(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, exposure, contrast and noise, each of a drawn strength."""
    size = (len(frames), 1, 1, 1)
    blur, gain, offset, noise = (
        torch.from_numpy(rng.uniform(low, high, size=size).astype(np.float32)) for low, high in ((0, 0.7), (0.9, 1.1), (-8, 8), (0, 10))
    )
    frames = frames + blur * (fn.avg_pool2d(fn.pad(frames, (1, 1, 1, 1), "replicate"), 3, 1) - frames)
    grain = torch.from_numpy(rng.standard_normal(frames.shape, dtype=np.float32))
    return (frames * gain + offset + noise * grain).clamp(0, 255)


def _labelled(truths: list[Truth], times: NDArray[np.int64], frames: Tensor, rng: np.random.Generator) -> Examples:
    words = {kind: torch.tensor([SAYABLE[kind].index(getattr(truth.words, kind)) for truth in truths]) for kind in (*VISIBLE, LIGHT)}
    landmarks = torch.zeros(len(truths), CELLS, dtype=torch.int64)
    for row, truth in zip(landmarks, truths, strict=True):
        for mark in truth.place.landmarks:
            row[mark.row // PERIOD * 4 + mark.column // PERIOD] = 1 + LANDMARKS.index(mark.colour)
    light = torch.stack([_light(truth, time) for truth, time in zip(truths, times, strict=True)])
    landmarks[light < CLEAR], landmarks[light < DARK] = UNSEEN, 1 + len(LANDMARKS)
    unlit = torch.tensor([truth.words.light == UNLIT for truth in truths])
    words["place"][unlit], words["pattern"][unlit] = UNSEEN, UNSEEN
    down, right = (torch.tensor([truth.place.phase for truth in truths]) * (2 * torch.pi / PERIOD)).T
    centres = np.stack([truth.centres[time] for truth, time in zip(truths, times, strict=True)])
    return Examples(
        frames, words, landmarks, torch.tensor([truth.place.hue for truth in truths]).masked_fill(unlit, torch.nan),
        torch.stack([down, right, down + right, down - right], dim=1),
        torch.tensor([[float(angle in SHOWN[truth.words.pattern]) for angle in ANGLES] for truth in truths]) * ~unlit[:, None],
        torch.from_numpy(centres.astype(np.float32)),
        [sentence(truth.words, int(rng.integers(0, 1 << 30))) for truth in truths],
    )  # fmt: skip


def under_lights(truth: Truth, seed: tuple[int, ...]) -> Truth:
    """The same clip under a light that `seed` draws, as often as in the training of a backbone."""
    rng = np.random.default_rng([*seed, len(LIGHTS)])
    return under(truth, str(rng.choice(list(LIGHTS), p=list(LIGHTS.values()))), seed)


def _light(truth: Truth, time: int) -> Tensor:
    """Mean light on the landmark's square of each cell, [16]."""
    if truth.shade is None:
        return torch.ones(CELLS)
    columns = torch.from_numpy(truth.shade[time]).view(-1, PERIOD)[:, PERIOD - LANDMARK :].mean(1)
    return columns.repeat(CELLS // len(columns))


def losses(encoder: FrameEncoder, heat: Tensor, batch: Examples) -> dict[str, Tensor]:
    """Terms of the training loss; `heat` is the logarithm of the scale of cosines with text."""
    seen: Seen = encoder(batch.frames)
    terms = {kind: fn.cross_entropy(scores, batch.words[kind], label_smoothing=0.01) for kind, scores in seen.words.items()}
    # Few of the sixteen cells hold anything, so their mean alone would have too little weight.
    terms["landmarks"] = 4 * fn.cross_entropy(seen.cells.flatten(0, 1), batch.landmarks.flatten())
    circle = torch.cat([batch.angles.cos(), batch.angles.sin()], dim=1)
    shift = (seen.surface[:, 1:] - circle).square() * batch.shown.repeat(1, 2)
    off = torch.where(batch.hue.isnan(), 0.0, seen.surface[:, 0] - batch.hue.nan_to_num())
    terms["surface"] = off.square().mean() + shift.sum(1).mean() / 2
    turn = batch.centres * (2 * torch.pi / render.SIZE)
    terms["where"] = 10 * fn.mse_loss(seen.centre, torch.cat([turn.cos(), turn.sin()], dim=1))
    text = encoder.text(encoder.words.rows(batch.sentences))
    cosines = heat.exp().clamp(max=50) * seen.features.joint @ text.T
    same = torch.ones_like(cosines, dtype=torch.bool)
    for labels in batch.words.values():
        same &= labels[:, None] == labels[None, :]
    # Frames whose visible words agree are each other's positives: no frame tells one motion from another.
    target = same / same.sum(1, keepdim=True)
    terms["text"] = 0.25 * (fn.cross_entropy(cosines, target) + fn.cross_entropy(cosines.T, target))
    return terms


@torch.inference_mode()
def accuracies(encoder: FrameEncoder, batches: list[Examples]) -> dict[str, float]:
    """Shares of right answers (words, landmark cells with and without a landmark, angles to 1.5 px, the sentence out of a batch's) and
    mean errors of hue and of the subject's centre in pixels."""
    shares: dict[str, list[float]] = {}
    for batch in batches:
        seen: Seen = encoder(batch.frames)
        for kind, scores in seen.words.items():
            told = batch.words[kind] >= 0
            shares.setdefault(kind, []).append((scores.argmax(1) == batch.words[kind])[told].float().mean().item())
        right = seen.cells.argmax(2) == batch.landmarks
        held = (batch.landmarks > 0) & (batch.landmarks <= len(LANDMARKS))
        shares.setdefault("landmark", []).append(right[held].float().mean().item())
        shares.setdefault("empty_cell", []).append(right[batch.landmarks == 0].float().mean().item())
        if LIGHT in seen.words:
            shares.setdefault("dark_cell", []).append(right[batch.landmarks > len(LANDMARKS)].float().mean().item())
        turned = torch.atan2(seen.surface[:, 5:], seen.surface[:, 1:5]) - batch.angles
        near = turned.cos() > 0.5**0.5
        shares.setdefault("phase", []).append(near[batch.shown > 0].float().mean().item())
        shares.setdefault("hue_error", []).append((seen.surface[:, 0] - batch.hue).abs().nanmean().item())
        centre = torch.atan2(seen.centre[:, 2:], seen.centre[:, :2]) * (render.SIZE / (2 * torch.pi))
        off = (centre - batch.centres + render.SIZE / 2) % render.SIZE - render.SIZE / 2
        shares.setdefault("centre_error_px", []).append(off.norm(dim=1).mean().item())
        picked = (seen.features.joint @ encoder.text(encoder.words.rows(batch.sentences)).T).argmax(1)
        agree = torch.stack([labels[picked] == labels for labels in batch.words.values()]).all(0)
        shares.setdefault(f"sentence_of_{len(batch.sentences)}", []).append(agree.float().mean().item())
    return {name: round(sum(values) / len(values), 4) for name, values in shares.items()}


def train(seed: int, steps: int, log: Path, lights: bool = False) -> tuple[FrameEncoder, float]:
    """Train from random weights; returns the encoder and the last loss."""
    torch.manual_seed(seed)
    codec, encoder = fit_codec(), FrameEncoder(LIT if lights else VOCABULARY, lights)
    heat = torch.nn.Parameter(torch.tensor(2.5))
    optimizer = torch.optim.AdamW([*encoder.parameters(), heat], lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    loss = torch.tensor(float("nan"))
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("w") as file:
        for step in range(steps):
            terms = losses(encoder, heat, examples(codec, seed, step, CLIPS, lights=lights))
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            plan.step()
            if step % 20 == 0:
                losses_now = {name: round(float(term.detach()), 4) for name, term in terms.items()}
                file.write(json.dumps({"step": step, "seconds": round(time.monotonic() - start), **losses_now}) + "\n")
                file.flush()
    return encoder.eval(), float(loss.detach())


def scorer(
    seed: int = 0, steps: int = 2000, world: Literal["day", "lit"] = "day",
    *, output: Path | None = None, log: Path = Path("results/training/scorer.jsonl"),
) -> None:  # fmt: skip
    """Train the embedded scorer's encoder, measure it on new clips, and write model.safetensors and provenance.json.

        echo-harness train scorer steps=2000
        echo-harness train scorer world=lit

    Args:
        seed: seed of the clips and the initial weights.
        steps: training steps.
        world: by day, or under all lights (lit).
        output: the folder of the weights, by default that of this world's shipped scorer.
        log: losses, a line of JSON every twenty steps.
    """
    torch.set_num_threads(1)
    lights = world == "lit"
    output = output or (SHIPPED.with_name("scorer_lit") if lights else SHIPPED)
    start = time.monotonic()
    about = describe()
    encoder, loss = train(seed, steps, log, lights)
    seconds = round(time.monotonic() - start)
    # Measure the shipped weights, which are in half precision.
    encoder = FrameEncoder.load(encoder.save())
    codec = fit_codec()
    made = EmbeddedScorer(encoder, fit_quality(codec, 1600, lights=lights))
    output.mkdir(parents=True, exist_ok=True)
    made.save(output / "model.safetensors")
    facts = {
        "seed": seed, "steps": steps, **({"lights": True} if lights else {}),
        "loss": round(loss, 4), "seen_clips": steps * CLIPS, "wall_time_s": seconds,
        "accuracy": measured(encoder, codec, seed + 1, lights), "quality_d95": round(made.quality.d95, 3),
        "anchors": measure_anchors(encoder, codec, 12) | (measure_lit_anchors(encoder, codec, 12) if lights else {}), **about,
    }  # fmt: skip
    write_record(output, facts)


def measured(encoder: FrameEncoder, codec: PatchCodec, seed: int, lights: bool, batches: int = 12) -> dict[str, dict[str, float]]:
    """Accuracies on new clips: rendered, through the codec, and roughened like in training."""
    kinds = {"renders": (0.0, False), "through_codec": (1.0, False), "roughened": (CODED, True)}
    by_kind = {}
    for name, (coded, rough) in kinds.items():
        unseen = [examples(codec, seed, step, coded=coded, rough=rough, lights=lights) for step in range(batches)]
        by_kind[name] = accuracies(encoder, unseen)
    for name, through in (("renders", None), ("through_codec", codec)):
        by_kind[name]["motion"] = round(motion_accuracy(encoder, through, 384), 4)
    return by_kind
