"""Echo-Forcing: rolling anchors, phase-compressed history, recent frames, and the fading memory of another scene.

Section and equation numbers are of arXiv 2605.16003. A full window is `[anchors | compressed | recent | block]`; a scene
that was entered from another begins as `[old memory | scene so far | block]` (old memory: sections 3.2, 3.3).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo.cache.kinds import COMPRESSED, Kind, Source, recall_of
from echo.cache.plan import Plan, Selection, Slot, Step
from echo.cache.policy import Memory, Policy
from echo.geometry import Geometry
from echo.memory.anchors import anchors
from echo.memory.settings import CompressedPosition, EchoSettings, Encoding, Fusion, QueryCentre, RecentCentre
from echo.refusals import multiple_of, within
from echo.scene import Transition

if TYPE_CHECKING:
    from echo.cache.store import FrameStore


@dataclass(frozen=True, kw_only=True)
class Echo(EchoSettings, Policy):
    """The policy: plans from the method's settings."""

    def plan(self, step: Step) -> Plan:
        geometry, old = step.geometry, self.old_memory(step)
        selection, newest = None, step.first_frame - self.recent
        entries: list[tuple[Source, Kind]] = [(s, Kind.OLD if isinstance(s, int) else s.kind) for s in old]
        if len(old) + step.first_frame - step.scene_frame <= geometry.context_frames:
            scene = range(step.scene_frame, step.first_frame)
            entries += [(f, Kind.ANCHOR if f < step.scene_frame + self.anchors else Kind.RECENT) for f in scene]
        else:
            full = (geometry.context_frames - len(old)) // geometry.frames_per_block  # the last block whose window holds the whole scene
            pool = min(self.pool_frames, (full + 1) * geometry.frames_per_block)
            active = self.anchors - len(old)  # an old memory that stays takes slots of the anchors
            rolled = anchors(step.block_in_scene - full, active, pool, geometry.frames_per_block, self.rolling)
            entries += [(step.scene_frame + f, Kind.ANCHOR) for f in rolled]
            entries += [(COMPRESSED, Kind.COMPRESSED)] * self.compressed
            entries += [(f, Kind.RECENT) for f in range(newest, step.first_frame)]
            if self.compressed:
                candidates = tuple(range(max(step.scene_frame, newest - self.candidate_frames), newest))
                own = self.compressed_position is not CompressedPosition.slot or self.encoding is Encoding.native
                shift = 0 if self.encoding is Encoding.native else len(entries) - step.first_frame
                selection = Selection(candidates, self.compressed, own_spatial=own, shift=shift if self.own_time else 0)
        first = step.first_frame if self.encoding is Encoding.native else len(entries)
        first += step.start.jump if step.block_in_scene == 0 else 0
        context = tuple(Slot(source, self.position(step, index, source, first), kind) for index, (source, kind) in enumerate(entries))
        queries, keep = step.positions(first), self.keep(step, old)
        return Plan(step.block, step.scene, step.first_frame, context, queries, keep, selection, faded=len(old))

    def position(self, step: Step, index: int, source: Source, first: int) -> int | None:
        """Temporal index of a slot; `first` is the block's."""
        if self.encoding is Encoding.native:
            if isinstance(source, int):
                return source
            return None if source.number is None else step.starts[source.number].block * step.geometry.frames_per_block
        if source == COMPRESSED and self.own_time:
            return None
        return first if source == COMPRESSED and self.compressed_position is CompressedPosition.current_time else index

    def keep(self, step: Step, old: tuple[Source, ...]) -> frozenset[Source]:
        """Frames of the running scene that later blocks need, its old memory, and the recall frames of ended scenes."""
        after = step.first_frame + step.geometry.frames_per_block
        history = range(max(step.scene_frame, after - self.candidate_frames - self.recent), after)
        pool = range(step.scene_frame, min(after, step.scene_frame + max(self.pool_frames, self.anchors)))
        scene_recall = (step.scene_frame + f for f in self.recall_frame.candidates(after - step.scene_frame))
        ended = {*range(max(0, step.scene - self.routing.pool_scenes), step.scene), *range(step.chain_head, step.scene)[:1]}
        return frozenset((*history, *pool, *scene_recall, *old, *(map(recall_of, ended) if self.recalls else ())))

    def capacity(self, geometry: Geometry) -> int:
        """The larger of two cases: a long scene keeps pool, recall candidates and history; a short one all its frames and old ones."""
        early = {*range(max(self.pool_frames, self.anchors)), *self.recall_frame.candidates(sys.maxsize)}
        ways = (self.smooth, self.hard, self.recall)
        young = max(f.old_recent + (f.blocks or 0) * geometry.frames_per_block for f in ways)
        stays = max(f.old_recent if f.blocks is None else 0 for f in ways)
        return max(len(early) + self.candidate_frames + self.recent + stays, young)

    @property
    def own_time(self) -> bool:
        """Whether a compressed token keeps its own temporal distance in a window of slots."""
        return self.compressed_position is CompressedPosition.original

    @property
    def recalls(self) -> bool:
        return self.recall_frame.fusion is not Fusion.none

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """Sums and rates of the statistics, and the weights of the old memory; in float32 whatever the network's dtype."""
        width, float32 = geometry.heads * geometry.head_dim, 4
        sums = width + width // 2 * 4  # queries; by channel pairs: magnitudes twice, and a complex centre
        sums += width * geometry.tokens_per_frame if self.recall_frame.centre is QueryCentre.position else 0
        sums += width * self.recent_blocks(geometry) if self.recent_centre is RecentCentre.clean else 0
        old = max(map(self.old_frames, Transition))
        around = 9 * geometry.tokens_per_frame * 8 if self.looks_around else 0  # int64 indices of the 3x3 neighbourhoods
        return geometry.layers * batch * (sums + 2 * old * geometry.tokens_per_frame) * float32 + around

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        from echo.memory.state import EchoMemory  # imports torch, which planning must not need

        return EchoMemory(self, geometry, store)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        size, context = geometry.frames_per_block, geometry.context_frames
        budget = f"anchors {self.anchors} + compressed {self.compressed} + recent {self.recent}"
        if self.anchors + self.compressed + self.recent != context:
            nearest = max(1, context - self.compressed - self.recent)
            raise ValueError(f"{budget}: must fill the {context} frames before the block; nearest is anchors {nearest}")
        within("calibration_frames", self.calibration_frames, size, geometry.window_frames)
        multiple_of(size, pool_frames=self.pool_frames, calibration_frames=self.calibration_frames)
        for name in Transition:
            blocks_to_live, frames = self.fading(name).blocks, self.old_frames(name)
            if blocks_to_live is None:
                within(f"anchors (the {frames} frames that {name} keeps for good stand in their places)", self.anchors, frames, context)
            else:
                within(f"{name}.blocks (gone before the window is full)", blocks_to_live, 1, (geometry.window_frames - frames) // size)


def settings_of(policy: Policy) -> EchoSettings | None:
    """The settings of Echo-Forcing's memory and scoring rules; None for a policy that has neither."""
    return policy if isinstance(policy, EchoSettings) else None
