"""Few-step flow-matching sampler of Self-Forcing: shifted schedule, warped timesteps, x0 prediction, fresh re-noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRAIN_STEPS = 1000
Levels = TypeVar("Levels", Tensor, NDArray[np.float64])


def shifted(x: Levels, shift: float = 5.0) -> Levels:
    """s(x) = shift x / (1 + (shift - 1) x): noise levels in 0..1, moved towards 1."""
    return shift * x / (1 + (shift - 1) * x)


def sigma_table(shift: float = 5.0) -> Tensor:
    """sigma_i = s(1 - i/1000), i = 0..999; float64 [1000], from 1 down."""
    return shifted(1 - torch.arange(TRAIN_STEPS, dtype=torch.float64) / TRAIN_STEPS, shift)


def x0_from_flow(noisy: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """x0 = x_t - sigma v, taken in float64."""
    return (noisy.double() - sigma * flow.double()).to(noisy.dtype)


def renoise(x0: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """x_t = (1 - sigma) x0 + sigma eps; sigma one number, or broadcast."""
    return (1 - sigma) * x0 + sigma * noise


@dataclass(frozen=True)
class Schedule:
    """The denoising steps of a block: `timesteps` (0..1000) as the network reads them and their `sigmas`."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]

    @property
    def draws(self) -> int:
        """Noise draws of a block: the initial one and one before every step but the first."""
        return len(self.timesteps)


def schedule(steps: Sequence[int] = (1000, 750, 500, 250), shift: float = 5.0) -> Schedule:
    """Warp nominal `steps` (1..1000, falling) through the shifted table: 1000, 937.5, 833.3, 625 for the default four.

    Raises ValueError where steps are not strictly falling within 1..1000.
    """
    if not steps or any(not 1 <= s <= TRAIN_STEPS for s in steps) or any(a <= b for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(f"denoising steps {list(steps)}: must fall strictly within 1..{TRAIN_STEPS}, as [1000, 750, 500, 250] does")
    table = sigma_table(shift)
    sigmas = tuple(table[TRAIN_STEPS - s].item() for s in steps)
    return Schedule(tuple(TRAIN_STEPS * sigma for sigma in sigmas), sigmas)
