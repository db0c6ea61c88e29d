"""The sizes of a rollout, and time arithmetic between latent and pixel frames.

Nothing else in the project knows how many tokens a latent frame has. A codec makes `first_frames` pixel frames from a video's first
latent frame (Wan's causal codec 1, the embedded one 4) and `PIXEL_FRAMES_PER_LATENT` from every later one. Frames and blocks are counted
from 0; a span is half open, [start, end).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from echo.refusals import within
from echo.scene import FRAMES_PER_BLOCK, PIXEL_FRAMES_PER_LATENT

PATCH = (1, 2, 2)
"""Latent cells that one token covers: (frames, rows, columns)."""
TRAIN_STEPS = 1000
STEPS = (1000, 750, 500, 250)
"""Nominal denoising steps of a block, and the shift of noise levels towards 1 (`echo.sampler`), unless a backbone has its own."""
SHIFT = 5.0


@dataclass(frozen=True)
class Geometry:
    """Sizes of one backbone at one frame size, counted in latent frames, tokens or channels.

    `grid_height` x `grid_width` is the token grid of one latent frame; the latent itself is twice as large each way.
    """

    layers: int
    heads: int
    head_dim: int
    grid_height: int
    grid_width: int
    latent_channels: int = 16
    frames_per_block: int = FRAMES_PER_BLOCK
    window_frames: int = 21

    def __post_init__(self) -> None:
        if self.head_dim % 2 or self.head_dim < 6:
            raise ValueError(f"head_dim {self.head_dim}: RoPE needs an even size of 6 or more; nearest is {max(6, self.head_dim + 1)}")
        if self.window_frames < 2 * self.frames_per_block:
            raise ValueError(
                f"window_frames {self.window_frames}: at least two blocks of {self.frames_per_block}; "
                f"nearest is {2 * self.frames_per_block}"
            )

    @property
    def tokens_per_frame(self) -> int:
        return self.grid_height * self.grid_width

    @property
    def block_tokens(self) -> int:
        return self.frames_per_block * self.tokens_per_frame

    @property
    def context_frames(self) -> int:
        """Frames of the window before the block."""
        return self.window_frames - self.frames_per_block

    @property
    def latent_height(self) -> int:
        return self.grid_height * PATCH[1]

    @property
    def latent_width(self) -> int:
        return self.grid_width * PATCH[2]


def check_steps(steps: Sequence[int]) -> None:
    """Raises ValueError if denoising steps are not strictly decreasing within 1..1000."""
    if not steps or any(not 1 <= s <= TRAIN_STEPS for s in steps) or any(a <= b for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"denoising steps {list(steps)}: must fall strictly within 1..{TRAIN_STEPS}, as {list(STEPS)} does")


def pixel_frames(latent_frames: int, first_frames: int) -> int:
    """Pixel frames of a video's first `latent_frames` latent frames: 4 n - 3 for Wan, 4 n in the embedded world, 0 for none.

    Raises ValueError for a negative count, or `first_frames` outside 1..4.

    >>> pixel_frames(21, 1), pixel_frames(21, 4)
    (81, 84)
    """
    within("first_frames", first_frames, 1, PIXEL_FRAMES_PER_LATENT)
    within("latent_frames", latent_frames, 0, math.inf)
    return first_frames + (latent_frames - 1) * PIXEL_FRAMES_PER_LATENT if latent_frames else 0


def span(first_block: int, end_block: int, first_frames: int, frames_per_block: int) -> tuple[int, int]:
    """Pixel frames [start, end) of the blocks [first_block, end_block); Wan's first block is shorter than the others.

    Raises ValueError if the range of blocks is empty or begins before the video.

    >>> span(0, 1, 1, 3), span(1, 3, 1, 3), span(0, 1, 1, 1)
    ((0, 9), (9, 33), (0, 1))
    """
    if not 0 <= first_block < end_block:
        raise ValueError(f"blocks {first_block}..{end_block}: at least one block, from 0 on; nearest is 0..1")
    return tuple(pixel_frames(block * frames_per_block, first_frames) for block in (first_block, end_block))  # type: ignore[return-value]


def scene_spans(scene_blocks: Sequence[int], first_frames: int, frames_per_block: int) -> list[tuple[int, int]]:
    """Pixel frames [start, end) of each scene, from its number of blocks, without gaps.

    Raises ValueError for a scene without blocks.
    """
    spans, begun = [], 0
    for scene, blocks in enumerate(scene_blocks, 1):
        if blocks < 1:
            raise ValueError(f"scene {scene} has {blocks} blocks; at least 1 is needed")
        spans.append(span(begun, begun + blocks, first_frames, frames_per_block))
        begun += blocks
    return spans
