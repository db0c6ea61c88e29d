"""Forcing-KV: static heads attend to the sink and the newest frame, dynamic heads also to the parts of earlier frames that changed most.

arXiv 2605.09681, zju-jiyicheng/Forcing-KV (Apache-2.0). Heads are labelled beforehand by their attention in a full window. Static heads
attend to [sink 1 | last 1 | block], dynamic heads to [sink 1 | dynamic 1 | last 1 | block], absolute indices. The dynamic frame consists of
sixths of the three frames before the last, those least similar to the same place of the next frame (mean cosine of rotated keys). Dynamic
heads of layer 1 choose, later layers use the same tokens, and in layer 0 all heads are static. A prompt switch is LongLive's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from baselines.longlive import AtSwitch, LongLive
from echo.cache.kinds import COMPRESSED, Kind
from echo.cache.plan import HeadGroup, Plan, Selection, Slot, Step
from echo.cache.policy import Memory
from echo.files import file_digest, read_json, read_text
from echo.geometry import Geometry
from echo.refusals import Missing, within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore

LETTERS = STATIC, DYNAMIC = "s", "d"


@dataclass(frozen=True, kw_only=True)
class ForcingKV(LongLive):
    """LongLive's settings, where `window_frames` are the frames of a recache. chunks: parts of a frame, or fewer if its tokens
    cannot be divided so. heads: a word per layer, a letter per head, s for static, d for dynamic; empty: measured for the weights."""

    sink_frames: int = 1
    at_switch: AtSwitch = AtSwitch.keep
    candidate_frames: int = 3
    chunks: int = 6
    heads: tuple[str, ...] = ()

    def fitted(self, weights: Sequence[Path], backbone: str) -> Self:
        return self if self.heads else replace(self, heads=labels(weights, backbone))

    def recent_frames(self, block_frames: int) -> int:
        return 1

    def kept_frames(self, block_frames: int) -> int:
        return max(self.candidate_frames + 1, super().kept_frames(block_frames))

    def plan(self, step: Step) -> Plan:
        plan, sink, last = super().plan(step), self.sink(step, step.first_frame), step.first_frame - 1
        candidates = range(last - self.candidate_frames, last)
        if candidates.start < sink.stop:
            return plan
        context = (*plan.context[: len(sink)], Slot(COMPRESSED, None, Kind.COMPRESSED), *plan.context[len(sink) :])
        every, share = range(len(context)), self.static_share
        static = HeadGroup("static", tuple(slot for slot in every if slot != len(sink)), share)
        dynamic = HeadGroup("dynamic", tuple(every), None if share is None else 1 - share)
        return replace(plan, context=context, selection=Selection(tuple(candidates), 1, own_spatial=True), groups=(static, dynamic))

    @property
    def static_share(self) -> float | None:
        """Share of static heads, those of layer 0 included; None without labels."""
        letters = "".join(static_first(self.heads))
        return letters.count(STATIC) / len(letters) if letters else None

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return ChangedChunks(self, geometry, store)

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        return geometry.layers * geometry.heads * batch * 8  # indices of the heads of each group

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("chunks", self.chunks, 1, 1000)
        within("candidate_frames", self.candidate_frames, 1, 1000)
        if self.relative:
            raise ValueError("relative true: chosen tokens keep their own indices, among absolute ones; nearest is false")
        sizes = [len(word) for word in self.heads if set(word) <= set(LETTERS)]
        if self.heads and sizes != [geometry.heads] * geometry.layers:
            rule = f"{geometry.layers} words, a layer each, of {geometry.heads} letters {' or '.join(LETTERS)}, a head each"
            raise ValueError(f"heads {','.join(self.heads)[:60]}: {rule}; nearest is those that `echo-harness train heads` measures")


def static_first(heads: Sequence[str]) -> tuple[str, ...]:
    """The labels with all heads of layer 0 static."""
    return tuple(word if layer else STATIC * len(word) for layer, word in enumerate(heads))


def labels_file(weights: Sequence[Path]) -> Path:
    """The file of a network's head labels, beside the last of its files."""
    return weights[-1].with_name(f"{weights[-1].stem}.heads.json")


def labels(weights: Sequence[Path], backbone: str) -> tuple[str, ...]:
    """The labels measured for these files. Raises Missing, which names the command, if there are none."""
    path, remedy = labels_file(weights), f"echo-harness train heads backbone={backbone}"
    kept = read_json(read_text(path), str(path)) if path.is_file() else {}
    if isinstance(kept, dict) and kept.get("weights") == [file_digest(file) for file in weights]:
        return tuple(map(str, kept["heads"]))
    why = f"{path} is of other weights" if kept else f"no {path}"
    what = f"labels of the heads of backbone={backbone}"
    raise Missing(f"{what}: {why}; `{remedy}` measures them, method.heads=[...] says them", what, remedy)


class ChangedChunks(Memory):
    """The labels as index sets, and the tokens that layer 1 chose."""

    def __init__(self, policy: ForcingKV, geometry: Geometry, store: FrameStore) -> None:
        from echo.backbone.rope import integers
        from echo.cache.groups import members

        self.policy, self.geometry, self.store = policy, geometry, store
        words = static_first(policy.heads or (DYNAMIC * geometry.heads,) * geometry.layers)
        self.chunks = max(count for count in range(1, policy.chunks + 1) if geometry.tokens_per_frame % count == 0)
        self.groups = members(([LETTERS.index(letter) for letter in word] * store.batch for word in words), 2, store.device)
        dynamic = [head for word in words[1:2] for head, letter in enumerate(word) if letter == DYNAMIC]
        self.asked = integers(dynamic or range(geometry.heads), store.device)

    def heads(self, layer: int, plan: Plan) -> Sequence[Tensor]:
        return self.groups[layer]

    def select(self, layer: int, plan: Plan, q: Tensor) -> Tensor:
        """Tokens [B, S]; in layer 0, where no head attends to them, those of the first candidate."""
        import torch

        if layer == 1:
            self.chosen = self._least_alike(plan)
        return self.chosen if layer else torch.arange(self.geometry.tokens_per_frame, device=q.device).expand(q.shape[0], -1)

    def _least_alike(self, plan: Plan) -> Tensor:
        """Tokens [B, S] of the candidates' chunks that are least similar to the same place of the next frame."""
        import torch
        from torch.nn.functional import cosine_similarity

        from echo.backbone import rope

        g, first = self.geometry, plan.first_frame
        frames = range(first - 1 - self.policy.candidate_frames, first)
        keys = self.store.frames(1, frames)[0].index_select(3, self.asked)
        turned = rope.rotate(keys.flatten(1, 2), rope.frame_table(frames, g.grid_height, g.grid_width, g.head_dim, keys.device))
        states_BTSE = turned.unflatten(1, (len(frames), -1)).flatten(-2).float()
        alike_BTS = cosine_similarity(states_BTSE[:, :-1], states_BTSE[:, 1:], dim=-1)
        score_BC = alike_BTS.unflatten(-1, (self.chunks, -1)).mean(-1).flatten(1)
        chunks_BK = score_BC.topk(self.chunks, largest=False).indices.sort().values
        length = g.tokens_per_frame // self.chunks
        return (chunks_BK[..., None] * length + torch.arange(length, device=keys.device)).flatten(1)
