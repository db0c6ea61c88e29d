"""One property of a rendered video is spoilt at a time: its own score moves, the others stay within a stated tolerance.

The video is a recall, A-B-C-A-B-C, each scene of six blocks in its true place. Where two scores must move together the
reason stands beside the case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.world.render import Landmark, Truth, draw_place, render
from eval.measures.formulas import Frames
from eval.world.calibrate import RecallFilm, film, recall_script
from eval.world.scorer import EmbeddedScorer

WEIGHTS = Path(__file__).resolve().parents[3] / "data" / "weights" / "scorer" / "model.safetensors"
FILMS = (0, 1)
TOLERANCE = {
    "proxy.subject_consistency": 3.0, "proxy.background_consistency": 3.0, "proxy.text_alignment": 3.0,
    "proxy.motion_smoothness": 1.0, "temporal_flickering": 1.0, "proxy.dynamic_degree": 5.0, "proxy.imaging_quality": 6.0,
    "world.recall_fidelity": 6.0, "world.leakage": 3.0, "world.half_life_blocks": 0.3, "motion_right": 0.1,
}  # fmt: skip
"""How far a score may move, in its own points, when something else is spoilt."""

Scores = dict[str, float]


@pytest.fixture(scope="module")
def scorer() -> EmbeddedScorer:
    torch.set_num_threads(1)
    return EmbeddedScorer.load(WEIGHTS)


def scored(scorer: EmbeddedScorer, films: list[RecallFilm]) -> Scores:
    """Means over videos of all metrics, and of the share of blocks with the motion in the sentence."""
    found: dict[str, list[float]] = {}
    for shown in films:
        scores = scorer.score(shown.frames, shown.texts, shown.spans, "recall")
        moves = [block["motion_right"] for block in scores.per_block if block["motion_right"] is not None]
        for name, value in (scores.metrics | {"motion_right": float(np.mean(moves))}).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.fixture(scope="module")
def true_films() -> list[RecallFilm]:
    return [film(recall_script(index, blocks=6)) for index in FILMS]


@pytest.fixture(scope="module")
def truth(scorer: EmbeddedScorer, true_films: list[RecallFilm]) -> Scores:
    return scored(scorer, true_films)


def late(change: Callable[[Truth, int], Truth]) -> list[RecallFilm]:
    """The videos with a change to each of their last three scenes and unchanged sentences."""
    films = []
    for index in FILMS:
        script = recall_script(index, blocks=6)
        changed = script[:3] + [change(scene, index * 10 + number) for number, scene in enumerate(script[3:])]
        films.append(film(changed, spoken=[scene.words for scene in script]))
    return films


def pixels(films: list[RecallFilm], change: Callable[[Frames, RecallFilm], np.ndarray]) -> list[RecallFilm]:
    """The videos with changed frames."""
    return [dataclasses.replace(shown, frames=np.clip(np.rint(change(shown.frames, shown)), 0, 255).astype(np.uint8)) for shown in films]


def moved(truth: Scores, now: Scores) -> set[str]:
    return {name for name, tolerance in TOLERANCE.items() if abs(now[name] - truth[name]) > tolerance}


def difference(truth: Scores, now: Scores) -> str:
    return ", ".join(f"{name} {truth[name]:.2f} -> {now[name]:.2f}" for name in TOLERANCE)


def with_place(**change: object) -> Callable[[Truth, int], Truth]:
    return lambda scene, seed: dataclasses.replace(scene, place=dataclasses.replace(scene.place, **change))  # type: ignore[arg-type]


def other_shape(scene: Truth, seed: int) -> Truth:
    shape = {"ball": "box", "box": "ring", "ring": "triangle", "triangle": "ball"}[scene.words.shape]
    return dataclasses.replace(scene, words=dataclasses.replace(scene.words, shape=shape))


def shifted_marks(scene: Truth, seed: int) -> Truth:
    """All landmarks one cell further."""
    marks = tuple(Landmark(mark.row, (mark.column + 12) % 48, mark.colour) for mark in scene.place.landmarks)
    return dataclasses.replace(scene, place=dataclasses.replace(scene.place, landmarks=marks))


def other_hue(scene: Truth, seed: int) -> Truth:
    hue = scene.place.hue + (1.0 if scene.place.hue < 0 else -1.0)
    return dataclasses.replace(scene, place=dataclasses.replace(scene.place, hue=hue))


def check(truth: Scores, now: Scores, up: set[str], down: set[str]) -> None:
    assert moved(truth, now) == up | down, difference(truth, now)
    assert all(now[name] > truth[name] for name in up) and all(now[name] < truth[name] for name in down), difference(truth, now)


def test_the_truth_scores_as_truth(truth: Scores) -> None:
    assert truth["world.recall_fidelity"] > 90 and truth["world.leakage"] < 3 and truth["world.half_life_blocks"] < 0.35
    assert truth["proxy.dynamic_degree"] == 100 and truth["proxy.imaging_quality"] > 85 and truth["motion_right"] > 0.95
    assert truth["proxy.subject_consistency"] > 95 and truth["proxy.background_consistency"] > 95


def test_another_subject_at_recall(scorer: EmbeddedScorer, truth: Scores) -> None:
    # The sentence says the shape, so alignment with the text must fall as well.
    check(truth, scored(scorer, late(other_shape)), set(), {"proxy.subject_consistency", "proxy.text_alignment"})


def test_another_place_of_the_same_words_at_recall(scorer: EmbeddedScorer, truth: Scores) -> None:
    # The place's vector holds its identity beside its words, so its consistency falls with fidelity, to about a half.
    films = late(lambda scene, seed: dataclasses.replace(scene, place=draw_place(np.random.default_rng(900 + seed))))
    check(truth, scored(scorer, films), set(), {"world.recall_fidelity", "proxy.background_consistency"})


def test_landmarks_moved_at_recall(scorer: EmbeddedScorer, truth: Scores) -> None:
    films = late(shifted_marks)
    now = scored(scorer, films)
    check(truth, now, set(), {"world.recall_fidelity", "proxy.background_consistency"})
    parts = [segment["recall"] for segment in scorer.score(films[0].frames, films[0].texts, films[0].spans, "recall").per_segment[3:]]
    assert all(part["landmarks"] < 35 and part["hue"] > 70 for part in parts), parts


def test_hue_shifted_at_recall(scorer: EmbeddedScorer, truth: Scores) -> None:
    films = late(other_hue)
    now = scored(scorer, films)
    # Hue is a part of the place's vector too, next to landmarks and shift.
    check(truth, now, set(), {"world.recall_fidelity", "proxy.background_consistency"})
    parts = [segment["recall"] for segment in scorer.score(films[0].frames, films[0].texts, films[0].spans, "recall").per_segment[3:]]
    assert all(part["hue"] < 25 and part["landmarks"] > 80 for part in parts), parts


def test_old_place_stays_for_three_blocks(scorer: EmbeddedScorer, truth: Scores) -> None:
    def linger(shown: RecallFilm) -> RecallFilm:
        frames = shown.frames.copy()
        for (start, _), before, scene in zip(shown.spans[1:], shown.truths, shown.truths[1:], strict=False):
            words = dataclasses.replace(scene.words, place=before.words.place, pattern=before.words.pattern)
            early = dataclasses.replace(scene, words=words, place=before.place, centres=scene.centres[:36])
            frames[start : start + 36] = render([early])[0]
        return dataclasses.replace(shown, frames=frames)

    now = scored(scorer, [linger(film(recall_script(index, blocks=6))) for index in FILMS])
    # Half of six blocks; the curve crosses a half at three blocks. All of a short scene is scored for recall, and half of
    # each scene here shows another place than it says, so place and text scores must fall too.
    assert now["world.leakage"] == pytest.approx(50, abs=4) and now["world.half_life_blocks"] == pytest.approx(3, abs=0.15)
    must = {"world.leakage", "world.half_life_blocks", "world.recall_fidelity", "proxy.background_consistency", "proxy.text_alignment"}
    assert moved(truth, now) == must, difference(truth, now)


def test_saturation_blown_up(scorer: EmbeddedScorer, truth: Scores, true_films: list[RecallFilm]) -> None:
    def blown(frames: Frames, shown: RecallFilm) -> np.ndarray:
        grey = frames.mean(-1, keepdims=True)
        return grey + 2.0 * (frames - grey)

    now = scored(scorer, pixels(true_films, blown))
    assert now["proxy.imaging_quality"] < truth["proxy.imaging_quality"] - 20, difference(truth, now)
    # What stands where and how it moves is still the same.
    steady = {"proxy.motion_smoothness", "temporal_flickering", "proxy.dynamic_degree", "motion_right", "world.half_life_blocks"}
    assert not moved(truth, now) & (steady | {"world.leakage"}), difference(truth, now)


def test_noise(scorer: EmbeddedScorer, truth: Scores, true_films: list[RecallFilm]) -> None:
    rng = np.random.default_rng(0)
    now = scored(scorer, pixels(true_films, lambda frames, shown: frames + 12 * rng.standard_normal(frames.shape)))
    # Fresh noise in each frame flickers and cannot be predicted from its neighbours.
    check(truth, now, set(), {"proxy.imaging_quality", "temporal_flickering", "proxy.motion_smoothness"})


def test_frames_shuffled_within_scenes(scorer: EmbeddedScorer, truth: Scores, true_films: list[RecallFilm]) -> None:
    def shuffled(frames: Frames, shown: RecallFilm) -> np.ndarray:
        rng = np.random.default_rng(1)
        return np.concatenate([frames[rng.permutation(np.arange(*span))] for span in shown.spans])

    check(truth, scored(scorer, pixels(true_films, shuffled)), set(), {"proxy.motion_smoothness", "temporal_flickering", "motion_right"})


def test_motion_frozen(scorer: EmbeddedScorer, truth: Scores, true_films: list[RecallFilm]) -> None:
    def frozen(frames: Frames, shown: RecallFilm) -> np.ndarray:
        return np.concatenate([frames[[start] * (end - start)] for start, end in shown.spans])

    now = scored(scorer, pixels(true_films, frozen))
    # A still video neither flickers nor hides a landmark in one showing and not in the other less often than a moving one.
    assert now["proxy.dynamic_degree"] == 0 and now["motion_right"] == 0
    rest = {"proxy.subject_consistency", "proxy.background_consistency", "proxy.text_alignment", "proxy.imaging_quality", "world.leakage"}
    assert not moved(truth, now) & rest, difference(truth, now)


def test_half_of_a_video_frozen_is_half_dynamic(scorer: EmbeddedScorer, true_films: list[RecallFilm]) -> None:
    # 408 of 432 frames in stretches of 32, half of them still.
    frames = true_films[0].frames[:384].copy()
    frames[192:] = frames[192]
    words = scorer.score(frames, true_films[0].texts[:1], [(0, 384)], "long60").metrics
    assert words["proxy.dynamic_degree"] == pytest.approx(50, abs=9)
