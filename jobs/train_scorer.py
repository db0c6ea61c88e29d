"""Train the embedded scorer's encoder on the small world: `python -m jobs.train_scorer`, minutes on one core."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as fn

from data.world import render
from data.world.render import LANDMARK_RGB, PERIOD, Truth, draw
from data.world.words import KINDS, VOCABULARY, sentence
from echo.backbone.codec import FRAMES, PatchCodec
from eval.encoder import SUBJECT_DIM, WORDS_DIM, Features, FrameEncoder
from jobs.train_data import fit_codec
from jobs.train_tiny import describe

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "weights" / "scorer"
CLIPS = 128
PICKED = 2
"""Frames of each clip in a batch."""
SHARPNESS = 16.0
"""Scale of the cosines that are read as class scores."""
LANDMARKS = sorted(LANDMARK_RGB)
VISIBLE = ("colour", "shape", "place", "pattern")
"""What a single frame shows; motion it does not."""


@dataclass(frozen=True)
class Examples:
    """Frames [N, 3, 32, 32] in 0..255 and what is true of them.

    words: kind -> class index [N]. landmarks [N, 16]: 0 none, else 1 + colour, for each cell of the coarse grid.
    hue [N]. phase [N, 4]: cosine and sine of the pattern's shift down and right. sentences: N texts.
    """

    frames: Tensor
    words: dict[str, Tensor]
    landmarks: Tensor
    hue: Tensor
    phase: Tensor
    sentences: list[str]


class Readers(nn.Module):
    """What training reads off the features; thrown away afterwards."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"colour": SUBJECT_DIM, "shape": SUBJECT_DIM, "place": WORDS_DIM, "pattern": WORDS_DIM}
        self.prototypes = nn.ParameterDict({kind: nn.Parameter(torch.randn(len(KINDS[kind]), size)) for kind, size in sizes.items()})
        self.heat = nn.Parameter(torch.tensor(2.5))

    def classes(self, features: Features, kind: str) -> Tensor:
        """Scores of the words of `kind`: scaled cosines to one prototype each."""
        vectors = features.subject if kind in ("colour", "shape") else 2**0.5 * features.place[:, :WORDS_DIM]
        return SHARPNESS * vectors @ fn.normalize(self.prototypes[kind], dim=-1).T


def examples(codec: PatchCodec, seed: int, step: int) -> Examples:
    """The batch of `step`: half of the clips through the codec, noisy latents included, then noise, blur and exposure."""
    rng = np.random.default_rng([seed, step])
    truths = []
    for index in range(CLIPS):
        truth = draw((seed, step, index), 96, easy=rng.uniform() < 0.15, before=12)
        start = int(rng.integers(0, 92))
        truths.append(dataclasses.replace(truth, centres=truth.centres[start : start + FRAMES]))
    clips = torch.from_numpy(render.render(truths))
    latents = codec.encode(clips)
    spread = torch.from_numpy(rng.uniform(0, 0.35, size=(CLIPS, 1, 1, 1, 1)).astype(np.float32))
    latents = latents + spread * torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
    coded = torch.from_numpy(rng.uniform(size=CLIPS) < 0.6)
    clips[coded] = codec.decode(latents)[coded]
    order = np.arange(CLIPS).repeat(PICKED)
    frames = clips[order, torch.from_numpy(rng.integers(0, FRAMES, size=len(order)))].permute(0, 3, 1, 2).float()
    return _labelled([truths[index] for index in order], _roughen(frames, rng), rng)


