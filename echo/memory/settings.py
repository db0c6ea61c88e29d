"""Settings of Echo-Forcing, checked when they are made; plans and the memory on the device both read them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from echo.cache.kinds import Source, recall_of
from echo.cache.plan import Step
from echo.geometry import Geometry
from echo.memory.anchors import Rolling
from echo.refusals import positive, within
from echo.routing import Routing
from echo.scene import Transition
from echo.settings import silent


class CompressedPosition(StrEnum):
    """RoPE index of compressed tokens.

    slot: raster places of the compressed slots by rank (released code). own_spatial: the slot's time index, own row and column.
    current_time: the block's time index, own row and column (appendix C.2). original: the token's own distance in time from the
    block, own row and column, which C.2 rejects.
    """

    slot = "slot"
    own_spatial = "own_spatial"
    current_time = "current_time"
    original = "original"


class Encoding(StrEnum):
    """Temporal indices: by slot in a bounded window (C.5, eq. 28), or each frame's own number, as in LongLive's training."""

    relative = "relative"
    native = "native"


class RecentCentre(StrEnum):
    """Queries of the recent centre in eq. (5): the block's own in its first, noisy pass (released code), or the clean queries of the
    `recent` frames before it.
    """

    first_pass = "first_pass"
    clean = "clean"


class LeftScene(StrEnum):
    """What is kept of the scene just left after a recall, besides `recall.old_recent` frames: nothing, or its recall frame."""

    nothing = "nothing"
    recall_frame = "recall_frame"


class ChainSource(StrEnum):
    """Scene whose recall frame a smooth transition carries: the head of the smooth chain, or the scene before."""

    chain_head = "chain_head"
    previous = "previous"


class Fusion(StrEnum):
    """What is kept of an ended scene: candidates fused place by place (eq. 9), the single best candidate, or nothing.

    Only the scene's first frame is `soft` with base_weight 1.
    """

    soft = "soft"
    crucial = "crucial"
    none = "none"


class RecallPart(StrEnum):
    """Frames of a scene that its recall frame is fused from: its first ones, or its stable part (blocks 2 to 6)."""

    first = "first"
    stable = "stable"


class QueryCentre(StrEnum):
    """The mean query of eq. (8): of each head over all places (released code), or of each head and place."""

    head = "head"
    position = "position"


class CentreFrames(StrEnum):
    """Frames over which the mean query of eq. (8) is taken: the whole scene (released code), or the calibration of eq. (2)."""

    scene = "scene"
    calibration = "calibration"


class DecayMap(StrEnum):
    """Interpolate the retention rho = exp(-mu) or the forgetting strength mu (eq. 12) over the discrepancy."""

    rho = "rho"
    mu = "mu"


class Discrepancy(StrEnum):
    """Compare only the recall frame and repeat the result for all old frames (released code), or compare every old frame."""

    tiled = "tiled"
    per_frame = "per_frame"


class Reference(StrEnum):
    """The part of the new scene's first clean block with which old memory is compared: its first frame (released code), or all (3.3)."""

    frame = "frame"
    block = "block"


class Counterpart(StrEnum):
    """The reference token with which an old token is compared: the same place, or the best match in its 3x3 neighbourhood (3.3)."""

    same = "same"
    neighbourhood = "neighbourhood"


@dataclass(frozen=True)
class RecallFrame:
    """Scene recall frames (3.2). `base_weight`: share of the first candidate in the blend with the fused frame (released: 0.9).

    centre, queries: the mean query that weights the candidates.
    """

    fusion: Fusion = Fusion.soft
    part: RecallPart = RecallPart.first
    count: int = 3
    stride: int = 4
    base_weight: float = 0.9
    centre: QueryCentre = silent(QueryCentre.head)
    queries: CentreFrames = silent(CentreFrames.scene)

    def __post_init__(self) -> None:
        positive(self, "count", "stride")
        within("recall_frame.base_weight", self.base_weight, 0.0, 1.0)

    def candidates(self, scene_frames: int) -> tuple[int, ...]:
        """Frames to fuse of a scene of `scene_frames` frames, as many as exist; at least the first."""
        if self.part is RecallPart.first:
            wanted = [self.stride * i for i in range(self.count)]
        else:
            wanted = [6 + round(14 * i / max(1, self.count - 1)) for i in range(self.count)]
        return tuple(frame for frame in wanted if frame < scene_frames) or (0,)


