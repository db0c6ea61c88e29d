"""Train a backbone on its own few-step rollouts: distribution matching, as in Self-Forcing.

The generator's rollout is the same as at inference: cache, policy and four steps, with its own blocks as past. One of the four steps of
each block, drawn at random, carries a gradient: the difference of two scores of its x0, from the teacher (frozen, trained on the world)
and from a critic (trained at the same time on the generator's output). Self-Forcing, arXiv 2506.08009, section 3; distribution
matching, arXiv 2405.14867, equation 3. A clip is scored block by block, each given the clean blocks before it, so teacher and critic are
causal networks like the generator, and one forward pass scores all blocks.

`kind=long` does the same on long rollouts that continue from iteration to iteration with a sink and a short window, and learns only LoRA
weights: LongLive, arXiv 2509.22622, section 3.2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from baselines.presets import make_policy
from data.world.words import sentence
from echo.backbone import load
from echo.backbone.checkpoints import lora
from echo.backbone.load import Backbone
from echo.files import ROOT, file_digest
from echo.sampler import renoise, shifted
from echo.settings import build
from jobs.train import checkpoint
from jobs.train import processes as workers
from jobs.train.data import BLOCK_FRAMES, shown_words
from jobs.train.streams import TrainedNetwork, TrainingStream, trainable
from jobs.train.teacher_forcing import CopiesAttention, precision


@dataclass(frozen=True)
class RolloutTraining:
    """Everything on which the trained weights depend, besides the teacher and the number of processes.

    blocks_per_step: blocks, over all rows, in the loss of one iteration. guidance: weight of classifier-free guidance in the teacher's
    score. low_rank: LoRA rank, 0 to train all weights. horizon: most blocks of a rollout that continues from iteration to iteration, whose
    length is drawn up to it (0: an iteration begins and ends its rollouts). new: blocks that an iteration adds to such a rollout.
    critic_first: iterations in which only the critic learns, if the generator does not start from the teacher. streams: number of such
    rollout batches that take turns, so that early and late blocks are learned together. lit: under all lights.
    """

    seed: int = 0
    steps: int = 400
    policy: str = "self_forcing"
    blocks_per_step: int = 56
    guidance: float = 2.0
    learning_rate: float = 2e-4
    critic_rate: float = 4e-4
    critic_steps: int = 2
    critic_first: int = 0
    warm_up: int = 20
    ema: float = 0.99
    low_rank: int = 0
    horizon: int = 0
    new: int = 2
    streams: int = 4
    lit: bool = False


KINDS = {
    "short": RolloutTraining(),
    "long": RolloutTraining(
        policy="longlive", low_rank=32, horizon=84, blocks_per_step=24, steps=240, learning_rate=5e-4, critic_first=30
    ),
    "lit": RolloutTraining(steps=150, lit=True),
}  # fmt: skip
"""Settings of the shipped weights: `tiny` with whole rollouts up to the window, `tiny_long` with long ones, `tiny_lit` as `tiny` but
under all lights and stopped early, so that errors beyond the window remain."""


def flows(network: TrainedNetwork, rows: Tensor, clean: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
    """Flow of the last blocks of clips, each block given the clean blocks before it.

    rows: word indices [B, L]. clean [B, (K - 1) * 3, C, h, w]: the clips without their last block. noisy [B, M * 3, C, h, w]: their last M
    blocks at noise levels sigma [B, M]. Returns [B, M * 3, C, h, w].
    """
    known, made = clean.shape[1], noisy.shape[1]
    blocks = known // BLOCK_FRAMES + 1
    gaps = [range(block) for block in range(blocks)]
    attend = CopiesAttention(
        gaps, noisy.shape[3] // 2, noisy.shape[4] // 2, network.model.config.head_dim, noisy.device,
        copies=1, first=blocks - made // BLOCK_FRAMES,
    )  # fmt: skip
    time = torch.cat([torch.zeros(len(noisy), known, device=noisy.device), sigma.repeat_interleave(BLOCK_FRAMES, 1) * 1000], 1)
    text = network.states(rows)
    with precision(noisy.device):
        flow = network.model(torch.cat([clean, noisy], 1), network.model.time_states(time), text, attend)
    return flow[:, known:].float()


def matching_gradient(x0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """(fake - real) / mean |x0 - real|: descent direction of KL(generated | real), DMD2's equations 3 and 8.

    x0, real, fake [B, M * 3, C, h, w]: the sample, and the teacher's and critic's estimates of it; the mean is over each block.
    """

    def blocks(x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, BLOCK_FRAMES))

    scale = blocks(x0 - real).abs().mean(dim=(2, 3, 4, 5), keepdim=True).clamp(min=1e-3)
    return (blocks(fake - real) / scale).flatten(1, 2)


class SelfRollout:
    """Generator, critic and teacher at some iteration."""

    def __init__(
        self, settings: RolloutTraining, teacher: Backbone, folder: Path, start: Backbone | None = None, share: tuple[int, int] = (0, 1)
    ) -> None:
        """start: initial generator; the teacher if None. share: (rank, number of processes)."""
        self.share = share
        self.settings, self.folder, self.base = settings, folder, start or teacher
        self.policy = make_policy({"method": settings.policy})
        self.teacher = TrainedNetwork(teacher.model.float(), teacher.text)
        self.student = trainable(self.base)
        self.additions: dict[str, lora.LowRank] = {}
        if settings.low_rank:
            self.student.text.requires_grad_(False)
            self.additions = lora.attach(self.student.model, settings.low_rank, settings.seed)
        self.critic = trainable(teacher)
        self.average = [p.detach().clone() for p in self.student.parameters()]
        self.optimizers = {
            name: torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.0, 0.99), weight_decay=0.0)
            for name, network, rate in (
                ("student", self.student, settings.learning_rate),
                ("critic", self.critic, settings.critic_rate),
            )
        }
        self.step = 0
        self.processes = share[1]
        self.clips = 0
        self.seconds = 0.0
        self.streams: dict[int, tuple[TrainingStream, int]] = {}

    def iterate(self) -> dict[str, float]:
        """Make one iteration; returns the size of the matching gradient and the critic's loss."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 2, self.step])
        noise = np.random.default_rng([settings.seed, 3, self.step, self.share[0]])
        generator = torch.Generator().manual_seed(int(noise.integers(0, 1 << 62)))
        stream, new = self._stream(rng, generator)
        rows = self.student.text.rows(stream.sentences)
        text = self.student.states(rows)
        made = torch.cat([stream.block(self.student, text, int(rng.integers(0, 4))) for _ in range(new)], dim=1)
        horizon = self.base.geometry.window_frames // BLOCK_FRAMES
        clean = torch.cat(stream.latents[-horizon:], dim=1)[:, :-BLOCK_FRAMES]
        pull = self._update_student(rows, clean, made, generator)
        losses = [self._update_critic(rows, clean, made.detach(), generator) for _ in range(settings.critic_steps)]
        self.step += 1
        return {"pull": pull, "critic": sum(losses) / max(1, len(losses))}

    def _stream(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[TrainingStream, int]:
        """The rollouts to continue and the number of blocks; new rollouts if they are too long or none continue."""
        settings = self.settings
        new = settings.new if settings.horizon else int(rng.choice((1, 3, 7), p=(0.25, 0.3, 0.45)))
        turn = self.step % settings.streams if settings.horizon else 0
        stream, length = self.streams.get(turn, (None, 0))
        if stream is None or len(stream.latents) + new > length:
            size = max(self.share[1], settings.blocks_per_step // new)
            sentences = [sentence(shown_words(rng, settings.lit), int(rng.integers(0, 1 << 30))) for _ in range(size)]
            which, count = self.share
            mine = sentences[size * which // count : size * (which + 1) // count]
            stream = TrainingStream(self.base.geometry, self.policy, mine, generator)
            length = int(rng.integers(min(7, settings.horizon), settings.horizon + 1)) if settings.horizon else 0
            self.streams[turn] = stream, length
            self.clips += size
        stream.generator = generator
        return stream, new

    def _update_student(self, rows: Tensor, clean: Tensor, made: Tensor, generator: torch.Generator) -> float:
        noisy, sigma, level, _ = _noised(made.detach(), generator)
        with torch.no_grad():
            silent = torch.full_like(rows, -1)
            both = [torch.cat([part, part]) for part in (clean, noisy, sigma)]
            with_text, without_text = flows(self.teacher, torch.cat([rows, silent]), *both).chunk(2)
            real = noisy - level * (without_text + self.settings.guidance * (with_text - without_text))
            fake = noisy - level * flows(self.critic, rows, clean, noisy, sigma)
            gradient = matching_gradient(made.detach(), real, fake)
        if self.step >= self.settings.critic_first:
            loss = 0.5 * (made - (made - gradient).detach()).square().mean()
            self._descend("student", loss, self.student)
        checkpoint.follow(self.average, self.student.parameters(), self.step, self.settings.ema)
        return float(gradient.abs().mean())

    def _update_critic(self, rows: Tensor, clean: Tensor, made: Tensor, generator: torch.Generator) -> float:
        noisy, sigma, _, noise = _noised(made, generator)
        loss = (flows(self.critic, rows, clean, noisy, sigma) - (noise - made)).square().mean()
        self._descend("critic", loss, self.critic)
        return float(loss.detach())

    def _descend(self, name: str, loss: Tensor, network: TrainedNetwork) -> None:
        optimizer = self.optimizers[name]
        rate = self.settings.learning_rate if name == "student" else self.settings.critic_rate
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / self.settings.warm_up)
        optimizer.zero_grad(set_to_none=True)
        (loss / self.share[1]).backward()
        workers.add_up(loss.detach(), network.parameters(), self.share[1])
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    def save(self) -> None:
        """Write the checkpoint.

        It does not contain continuing rollouts: a stopped long training begins new ones, so its result differs.
        """
        state = {
            "settings": asdict(self.settings), "step": self.step, "clips": self.clips, "seconds": self.seconds, "average": self.average,
            "processes": self.processes,
            "student": [p.detach() for p in self.student.parameters()], "critic": [p.detach() for p in self.critic.parameters()],
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }  # fmt: skip
        checkpoint.save(self.folder, state)

    def resume(self) -> None:
        """Continue from the checkpoint in the folder, if there is one. Raises ValueError if its settings, except steps, differ."""
        state = checkpoint.resume(self.folder, {name: value for name, value in asdict(self.settings).items() if name != "steps"})
        if state is None:
            return
        with torch.no_grad():
            for name, network in (("student", self.student), ("critic", self.critic)):
                torch._foreach_copy_(list[Tensor](network.parameters()), state[name])
        torch._foreach_copy_(self.average, state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.clips, self.seconds = state["step"], state["clips"], state["seconds"]
        if self.step < self.settings.steps and state["processes"] != self.processes:
            known, path = state["processes"], checkpoint.place(self.folder)
            raise ValueError(f"processes={self.processes}: noise is keyed by process and {path} was made by {known}; nearest: {known}")
        self.processes = state["processes"]

    def export(self, output: Path, origins: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the averaged weights: a whole backbone, or LoRA weights for the backbone from which it started.

        origins: provenance of teacher and start, for the record beside the weights.
        """
        output.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            held: list[Tensor] = list(self.student.parameters())
            now = [p.detach().clone() for p in held]
            torch._foreach_copy_(held, self.average)
            if self.additions:
                tensors = {name: value.to(torch.bfloat16) for name, value in lora.tensors_of(self.additions).items()}
                save_file(tensors, output / "lora.safetensors")
            else:
                base = self.base
                load.save(output / "model.safetensors", self.student.model, self.student.text, base.codec, base.geometry)
            torch._foreach_copy_(held, now)
        facts = {
            "settings": asdict(self.settings), "steps_done": self.step, "rollouts": self.clips,
            # The start was trained on the teacher's clips, so the start's record is the first.
            "seen_clips": self.clips + next((known.get("seen_clips", 0) for known in origins.values()), 0),
            "processes": self.processes, "wall_time_s": round(self.seconds),
            **checkpoint.describe(), "commit": checkpoint.started_at(self.folder), **origins,
        }  # fmt: skip
        checkpoint.write_record(output, facts)


def _noised(x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0 [B, M * 3, C, h, w] with a drawn noise level per block: returns noisy, levels [B, M], the levels broadcast, and noise."""
    blocks = x0.shape[1] // BLOCK_FRAMES
    uniform = 0.02 + 0.96 * torch.rand(len(x0), blocks, generator=generator)
    sigma = shifted(uniform)
    level = sigma.repeat_interleave(BLOCK_FRAMES, dim=1)[..., None, None, None]
    noise = torch.randn(x0.shape, generator=generator)
    return renoise(x0, noise, level), sigma, level, noise


def train(run: SelfRollout, save_every: int) -> None:
    """Run to the last iteration; log every tenth as a line of JSON."""
    mark, recent = time.monotonic(), []
    while run.step < run.settings.steps:
        recent.append(run.iterate())
        run.seconds += time.monotonic() - mark
        mark = time.monotonic()
        if run.step % 10 == 0 and run.share[0] == 0:
            means = {name: round(sum(losses[name] for losses in recent[-10:]) / len(recent[-10:]), 5) for name in recent[0]}
            record = {"step": run.step, "seconds": round(run.seconds, 1), "clips": run.clips}
            checkpoint.log(run.folder, record | means)
        if run.share[0] == 0 and (run.step % save_every == 0 or run.step == run.settings.steps):
            run.save()


def self_rollout(
    words: Sequence[str],
    /,
    teacher: str,
    start: str = "",
    kind: Literal["short", "long", "lit"] = "short",
    processes: int = 1,
    save_every: int = 50,
    *,
    folder: Path,
    output: Path,
) -> None:
    """Train a backbone on its own few-step rollouts, from its checkpoint if there is one, then write the weights.

        echo-harness train self-rollout teacher=teacher/model.safetensors --folder results/training/self --output data/weights/tiny

    Args:
        words: settings, SETTING=VALUE: seed= steps= policy= blocks_per_step= guidance= learning_rate= critic_rate= critic_steps=
            critic_first= warm_up= ema= low_rank= horizon= new= streams= lit=.
        teacher: weights that `echo-harness train backbone` wrote.
        start: weights that the generator starts from; the teacher's by default.
        kind: the settings of tiny (short), of tiny_long (long) or of tiny_lit (lit).
        processes: processes that share each iteration (gloo).
        save_every: iterations from one checkpoint to the next.
        folder: the folder of checkpoint and log.
        output: the folder of the weights.
    """
    torch.set_num_threads(1)
    changes: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))
    settings = build(RolloutTraining, changes, upon=KINDS[kind])
    workers.start(_run, (settings, teacher, start, folder, save_every), processes)
    run = _resumed((0, 1), settings, teacher, start, folder)
    run.export(output, {role: _known(path) for role, path in (("start", start), ("teacher", teacher)) if path})


def _known(weights: str) -> dict[str, Any]:
    """Digest of weights, and the record beside them if there is one."""
    path = ROOT / weights
    record = path.with_name("provenance.json")
    return {"weights": file_digest(path)} | (json.loads(record.read_text()) if record.exists() else {})


def _resumed(share: tuple[int, int], settings: RolloutTraining, teacher: str, start: str, folder: Path) -> SelfRollout:
    torch.set_num_threads(1)
    first = load.load(start) if start else None
    run = SelfRollout(settings, load.load(teacher), folder, first, share)
    run.resume()
    return run


def _run(rank: int, count: int, settings: RolloutTraining, teacher: str, start: str, folder: Path, save_every: int) -> None:
    checkpoint.started_at(folder)
    train(_resumed((rank, count), settings, teacher, start, folder), save_every)
