"""Labels of a network's heads from a calibration rollout: whether they attend to near or to far frames (Forcing-KV).

Self-Forcing's window is filled, and in each denoising pass of the block that fills it the attention of each head is summed per frame of
the window. A head is static if the newest frames have a share of 0.8 or more of the attention on all frames except the first ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from baselines.forcing_kv import DYNAMIC, STATIC, labels_file
from echo.backbone import rope
from echo.backbone.interface import VideoModel
from echo.cache.plan import Plan
from echo.cache.policy import Policy
from echo.cache.window import Pass
from echo.files import ROOT, file_digest, write_atomic
from echo.generate import begin
from echo.memory.heads import frame_mass
from echo.refusals import within
from echo.rollout import Rollout
from echo.scene import Prompt
from eval.store.origin import origin
from jobs.spec.compose import sweep
from jobs.spec.config import RANDOM, located
from jobs.spec.mistakes import explained
from jobs.spec.plan import prepare
from jobs.work import models

NEWEST, LEFT_OUT = 4, 3
"""Frames at the window's end that count as near, the block's own included, and frames at its beginning that do not count."""
ROWS = 520
"""Most query rows that are used, evenly spread over the block."""


@dataclass
class Looks:
    """Attention of each head on each frame of a full window, summed over passes; observes a rollout's last block."""

    rollout: Rollout
    passes: int = 0

    def __post_init__(self) -> None:
        self.mass: dict[int, Tensor] = {}
        self.rollout.window.on_attend = self._look

    def _look(self, layer: int, plan: Plan, phase: Pass, q: Tensor, k: Tensor) -> None:
        if phase is Pass.CLEAN:  # the store has begun to evict frames
            return
        g, frames = self.rollout.geometry, [slot.source for slot in plan.context]
        self.passes += layer == 0
        positions = [*(slot.position or 0 for slot in plan.context), *plan.queries]
        turn = rope.frame_table(positions, g.grid_height, g.grid_width, g.head_dim, q.device)
        keys = rope.rotate(torch.cat([self.rollout.store.sources(layer, frames)[0].flatten(1, 2), k], 1), turn)
        rows = slice(None, None, max(1, q.shape[1] // ROWS))
        mass = frame_mass(rope.rotate(q, turn[-q.shape[1] :])[:, rows], keys, g.tokens_per_frame)[0]
        self.mass[layer] = self.mass[layer] + mass if layer in self.mass else mass

    def mean(self) -> Tensor:
        """Mean attention [layers, heads, frames] on the host."""
        return torch.stack([self.mass[layer] for layer in sorted(self.mass)]).div(self.passes).cpu()


def looks(backbone: VideoModel, policy: Policy, prompt: Prompt, seed: int) -> Tensor:
    """Attention of each head in the block that fills the window, with the prompt's first text, [layers, heads, frames]."""
    g = backbone.geometry
    rollout = begin(backbone, policy, [prompt.id], seed)
    rollout.switch(backbone.text.encode([prompt.scenes[0]]).to(backbone.device, backbone.dtype))
    for _ in range(g.context_frames // g.frames_per_block):
        rollout.next()
    seen = Looks(rollout)
    rollout.next()
    return seen.mean()


def near(mass_LHT: Tensor) -> Tensor:
    """Share of the newest frames in the attention on all except the first ones, [L, H]."""
    return mass_LHT[..., -NEWEST:].sum(-1) / mass_LHT[..., LEFT_OUT:].sum(-1)


def heads(words: Sequence[str], /, threshold: float = 0.8, *, output: Path | None = None) -> Iterator[str]:
    """Label a network's heads for `method=forcing_kv`, and keep the labels beside its weights.

    By default it uses eight prompts of the 60 s set and seed 0, with seven blocks each, of which the last is measured.

        echo-harness train heads backbone=tiny
        echo-harness train heads backbone=self_forcing prompts=16

    Args:
        words: settings of run.py for the backbone and prompts: backbone= checkpoints= task= prompts= seed= geometry=.
        threshold: share of near attention from which a head is static, 0 to 1.
        output: the file; by default beside the weights, where runs read it.
    """
    within("threshold", threshold, 0, 1)
    with explained(words):
        said = {word.partition("=")[0] for word in words}
        usual = [f"{key}={value}" for key, value in (("task", "long60"), ("prompts", "8")) if key not in said]
        job = prepare(sweep([*usual, *words, "method=self_forcing", "eval=none"])[0])
    weights = [located(path) for path in (job.config.backbone.weights, job.config.backbone.lora) if path is not None]
    if job.config.backbone.weights == RANDOM:
        raise ValueError("weights=random: what is drawn anew has no labels; nearest is weights=trained")
    backbone, _ = models.load(job)
    assert backbone is not None
    bar = tqdm(job.asked, desc=f"heads of {job.config.backbone.name}", unit="prompt", disable=None, leave=False)
    share = near(torch.stack([looks(backbone, job.policy, prompt, job.config.seed) for prompt in bar]).mean(0))
    labels = ["".join(STATIC if one >= threshold else DYNAMIC for one in row) for row in share.tolist()]
    rules = {"threshold": threshold, "newest_frames": NEWEST, "left_out_frames": LEFT_OUT}
    content = {
        "heads": labels, "near_share": [[round(one, 4) for one in row] for row in share.tolist()], **rules,
        "weights": [file_digest(path) for path in weights], "prompts": [prompt.id for prompt in job.asked], "seed": job.config.seed,
        **origin("train heads", words),
    }  # fmt: skip
    path = output or labels_file(weights)
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
    static = sum(label.count(STATIC) for label in labels)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    yield f"{static} of {share.numel()} heads are static; {shown}"
