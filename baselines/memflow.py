"""MemFlow: LongLive's window, and a bank of three past frames that match the running text, chosen in each layer.

arXiv 2512.14699, KlingTeam/MemFlow @7ed5147 (Apache-2.0). [sink 3 | bank 3 | recent 6 | block 3] at absolute indices. The clean pass of
each block whose first frame is a multiple of 9 records that frame. Before each block the newest recorded frame enters the bank; a full
bank keeps the two frames whose rotated keys have the largest mean product with the text's keys over heads, text and tokens. As released,
a frame thus enters before every block until the next one is recorded, a recording block does not read the slot that was filled last, and
the first choice after a switch ignores the text. A switch runs LongLive's recache, which leaves the sink unchanged; the bank is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from baselines.longlive import LongLive
from echo.cache.kinds import Kind, MemoryName
from echo.cache.plan import Plan, Slot, Step
from echo.cache.policy import Memory
from echo.geometry import Geometry
from echo.refusals import within

if TYPE_CHECKING:
    from torch import Tensor

    from echo.cache.store import FrameStore


@dataclass(frozen=True, kw_only=True)
class MemFlow(LongLive):
    """bank_frames: besides the window. record_frames: a block is recorded if its first frame is a multiple of this."""

    bank_frames: int = 3
    record_frames: int = 9

    def records(self, frame: int) -> bool:
        """Whether the block that begins with this frame is recorded."""
        return frame % self.record_frames == 0

    def bank(self, block: int) -> tuple[MemoryName, ...]:
        """Slots of the bank that are filled before a block runs: one more per block until it is full."""
        return tuple(MemoryName("bank", i, Kind.COMPRESSED, placed=True) for i in range(min(self.bank_frames, block)))

    def plan(self, step: Step) -> Plan:
        plan, bank = super().plan(step), self.bank(step.block)
        read = bank[: len(bank) - self.records(step.first_frame)]
        sink = sum(slot.kind is Kind.SINK for slot in plan.context)
        context = (*plan.context[:sink], *(Slot(name, None, name.kind) for name in read), *plan.context[sink:])
        return replace(plan, context=context, keep=plan.keep.union(bank))

    def memory(self, geometry: Geometry, store: FrameStore) -> Memory:
        return Bank(self, geometry, store)

    def memory_bytes(self, geometry: Geometry, batch: int, item: int) -> int:
        """The frame recorded last with its places, and mean keys of bank and text in float32; the bank itself is kept by the store."""
        width, tokens, float32, place = geometry.heads * geometry.head_dim, geometry.tokens_per_frame, 4, 8
        return geometry.layers * batch * (2 * tokens * width * item + tokens * place + (self.bank_frames + 2) * width * float32)

    def check(self, geometry: Geometry, blocks: int) -> None:
        super().check(geometry, blocks)
        within("bank_frames (beside the window)", self.bank_frames, 1, geometry.window_frames - self.window_frames)
        within("record_frames", self.record_frames, 1, 100_000)


class Bank(Memory):
    """Every layer's bank, followed by the frame recorded last: raw keys and values, tokens' places, mean rotated keys."""

    reads_text = True

    def __init__(self, policy: MemFlow, geometry: Geometry, store: FrameStore) -> None:
        import torch

        self.policy, self.geometry, self.store = policy, geometry, store
        frames = geometry.layers, store.batch, policy.bank_frames + 1
        self.k, self.v = store.k.new_zeros(*frames, *store.k.shape[3:]), store.v.new_zeros(*frames, *store.k.shape[3:])
        self.places = torch.zeros(*frames, geometry.tokens_per_frame, dtype=torch.long, device=store.device)
        self.means = store.k.new_zeros(*frames, geometry.heads, geometry.head_dim, dtype=torch.float32)
        self.raster = torch.arange(geometry.tokens_per_frame, device=store.device)

    def read_text(self, keys: Sequence[Tensor]) -> None:
        self.text = [key.float().mean(2) for key in keys]

    def observe(self, layer: int, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Record the block's first frame if it is due."""
        from echo.backbone import rope

        if not self.policy.records(plan.first_frame):
            return
        g, tokens = self.geometry, self.geometry.tokens_per_frame
        turn = rope.frame_table(plan.queries[:1], g.grid_height, g.grid_width, g.head_dim, self.store.device)
        self.k[layer, :, -1], self.v[layer, :, -1] = k[:, :tokens], v[:, :tokens]
        self.places[layer, :, -1] = self.raster + plan.first_frame * tokens
        self.means[layer, :, -1] = rope.rotate(k[:, :tokens], turn).float().mean(1)

    def begin_block(self, step: Step, plan: Plan) -> None:
        """Let the frame recorded last enter; a full bank drops one of the others."""
        from echo.cache.store import Named

        before, bank = self.policy.bank(step.block - 1), self.policy.bank(step.block)
        if not bank:
            return
        for layer in range(self.geometry.layers):
            parts = self.k[layer], self.v[layer], self.places[layer], self.means[layer]
            if len(before) == len(bank):
                self._let_go(layer, parts, blind=step.block_in_scene == 0)
            for part in parts:
                part[:, len(bank) - 1] = part[:, -1]
            if len(before) < len(bank):
                self.store.remember(bank[-1], layer, Named(*(part[:, len(bank) - 1] for part in parts[:3])))

    def _let_go(self, layer: int, parts: tuple[Tensor, ...], *, blind: bool) -> None:
        """Drop the frame that matches the text least; blind: drop the last one, whatever the text."""
        count = self.policy.bank_frames - 1
        if blind or not count:
            return
        stay = asked_for(self.text[layer], self.means[layer][:, :-1]).topk(count, 1).indices.sort(1).values
        for part in parts:
            for row, index in zip(part, stay):
                row[:count] = row.index_select(0, index)


def asked_for(text_BHD: Tensor, key_BTHD: Tensor) -> Tensor:
    """Mean over heads, text and tokens of text key . rotated key / sqrt(D), [B, T], of mean keys."""
    return (key_BTHD * text_BHD[:, None]).sum(-1).mean(-1) / text_BHD.shape[-1] ** 0.5