@dataclass(frozen=True)
class Fading:
    """Old memory after a transition: frames, first weight, retention per block, lifetime in blocks (3.3); `blocks` None: it stays.

    old_recent: last frames of the old scene that are kept after the recall frame. rho_min, rho_max: share of the weight that is
    left after a block where old and new differ most and least; equal values give a fixed decay.
    """

    old_recent: int = 0
    weight: float = 1.0
    rho_min: float = 0.8
    rho_max: float = 0.95
    blocks: int | None = 5
    map: DecayMap = DecayMap.rho
    discrepancy: Discrepancy = Discrepancy.tiled
    reference: Reference = silent(Reference.frame)
    place: Counterpart = silent(Counterpart.same)

    def __post_init__(self) -> None:
        if self.blocks is not None:
            positive(self, "blocks")
        within("old_recent", self.old_recent, 0, 3)
        if not 0 < self.rho_min <= self.rho_max <= 1:
            raise ValueError(f"rho {self.rho_min}..{self.rho_max}: 0 < rho_min <= rho_max <= 1; nearest is {self.rho_max}..{self.rho_max}")
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight {self.weight}: within 0..1, 0 excluded; nearest is 1")

    @property
    def fixed(self) -> bool:
        """Whether the rate is the same everywhere, so that no discrepancy is needed."""
        return self.rho_min == self.rho_max


@dataclass(frozen=True, kw_only=True)
class EchoSettings:
    """Settings of the method; counts are latent frames unless named otherwise.

    anchors, pool_frames, rolling: 3.1.1. compressed, recent, candidate_frames, offsets, drift_gate_lambda, amplitude,
    drift_gate, recent_centre: 3.1.2. recall_frame: 3.2. smooth, hard, recall: what is kept of the old scene and how it fades, 3.3;
    left_at_recall: what of the scene just left is kept beside the recalled one. encoding: C.5. routing: appendix B.
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
    recent_centre: RecentCentre = silent(RecentCentre.first_pass)
    left_at_recall: LeftScene = silent(LeftScene.nothing)

    def __post_init__(self) -> None:
        positive(self, "anchors", "pool_frames", "recent", "candidate_frames")
        if self.rolling is Rolling.walk:  # it continues from the present anchors, which must be in the pool
            within("pool_frames", self.pool_frames, self.anchors, float("inf"))
        within("compressed", self.compressed, 0, self.candidate_frames)
        within("drift_gate_lambda", self.drift_gate_lambda, 0, float("inf"))
        if not self.offsets or min(self.offsets) < 0:
            raise ValueError(f"offsets {list(self.offsets)}: one or more frames ahead, none negative; nearest is [1]")

    def fading(self, transition: Transition) -> Fading:
        """The decay of old memory after a transition."""
        return {Transition.smooth: self.smooth, Transition.hard: self.hard, Transition.recall: self.recall}[transition]

    def old_memory(self, step: Step) -> tuple[Source, ...]:
        """Memory of another scene at the front of the window, in slot order."""
        start = step.start
        if start.transition is None:
            return ()
        fading = self.fading(start.transition)
        if fading.blocks is not None and step.block_in_scene >= fading.blocks:
            return ()
        left_frame = step.starts[step.scene - 1].block * step.geometry.frames_per_block  # the scene just left may have fewer frames
        recent = range(max(left_frame, step.scene_frame - fading.old_recent), step.scene_frame)
        if self.recall_frame.fusion is Fusion.none:
            return tuple(recent)
        source = step.scene - 1
        if start.transition is Transition.recall and start.recalls is not None:
            source = start.recalls
        elif start.transition is Transition.smooth and self.smooth_source is ChainSource.chain_head:
            source = step.chain_head
        left = [step.scene - 1] if start.transition is Transition.recall and self.left_at_recall is LeftScene.recall_frame else []
        return (*map(recall_of, dict.fromkeys([source, *left])), *recent)

    @property
    def looks_around(self) -> bool:
        """Whether any transition compares old memory with neighbouring places."""
        return any(self.fading(transition).place is Counterpart.neighbourhood for transition in Transition)

    def recent_blocks(self, geometry: Geometry) -> int:
        """Number of blocks that the recent frames span."""
        return -(-self.recent // geometry.frames_per_block)

    def old_frames(self, transition: Transition) -> int:
        """Largest number of frames of old memory after a transition."""
        both = transition is Transition.recall and self.left_at_recall is LeftScene.recall_frame
        return self.fading(transition).old_recent + 1 + both
