"""Image quality: each statistic against a loop or a picture whose answer is plain, and the distance against a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.world.render import draw, render
from echo.backbone.parts.codec import PatchCodec
from eval.measures.quality import NAMES, Quality, statistics
from eval.world.scorer import EmbeddedScorer

WEIGHTS = Path(__file__).resolve().parents[3] / "data" / "weights" / "scorer" / "model.safetensors"


def named(frame: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, statistics(frame[None])[0], strict=True))


def test_statistics_are_the_loops() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    picture = frame / 255
    found = named(frame)
    saturation = [max(pixel) - min(pixel) for row in picture for pixel in row]
    steps = [abs(picture[r, c + 1] - picture[r, c]).mean() for r in range(48) for c in range(47)]
    steps += [abs(picture[r + 1, c] - picture[r, c]).mean() for r in range(47) for c in range(48)]
    border = [abs(picture[r, c + 1] - picture[r, c]).mean() for r in range(48) for c in range(5, 47, 6)]
    border += [abs(picture[r + 1, c] - picture[r, c]).mean() for r in range(5, 47, 6) for c in range(48)]
    inside = (sum(steps) - sum(border)) / (len(steps) - len(border))
    beside = [((-1, 0), (1, 0), (0, -1), (0, 1))] * 2304
    grain = np.array(
        [
            abs(4 * picture[at // 48, at % 48] - sum(picture[(at // 48 + r) % 48, (at % 48 + c) % 48] for r, c in near)).mean()
            for at, near in enumerate(beside)
        ]
    )
    expected = {
        "mean_green": picture[..., 1].mean(), "spread_blue": picture[..., 2].std(), "saturation": np.mean(saturation),
        "saturation_spread": np.std(saturation), "fine_gradient": np.log(np.mean(steps) + 2e-3),
        "patch_borders": np.log(np.mean(border) + 2e-3) - np.log(inside + 2e-3),
        "clipped": np.sqrt(((frame == 0) | (frame == 255)).mean()),
        "grain": np.log(grain.mean() + 2e-3), "grain_top_5": np.log(np.sort(grain)[-115:].mean() + 2e-3),
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def test_a_periodic_picture_is_periodic_and_a_grid_has_borders() -> None:
    cell = np.random.default_rng(1).integers(60, 200, (12, 12, 1), dtype=np.uint8).repeat(3, 2)
    assert named(np.tile(cell, (4, 4, 1)))["periodic"] > 0.99
    assert named(np.random.default_rng(2).integers(0, 256, (48, 48, 3), dtype=np.uint8))["periodic"] < 0.2
    squares = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    assert named(squares)["patch_borders"] > 3


def test_distance_is_mahalanobis_from_the_nearest_kind() -> None:
    rng = np.random.default_rng(4)
    spread = rng.standard_normal((5, 5))
    kinds = np.arange(4000) % 2
    measured = rng.standard_normal((4000, 5)) @ spread + 40.0 * kinds[:, None]
    quality = Quality.fit(measured, kinds)
    covariance = sum(np.cov(measured[kinds == kind].T, bias=True) for kind in (0, 1)) / 2
    for point in rng.standard_normal((5, 5)) @ spread + 3:
        apart = point - measured[kinds == 0].mean(0)
        assert quality.distances(point[None])[0] == pytest.approx(np.sqrt(apart @ np.linalg.solve(covariance, apart)), rel=1e-5)
    assert (quality.distances(measured) <= quality.d95).mean() == pytest.approx(0.95, abs=1e-3)
    again = Quality.load(quality.save())
    assert np.array_equal(again.distances(measured), quality.distances(measured)) and again.d95 == quality.d95


def test_renders_score_high_and_spoilt_ones_low() -> None:
    torch.set_num_threads(1)
    quality = EmbeddedScorer.load(WEIGHTS).quality
    clips = torch.from_numpy(render([draw((515, index), 12) for index in range(60)]))
    codec = PatchCodec.fit(clips)
    frames = codec.decode(codec.encode(clips[:24])).numpy()[:, ::4].reshape(-1, 48, 48, 3)
    clean = quality.scores(frames).mean()
    wide = frames.astype(float)
    grey = wide.mean(-1, keepdims=True)
    rng = np.random.default_rng(0)
    spoilt = {
        "saturated": grey + 2.2 * (wide - grey), "noisy": wide + 25 * rng.standard_normal(wide.shape), "dark": 0.4 * wide,
        "grey": np.full_like(wide, 128), "washed out": 128 + 0.3 * (wide - 128),
    }  # fmt: skip
    scores = {name: quality.scores(np.clip(values, 0, 255).astype(np.uint8)).mean() for name, values in spoilt.items()}
    assert clean > 90 and max(scores.values()) < 75, (clean, scores)
