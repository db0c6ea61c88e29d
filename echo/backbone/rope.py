"""Three-dimensional rotary embedding of Wan2.1: adjacent channel pairs as complex numbers, split time / height / width.

Shapes: N tokens, F frames, S tokens of a frame, H heads, D head_dim, C = D / 2 complex channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0


def split(head_dim: int) -> tuple[int, int, int]:
    """Complex channels for (time, height, width): 22 / 21 / 21 of Wan's 64, the same rule for any size."""
    channels = head_dim // 2
    side = channels // 3
    return channels - 2 * side, side, side


def frequencies(channels: int) -> Tensor:
    """omega_i = theta^(-i / channels) of one axis, float64 [channels]."""
    return THETA ** (-torch.arange(channels, dtype=torch.float64) / channels)


@lru_cache(maxsize=32)
def _frequencies_on(channels: int, device: torch.device) -> Tensor:
    """`frequencies` on a device; moved there once."""
    with torch.inference_mode(False):  # kept beyond the rollout
        return frequencies(channels).to(device)


def integers(values: Sequence[int], device: torch.device) -> Tensor:
    """Host integers on a device, int64 [N]; through pinned memory to a GPU, so that the host does not wait."""
    return on_device(list(values), torch.long, device)


def on_device(values: Sequence[object], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Host numbers, or rows of them, on a device; see `integers`."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def host_integers(values: Tensor) -> list[list[int]]:
    """A device's integers [R, N] on the host, which waits for them; used once per video, between blocks."""
    rows: list[list[int]] = values.tolist()
    return rows


def temporal_frequencies(head_dim: int) -> Tensor:
    """Temporal omega on the temporal channels and 0 on the spatial ones, float64 [C]."""
    time, height, width = split(head_dim)
    return torch.cat([frequencies(time), torch.zeros(height + width, dtype=torch.float64)])


def table(t: Tensor, h: Tensor, w: Tensor, head_dim: int) -> Tensor:
    """Rotation e^(i angle) of tokens at integer indices `t`, `h`, `w` (each [N]); complex64 [N, C].

    Angles are computed in float64, so that indices of tens of thousands stay exact.
    """
    parts = [
        torch.outer(index.double(), _frequencies_on(size, index.device)) for index, size in zip((t, h, w), split(head_dim), strict=True)
    ]
    angle = torch.cat(parts, dim=-1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def frame_table(positions: Sequence[int], grid_height: int, grid_width: int, head_dim: int, device: torch.device | None = None) -> Tensor:
    """Rotation of whole frames in raster order, frame f at temporal index `positions[f]`; complex64 [F * S, C], read-only.

    It is computed on the device, since megabytes of angles come from a few integers.
    """
    if device is None or device.type == "cpu":
        return _frame_table(tuple(positions), grid_height, grid_width, head_dim)
    return _made_table(integers(positions, device), grid_height, grid_width, head_dim)


@lru_cache(maxsize=64)
def _frame_table(positions: tuple[int, ...], grid_height: int, grid_width: int, head_dim: int) -> Tensor:
    """Cached, since policies with slot indices use the same few tables."""
    with torch.inference_mode(False):  # kept beyond the rollout, and training may use it too
        return _made_table(torch.tensor(positions, dtype=torch.long), grid_height, grid_width, head_dim)


def _made_table(positions: Tensor, grid_height: int, grid_width: int, head_dim: int) -> Tensor:
    device, count, tokens = positions.device, len(positions), grid_height * grid_width
    rows, columns = torch.meshgrid(torch.arange(grid_height, device=device), torch.arange(grid_width, device=device), indexing="ij")
    return table(positions.repeat_interleave(tokens), rows.reshape(-1).repeat(count), columns.reshape(-1).repeat(count), head_dim)


def place_table(places: Tensor, positions: Tensor | None, grid_width: int, tokens_per_frame: int, head_dim: int) -> Tensor:
    """Rotation of tokens by their place = frame * tokens_per_frame + raster, [..., N] to complex64 [..., N, C].

    positions: temporal indices that replace the frame numbers where they are not negative, broadcast to `places`.
    """
    frame, raster = places.div(tokens_per_frame, rounding_mode="floor"), places % tokens_per_frame
    t = frame if positions is None else torch.where(positions < 0, frame, positions)
    h, w = raster.div(grid_width, rounding_mode="floor"), raster % grid_width
    return table(t.expand(places.shape).reshape(-1), h.reshape(-1), w.reshape(-1), head_dim).unflatten(0, places.shape)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate `x` [B, N, H, D] by `turn` ([N, C], or [B, N, C] where samples differ), in fp32, back in the dtype of `x`."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn.unsqueeze(-2)).flatten(-2).to(x.dtype)


def rotate_into(target: Tensor, x: Tensor, turn: Tensor) -> None:
    """Write `rotate(x, turn)` to `target`, a view of the same shape and dtype; in fp32 without an intermediate tensor."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    if x.dtype == torch.float32:
        torch.mul(pairs, turn.unsqueeze(-2), out=torch.view_as_complex(target.view(*target.shape[:-1], -1, 2)))
    else:
        target.copy_(torch.view_as_real(pairs.mul_(turn.unsqueeze(-2))).flatten(-2))
