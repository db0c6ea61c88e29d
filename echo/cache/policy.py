"""The interface of cache policies, and how a name becomes one.

A policy is a frozen dataclass of settings. `plan` is a pure function from a step to integers: no torch, no state. Only
policies that need more than a plan have a `Memory` beside it: hooks on the device, called by the window and the rollout.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from echo.cache.plan import Plan, Step
from echo.geometry import Geometry
from echo.refusals import nearest, within
from echo.scene import DurationRule, Script, TagMeaning

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore


class Memory:
    """Device side of a policy. The base does nothing: a plan is enough for most policies.

    Shapes: B batch, N tokens of the block, H heads, D head_dim; q, k, v are raw (after qk-norm, before RoPE).
    """

    def switch(self, step: Step) -> None:
        """A scene begins with `step`; the ended scene's frames are still in the store."""

    def begin_block(self, step: Step, plan: Plan) -> None:
        """The plan is made, nothing has run yet; what the last block's plan kept is still in the store."""

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        """First pass of a block whose plan has a selection: token indices [B, K], ascending, into the candidates."""
        raise NotImplementedError(f"{type(self).__name__} plans a selection but has none")

    def selected(self, layer: int, plan: Plan, index: Tensor, k: Tensor, v: Tensor, places: Tensor) -> None:
        """What `select` chose, to keep if wanted: copies of raw k, v [B, K, H, D] and the tokens' places [B, K]
        (frame * tokens_per_frame + raster place)."""

    def weights(self, layer: int, plan: Plan) -> Tensor | None:
        """Weights [B, tokens] of the plan's faded slots, None where all are 1."""

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Clean pass of a block. The store holds what its plan keeps, and the block up to this layer."""

    def end_block(self, step: Step, plan: Plan) -> None:
        """The clean pass is done in all layers."""


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Settings that all policies share.

    durations, tags: how prompts become scenes. max_position: RoPE table of policies with absolute indices (0: no limit).
    """

    label: str = ""
    durations: DurationRule = DurationRule.cumulative
    tags: TagMeaning = TagMeaning.enter
    max_position: int = 0

    @abstractmethod
    def plan(self, step: Step) -> Plan:
        """What the block attends to. Pure: the same step gives the same plan."""

    def recache(self, step: Step) -> Plan | None:
        """At a prompt switch: frames to run again, clean and all at once, under the new text before the first block."""
        return None

    def recache_frames(self, geometry: Geometry) -> int:
        """Most latent frames that `recache` reaches back."""
        return 0

    @abstractmethod
    def capacity(self, geometry: Geometry) -> int:
        """Most frames that the store holds at once: what a block's plan keeps, its own frames included (see `held_frames`)."""

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        """Device side for one rollout."""
        return Memory()

    def check(self, geometry: Geometry, blocks: int) -> None:
        """Refuse a rollout that this policy cannot run. Raises ValueError."""
        within("max_position", self.max_position, 0, math.inf)
        last = blocks * geometry.frames_per_block
        if self.max_position and last > self.max_position:
            whole = self.max_position // geometry.frames_per_block
            raise ValueError(
                f"{blocks} blocks ({last} latent frames): {self.label or type(self).__name__} keeps absolute RoPE indices and its "
                f"table ends at {self.max_position}; longest is {whole} blocks"
            )


def plans(policy: Policy, script: Script, geometry: Geometry, blocks: int | None = None) -> Iterator[Plan]:
    """The plans of a script's blocks, in order; `blocks` may cut it short or let the last scene run on."""
    for block in range(script.blocks if blocks is None else blocks):
        starts = tuple(start for start in script.starts if start.block <= block)
        yield policy.plan(Step(block, starts, geometry))


def held_frames(plans: Iterable[Plan]) -> int:
    """Most frames that the store holds while these plans run: what each keeps, and its block's own. What a known script needs."""
    held: set[int] = set()
    most = 0
    for plan in plans:
        held = {frame for frame in held if frame in plan.keep} | {plan.first_frame + i for i in range(len(plan.queries))}
        most = max(most, len(held))
        held = {frame for frame in held if frame in plan.keep}
    return most


def names() -> list[str]:
    """Every policy that can be named: Echo and the modules of `baselines`."""
    package = importlib.import_module("baselines")
    return ["echo", *sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name != "presets")]


def find(name: str) -> type[Policy]:
    """The policy class of module `baselines.<name>` (`echo.policy` for "echo"). Raises ValueError for an unknown name."""
    if name not in names():
        near = nearest(name, names())
        raise ValueError(f"unknown policy {name!r}; nearest is {near!r} of {', '.join(names())}")
    module = importlib.import_module("echo.policy" if name == "echo" else f"baselines.{name}")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Policy) and c.__module__ == module.__name__]
    if len(classes) != 1:
        raise ValueError(f"{module.__name__}: a policy module defines exactly one Policy, not {len(classes)}")
    return classes[0]


def _schema(kind: type[Policy]) -> DictConfig:
    """Typed settings of a policy class; OmegaConf takes frozen dataclasses for read-only nodes, also nested ones."""
    schema = OmegaConf.structured(kind)
    OmegaConf.set_readonly(schema, False)
    for key in schema:
        if isinstance(schema._get_node(key), DictConfig):
            OmegaConf.set_readonly(schema[key], False)
    return schema


def _rule(message: str) -> str:
    """OmegaConf's words for a bad value, and the nearest valid one where it lists them."""
    listed = re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", message)
    if listed:
        near = nearest(listed[1], listed[2].split(", "))
        return f"{listed[1]!r} is none of {listed[2]}; nearest is {near!r}"
    return "a group of settings is expected here" if "is not a subclass of" in message else message


def make(name: str, settings: Mapping[str, Any]) -> Policy:
    """A policy from its settings. Raises ValueError that names an unknown key or a bad value and the nearest valid one."""
    return build(find(name), name, settings)


def build(kind: type[Policy], name: str, settings: Mapping[str, Any]) -> Policy:
    """As `make`, of a class that is already found."""
    try:
        policy = OmegaConf.to_object(OmegaConf.merge(_schema(kind), OmegaConf.create(dict(settings))))
    except ConfigKeyError as error:
        parent, key = (str(error.full_key or error.key).rpartition(".")[i] for i in (0, 2))
        owner: Any = kind
        for part in filter(None, parent.split(".")):
            owner = OmegaConf.get_type(OmegaConf.structured(owner)[part])
        known = [field.name for field in dataclasses.fields(owner)]
        near = nearest(key, known)
        raise ValueError(f"unknown setting {error.full_key or error.key!r} of policy {name}; nearest is {near!r}") from None
    except MissingMandatoryValue as error:
        raise ValueError(f"policy {name}: {str(error).splitlines()[0]}") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"policy {name}, {error.full_key or 'settings'}: {_rule(str(error).splitlines()[0])}") from None
    assert isinstance(policy, Policy)
    values = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    tuples: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return dataclasses.replace(policy, **tuples)
