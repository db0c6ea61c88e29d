"""Memory strip of a video: per block the frames and positions of its trace, with the kind of memory of each.

A trace has frames and positions but no kinds. The kinds come from the policy's plans, which are made again from the settings in
`run.json` (with integers only, no network). A plan counts only if it names the same keys as the trace. If none does, because the code
has changed since or the policy no longer exists, kinds are guessed from the names, and `MemoryStrip.certain` is False.
"""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baselines import registry
from echo.cache.kinds import Kind, kind_of
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.scene import SceneStart, Transition

Line = Mapping[str, Any]
"""A line of a trace; see `eval.figures.trace`."""
WINDOW = 21
"""Default number of latent frames of a window."""


@dataclass(frozen=True)
class StripBlock:
    """A block of a memory strip. keys: source and position of each in slot order; `faded`: how many of the first keys decay.
    notes: other facts of the plan."""

    scene: int
    keys: tuple[tuple[str, int | None], ...]
    kinds: tuple[Kind, ...]
    faded: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemoryStrip:
    """All blocks of a video. certain: whether every kind comes from a plan that agrees with the trace."""

    blocks: tuple[StripBlock, ...]
    certain: bool

    @property
    def borders(self) -> tuple[int, ...]:
        """Blocks at which scenes begin, 0 first."""
        return tuple(index for index, block in enumerate(self.blocks) if not index or block.scene != self.blocks[index - 1].scene)


def read(text: str) -> list[Line]:
    """The lines of a trace file."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def policy_of(pixels: Mapping[str, Any]) -> Policy | None:
    """The policy of a run, from `key.pixels` of its run.json; None if this code has no such policy or setting."""
    name, settings = str(pixels.get("method.policy")), pixels.get("method.settings")
    if name not in registry.names():  # a store is untrusted: it must not import anything but registered policies
        return None
    try:
        return registry.make(name, settings if isinstance(settings, Mapping) else {})
    except ValueError:
        return None


def kept(trace: Sequence[Line], policy: Policy | None, window_frames: int = WINDOW) -> MemoryStrip:
    """The memory strip of a trace.

    Args:
        trace: its lines.
        policy: the policy that made it; with None the kinds are guessed.
        window_frames: the backbone's window, in latent frames.
    """
    blocks: list[StripBlock] = []
    certain = True
    starts: tuple[SceneStart, ...] = ()
    for scene in _scenes(trace):
        planned = None if policy is None else _fit(scene, starts, policy, window_frames)
        if planned is None:
            certain = certain and not any(line["keys"] for line in scene)
            starts = (*starts, SceneStart(scene[0]["block"]))
            blocks += [_guessed(line) for line in scene]
            continue
        starts, plans = planned
        for line, plan in zip(scene, plans):
            blocks.append(StripBlock(line["scene"], _keys(line), tuple(plan.kinds()), plan.faded, tuple(plan.notes())))
    return MemoryStrip(tuple(blocks), certain)


def _scenes(trace: Sequence[Line]) -> Iterator[list[Line]]:
    for _, lines in itertools.groupby(trace, key=operator.itemgetter("scene")):
        yield list(lines)


def _fit(
    scene: Sequence[Line], before: tuple[SceneStart, ...], policy: Policy, window_frames: int
) -> tuple[tuple[SceneStart, ...], list[Plan]] | None:
    """The scene starts up to this scene and its plans, for the first way of entering it whose plans name the trace's keys; or None."""
    queries = scene[0]["queries"]
    if not queries:
        return None
    geometry = Geometry(1, 1, 6, 1, 1, frames_per_block=len(queries), window_frames=window_frames)  # planning reads only these two
    for start in _entries(scene[0], len(before)):
        starts = (*before, start)
        try:
            plans = [policy.block_plan(Step(line["block"], starts, geometry)) for line in scene]
        except (ValueError, IndexError, KeyError, TypeError):  # a transition that this policy does not have
            continue
        if start.jump == 0 and (jump := queries[0] - plans[0].queries[0]) > 0:
            starts = (*before, SceneStart(start.block, start.transition, start.recalls, jump))
            plans = [policy.block_plan(Step(line["block"], starts, geometry)) for line in scene]
        if all(plan.key_positions() == line["keys"] for plan, line in zip(plans, scene)):
            return starts, plans
    return None


def _entries(first: Line, scene: int) -> Iterator[SceneStart]:
    """All possible starts of a scene: the first scene has no transition; a recall may name any earlier scene."""
    block = first["block"]
    if scene == 0:
        yield SceneStart(block)
        return
    yield SceneStart(block, Transition.smooth)
    yield SceneStart(block, Transition.hard)
    for recalled in range(scene):
        yield SceneStart(block, Transition.recall, recalled)


def _keys(line: Line) -> tuple[tuple[str, int | None], ...]:
    return tuple((str(source), position) for source, position in line["keys"])


def _guessed(line: Line) -> StripBlock:
    """Kinds guessed from names: the block's own frames, those right before it, and all others as kept memory."""
    keys, size = _keys(line), len(line["queries"])
    numbers = {int(source[1:]) for source, _ in keys if _numbered(source)}
    first = oldest = line["block"] * size
    while oldest - 1 in numbers:
        oldest -= 1
    kinds = []
    for source, _ in keys:
        if _numbered(source):
            frame = int(source[1:])
            kinds.append(Kind.CURRENT if frame >= first else Kind.RECENT if frame >= oldest else Kind.ANCHOR)
        else:
            kinds.append(kind_of(source))
    return StripBlock(line["scene"], keys, tuple(kinds), 0)


def _numbered(source: str) -> bool:
    return source[:1] == "f" and source[1:].isdecimal()
