"""What one block attends to, in plain integers (and floats for a bias). A plan can be printed, drawn and compared without a model.

Frame = latent frame. `f@p`: the key of source f carried at temporal RoPE index p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from echo.cache.kinds import Kind, Source, letters
from echo.files import Json
from echo.geometry import Geometry
from echo.scene import SceneStart, chain_head


def label_of(source: Source) -> str:
    """`f` and a frame's number, or a memory's name."""
    return f"f{source}" if isinstance(source, int) else str(source)


@dataclass(frozen=True, slots=True)
class Slot:
    """One frame's worth of context tokens.

    `source` is a latent frame's number, a stored memory's name, or `COMPRESSED`, which the plan's selection fills.
    `position` None: its tokens come from several frames, and each keeps its own temporal index.
    """

    source: Source
    position: int | None
    kind: Kind

    def label(self) -> str:
        return label_of(self.source)


@dataclass(frozen=True, slots=True)
class Selection:
    """Tokens to be chosen on the device in the block's first pass from `candidates` (memories and frames, in buffer order).

    They fill the plan's `cmp` slots by rank. `own_spatial`: each token keeps its own row and column under RoPE; otherwise it
    takes the raster place of its rank. shift: from a token's latent frame to its temporal index, if its slot has none.
    """

    candidates: tuple[Source, ...]
    frames: int
    own_spatial: bool = False
    shift: int = 0


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """Heads that attend to the block and a part of the context; `Memory.heads` says which heads of a layer they are.

    slots: ascending indices into the plan's context. share: of the heads of all layers; None: the device divides the remaining heads.
    """

    name: str
    slots: tuple[int, ...]
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A block's attention: `context` in buffer order, then the block itself at the indices `queries`.

    faded: number of slots at the front that carry the per-token weights of a decaying memory.
    keep: what the store must hold after the block (frames by number, memories by name).
    unseen: number of the block's first frames that leave no keys behind (only in a recache).
    clean: context of the clean pass, only latent frames; None: the same as that of the denoising passes.
    bias: for each denoising pass, the value added to the logits of each context slot's tokens (the last row also holds for further
    passes); None: no bias. The clean pass never has one.
    revision: memories and leaving frames; in the clean pass, before its attention, each layer chooses `frames` of them that become the
    new memories. The clean pass attends to these.
    groups: parts of the context for groups of heads, each head being in one; empty: every head attends to the whole context.
    """

    block: int
    scene: int
    first_frame: int
    context: tuple[Slot, ...]
    queries: tuple[int, ...]
    keep: frozenset[Source]
    selection: Selection | None = None
    faded: int = 0
    unseen: int = 0
    clean: tuple[Slot, ...] | None = None
    bias: tuple[tuple[float, ...], ...] | None = None
    revision: Selection | None = None
    groups: tuple[HeadGroup, ...] = ()

    def key_positions(self) -> list[list[Any]]:
        """[[source, position], ...] of all keys, the block's own included, in buffer order."""
        own = [[f"f{self.first_frame + i}", position] for i, position in enumerate(self.queries)][self.unseen :]
        return [[slot.label(), slot.position] for slot in self.context] + own

    def as_json(self) -> Json:
        """The block's line of a trace."""
        line: Json = {"block": self.block, "scene": self.scene, "keys": self.key_positions(), "queries": list(self.queries)}
        if self.clean is not None:
            line["clean"] = [[slot.label(), slot.position] for slot in self.clean]
        if self.bias is not None:
            line["bias"] = [list(row) for row in self.bias]
        if self.revision is not None:
            line["revision"] = [label_of(source) for source in self.revision.candidates]
        return line | {"groups": [[group.name, list(group.slots)] for group in self.groups]} if self.groups else line

    def notes(self) -> list[str]:
        """Short descriptions of the plan's other parts, for cache strips."""
        notes = [] if self.clean is None else [f"clean pass R{len(self.clean)} +{len(self.queries)}"]
        if self.bias is not None:
            added = [value for row in self.bias for value in row if value]
            notes += [f"bias {min(added, default=0.0):.1f} to {max(added, default=0.0):.1f}"]
        if self.revision is not None:
            notes += [f"clean pass keeps {self.revision.frames} of {len(self.revision.candidates)}"]
        met = [(group.name, letters(self.context[slot].kind for slot in group.slots)) for group in self.groups]
        return notes + [f"{name} heads meet {frames or 'the block alone'}" for name, frames in met]

    def shares(self) -> list[float]:
        """Factor exp(bias) of each key frame's weight, the mean over passes; all 1 without a bias."""
        every = [[1.0] * len(self.context)] if self.bias is None else [[math.exp(value) for value in row] for row in self.bias]
        return [sum(column) / len(every) for column in zip(*every)] + [1.0] * (len(self.queries) - self.unseen)

    @property
    def attended(self) -> float:
        """Frames that a head attends to, the block's own included: the mean over heads, or an upper bound if the device divides them."""
        known = [(group.share, len(group.slots)) for group in self.groups if group.share is not None]
        rest = max((len(group.slots) for group in self.groups if group.share is None), default=0) if self.groups else len(self.context)
        own = len(self.queries) - self.unseen
        return own + sum(share * slots for share, slots in known) + (1 - sum(share for share, _ in known)) * rest

    def kinds(self) -> list[Kind]:
        """Kind of memory of each key frame, as `key_positions` orders them."""
        return [slot.kind for slot in self.context] + [Kind.CURRENT] * (len(self.queries) - self.unseen)


def committed(plan: Plan, frames: int, oldest: int) -> Plan:
    """The same plan with a clean pass that reads only the newest `frames`, the block's own included, at the indices before the block's.

    So sinks and memories influence the generated frames, but not the keys and values that are stored of them (Commit Forcing).
    `oldest`: first latent frame that may be read.
    """
    first, after = plan.first_frame, plan.first_frame + len(plan.queries)
    newest = range(max(oldest, after - frames, first - plan.queries[0]), first)  # no index lies before 0
    clean = tuple(Slot(frame, plan.queries[0] - (first - frame), Kind.RECENT) for frame in newest)
    later = range(max(oldest, after + len(plan.queries) - frames), after)
    return replace(plan, clean=clean, keep=plan.keep.union(later))


@dataclass(frozen=True)
class Step:
    """Everything that a policy may know before a block: its number and the scenes that have begun (the last is running)."""

    block: int
    starts: tuple[SceneStart, ...]
    geometry: Geometry = field(repr=False)

    @property
    def scene(self) -> int:
        return len(self.starts) - 1

    @property
    def start(self) -> SceneStart:
        return self.starts[-1]

    @property
    def block_in_scene(self) -> int:
        return self.block - self.start.block

    @property
    def first_frame(self) -> int:
        return self.block * self.geometry.frames_per_block

    @property
    def scene_frame(self) -> int:
        """First latent frame of the running scene."""
        return self.start.block * self.geometry.frames_per_block

    @property
    def chain_head(self) -> int:
        """First scene of the running chain of smooth transitions; the running scene if it was not entered smoothly."""
        return chain_head(self.starts, self.scene)

    def positions(self, first: int) -> tuple[int, ...]:
        """Consecutive temporal indices of a block from `first` on."""
        return tuple(range(first, first + self.geometry.frames_per_block))
