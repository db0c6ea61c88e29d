"""How far two ways of computing the same rollout come apart: the same weights, noise, text and policy, latents compared block by block."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from echo.backbone.interface import VideoModel, latent_shape
from echo.cache.policy import Policy
from echo.noise import keyed_noise
from echo.rollout import Rollout


def latents(backbone: VideoModel, policy: Policy, rows_BLT: Tensor, blocks: int) -> list[Tensor]:
    """Clean latents of the first blocks, fp32 on the host; the same noise whatever the type and device."""
    noise = keyed_noise(0, ["parity"] * len(rows_BLT), latent_shape(backbone.geometry), dtype=backbone.dtype, device=backbone.device)
    rollout = Rollout(
        backbone.network, policy, backbone.geometry, noise, batch=len(rows_BLT), steps=backbone.schedule,
        attention=backbone.attention, shared_window=backbone.shared_window,
    )  # fmt: skip
    rollout.switch(rows_BLT.to(backbone.device, backbone.dtype))
    return [rollout.next().latents.float().cpu().clone() for _ in range(blocks)]


def compare(one: VideoModel, other: VideoModel, policy: Policy, rows_BLT: Tensor, blocks: int) -> dict[str, Any]:
    """Largest and mean difference of each block's latents, and the spread of the first's, against which they are to be read."""
    pairs = list(zip(latents(one, policy, rows_BLT, blocks), latents(other, policy, rows_BLT, blocks), strict=True))
    gaps = [(a - b).abs() for a, b in pairs]
    largest, mean = [float(gap.max()) for gap in gaps], [float(gap.mean()) for gap in gaps]
    spread = float(pairs[0][0].std())
    return {
        "blocks": blocks,
        "max": [round(value, 9) for value in largest],
        "mean": [round(value, 9) for value in mean],
        "std": round(spread, 6),
        "words": f"{blocks} blocks, largest difference {max(largest):.3g}, mean {sum(mean) / blocks:.3g}; latents' deviation {spread:.3g}",
    }
