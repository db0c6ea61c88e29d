"""Image quality by statistics: how far a frame is from the world's, for collapse, saturation, grids and noise. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.world.render import PERIOD
from eval.formulas import Frames

PATCH = 6
"""Pixels on a side of the codec's patches, at whose borders a broken video shows a grid."""
NAMES = (
    "mean_red", "mean_green", "mean_blue", "spread_red", "spread_green", "spread_blue", "saturation", "saturation_spread",
    "fine_gradient", "coarse_gradient", "patch_borders", "clipped", "periodic", "grain", "grain_top_20", "grain_top_5", "grain_median",
)  # fmt: skip
"""What `statistics` measures, in order."""

Floats = NDArray[np.float64]


def statistics(frames: Frames) -> Floats:
    """Statistics [T, 17] of frames uint8 [T, 48, 48, 3], in the order of NAMES; colours in 0..1, energies as logarithms."""
    picture: NDArray[np.float32] = frames.astype(np.float32) / np.float32(255)
    saturation = picture.max(-1) - picture.min(-1)
    length, height, width, _ = picture.shape
    small = picture.reshape(length, height // 4, 4, width // 4, 4, 3).mean((2, 4))
    grey = picture.mean(-1)
    cell = grey.reshape(length, height // PERIOD, PERIOD, width // PERIOD, PERIOD).mean((1, 3))
    clipped = ((frames == 0) | (frames == 255)).mean((1, 2, 3))
    columns = [
        *picture.mean((1, 2)).T, *picture.std((1, 2)).T, saturation.mean((1, 2)), saturation.std((1, 2)),
        _log(_steps(picture).mean(1)), _log(_steps(small).mean(1)), _borders(picture), np.sqrt(clipped),
        cell.var((1, 2)) / (grey.var((1, 2)) + 1e-4), *_grain(picture),
    ]  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float64)


def _steps(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean difference between each column, or row, of `picture` [T, N, N, 3] and the next: [T, 2 (N - 1)]."""
    across = np.abs(np.diff(picture, axis=2)).mean((1, 3))
    down = np.abs(np.diff(picture, axis=1)).mean((2, 3))
    return np.concatenate([across, down], axis=1)


def _borders(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithm of how much larger steps are at the borders of patches than inside them."""
    steps = _steps(picture)
    side = steps.shape[1] // 2
    at_border = np.tile(np.arange(side) % PATCH == PATCH - 1, 2)
    return _log(steps[:, at_border].mean(1)) - _log(steps[:, ~at_border].mean(1))


def _grain(picture: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Logarithms of how far pixels of `picture` [T, N, N, 3] are from the mean of their four neighbours: the mean over pixels,
    that of the roughest fifth and twentieth (a subject in pieces), and the median."""
    around = sum(np.roll(picture, step, axis) for step in (1, -1) for axis in (1, 2))
    rough = np.abs(4 * picture - around).mean(-1).reshape(len(picture), -1)
    rough.sort(axis=1)
    count = rough.shape[1]
    parts = rough, rough[:, -(count // 5) :], rough[:, -(count // 20) :], rough[:, count // 2, None]
    return [_log(part.mean(1)) for part in parts]


def _log(energy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(energy + 2e-3)


@dataclass(frozen=True)
class Quality:
    """Gaussians fitted on renders: a middle for each place and pattern as rendered and through the codec, one spread for all.

    middles [48, 17]. whiten [17, 17]: turns a difference of statistics into one of unit spread. d95: the distance within
    which 95 % of held-out renders lie.
    """

    middles: Floats
    whiten: Floats
    d95: float

    @classmethod
    def fit(cls, measured: Floats, kinds: NDArray[np.int64]) -> Quality:
        """From statistics [N, 17] of frames and the kind of place of each, 0..K-1; d95 is that of these same frames."""
        middles = np.stack([measured[kinds == kind].mean(0) for kind in range(int(kinds.max()) + 1)])
        rest = measured - middles[kinds]
        covariance = rest.T @ rest / len(rest) + 1e-8 * np.eye(rest.shape[1])
        values, vectors = np.linalg.eigh(covariance)
        return cls(middles, vectors / np.sqrt(values), 1.0).calibrated(measured)

    def calibrated(self, measured: Floats) -> Quality:
        """The same, with d95 taken from statistics [N, 17] of other frames."""
        return Quality(self.middles, self.whiten, float(np.quantile(self.distances(measured), 0.95)))

    def distances(self, measured: Floats) -> Floats:
        """Distance [N] of statistics [N, 17] from the nearest kind of place, in spreads."""
        apart = (measured[:, None] - self.middles) @ self.whiten
        nearest: Floats = np.sqrt((apart**2).sum(-1).min(1))
        return nearest

    def scores(self, frames: Frames) -> Floats:
        """Quality of each frame [T], 0..100: 100 within d95, and as many times less as it lies farther."""
        distances = self.distances(statistics(frames))
        return 100 * np.minimum(1.0, self.d95 / np.maximum(distances, 1e-12))

    def save(self) -> dict[str, Floats]:
        """The three as arrays."""
        return {"middles": self.middles, "whiten": self.whiten, "d95": np.array([self.d95])}

    @classmethod
    def load(cls, arrays: Mapping[str, Floats]) -> Quality:
        """What `save` wrote."""
        return cls(arrays["middles"], arrays["whiten"], float(arrays["d95"][0]))
