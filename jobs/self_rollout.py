"""Train a backbone on its own few-step rollouts: `python -m jobs.self_rollout`. Distribution matching, as in Self-Forcing.

The generator rolls out as at inference: cache, policy and four steps, its own blocks as past. One of the four steps of each
block, drawn at random, carries a gradient: the difference of two scores of its x0, that of the teacher (frozen, trained on
the world) and that of a critic (trained along, on what the generator makes). Self-Forcing, arXiv 2506.08009, section 3;
distribution matching, arXiv 2405.14867, equation 3. The score of a clip is taken block by block, each given the clean blocks before it,
so teacher and critic are causal networks of the generator's own kind and one forward scores all blocks.

With `--policy longlive --low-rank N` the same on long rollouts that are carried on from iteration to iteration under a sink
and a short window, and only low-rank additions to the weights are learned: LongLive, arXiv 2509.22622, section 3.2.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from data.world.words import sentence
from echo.backbone import load, lora, rope
from echo.backbone.load import Backbone, BackboneFile
from echo.backbone.text import WordEncoder
from echo.backbone.wan import TextStates, WanModel
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.presets import make_policy
from echo.sampler import renoise, schedule
from echo.scene import SceneStart
from jobs.teacher_forcing import CopiesAttention, attend_plainly
from jobs.train_data import BLOCK_FRAMES, shown_words


@dataclass(frozen=True)
class Settings:
    """Everything that the trained weights depend on, beside the teacher.

    blocks_per_step: blocks of all rows whose loss one iteration sees. guidance: weight of classifier-free guidance in the
    teacher's score. low_rank: rank of the learned additions, 0 for all weights. horizon: blocks after which a rollout is begun anew
    (0: after each iteration). new: blocks that an iteration adds to rollouts that are carried on.
    """

    seed: int = 0
    steps: int = 800
    policy: str = "self_forcing"
    blocks_per_step: int = 56
    guidance: float = 2.5
    learning_rate: float = 2e-4
    critic_rate: float = 4e-4
    critic_steps: int = 2
    warm_up: int = 20
    ema: float = 0.99
    low_rank: int = 0
    horizon: int = 0
    new: int = 2


@dataclass
class Network:
    """A backbone's network and its word vectors, on one device."""

    model: WanModel
    text: WordEncoder

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in (self.model, self.text) for p in module.parameters() if p.requires_grad]

    def states(self, rows: Tensor) -> TextStates:
        with precision(rows.device):
            return self.model.text_states(self.text(rows))


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """bf16 products; left after each pass, because autocast would hand casts made without gradients to a pass with them."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


class CachedAttention:
    """Self-attention of one block over cached keys and values (constants) and itself; keeps what the block would cache.

    keys (rotated), values: [layers, B, N, heads, head_dim] or None without a past.
    """

    def __init__(self, keys: Tensor | None, values: Tensor | None, turn: Tensor) -> None:
        self.keys, self.values, self.turn = keys, values, turn
        self.own: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v [B, N, heads, head_dim] before RoPE to the attended values, same shape."""
        self.own[layer] = (k.detach(), v.detach())
        q, k = rope.rotate(q, self.turn), rope.rotate(k, self.turn)
        if self.keys is not None and self.values is not None:
            k = torch.cat([self.keys[layer].to(k.dtype), k], dim=1)
            v = torch.cat([self.values[layer].to(v.dtype), v], dim=1)
        return attend_plainly(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


class Stream:
    """Rollouts of a batch of sentences under a policy's plan, one block at a time, of a network that is being trained."""

    def __init__(self, geometry: Geometry, policy: Policy, sentences: list[str], generator: torch.Generator) -> None:
        self.geometry, self.policy, self.sentences, self.generator = geometry, policy, sentences, generator
        self.cache: dict[int, tuple[Tensor, Tensor]] = {}
        self.latents: list[Tensor] = []
        self.starts = (SceneStart(0, None, None, 0),)

    def noise(self) -> Tensor:
        g = self.geometry
        shape = (len(self.sentences), g.frames_per_block, g.latent_channels, g.latent_height, g.latent_width)
        return torch.randn(shape, generator=self.generator)

    def block(self, network: Network, text: TextStates, learned: int) -> Tensor:
        """Make the next block; x0 [B, frames, C, h, w] of step `learned`, with its gradient.

        text: states with gradients. The block that goes on into cache and `latents` has gone through all steps.
        """
        g = self.geometry
        plan = self.policy.plan(Step(len(self.latents), self.starts, g))
        device = network.model.patch_embedding.weight.device
        attend = self._attention(plan, device)
        constant = tuple((k.detach(), v.detach()) for k, v in text)
        steps = schedule()
        x, kept = self.noise().to(device), None
        for index, (timestep, sigma) in enumerate(zip((*steps.timesteps, 0.0), (*steps.sigmas, 0.0), strict=True)):
            if 0 < index < len(steps.sigmas):
                x = renoise(x, self.noise().to(device), sigma)
            with nullcontext() if index == learned else torch.no_grad(), precision(device):
                clock = torch.full((1, g.frames_per_block), timestep, device=device)
                flow = network.model(x, network.model.time_states(clock), text if index == learned else constant, attend).float()
            x = x - sigma * flow
            if index == learned:
                kept, x = x, x.detach()
        self._remember(plan, attend, x)
        assert kept is not None
        return kept

    def _attention(self, plan: Plan, device: torch.device) -> CachedAttention:
        g = self.geometry
        own = rope.frame_table(plan.queries, g.grid_height, g.grid_width, g.head_dim).to(device)
        if not plan.context:
            return CachedAttention(None, None, own)
        past = [self.cache[int(slot.source)] for slot in plan.context]
        places = [int(slot.position or 0) for slot in plan.context]
        turn = rope.frame_table(places, g.grid_height, g.grid_width, g.head_dim).to(device)
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*past, strict=True))
        return CachedAttention(torch.stack([rope.rotate(k, turn) for k in keys]), values, own)

    def _remember(self, plan: Plan, attend: CachedAttention, x: Tensor) -> None:
        tokens = self.geometry.tokens_per_frame
        keys, values = (torch.stack([attend.own[layer][which] for layer in sorted(attend.own)]) for which in (0, 1))
        for index in range(self.geometry.frames_per_block):
            rows = slice(index * tokens, (index + 1) * tokens)
            self.cache[plan.first_frame + index] = (keys[:, :, rows], values[:, :, rows])
        self.cache = {frame: held for frame, held in self.cache.items() if frame in plan.keep}
        self.latents.append(x)


