"""The interface of cache policies.

A policy is a frozen dataclass of settings. `plan` is a pure function from a step to integers, without torch or state. Policies
that need more than a plan also have a `Memory`: hooks on the device that the window and the rollout call.
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
    """Device side of a policy. The base class does nothing, which is enough for most policies.

    Shapes: B batch, N tokens of the block, L text rows, H heads, D head_dim; q, k, v are raw (after qk-norm, before RoPE).
    reads_text: whether the rollout calls `read_text`.
    """

    reads_text: ClassVar[bool] = False

    def switch(self, step: Step) -> None:
        """A scene begins with `step`; the ended scene's frames are still in the store."""

    def read_text(self, keys: Sequence[Tensor]) -> None:
        """A scene begins, after `switch`: the cross-attention keys of its text, for each layer [B, H, L, D]."""

    def begin_block(self, step: Step, plan: Plan) -> None:
        """The plan is made and nothing has run yet; the store holds what the last block's plan kept."""

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        """First pass of a block whose plan has a selection: token indices [B, K], ascending, into the candidates."""
        raise NotImplementedError(f"{type(self).__name__} plans a selection but has none")

    def selected(self, layer: int, plan: Plan, index: Tensor, k: Tensor, v: Tensor, places: Tensor) -> None:
        """The tokens that `select` chose, if the selection has `own_spatial`: copies of raw k, v [B, K, H, D] and the tokens' places
        [B, K] (frame * tokens_per_frame + raster place)."""

    def heads(self, layer: int, plan: Plan) -> Sequence[Tensor]:
        """Heads of each of the plan's groups, int64 [n] ascending, as sample * heads + head; every head of a layer is in one group."""
        raise NotImplementedError(f"{type(self).__name__} plans groups of heads but has none")

    def weights(self, layer: int, plan: Plan) -> Tensor | None:
        """Weights [B, tokens] of the plan's faded slots; None if all are 1."""

    def revise(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Clean pass of a block whose plan has a revision, before its attention: q of the block; k, v [B, T, S, H, D] of the candidate
        frames, which leave the store afterwards. The method stores what is to stay, edited or not, under the memories' names."""
        raise NotImplementedError(f"{type(self).__name__} plans a revision but has none")

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Clean pass of a block. The store holds what its plan keeps, and the block's own states up to this layer."""

    def end_block(self, step: Step, plan: Plan) -> None:
        """The clean pass is done in all layers."""


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Settings that all policies share.

    durations, tags: how prompts become scenes. max_position: length of the RoPE table for absolute indices (0: no limit).
    commit: number of newest frames that a clean pass reads, the block's own included, instead of the context of the denoising passes
    (0: the same context). Commit Forcing, github.com/Dwell-Jing/commit-forcing; with a router, only frames of the running scene.
    biased: whether plans have a bias, which not every attention kernel can add.
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
        """`plan` with the clean pass that `commit` sets. Callers that run, trace or count plans use this method."""
        plan = self.plan(step)
        if not self.commit:
            return plan
        return committed(plan, self.commit, 0 if self.routed_by is None else step.scene_frame)

    def recache(self, step: Step) -> Plan | None:
        """At a prompt switch: a plan of frames to run again, clean and all at once, under the new text before the first block; or None."""
        return None

    def recache_frames(self, geometry: Geometry) -> int:
        """Largest number of latent frames that `recache` runs again."""
        return 0

    @abstractmethod
    def capacity(self, geometry: Geometry) -> int:
        """Largest number of frames in the store: what a block's plan keeps, the block's own frames included (see `held_frames`)."""

    def store_frames(self, geometry: Geometry) -> int:
        """Largest number of frames in the store: `capacity`, and frames that only a clean pass reads."""
        return self.capacity(geometry) + max(0, self.commit - geometry.frames_per_block)

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        """Device side for one rollout."""
        return Memory()

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """Bytes that the device side keeps besides the store's frames and memories; `item`: bytes of a number of the network's dtype."""
        return 0

    def fitted(self, weights: Sequence[Path], backbone: str) -> Self:
        """The policy with facts about a network that were measured beforehand and stored beside these files; most need none.

        Raises Missing, which names the command that measures them, if they are missing.
        """
        return self

    @property
    def routed_by(self) -> Routing | None:
        """Settings of the router, if the policy has a field `routing`; None: scenes are entered by their tags, without a jump."""
        return getattr(self, "routing", None)

    def routed(self, **changes: object) -> Self:
        """The same policy with other router settings, if it has a router."""
        if self.routed_by is None:
            return self
        return dataclasses.replace(self, routing=dataclasses.replace(self.routed_by, **changes))  # type: ignore[arg-type, call-arg]

    @property
    def recalls(self) -> bool:
        """Whether ended scenes can be recalled."""
        return self.routed_by is not None

    def check(self, geometry: Geometry, blocks: int) -> None:
        """Raises ValueError for a rollout that this policy cannot run."""
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
    """Scene starts of a prompt under a policy's preset; a policy without a router uses the tags and no jump.

    For every policy, the texts decide the transition into a scene without a tag.

    Raises ValueError for a scene that names a scene to recall but has another tag than a recall's, or names one outside the pool.
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
    """The plans of a script's blocks, in order; `blocks` may shorten the script or extend its last scene."""
    for block in range(script.blocks if blocks is None else blocks):
        starts = tuple(start for start in script.starts if start.block <= block)
        yield policy.block_plan(Step(block, starts, geometry))


def held_frames(plans: Iterable[Plan]) -> int:
    """Largest number of frames in the store while these plans run: what each keeps, and its block's own."""
    held: set[int] = set()
    most = 0
    for plan in plans:
        held = {frame for frame in held if frame in plan.keep} | {plan.first_frame + i for i in range(len(plan.queries))}
        most = max(most, len(held))
        held = {frame for frame in held if frame in plan.keep}
    return most