def _roughen(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, exposure, contrast and noise, each of a drawn strength."""
    size = (len(frames), 1, 1, 1)
    blur, gain, offset, noise = (
        torch.from_numpy(rng.uniform(low, high, size=size).astype(np.float32))
        for low, high in ((0, 0.7), (0.9, 1.1), (-8, 8), (0, 10))
    )
    frames = frames + blur * (fn.avg_pool2d(fn.pad(frames, (1, 1, 1, 1), "replicate"), 3, 1) - frames)
    grain = torch.from_numpy(rng.standard_normal(frames.shape, dtype=np.float32))
    return (frames * gain + offset + noise * grain).clamp(0, 255)


def _labelled(truths: list[Truth], frames: Tensor, rng: np.random.Generator) -> Examples:
    """The truths as tensors beside their frames."""
    words = {
        kind: torch.tensor([KINDS[kind].index(getattr(truth.words, kind)) for truth in truths]) for kind in VISIBLE
    }
    landmarks = torch.zeros(len(truths), 16, dtype=torch.int64)
    for row, truth in zip(landmarks, truths, strict=True):
        for mark in truth.place.landmarks:
            row[mark.row // 8 * 4 + mark.column // 8] = 1 + LANDMARKS.index(mark.colour)
    angle = torch.tensor([truth.place.phase for truth in truths]) * (2 * torch.pi / PERIOD)
    return Examples(
        frames, words, landmarks, torch.tensor([truth.place.hue for truth in truths]),
        torch.cat([angle.cos(), angle.sin()], dim=1),
        [sentence(truth.words, int(rng.integers(0, 1 << 30))) for truth in truths],
    )  # fmt: skip


def losses(encoder: FrameEncoder, readers: Readers, batch: Examples) -> dict[str, Tensor]:
    """What training minimises, term by term."""
    hidden = encoder.trunk(batch.frames / 127.5 - 1.0)
    features = encoder.features(hidden)
    found = {
        kind: fn.cross_entropy(readers.classes(features, kind), labels)
        for kind, labels in batch.words.items()
    }
    # Few of the sixteen cells hold anything, so their mean alone would be too quiet to be heard.
    found["landmarks"] = 4 * fn.cross_entropy(encoder.cells(hidden).flatten(0, 1), batch.landmarks.flatten())
    surface = encoder.surface(hidden)
    patterned = (batch.words["pattern"] != KINDS["pattern"].index("plain")).float()
    phase = (surface[:, 1:] - batch.phase).square()
    # Stripes stand upright: their shift downwards cannot be seen.
    phase[:, 0::2] *= (batch.words["pattern"] != KINDS["pattern"].index("striped")).float()[:, None]
    found["surface"] = 0.5 * (fn.mse_loss(surface[:, 0], batch.hue) + (phase.mean(1) * patterned).mean())
    text = encoder.text(encoder.words.rows(batch.sentences))
    cosines = readers.heat.exp().clamp(max=50) * features.joint @ text.T
    same = torch.ones_like(cosines, dtype=torch.bool)
    for labels in batch.words.values():
        same &= labels[:, None] == labels[None, :]
    # Frames whose visible words agree are each other's positives: no frame tells one motion from another.
    target = same / same.sum(1, keepdim=True)
    found["text"] = 0.5 * (fn.cross_entropy(cosines, target) + fn.cross_entropy(cosines.T, target))
    return found


@torch.inference_mode()
def accuracies(encoder: FrameEncoder, readers: Readers, batches: list[Examples]) -> dict[str, float]:
    """Shares of right answers: words, landmark cells that hold one, and the sentence picked among a batch's."""
    right: dict[str, list[float]] = {}
    for batch in batches:
        hidden = encoder.trunk(batch.frames / 127.5 - 1.0)
        features = encoder.features(hidden)
        for kind, labels in batch.words.items():
            scores = readers.classes(features, kind)
            right.setdefault(kind, []).append((scores.argmax(1) == labels).float().mean().item())
        cells = encoder.cells(hidden).argmax(2)
        held = batch.landmarks > 0
        right.setdefault("landmark", []).append((cells == batch.landmarks)[held].float().mean().item())
        picked = (features.joint @ encoder.text(encoder.words.rows(batch.sentences)).T).argmax(1)
        agree = torch.stack([labels[picked] == labels for labels in batch.words.values()]).all(0)
        right.setdefault(f"sentence_of_{len(batch.sentences)}", []).append(agree.float().mean().item())
    return {name: round(sum(values) / len(values), 4) for name, values in right.items()}


def train(seed: int, steps: int, log: Path) -> tuple[FrameEncoder, Readers, float]:
    """Train from nothing; the encoder, its readers and the last loss."""
    torch.manual_seed(seed)
    codec, encoder, readers = fit_codec(), FrameEncoder(VOCABULARY), Readers()
    parameters = [*encoder.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    loss = torch.tensor(float("nan"))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for step in range(steps):
            terms = losses(encoder, readers, examples(codec, seed, step))
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            plan.step()
            if step % 20 == 0:
                file.write(json.dumps({"step": step, **{name: round(float(term.detach()), 4) for name, term in terms.items()}}) + "\n")
                file.flush()
    return encoder.eval(), readers, float(loss.detach())


def main() -> None:
    """Train, measure on clips never trained on, and write model.safetensors and provenance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--log", type=Path, default=Path("results/training/scorer.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    about = describe(torch.device("cpu"))
    encoder, readers, loss = train(given.seed, given.steps, given.log)
    seconds = round(time.monotonic() - start)
    codec = fit_codec()
    unseen = [examples(codec, given.seed + 1, step) for step in range(8)]
    given.output.mkdir(parents=True, exist_ok=True)
    save_file(encoder.save(), given.output / "model.safetensors")
    record = {
        "data_version": render.VERSION, "seed": given.seed, "steps": given.steps, "loss": round(loss, 4),
        "seen_clips": given.steps * CLIPS, "wall_time_s": seconds, "accuracy": accuracies(encoder, readers, unseen), **about,
    }  # fmt: skip
    (given.output / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
