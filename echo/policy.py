"""Echo-Forcing: rolling anchors, phase-compressed history, recent frames, and the fading memory of another scene.

Paper arXiv 2605.16003; section and equation numbers are its. A full window is `[anchors | compressed | recent | block]`; a scene
that was entered from another begins as `[old memory | scene so far | block]` (spans of the old memory: sections 3.2, 3.3).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from echo.cache.plan import COMPRESSED, Kind, Plan, Selection, Slot, Step
from echo.cache.policy import Memory, Policy
from echo.geometry import Geometry
from echo.memory.anchors import Rolling, anchors
from echo.memory.settings import ChainSource, CompressedPosition, Encoding, Fading, Fusion, RecallFrame
from echo.refusals import multiple_of, positive, within
from echo.routing import Routing
from echo.scene import Transition

if TYPE_CHECKING:
    from echo.cache.store import FrameStore


@dataclass(frozen=True, kw_only=True)
class Echo(Policy):
    """Settings of the method; counts are of latent frames unless named otherwise.

    anchors, pool_frames, rolling: 3.1.1. compressed, recent, candidate_frames, offsets, drift_gate_lambda, amplitude,
    drift_gate: 3.1.2. recall_frame: 3.2. smooth, hard, recall: what is kept of the old scene and how it fades, 3.3.
    encoding: C.5. routing: appendix B.
    """

    anchors: int = 12
    pool_frames: int = 12
    rolling: Rolling = Rolling.ping_pong
    compressed: int = 3
    recent: int = 3
    candidate_frames: int = 18
    calibration_frames: int = 21
    offsets: tuple[int, ...] = (1, 2, 4, 8, 16)
    drift_gate_lambda: float = 3.0
    amplitude: bool = True
    drift_gate: bool = True
    compressed_position: CompressedPosition = CompressedPosition.slot
    encoding: Encoding = Encoding.relative
    recall_frame: RecallFrame = field(default_factory=RecallFrame)
    smooth_source: ChainSource = ChainSource.chain_head
    smooth: Fading = field(default_factory=lambda: Fading(old_recent=2, rho_min=0.80, rho_max=0.95, blocks=5))
    hard: Fading = field(default_factory=lambda: Fading(weight=0.8, rho_min=1.0, rho_max=1.0, blocks=1))
    recall: Fading = field(default_factory=lambda: Fading(rho_min=0.55, rho_max=0.90, blocks=5))
    routing: Routing = field(default_factory=Routing)

    def __post_init__(self) -> None:
        positive(self, "anchors", "recent", "candidate_frames")
        within("pool_frames", self.pool_frames, self.anchors, float("inf"))
        within("compressed", self.compressed, 0, self.candidate_frames)
        within("drift_gate_lambda", self.drift_gate_lambda, 0, float("inf"))
        if not self.offsets or min(self.offsets) < 0:
            raise ValueError(f"offsets {list(self.offsets)}: one or more frames ahead, none negative; nearest is [1]")

    def fading(self, transition: Transition) -> Fading:
        """How old memory fades after a transition."""
        return {Transition.smooth: self.smooth, Transition.hard: self.hard, Transition.recall: self.recall}[transition]

    def old_memory(self, step: Step) -> tuple[int | str, ...]:
        """What still stands of another scene at the front of the window, in slot order."""
        start = step.start
        if start.transition is None:
            return ()
        fading = self.fading(start.transition)
        if step.block_in_scene >= fading.blocks:
            return ()
        recent = range(step.scene_frame - fading.old_recent, step.scene_frame)
        if self.recall_frame.fusion is Fusion.none:
            return tuple(recent)
        source = step.scene - 1
        if start.transition is Transition.recall and start.recalls is not None:
            source = start.recalls
        elif start.transition is Transition.smooth and self.smooth_source is ChainSource.chain_head:
            source = step.chain_head
        return (f"srf{source}", *recent)

    def plan(self, step: Step) -> Plan:
        geometry, old = step.geometry, self.old_memory(step)
        selection, newest = None, step.first_frame - self.recent
        if len(old) + step.first_frame - step.scene_frame <= geometry.context_frames:
            scene = range(step.scene_frame, step.first_frame)
            entries: list[tuple[int | str, Kind]] = [(s, Kind.RECALLED if isinstance(s, str) else Kind.OLD) for s in old]
            entries += [(f, Kind.ANCHOR if f < step.scene_frame + self.anchors else Kind.RECENT) for f in scene]
        else:
            updates = step.block_in_scene - geometry.context_frames // geometry.frames_per_block
            rolled = anchors(updates, self.anchors, self.pool_frames, geometry.frames_per_block, self.rolling)
            entries = [(step.scene_frame + f, Kind.ANCHOR) for f in rolled]
            entries += [(COMPRESSED, Kind.COMPRESSED)] * self.compressed
            entries += [(f, Kind.RECENT) for f in range(newest, step.first_frame)]
            if self.compressed:
                candidates = tuple(range(max(step.scene_frame, newest - self.candidate_frames), newest))
                own = self.compressed_position is not CompressedPosition.slot or self.encoding is Encoding.native
                selection = Selection(candidates, self.compressed, own_spatial=own)
        first = step.first_frame if self.encoding is Encoding.native else len(entries)
        first += step.start.jump if step.block_in_scene == 0 else 0
        context = tuple(Slot(source, self.position(step, index, source, first), kind) for index, (source, kind) in enumerate(entries))
        queries, keep = step.positions(first), self.keep(step, old)
        return Plan(step.block, step.scene, step.first_frame, context, queries, keep, selection, faded=len(old))

    def position(self, step: Step, index: int, source: int | str, first: int) -> int | None:
        """Temporal index of a slot; `first` is the block's."""
        if self.encoding is Encoding.native:
            if isinstance(source, int):
                return source
            return None if source == COMPRESSED else step.starts[int(source.removeprefix("srf"))].block * step.geometry.frames_per_block
        return first if source == COMPRESSED and self.compressed_position is CompressedPosition.current_time else index

    def keep(self, step: Step, old: tuple[int | str, ...]) -> frozenset[int | str]:
        """Frames of the running scene that later blocks need, its old memory, and the recall frames of all scenes."""
        after = step.first_frame + step.geometry.frames_per_block
        history = range(max(step.scene_frame, after - self.candidate_frames - self.recent), after)
        pool = range(step.scene_frame, min(after, step.scene_frame + self.pool_frames))
        scene_recall = (step.scene_frame + f for f in self.recall_frame.candidates(after - step.scene_frame))
        named = (f"srf{scene}" for scene in range(max(0, step.scene - self.routing.pool_scenes), step.scene))
        return frozenset((*history, *pool, *scene_recall, *old, *named, f"srf{step.chain_head}"))

    def capacity(self, geometry: Geometry) -> int:
        """Of a long scene its pool, its recall candidates and its history; of a young one all it has, and the old scene's frames."""
        early = {*range(self.pool_frames), *self.recall_frame.candidates(sys.maxsize)}
        young = max(f.old_recent + f.blocks * geometry.frames_per_block for f in (self.smooth, self.hard, self.recall))
        return max(len(early) + self.candidate_frames + self.recent, young)

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        from echo.memory.state import EchoMemory  # torch, which planning must not need

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
            fading = self.fading(name)
            longest = (geometry.window_frames - 1 - fading.old_recent) // size
            within(f"{name}.blocks (gone before the window is full)", fading.blocks, 1, longest)
