"""The sizes of a rollout. Nothing else in the project knows how many tokens a latent frame has."""

from __future__ import annotations

from dataclasses import dataclass

PATCH = (1, 2, 2)
"""Latent cells that one token covers: (frames, rows, columns)."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of one backbone on one frame size; every count is of latent frames, tokens or channels.

    `grid_height` x `grid_width` is the token grid of one latent frame; the latent itself is twice as large each way.
    """

    layers: int
    heads: int
    head_dim: int
    grid_height: int
    grid_width: int
    latent_channels: int = 16
    frames_per_block: int = 3
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
        """Frames of the window that are left for the past."""
        return self.window_frames - self.frames_per_block

    @property
    def latent_height(self) -> int:
        return self.grid_height * PATCH[1]

    @property
    def latent_width(self) -> int:
        return self.grid_width * PATCH[2]
