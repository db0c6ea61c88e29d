"""The interface of cache policies.

A policy is a frozen dataclass of settings. `plan` is a pure function from a step to integers: no torch, no state. Only
policies that need more than a plan have a `Memory` beside it: hooks on the device, called by the window and the rollout.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from echo.cache.plan import Plan, Step, committed
from echo.geometry import Geometry
from echo.refusals import within
from echo.routing import Embed, Routing, enter
from echo.scene import DurationRule, Prompt, SceneStart, Script, TagMeaning, Transition, scene_blocks
from echo.settings import silent

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore


class Memory:
    """Device side of a policy. The base does nothing: a plan is enough for most policies.

    Shapes: B batch, N tokens of the block, L text rows, H heads, D head_dim; q, k, v are raw (after qk-norm, before RoPE).
    reads_text: whether `read_text` is to be called.
    """

    reads_text: ClassVar[bool] = False

    def switch(self, step: Step) -> None:
        """A scene begins with `step`; the ended scene's frames are still in the store."""

    def read_text(self, keys: Sequence[Tensor]) -> None:
        """A scene begins, behind `switch`: the cross-attention keys of its text, for each layer [B, H, L, D]."""

    def begin_block(self, step: Step, plan: Plan) -> None:
        """The plan is made, nothing has run yet; what the last block's plan kept is still in the store."""

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        """First pass of a block whose plan has a selection: token indices [B, K], ascending, into the candidates."""
        raise NotImplementedError(f"{type(self).__name__} plans a selection but has none")

    def selected(self, layer: int, plan: Plan, index: Tensor, k: Tensor, v: Tensor, places: Tensor) -> None:
        """What `select` chose, to keep if wanted: copies of raw k, v [B, K, H, D] and the tokens' places [B, K]
        (frame * tokens_per_frame + raster place)."""

    def heads(self, layer: int, plan: Plan) -> Sequence[Tensor]:
        """Heads of each of the plan's groups, int64 [n] rising, as sample * heads + head: every one of a layer's is in one group."""
        raise NotImplementedError(f"{type(self).__name__} plans groups of heads but has none")

    def weights(self, layer: int, plan: Plan) -> Tensor | None:
        """Weights [B, tokens] of the plan's faded slots, None where all are 1."""

    def revise(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Clean pass of a block whose plan has a revision, before its context is met: q of the block; k, v [B, T, S, H, D] of the frames
        among the candidates, which are gone behind it. What stays, and how it is edited, is to stand under the memories' names."""
        raise NotImplementedError(f"{type(self).__name__} plans a revision but has none")

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Clean pass of a block. The store holds what its plan keeps, and the block up to this layer."""

    def end_block(self, step: Step, plan: Plan) -> None:
        """The clean pass is done in all layers."""


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Settings that all policies share.

    durations, tags: how prompts become scenes. max_position: RoPE table of policies with absolute indices (0: no limit).
    commit: newest frames that a clean pass reads, the block's own included, in place of what the denoising passes read
    (0: it reads the same). Commit Forcing, github.com/Dwell-Jing/commit-forcing; where scenes are entered by a router,
    of the running scene alone. biased: whether plans have a bias, which not every attention kernel adds.
    """

    biased: ClassVar[bool] = False

    label: str = ""
    durations: DurationRule = DurationRule.cumulative
    tags: TagMeaning = TagMeaning.enter
    max_position: int = 0
    commit: int = silent(0)

    @abstractmethod
    def plan(self, step: Step) -> Plan:
        """What the block attends to. Pure: the same step gives the same plan."""

    def block_plan(self, step: Step) -> Plan:
        """`plan`, and what `commit` makes of its clean pass. What runs, traces and counts plans asks here."""
        plan = self.plan(step)
        if not self.commit:
            return plan
        return committed(plan, self.commit, 0 if self.routed_by is None else step.scene_frame)

    def recache(self, step: Step) -> Plan | None:
        """At a prompt switch: frames to run again, clean and all at once, under the new text before the first block."""
        return None

    def recache_frames(self, geometry: Geometry) -> int:
        """Most latent frames that `recache` reaches back."""
        return 0

    @abstractmethod
    def capacity(self, geometry: Geometry) -> int:
        """Most frames that the store holds at once: what a block's plan keeps, its own frames included (see `held_frames`)."""

    def store_frames(self, geometry: Geometry) -> int:
        """Most frames that the store holds at once: `capacity`, and those that only a clean pass reads."""
        return self.capacity(geometry) + max(0, self.commit - geometry.frames_per_block)

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        """Device side for one rollout."""
        return Memory()

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """Bytes that the device side keeps beside the store's frames and memories; `item`: of a number of the network's type."""
        return 0

    def fitted(self, weights: Sequence[Path], backbone: str) -> Self:
        """The policy with what it needs to know of a network beforehand, which lies beside these files of it; most need nothing.

        Raises Missing, which names the command that measures it, where that was not done.
        """
        return self

    @property
    def routed_by(self) -> Routing | None:
        """Settings of the router by which scenes are entered, where a policy has a field `routing`; None: by their tags, without a jump."""
        return getattr(self, "routing", None)

    def routed(self, **changes: object) -> Self:
        """The same policy with other settings of its router, if it has one."""
        if self.routed_by is None:
            return self
        return dataclasses.replace(self, routing=dataclasses.replace(self.routed_by, **changes))  # type: ignore[arg-type, call-arg]

    @property
    def recalls(self) -> bool:
        """Whether an ended scene can be taken back by its number."""
        return self.routed_by is not None

    def check(self, geometry: Geometry, blocks: int) -> None:
        """Refuse a rollout that this policy cannot run. Raises ValueError."""
        within("max_position", self.max_position, 0, math.inf)
        if self.commit:
            within("commit (0 for none)", self.commit, geometry.frames_per_block, geometry.window_frames)
        last = blocks * geometry.frames_per_block
        if self.max_position and last > self.max_position:
            whole = self.max_position // geometry.frames_per_block
            raise ValueError(
                f"{blocks} blocks ({last} latent frames): {self.label or type(self).__name__} keeps absolute RoPE indices and its "
                f"table ends at {self.max_position}; longest is {whole} blocks"
            )


def script_of(prompt: Prompt, policy: Policy, frames_per_block: int, embed: Embed | None = None) -> Script:
    """Scene starts of a prompt under a policy's preset; a policy without a router takes the tags and no jump.

    A scene without a tag is entered as its text says, by every policy.

    Raises ValueError for a scene that names another to recall and is not entered by a recall, or names one outside the pool.
    """
    lengths = scene_blocks(prompt.durations_s, policy.durations, frames_per_block)
    settings = policy.routed_by
    starts, block = list[SceneStart](), 0
    named = prompt.recalls or (None,) * len(prompt.scenes)
    for scene, tagged in enumerate(prompt.transitions(policy.tags)):
        recalled = named[scene]
        if recalled is not None and tagged not in (Transition.recall, None):
            raise ValueError(f"scene {scene + 1} recalls scene {recalled + 1}, but its tag says {tagged}; nearest is '@'")
        if scene == 0:
            starts.append(SceneStart(block))
        elif settings is None and tagged is not None:
            starts.append(SceneStart(block, tagged))
        else:
            way, target, jump = enter(prompt.scenes, starts, tagged, settings or Routing(), embed, named[scene], policy.recalls)
            starts.append(SceneStart(block, way, target, jump) if settings else SceneStart(block, way))
        block += lengths[scene]
    return Script(tuple(starts), block)


def plans(policy: Policy, script: Script, geometry: Geometry, blocks: int | None = None) -> Iterator[Plan]:
    """The plans of a script's blocks, in order; `blocks` may cut it short or let the last scene run on."""
    for block in range(script.blocks if blocks is None else blocks):
        starts = tuple(start for start in script.starts if start.block <= block)
        yield policy.block_plan(Step(block, starts, geometry))


def held_frames(plans: Iterable[Plan]) -> int:
    """Most frames that the store holds while these plans run: what each keeps, and its block's own. What a known script needs."""
    held: set[int] = set()
    most = 0
    for plan in plans:
        held = {frame for frame in held if frame in plan.keep} | {plan.first_frame + i for i in range(len(plan.queries))}
        most = max(most, len(held))
        held = {frame for frame in held if frame in plan.keep}
    return most
