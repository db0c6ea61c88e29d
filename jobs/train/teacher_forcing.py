"""Teacher forcing in one forward pass: a clean copy of each clip and several noisy ones, whose blocks attend to the clean past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from echo.backbone import rope
from echo.backbone.parts.text import WordEncoder
from echo.backbone.wan import WanModel
from echo.sampler import renoise
from jobs.train.data import BLOCK_FRAMES, NOISY, Batch


class CopiesAttention:
    """Self-attention over [clean copy without its last block, noisy copy 1, noisy copy 2, ...], frames in that order.

    The noisy copies, `copies` in number, may lack their blocks before `first`.

    Block j of any copy attends to the clean blocks `gaps[j]` and itself, in both directions. All copies share the temporal index, so a
    noisy block attends to the same frames as in a rollout with a perfect past.
    """

    def __init__(
        self, gaps: Sequence[Sequence[int]], grid_height: int, grid_width: int, head_dim: int, device: torch.device,
        *, copies: int = NOISY, first: int = 0,
    ) -> None:  # fmt: skip
        self.gaps = gaps
        self.blocks = len(gaps)
        self.copies, self.first = copies, first
        self.block_tokens = BLOCK_FRAMES * grid_height * grid_width
        clip = list(range(self.blocks * BLOCK_FRAMES))
        positions = clip[: (self.blocks - 1) * BLOCK_FRAMES] + clip[first * BLOCK_FRAMES :] * copies
        self.turn = rope.frame_table(positions, grid_height, grid_width, head_dim).to(device)

    def members(self, block: int) -> list[int]:
        """Indices, in the sequence of all copies' blocks, of block `block` of each copy that has it."""
        clean, length = self.blocks - 1, self.blocks - self.first
        noisy = [clean + copy * length + block - self.first for copy in range(self.copies)]
        return [block] * (block < clean) + (noisy if block >= self.first else [])

    @torch.compiler.disable
    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attended values of q, k, v [B, N, heads, head_dim] before RoPE, with the same shape."""
        q_blocks = self._cut(rope.rotate(q, self.turn))
        k_blocks = self._cut(rope.rotate(k, self.turn))
        v_blocks = self._cut(v)
        out: list[Tensor] = [q] * len(q_blocks)
        for block, past in enumerate(self.gaps):
            members = self.members(block)
            queries = torch.cat([q_blocks[index] for index in members])
            keys = self._context(k_blocks, past, members)
            values = self._context(v_blocks, past, members)
            attended = attend_plainly(queries, keys, values)
            for index, part in zip(members, attended.chunk(len(members)), strict=True):
                out[index] = part
        return torch.cat(out, dim=2).transpose(1, 2)

    def _cut(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split [B, N, heads, head_dim] into one [B, heads, block_tokens, head_dim] per block."""
        return x.transpose(1, 2).split(self.block_tokens, dim=2)

    @staticmethod
    def _context(blocks: Sequence[Tensor], past: Sequence[int], members: Sequence[int]) -> Tensor:
        """Clean blocks `past`, then each member itself: [members * B, heads, tokens, head_dim]."""
        return torch.cat([torch.cat([*(blocks[index] for index in past), blocks[own]], dim=2) for own in members])


def attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention with plain matrix products; nothing is masked, so the extra passes of a safe softmax are not needed."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    return torch.matmul(scores.softmax(-1), v)


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """bf16 products, for one pass only, because autocast would reuse casts made without gradients in a pass with gradients."""
    # On a CPU the fused attention kernel's backward pass is several times slower in bf16 than plain products.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def loss_of(model: WanModel, text: WordEncoder, batch: Batch, device: torch.device) -> Tensor:
    """Squared error of the predicted flow (noise - x0), summed over the batch's rows, as a mean over all rows of the step.

    The shares of a step add up to the step's loss, and so do their gradients.
    """
    generator = torch.Generator().manual_seed(batch.noise_seed)
    clean = batch.latents
    size, frames = clean.shape[:2]
    blocks = frames // BLOCK_FRAMES
    whole, rows = (batch.size, *clean.shape[1:]), slice(batch.start, batch.start + size)
    copies = len(batch.sigmas)
    noise = torch.randn(copies, *whole, generator=generator)[:, rows]
    blur = torch.randn(whole, generator=generator)[rows] * batch.context_sigma[:, None, None, None, None]
    sigma = batch.sigmas.repeat_interleave(BLOCK_FRAMES, dim=2)
    level = sigma[..., None, None, None]
    noisy = renoise(clean, noise, level)
    past = (clean + blur)[:, : (blocks - 1) * BLOCK_FRAMES]
    sequence = torch.cat([past, *noisy], dim=1).to(device)
    zeros = torch.zeros(size, past.shape[1])
    timesteps = torch.cat([zeros, *(sigma * 1000)], dim=1).to(device)
    grid = (clean.shape[3] // 2, clean.shape[4] // 2)
    attend = CopiesAttention(batch.gaps, *grid, model.config.head_dim, device, copies=copies)
    words = text.rows(batch.sentences).to(device)
    with precision(device):
        states = model.text_states(text(words))
        flow = model(sequence, model.time_states(timesteps), states, attend)
    predicted = torch.stack(flow[:, past.shape[1] :].float().chunk(copies, dim=1))
    weight = batch.weight.repeat_interleave(BLOCK_FRAMES, dim=1).to(device)
    error = (predicted - (noise - clean).to(device)).square().mean(dim=(3, 4, 5))
    return (error * weight).sum() / (batch.learned * BLOCK_FRAMES * copies)