def flows(network: Network, rows: Tensor, clean: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
    """Flow of the last blocks of clips, each block given the clean blocks before it.

    rows: words [B, L]. clean [B, (K - 1) * 3, C, h, w]: the clips without their last block. noisy [B, M * 3, C, h, w]: their last M
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

    x0, real, fake [B, M * 3, C, h, w]: the sample and what teacher and critic take it for; the mean is over each block.
    """
    def blocks(x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, BLOCK_FRAMES))

    scale = blocks(x0 - real).abs().mean(dim=(2, 3, 4, 5), keepdim=True).clamp(min=1e-3)
    return (blocks(fake - real) / scale).flatten(1, 2)


class SelfRollout:
    """Generator, critic and teacher at some iteration."""

    def __init__(self, settings: Settings, teacher: Backbone, folder: Path, start: Backbone | None = None) -> None:
        """start: what the generator starts from; the teacher if None."""
        self.settings, self.folder, self.base = settings, folder, start or teacher
        self.policy = make_policy({"method": settings.policy})
        self.teacher = Network(teacher.model.float(), teacher.text)
        self.student = _trainable(self.base)
        self.additions: dict[str, lora.LowRank] = {}
        if settings.low_rank:
            self.student.text.requires_grad_(False)
            self.additions = lora.attach(self.student.model, settings.low_rank, settings.seed)
        self.critic = _trainable(teacher)
        self.average = [p.detach().clone() for p in self.student.parameters()]
        self.optimizers = {
            name: torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.0, 0.99), weight_decay=0.0)
            for name, network, rate in (
                ("student", self.student, settings.learning_rate),
                ("critic", self.critic, settings.critic_rate),
            )
        }
        self.step = 0
        self.clips = 0
        self.seconds = 0.0
        self.stream: Stream | None = None

    def iterate(self) -> dict[str, float]:
        """One iteration; what it measured: size of the matching gradient and the critic's loss."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 2, self.step])
        generator = torch.Generator().manual_seed(int(rng.integers(0, 1 << 62)))
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

    def _stream(self, rng: np.random.Generator, generator: torch.Generator) -> tuple[Stream, int]:
        """The rollouts to carry on and by how many blocks; new ones where they are too long or carry nothing over."""
        settings = self.settings
        new = settings.new if settings.horizon else int(rng.choice((1, 3, 7), p=(0.35, 0.3, 0.35)))
        if self.stream is None or len(self.stream.latents) + new > settings.horizon:
            size = max(1, settings.blocks_per_step // new)
            sentences = [sentence(shown_words(rng), int(rng.integers(0, 1 << 30))) for _ in range(size)]
            self.stream = Stream(self.base.geometry, self.policy, sentences, generator)
            self.clips += size
        self.stream.generator = generator
        return self.stream, new

    def _update_student(self, rows: Tensor, clean: Tensor, made: Tensor, generator: torch.Generator) -> float:
        noisy, sigma, level, _ = _noised(made.detach(), generator)
        with torch.no_grad():
            silent = torch.full_like(rows, -1)
            both = [torch.cat([part, part]) for part in (clean, noisy, sigma)]
            told, untold = flows(self.teacher, torch.cat([rows, silent]), *both).chunk(2)
            real = noisy - level * (untold + self.settings.guidance * (told - untold))
            fake = noisy - level * flows(self.critic, rows, clean, noisy, sigma)
            gradient = matching_gradient(made.detach(), real, fake)
        loss = 0.5 * (made - (made - gradient).detach()).square().mean()
        self._descend("student", loss, self.student)
        torch._foreach_lerp_(self.average, [p.detach() for p in self.student.parameters()], 1 - self.settings.ema)
        return float(gradient.abs().mean())

    def _update_critic(self, rows: Tensor, clean: Tensor, made: Tensor, generator: torch.Generator) -> float:
        noisy, sigma, _, noise = _noised(made, generator)
        loss = (flows(self.critic, rows, clean, noisy, sigma) - (noise - made)).square().mean()
        self._descend("critic", loss, self.critic)
        return float(loss.detach())

    def _descend(self, name: str, loss: Tensor, network: Network) -> None:
        optimizer = self.optimizers[name]
        rate = self.settings.learning_rate if name == "student" else self.settings.critic_rate
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / self.settings.warm_up)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    def save(self) -> None:
        """Write the checkpoint so that a kill leaves the old one or the new one; rollouts under way are begun anew."""
        state = {
            "settings": asdict(self.settings), "step": self.step, "clips": self.clips, "seconds": self.seconds, "average": self.average,
            "student": [p.detach() for p in self.student.parameters()], "critic": [p.detach() for p in self.critic.parameters()],
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / "checkpoint.part"
        torch.save(state, part)
        os.replace(part, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Go on from the checkpoint in the folder, if there is one; ValueError if its settings (steps apart) are others."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        ours = asdict(self.settings)
        differing = [f"{name} {value} (now {ours[name]})" for name, value in state["settings"].items() if name != "steps" and ours[name] != value]
        if differing:
            raise ValueError(f"checkpoint {path} was made with {', '.join(differing)}; use the same or another --folder")
        with torch.no_grad():
            for name, network in (("student", self.student), ("critic", self.critic)):
                torch._foreach_copy_(network.parameters(), state[name])
        torch._foreach_copy_(self.average, state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.clips, self.seconds = state["step"], state["clips"], state["seconds"]

    def export(self, output: Path) -> None:
        """Write the averaged weights: a whole backbone, or the low-rank additions to the one that it started from."""
        output.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            now = [p.detach().clone() for p in self.student.parameters()]
            torch._foreach_copy_(self.student.parameters(), self.average)
            if self.additions:
                tensors = {name: value.to(torch.bfloat16) for name, value in lora.tensors_of(self.additions).items()}
                save_file(tensors, output / "lora.safetensors")
            else:
                base = self.base
                load.save(output / "model.safetensors", self.student.model, self.student.text, base.codec, base.geometry)
            torch._foreach_copy_(self.student.parameters(), now)


def _trainable(backbone: Backbone) -> Network:
    """A copy of a backbone's network and word vectors, in fp32 and with gradients."""
    model, text = copy.deepcopy(backbone.model).float(), copy.deepcopy(backbone.text).float()
    return Network(model.requires_grad_(True).train(), text.requires_grad_(True).train())


