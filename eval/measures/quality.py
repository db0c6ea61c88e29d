"""Image quality as the distance of a frame's statistics from the world's: detects collapse, saturation, grids and noise. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.world.render import PERIOD
from eval.measures.formulas import Frames

PATCH = 6
"""Side in pixels of the codec's patches, at whose borders a broken video shows a grid."""
NAMES = (
    "mean_red", "mean_green", "mean_blue", "spread_red", "spread_green", "spread_blue", "saturation", "saturation_spread",
    "fine_gradient", "coarse_gradient", "patch_borders", "clipped", "periodic", "grain", "grain_top_20", "grain_top_5", "grain_median",
)  # fmt: skip
"""Names of the statistics, in order."""

CHUNK = 48
"""Frames measured together: as many as fit into a CPU's cache."""
Floats = NDArray[np.float64]


def statistics(frames: Frames) -> Floats:
    """Statistics [T, 17] of frames uint8 [T, 48, 48, 3], in the order of NAMES; colours in 0..1, energies as logarithms."""
    return np.concatenate([_statistics(frames[start : start + CHUNK]) for start in range(0, len(frames), CHUNK)])


def _statistics(frames: Frames) -> Floats:
    """Statistics of a few frames; colours are separated first, because sums over a last axis of three are slow."""
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    length, _, height, width = planes.shape
    red, green, blue = planes[:, 0], planes[:, 1], planes[:, 2]
    saturation = (np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).reshape(length, -1)
    grey = (red + green + blue) / 3
    folded = [grey[:, i : i + PERIOD, j : j + PERIOD] for i in range(0, height, PERIOD) for j in range(0, width, PERIOD)]
    cell = (sum(folded) / len(folded)).reshape(length, -1)
    clipped = ((frames == 0) | (frames == 255)).reshape(length, -1).mean(1)
    colours = planes.reshape(length, 3, -1)
    fine = _steps(planes)
    columns = [
        *colours.mean(-1).T, *colours.std(-1).T, saturation.mean(1), saturation.std(1),
        _log(fine.mean(1)), _log(_steps(_pooled(planes, 4)).mean(1)), _borders(fine), np.sqrt(clipped),
        cell.var(1) / (grey.reshape(length, -1).var(1) + 1e-4), *_grain(planes),
    ]  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float64)


def _pooled(planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Means over squares of `size` px of [T, 3, N, N], as two matrix products."""
    share = np.kron(np.eye(planes.shape[-1] // size, dtype=np.float32), np.full((size, 1), 1 / size, np.float32))
    pooled: NDArray[np.float32] = share.T @ (planes @ share)
    return pooled


def _steps(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean difference between each column, or row, of `planes` [T, 3, N, N] and the next: [T, 2 (N - 1)]."""
    across = np.abs(planes[..., 1:] - planes[..., :-1]).sum(1).sum(1)
    down = np.abs(planes[..., 1:, :] - planes[..., :-1, :]).sum(1).sum(-1)
    return np.concatenate([across, down], axis=1) / (3 * planes.shape[-1])


def _borders(steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithm of how much larger `steps` [T, 2 (N - 1)] are at the borders of patches than inside them."""
    side = steps.shape[1] // 2
    at_border = np.tile(np.arange(side) % PATCH == PATCH - 1, 2)
    return _log(steps[:, at_border].mean(1)) - _log(steps[:, ~at_border].mean(1))


def _grain(planes: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Logarithms of how far pixels of `planes` [T, 3, N, N] are from the mean of their four neighbours: the mean over pixels,
    that of the roughest fifth and twentieth (a subject in pieces), and the median."""
    wide = np.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="wrap")
    around = wide[..., 2:, 1:-1] + wide[..., 1:-1, 2:] + wide[..., :-2, 1:-1] + wide[..., 1:-1, :-2]
    rough = np.abs(4 * planes - around).sum(1).reshape(len(planes), -1) / 3
    rough.sort(axis=1)
    count = rough.shape[1]
    parts = rough, rough[:, -(count // 5) :], rough[:, -(count // 20) :], rough[:, count // 2, None]
    return [_log(part.mean(1)) for part in parts]


def _log(energy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(energy + 2e-3)


@dataclass(frozen=True)
class Quality:
    """Gaussians fitted on renders: a mean for each place and pattern, as rendered and through the codec, and one common covariance.

    middles [48, 17]. whiten [17, 17]: whitens a difference of statistics. d95: the distance within which 95 % of held-out
    renders lie.
    """

    middles: Floats
    whiten: Floats
    d95: float

    @classmethod
    def fit(cls, measured: Floats, kinds: NDArray[np.int64]) -> Quality:
        """Fit to statistics [N, 17] of frames and the kind of place of each, 0..K-1; d95 is that of the same frames."""
        middles = np.stack([measured[kinds == kind].mean(0) for kind in range(int(kinds.max()) + 1)])
        rest = measured - middles[kinds]
        covariance = rest.T @ rest / len(rest) + 1e-8 * np.eye(rest.shape[1])
        values, vectors = np.linalg.eigh(covariance)
        return cls(middles, vectors / np.sqrt(values), 1.0).calibrated(measured)

    def calibrated(self, measured: Floats) -> Quality:
        """A copy with d95 from statistics [N, 17] of other frames."""
        return Quality(self.middles, self.whiten, float(np.quantile(self.distances(measured), 0.95)))

    def distances(self, measured: Floats) -> Floats:
        """Distance [N] of statistics [N, 17] from the nearest kind of place, in standard deviations."""
        apart = (measured[:, None] - self.middles) @ self.whiten
        nearest: Floats = np.sqrt((apart**2).sum(-1).min(1))
        return nearest

    def scores(self, frames: Frames) -> Floats:
        """Quality of each frame [T], 0..100: 100 within d95, beyond it 100 d95 / distance."""
        return self.scored(self.distances(statistics(frames)))

    def scored(self, distances: Floats) -> Floats:
        """Quality of frames at these distances [T], 0..100."""
        return 100 * np.minimum(1.0, self.d95 / np.maximum(distances, 1e-12))

    def save(self) -> dict[str, Floats]:
        """The three as arrays."""
        return {"middles": self.middles, "whiten": self.whiten, "d95": np.array([self.d95])}

    @classmethod
    def load(cls, arrays: Mapping[str, Floats]) -> Quality:
        """The inverse of `save`."""
        return cls(arrays["middles"], arrays["whiten"], float(arrays["d95"][0]))
