"""Rollouts of a backbone in training: cache, policy and four steps are the same as at inference, with a gradient through one step."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from echo.backbone import rope
from echo.backbone.load import Backbone
from echo.backbone.parts.text import WordEncoder
from echo.backbone.wan import TextStates, WanModel
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.sampler import renoise, schedule
from echo.scene import SceneStart
from jobs.train.teacher_forcing import attend_plainly, precision


@dataclass
class TrainedNetwork:
    """A backbone's network and its word vectors, on one device."""

    model: WanModel
    text: WordEncoder

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in (self.model, self.text) for p in module.parameters() if p.requires_grad]

    def states(self, rows: Tensor) -> TextStates:
        with precision(rows.device):
            return self.model.text_states(self.text(rows))


class CachedAttention:
    """Self-attention of one block over cached keys and values (constants) and itself; keeps the block's keys and values for the cache.

    keys (rotated), values: [layers, B, N, heads, head_dim] or None without a past.
    """

    def __init__(self, keys: Tensor | None, values: Tensor | None, turn: Tensor) -> None:
        self.keys, self.values, self.turn = keys, values, turn
        self.own: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attended values of q, k, v [B, N, heads, head_dim] before RoPE, with the same shape."""
        self.own[layer] = (k.detach(), v.detach())
        q, k = rope.rotate(q, self.turn), rope.rotate(k, self.turn)
        if self.keys is not None and self.values is not None:
            k = torch.cat([self.keys[layer].to(k.dtype), k], dim=1)
            v = torch.cat([self.values[layer].to(v.dtype), v], dim=1)
        return attend_plainly(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


class TrainingStream:
    """Rollouts of a network in training for a batch of sentences under a policy's plan, one block at a time."""

    def __init__(self, geometry: Geometry, policy: Policy, sentences: list[str], generator: torch.Generator) -> None:
        self.geometry, self.policy, self.sentences, self.generator = geometry, policy, sentences, generator
        self.cache: dict[int, tuple[Tensor, Tensor]] = {}
        self.latents: list[Tensor] = []
        self.starts = (SceneStart(0, None, None, 0),)

    def noise(self) -> Tensor:
        g = self.geometry
        shape = (len(self.sentences), g.frames_per_block, g.latent_channels, g.latent_height, g.latent_width)
        return torch.randn(shape, generator=self.generator)

    def block(self, network: TrainedNetwork, text: TextStates, learned: int) -> Tensor:
        """Make the next block; returns x0 [B, frames, C, h, w] of step `learned`, with its gradient.

        text: states with gradients. The block that enters the cache and `latents` has passed all steps.
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
        past = [self.cache[slot.source] for slot in plan.context if isinstance(slot.source, int)]
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


def trainable(backbone: Backbone) -> TrainedNetwork:
    """A copy of a backbone's network and word vectors, in fp32 and with gradients."""
    model, text = copy.deepcopy(backbone.model).float(), copy.deepcopy(backbone.text).float()
    return TrainedNetwork(model.requires_grad_(True).train(), text.requires_grad_(True).train())
