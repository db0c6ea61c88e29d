"""The rollout: block after block, denoising passes (usually four) and a clean one, prompt switches at block borders.

The policy's plan says what a block attends to, and the window computes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echo.backbone.kernels import AttentionKernel
from echo.backbone.packed import Network
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy
from echo.cache.store import FrameStore
from echo.cache.window import OnSelect, Pass, Window
from echo.geometry import Geometry
from echo.noise import Noise
from echo.sampler import Schedule, renoise, schedule, x0_from_flow
from echo.scene import SceneStart, Transition


@dataclass(frozen=True)
class Block:
    """One finished block: clean latents [B, frames, channels, height, width] and the plan that made it.

    kept: frames in the store after the block, named memories included. attended: frames that it attended to,
    its own included; with groups of heads, the mean over heads and layers.
    """

    index: int
    scene: int
    latents: Tensor
    plan: Plan
    kept: int
    attended: float


class Rollout:
    """An open-ended rollout of a batch of prompts whose scenes switch together.

    >>> rollout = Rollout(model, policy, geometry, noise)      # doctest: +SKIP
    >>> rollout.switch(text)                                    # doctest: +SKIP
    >>> for block in rollout.blocks(): ...                      # doctest: +SKIP
    """

    def __init__(
        self, model: Network, policy: Policy, geometry: Geometry, noise: Noise, *,
        batch: int = 1, steps: Schedule | None = None, on_select: OnSelect | None = None,
        attention: AttentionKernel | None = None, shared_window: bool = False, capacity: int | None = None,
    ) -> None:  # fmt: skip
        """attention: a kernel of `echo.backbone.kernels`. shared_window: one window for all layers, assembled again in every pass.

        capacity: frames of the store, if a known script needs fewer than the policy's maximum (`held_frames`).
        """
        weight = model.patch_embedding.weight
        self.model, self.policy, self.geometry, self.noise = model, policy, geometry, noise
        self.schedule = steps or schedule()
        self._leave_states = getattr(model, "leave_states", model)  # a clean pass, without the work that only its flow needs
        self._promised = policy.store_frames(geometry)
        frames = self._promised if capacity is None else capacity
        self.store = FrameStore(geometry, frames, batch, dtype=weight.dtype, device=weight.device)
        self.memory = policy.memory(geometry, self.store)
        self.window = Window(geometry, self.store, self.memory, on_select, attention=attention, shared=shared_window)
        self.batch, self.block = batch, 0
        self._starts: tuple[SceneStart, ...] = ()
        self._pending: tuple[Any, SceneStart] | None = None
        reach = policy.recache_frames(geometry)
        self._latents: deque[Tensor] = deque(maxlen=-(-reach // geometry.frames_per_block))
        with torch.inference_mode():
            clock = {t: weight.new_full((1, geometry.frames_per_block), t, dtype=torch.float64) for t in self.schedule.clock}
            self._time = {t: model.time_states(frames) for t, frames in clock.items()}

    def switch(self, text_BLT: Tensor, transition: Transition | None = None, recalls: int | None = None, jump: int = 0) -> None:
        """Begin another scene with the next block: text rows [B, L, text_dim], transition, recalled scene, RoPE jump.

        Raises ValueError for a recall of a scene that has not ended.
        """
        if recalls is not None and not 0 <= recalls < len(self._starts):
            shown = f"{len(self._starts)} have been shown; nearest is {len(self._starts)}" if self._starts else "none has been shown yet"
            raise ValueError(f"recall of scene {recalls + 1}: {shown}")
        with torch.inference_mode():
            text = self.model.text_states(text_BLT)
        self._pending = (text, SceneStart(self.block, transition if self._starts else None, recalls, jump))

    def blocks(self) -> Iterator[Block]:
        """An endless iterator over blocks as they are made."""
        while True:
            yield self.next()

    @torch.inference_mode()
    def next(self) -> Block:
        """Make one block. Raises ValueError before the first scene, for a recall that the memory refuses, or a plan that keeps too much."""
        pending, self._pending = self._pending, None
        starts = self._starts if pending is None else (*self._starts, pending[1])
        if not starts:
            raise ValueError("no scene yet: call switch(text) before the first block")
        step = Step(self.block, starts, self.geometry)
        if pending is not None:
            self.memory.switch(step)  # may refuse a recall; the rollout is then as it was
            self._text, self._starts = pending[0], starts
            if self.memory.reads_text:
                self.memory.read_text(self.model.text_keys(self._text))
            self._recache(step)
        plan = self.policy.block_plan(step)
        self.memory.begin_block(step, plan)
        latents = self._denoise(plan)
        self.memory.end_block(step, plan)
        self.store.release(plan.keep)
        self._latents.append(latents)
        self.block += 1
        return Block(plan.block, plan.scene, latents, plan, self.store.size, self.window.attended)

    def _refuse_beyond_capacity(self, plan: Plan) -> None:
        """Raises ValueError for a plan that keeps more than the policy's capacity, by which memory is forecast and policies compared."""
        held = self.store.count(plan.keep) + len(plan.queries)
        if held > self._promised:
            name = self.policy.label or type(self.policy).__name__
            keeps = f"block {plan.block}: {name} keeps {held} frames, its own {len(plan.queries)} included"
            raise ValueError(f"{keeps}; its capacity says at most {self._promised}; let plans keep fewer, or say {held}")

    def _recache(self, step: Step) -> None:
        """Run old frames again, clean and all at once, under the new text, if the policy wants it."""
        plan = self.policy.recache(step)
        if plan is None:
            return
        frames = len(plan.queries)
        clock = self._latents[0].new_zeros((1, frames), dtype=torch.float64)
        self.window.begin(plan, Pass.REWRITE)
        latents = torch.cat(tuple(self._latents), 1)[:, -frames:]
        self._leave_states(latents, self.model.time_states(clock), self._text, self.window.attend)

    def _denoise(self, plan: Plan) -> Tensor:
        self.window.begin(plan)
        steps = self.schedule.of(plan.block)
        sigmas = steps.sigmas
        x = self.noise(plan.block, 0)
        for i, sigma in enumerate(sigmas):
            flow = self.model(x, self._time[steps.timesteps[i]], self._text, self.window.attend)
            x = x0_from_flow(x, flow, sigma)
            if i + 1 < len(sigmas):
                x = renoise(x, self.noise(plan.block, i + 1), sigmas[i + 1])
            self.window.turn_next()
        self.window.turn_clean()
        # Frames that the plan does not keep are from here on read only by each layer's window, just before the block is written over them.
        self._refuse_beyond_capacity(plan)
        self.store.turn_over(range(plan.first_frame, plan.first_frame + len(plan.queries)), plan.keep)
        self._leave_states(x, self._time[0.0], self._text, self.window.attend)
        return x
