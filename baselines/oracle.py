"""Oracle: the ceiling of what a cache can remember, not a method: a recall restores the recalled scene's own clean frames.

A scene's anchors are its first frames, walked to and fro like Echo's, followed by its newest frames, all at slot indices.
A hard cut flushes everything. A recall flushes too, but its anchors are the first frames of the *first showing* of the
recalled scene, from the first block on until the scene ends. A smooth transition changes nothing. The first frames of all
scenes are kept at full size.

The paper compares its recall frames with "full-cache storage" (3.2): `stored=cache` keeps the whole cache of every scene at the
scene's end, and a recalled scene continues from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from echo.cache.kinds import Kind, Source
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.memory.anchors import Rolling, anchors
from echo.refusals import multiple_of, within
from echo.routing import Routing
from echo.scene import Transition, chain_head
from echo.settings import silent


class Stored(StrEnum):
    """What is kept of an ended scene: its first frames, or its whole cache, which also has the newest frames."""

    first = "first"
    cache = "cache"


@dataclass(frozen=True, kw_only=True)
class Oracle(Policy):
    """memory_frames: first frames of a showing, which are its anchors and come back. routing: chooses the recalled scene, as in
    Echo; `pool_scenes` limits how many scenes back a recall can reach. stored: what is kept of an ended scene."""

    memory_frames: int = 12
    routing: Routing = field(default_factory=lambda: Routing(causal=True, exclude_previous=True, pool_scenes=16))
    rolling: Rolling = Rolling.ping_pong
    stored: Stored = silent(Stored.first)

    def plan(self, step: Step) -> Plan:
        geometry, head = step.geometry, chain_head(step.starts, step.scene)
        begun, size = step.starts[head].block, geometry.frames_per_block
        own, shown = range(begun * size, step.first_frame), self.showing(step)
        remembered = [] if shown == head else self.album(step, shown)
        entries = [(frame, Kind.RECALLED) for frame in remembered]
        room = geometry.context_frames - len(remembered)
        if len(own) <= room:
            tail = self.tail(step, shown) if remembered else range(0)
            entries += [(frame, Kind.RECALLED) for frame in tail[max(0, len(tail) + len(own) - room) :]]
            entries += [(frame, Kind.RECENT if remembered or frame >= begun * size + self.memory_frames else Kind.ANCHOR) for frame in own]
        else:
            kept = remembered or self.album(step, head)
            newest = range(step.first_frame - (geometry.context_frames - len(kept)), step.first_frame)
            updates = step.block - begun - room // size
            rolled = anchors(updates, len(kept), len(kept), size, self.rolling)
            kind = Kind.RECALLED if remembered else Kind.ANCHOR
            entries = [*((kept[index], kind) for index in rolled), *((frame, Kind.RECENT) for frame in newest)]
        context = tuple(Slot(source, index, kind) for index, (source, kind) in enumerate(entries))
        return Plan(step.block, step.scene, step.first_frame, context, step.positions(len(entries)), self.keep(step))

    def showing(self, step: Step) -> int:
        """First showing of the running scene: the head of its smooth chain, or the scene that the head recalls, and so on."""
        scene = head = chain_head(step.starts, step.scene)
        while step.starts[scene].transition is Transition.recall and (recalls := step.starts[scene].recalls) is not None:
            scene = chain_head(step.starts, recalls)
        return scene if scene >= head - self.routing.pool_scenes else head

    def album(self, step: Step, scene: int) -> list[int]:
        """First frames of a showing, as many as there are."""
        shown = self.frames(step, scene)
        return list(shown[: self.memory_frames])

    def frames(self, step: Step, scene: int) -> range:
        """All frames of a showing so far: from a scene's beginning to the next that was not entered smoothly."""
        size = step.geometry.frames_per_block
        ends = (start.block for start in step.starts[scene + 1 :] if start.transition is not Transition.smooth)
        return range(step.starts[scene].block * size, next(ends, step.block) * size)

    def tail(self, step: Step, scene: int) -> range:
        """Newest frames of a showing, as many as its cache had besides the first ones; empty if they are not stored."""
        later = self.frames(step, scene)[self.memory_frames :] if self.stored is Stored.cache else range(0)
        return later[-(step.geometry.context_frames - self.memory_frames) :]

    def keep(self, step: Step) -> frozenset[Source]:
        """Stored frames of the last showings, and the newest frames."""
        size = step.geometry.frames_per_block
        after = step.first_frame + size
        kept: set[Source] = {*range(max(0, after - step.geometry.context_frames), after)}
        last = range(max(0, step.scene - self.routing.pool_scenes), step.scene + 1)
        for scene in {*last, chain_head(step.starts, step.scene), self.showing(step)}:
            first = step.starts[scene].block * size
            kept |= {*range(first, min(after, first + self.memory_frames)), *self.tail(step, scene)}
        return frozenset(kept)

    def capacity(self, geometry: Geometry) -> int:
        """As many first showings as `keep` can name, and the newest frames.

        Whole caches need most if a recall and a smooth scene after it follow only cuts, since a smooth chain shares its newest frames.
        """
        pool, first, whole = self.routing.pool_scenes, self.memory_frames, geometry.context_frames
        chain = (pool + 3) * first
        return whole + (max(pool * whole + 2 * first, chain + whole - first) if self.stored is Stored.cache else chain)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        size = geometry.frames_per_block
        within("memory_frames (a block of recent frames beside them)", self.memory_frames, size, geometry.context_frames - size)
        multiple_of(size, memory_frames=self.memory_frames)
