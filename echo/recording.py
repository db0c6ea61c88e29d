"""Records raw queries and keys of every layer, block and pass of a rollout while it runs.

    recorder = Recorder()
    for block in generate(backbone, policy, prompts, seed, watch=recorder.watch): ...
    recorder.queries(layer, block)       # [P, B, N, H, D]

The window calls the recorder before each self-attention. The pixels do not change.

Shapes: P passes of a block in their order (the last one is the clean one), B batch, N tokens of a block, H heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from echo.cache.plan import Plan
from echo.cache.window import Pass
from echo.geometry import Geometry
from echo.rollout import Rollout


class Recorder:
    """States of one rollout, on the host in their own dtype.

    layers, blocks: those to record, all by default. geometry: of the rollout, once it is watched. plans: the recorded plans by
    block. selected: token indices [B, K] that the policy selected, by layer and block.
    """

    def __init__(self, layers: Collection[int] | None = None, blocks: Collection[int] | None = None) -> None:
        self._layers, self._blocks = layers, blocks
        self._states: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        self.plans: dict[int, Plan] = {}
        self.selected: dict[tuple[int, int], Tensor] = {}
        self.geometry: Geometry | None = None

    def watch(self, rollout: Rollout) -> None:
        """Record this rollout from now on; an earlier callback for its selections is still called."""
        self.geometry = rollout.geometry
        earlier = rollout.window.on_select

        def select(layer: int, plan: Plan, index: Tensor) -> None:
            if self._wants(layer, plan.block):
                self.selected[layer, plan.block] = index.cpu().clone()
            if earlier is not None:
                earlier(layer, plan, index)

        rollout.window.on_attend, rollout.window.on_select = self._attend, select

    @property
    def layers(self) -> list[int]:
        """Layers with states."""
        return sorted({layer for layer, _ in self._states})

    def queries(self, layer: int, block: int) -> Tensor:
        """Raw queries of all passes, [P, B, N, H, D]. Raises ValueError for what was not recorded."""
        return self._stacked(layer, block, 0)

    def keys(self, layer: int, block: int) -> Tensor:
        """Raw keys of the block itself in all passes, [P, B, N, H, D]; the last are those that later blocks attend to."""
        return self._stacked(layer, block, 1)

    def clean_keys(self, layer: int, frames: Collection[int]) -> Tensor:
        """Clean raw keys of whole latent frames, [B, T, S, H, D]. Raises ValueError as `queries` does."""
        assert self.geometry is not None
        size = self.geometry.frames_per_block
        blocks = {frame // size: self.keys(layer, frame // size)[-1].unflatten(1, (size, -1)) for frame in frames}
        return torch.stack([blocks[frame // size][:, frame % size] for frame in frames], 1)

    def _wants(self, layer: int, block: int) -> bool:
        return (self._layers is None or layer in self._layers) and (self._blocks is None or block in self._blocks)

    def _attend(self, layer: int, plan: Plan, phase: Pass, q: Tensor, k: Tensor) -> None:
        if phase is Pass.REWRITE or not self._wants(layer, plan.block):
            return
        if phase is Pass.FIRST:
            self._states[layer, plan.block] = []
            self.plans[plan.block] = plan
        self._states[layer, plan.block].append((q.to("cpu", copy=True), k.to("cpu", copy=True)))

    def _stacked(self, layer: int, block: int, part: int) -> Tensor:
        if (layer, block) not in self._states:
            raise ValueError(f"layer {layer}, block {block}: not recorded; layers {self.layers}, blocks {sorted(self.plans)} are")
        return torch.stack([states[part] for states in self._states[layer, block]])
