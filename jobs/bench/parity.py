"""How far two ways of computing the same rollout come apart: the same weights, noise, text and policy, latents compared block by block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from echo.backbone.interface import VideoModel, latent_shape
from echo.cache.plan import Step
from echo.cache.policy import Policy, held_frames
from echo.noise import keyed_noise
from echo.rollout import Rollout
from echo.scene import SceneStart
from jobs.bench.stopwatch import Figures


def latents(backbone: VideoModel, policy: Policy, rows_BLT: Tensor, blocks: int) -> list[Tensor]:
    """Clean latents of the first blocks, fp32 on the host; the same noise whatever the type and device.

    The store has room for these blocks alone, so that fp32 at the true size fits a card of 24 GB.
    """
    geometry = backbone.geometry
    noise = keyed_noise(0, ["parity"] * len(rows_BLT), latent_shape(geometry), dtype=backbone.dtype, device=backbone.device)
    plans = [policy.plan(Step(block, (SceneStart(0),), geometry)) for block in range(blocks)]
    rollout = Rollout(
        backbone.network, policy, geometry, noise, batch=len(rows_BLT), steps=backbone.schedule,
        attention=backbone.attention, shared_window=backbone.shared_window, capacity=held_frames(plans),
    )  # fmt: skip
    rollout.switch(rows_BLT.to(backbone.device, backbone.dtype))
    return [rollout.next().latents.float().cpu().clone() for _ in range(blocks)]


def gap(some: Sequence[Tensor], others: Sequence[Tensor]) -> Figures:
    """Largest and mean difference of each block's latents, and the spread of the first's, against which they are to be read."""
    gaps = [(a - b).abs() for a, b in zip(some, others, strict=True)]
    largest, mean = [float(part.max()) for part in gaps], [float(part.mean()) for part in gaps]
    spread, blocks = float(some[0].std()), len(gaps)
    return {
        "blocks": blocks,
        "max": [round(value, 9) for value in largest],
        "mean": [round(value, 9) for value in mean],
        "std": round(spread, 6),
        "words": f"{blocks} blocks, largest difference {max(largest):.3g}, mean {sum(mean) / blocks:.3g}; latents' deviation {spread:.3g}",
    }