def _noised(x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0 [B, M * 3, C, h, w] at a drawn noise level for each block: noisy, levels [B, M], the same broadcast, noise."""
    blocks = x0.shape[1] // BLOCK_FRAMES
    uniform = 0.02 + 0.96 * torch.rand(len(x0), blocks, generator=generator)
    sigma = 5 * uniform / (1 + 4 * uniform)
    level = sigma.repeat_interleave(BLOCK_FRAMES, dim=1)[..., None, None, None]
    noise = torch.randn(x0.shape, generator=generator)
    return renoise_each(x0, noise, level), sigma, level, noise


def renoise_each(x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """(1 - level) x0 + level noise, `level` a tensor."""
    return (1 - level) * x0 + level * noise


def train(run: SelfRollout, save_every: int) -> None:
    """Run to the last iteration; log every tenth as a line of JSON."""
    mark, recent = time.monotonic(), []
    while run.step < run.settings.steps:
        recent.append(run.iterate())
        run.seconds += time.monotonic() - mark
        mark = time.monotonic()
        if run.step % 10 == 0:
            means = {name: round(sum(found[name] for found in recent) / len(recent), 5) for name in recent[0]}
            recent.clear()
            run.folder.mkdir(parents=True, exist_ok=True)
            with (run.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": run.step, "seconds": round(run.seconds, 1), "clips": run.clips, **means}) + "\n")
        if run.step % save_every == 0 or run.step == run.settings.steps:
            run.save()


def main() -> None:
    """Read the command line, train what is left to train, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--teacher", required=True, help="weights that train_tiny wrote")
    parser.add_argument("--start", help="weights that the generator starts from; the teacher's if not given")
    parser.add_argument("--folder", type=Path, required=True, help="checkpoint and log")
    parser.add_argument("--output", type=Path, required=True, help="where the weights go")
    parser.add_argument("--save-every", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(**{name: getattr(given, name) for name in asdict(Settings())})
    start = load.load(BackboneFile(given.start)) if given.start else None
    run = SelfRollout(settings, load.load(BackboneFile(given.teacher)), given.folder, start)
    run.resume()
    train(run, given.save_every)
    run.export(given.output)


if __name__ == "__main__":
    main()
