"""Readings: the motion of a path against the world's own, and the shipped encoder against the truth of held-out renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.world.render import SIZE, draw, render
from data.world.words import KINDS, MOTIONS, Words
from eval.world.readings import motion_fits, motion_of, probabilities, read, right_pairs, said, wrapped
from eval.world.scorer import EmbeddedScorer

WEIGHTS = Path(__file__).resolve().parents[3] / "data" / "weights" / "scorer" / "model.safetensors"
CLIPS = 36


@pytest.fixture(scope="module")
def truths():
    kinds = [KINDS[kind] for kind in KINDS]
    every = [Words(*(known[(index + index // 6) % len(known)] for known in kinds)) for index in range(CLIPS)]
    return [draw((424_243, index), 36, words=words, before=index % 2 and 1) for index, words in enumerate(every)]


@pytest.fixture(scope="module")
def readings(truths):
    torch.set_num_threads(1)
    encoder = EmbeddedScorer.load(WEIGHTS).encoder
    return [read(encoder, clip) for clip in render(truths)]


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("frames", [24, 36, 60])
def test_motion_of_a_true_path_anywhere_and_at_any_time(motion: str, frames: int) -> None:
    rng = np.random.default_rng(frames)
    for seed in range(6):
        truth = draw((7, seed), 100, words=Words("red", "ball", motion, "dusk", "plain"))
        start = int(rng.integers(0, 100 - frames))
        path = np.mod(truth.centres[start : start + frames] + rng.uniform(0, SIZE, 2), SIZE)
        fits = motion_fits(path)
        assert fits[motion] > 0.999, fits
        assert max(fit for other, fit in fits.items() if other != motion) < 0.95, fits
        assert motion_of(np.mod(path + 0.7 * rng.standard_normal(path.shape), SIZE)) == motion


def test_fit_of_a_slow_path_by_hand() -> None:
    # At a share v of its speed a straight path leaves (1 - v)^2 of its own scatter unexplained.
    for speed in (0.2, 0.5, 0.8):
        path = np.stack([30 - speed * np.arange(24.0), np.full(24, 9.0)], axis=1)
        assert motion_fits(path)["left"] == pytest.approx(1 - (1 - speed) ** 2, abs=1e-9)
    assert motion_of(path) == "left"


def test_neither_still_nor_jumping_about_is_a_motion() -> None:
    rng = np.random.default_rng(0)
    assert motion_of(np.full((36, 2), 20.0)) is None
    assert motion_of(np.full((36, 2), 20.0) + 0.5 * rng.standard_normal((36, 2))) is None
    assert motion_of(rng.uniform(0, SIZE, (36, 2))) is None
    with pytest.raises(ValueError, match="23 frame.*24"):
        motion_of(np.zeros((23, 2)))


def test_one_misread_frame_does_not_turn_a_motion() -> None:
    path = np.stack([np.mod(np.arange(36.0), SIZE), np.full(36, 5.0)], axis=1)
    path[[5, 17]] = [[40.0, 30.0], [2.0, 22.0]]
    assert motion_of(path) == "right"


def test_said_takes_what_is_said_once() -> None:
    assert said("a red ball over a plain meadow") == {
        "colour": "red",
        "shape": "ball",
        "place": "meadow",
        "pattern": "plain",
        "light": "day",
    }
    assert said("a red blue ball, lightless") == {"shape": "ball", "light": "unlit"}
    with pytest.raises(ValueError, match="dessert"):
        said("a red ball over a plain dessert")


def test_words_of_held_out_renders(truths, readings) -> None:
    for kind in readings[0].words:
        pairs = zip(truths, readings)
        hits = [clip.words[kind].argmax(1) == KINDS[kind].index(getattr(truth.words, kind)) for truth, clip in pairs]
        assert np.mean(hits) >= 0.99, f"{kind}: {np.mean(hits):.3f}"
    assert np.mean([motion_of(clip.centres) == truth.words.motion for truth, clip in zip(truths, readings)]) >= 0.97


def test_centre_hue_and_probabilities(truths, readings) -> None:
    off = np.concatenate([np.hypot(*wrapped(clip.centres - truth.centres).T) for truth, clip in zip(truths, readings)])
    assert off.mean() < 0.8 and np.quantile(off, 0.99) < 4, f"mean {off.mean():.2f}, max {off.max():.2f} px"
    hue = np.array([np.median(clip.hue) - truth.place.hue for truth, clip in zip(truths, readings)])
    assert np.abs(hue).mean() < 0.1, f"mean {np.abs(hue).mean():.3f}, max {np.abs(hue).max():.3f}"
    for truth, clip in zip(truths, readings):
        words = {kind: getattr(truth.words, kind) for kind in KINDS}
        assert min(probabilities(clip, words).values()) > 0.8
        assert right_pairs(clip, words) == {"place_right": 1, "subject_right": 1}
        other = "red" if truth.words.colour != "red" else "blue"
        assert right_pairs(clip, words | {"colour": other}) == {"place_right": 1, "subject_right": 0}
        del words["pattern"]
        assert right_pairs(clip, words) == {"place_right": None, "subject_right": 1}
