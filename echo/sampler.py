"""Few-step flow-matching sampler of Self-Forcing: shifted schedule, warped timesteps, x0 prediction, fresh re-noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from echo.geometry import SHIFT, STEPS, TRAIN_STEPS, check_steps

Levels = TypeVar("Levels", Tensor, NDArray[np.float64])


def shifted(x: Levels, shift: float = SHIFT) -> Levels:
    """s(x) = shift x / (1 + (shift - 1) x): noise levels in 0..1, shifted towards 1."""
    return shift * x / (1 + (shift - 1) * x)


def sigma_table(shift: float = SHIFT) -> Tensor:
    """sigma_i = s(1 - i/1000), i = 0..999; float64 [1000], from 1 down."""
    return shifted(1 - torch.arange(TRAIN_STEPS, dtype=torch.float64) / TRAIN_STEPS, shift)


def x0_from_flow(noisy: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """x0 = x_t - sigma v, computed in float64."""
    return (noisy.double() - sigma * flow.double()).to(noisy.dtype)


def renoise(x0: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """x_t = (1 - sigma) x0 + sigma eps; sigma is a number, or a tensor that broadcasts."""
    return (1 - sigma) * x0 + sigma * noise


@dataclass(frozen=True)
class Schedule:
    """The denoising steps of a block: `timesteps` (0..1000) as the network reads them and their `sigmas`.

    first: the schedule of a video's first block, if it has another one: Causal-Forcing++ gives it more steps, since it has no past.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    first: Schedule | None = None

    def of(self, block: int) -> Schedule:
        """The steps of a block."""
        return self.first if block == 0 and self.first is not None else self

    @property
    def clock(self) -> tuple[float, ...]:
        """All timesteps that the network sees, each once, with that of the clean pass last."""
        return tuple(dict.fromkeys((*self.timesteps, *(self.first.timesteps if self.first else ()), 0.0)))

    @property
    def draws(self) -> int:
        """Most noise draws of a block: the initial one and one before every step but the first."""
        return max(len(self.of(block).timesteps) for block in (0, 1))


def schedule(steps: Sequence[int] = STEPS, shift: float = SHIFT, *, warp: bool = True, first: Sequence[int] = ()) -> Schedule:
    """Warp nominal `steps` (1..1000, decreasing) through the shifted table: 1000, 937.5, 833.3, 625 for the default four.

    warp: False uses steps as the network's timesteps, with the table's nearest noise levels (CausVid's 1000, 757, 522).
    first: steps of a video's first block; empty for the same.

    Raises ValueError if steps are not strictly decreasing within 1..1000.
    """
    check_steps(steps)
    table, own = sigma_table(shift), schedule(first, shift, warp=warp) if first else None
    if not warp:
        return Schedule(tuple(map(float, steps)), tuple(table[(TRAIN_STEPS * table - s).abs().argmin()].item() for s in steps), own)
    sigmas = tuple(table[TRAIN_STEPS - s].item() for s in steps)
    return Schedule(tuple(TRAIN_STEPS * sigma for sigma in sigmas), sigmas, own)
