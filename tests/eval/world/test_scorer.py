"""The embedded scorer: shipped weights tell the world's places and subjects apart; scopes reach the right frames."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.world.render import Truth, clip, draw_place, render
from data.world.words import LIT, UNLIT, Words, sentence
from echo.geometry import scene_spans
from eval.measures.formulas import consistency, pair_consistency
from eval.protocol import PAIRED, TASKS
from eval.world.encoder import FrameEncoder
from eval.world.scorer import EmbeddedScorer

WEIGHTS = Path(__file__).resolve().parents[3] / "data" / "weights" / "scorer" / "model.safetensors"
NAMES = {
    "temporal_flickering", "proxy.subject_consistency", "proxy.background_consistency", "proxy.text_alignment",
    "proxy.motion_smoothness", "proxy.dynamic_degree", "proxy.imaging_quality",
}  # fmt: skip
TOLD = {"proxy.frozen_time", "proxy.coherence_1", "proxy.coherence_2", "proxy.coherence_5"} | {
    f"proxy.text_alignment_{scene}" for scene in range(1, 7)
}
"""What no protocol has; a video of 9 s has frames 5 s apart and none 10 s apart."""
SWITCHED = {"world.leakage", "world.half_life_blocks"}
"""Told of every video whose sentences name one place after another."""
LOOKS = (("meadow", "plain"), ("ocean", "striped"), ("dusk", "dotted"))
A, B, C = (Words("red", "ball", "left", place, pattern) for place, pattern in LOOKS)


@pytest.fixture(scope="module")
def scorer() -> EmbeddedScorer:
    torch.set_num_threads(1)
    return EmbeddedScorer.load(WEIGHTS)


def scene(words: Words, place_seed: int, frames: int = 24) -> np.ndarray:
    """A clip of `words` in the place of `place_seed`."""
    truth = clip(0, frames, words=words)[1]
    place = draw_place(np.random.default_rng(place_seed))
    return render([Truth(words, place, truth.radius, truth.centres)])[0]


def video(places: list[tuple[Words, int]]) -> tuple[np.ndarray, list[str], list[tuple[int, int]]]:
    """Scenes end to end, their sentences and their segments."""
    frames = np.concatenate([scene(words, seed) for words, seed in places])
    return frames, [sentence(words, 5) for words, _ in places], scene_spans((2,) * len(places), 4, 3)


@pytest.mark.parametrize("task", TASKS)
def test_names_and_range(scorer: EmbeddedScorer, task: str) -> None:
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3)] * 2)
    scores = scorer.score(frames, texts, spans, task, recalls=(None, None, None, 0, 1, 2))
    returns = {"world.recall_fidelity", "proxy.memory_fidelity", "proxy.memory_leakage"}
    assert set(scores.metrics) == NAMES | TOLD | SWITCHED | (returns if task in PAIRED else set())
    assert all(-100 <= value <= 100 for value in scores.metrics.values())
    assert [segment["start"] for segment in scores.per_segment] == [start for start, _ in spans]


def test_scopes_reach_the_right_frames(scorer: EmbeddedScorer) -> None:
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3), (A, 4), (B, 5), (C, 6)])
    features = scorer.encoder.frames(torch.from_numpy(frames)).features
    place, subject = features.place.numpy(), features.subject.numpy()
    recall = scorer.score(frames, texts, spans, "recall").metrics
    pairs = [pair_consistency(place[spans[a][0] : spans[a][1]], place[spans[a + 3][0] : spans[a + 3][1]]) for a in range(3)]
    assert recall["proxy.background_consistency"] == pytest.approx(100 * np.mean(pairs), abs=1e-4)
    hard = scorer.score(frames, texts, spans, "hard").metrics
    inside = [consistency(place[start:end]) for start, end in spans]
    assert hard["proxy.background_consistency"] == pytest.approx(100 * np.mean(inside), abs=1e-4)
    assert hard["proxy.subject_consistency"] == pytest.approx(100 * consistency(subject), abs=1e-4)
    smooth = scorer.score(frames, texts, spans, "smooth").metrics
    assert smooth["proxy.background_consistency"] == pytest.approx(100 * consistency(place), abs=1e-4)


def test_pairs_are_those_that_the_prompt_names(scorer: EmbeddedScorer) -> None:
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3), (B, 2)])
    place = scorer.encoder.frames(torch.from_numpy(frames)).features.place.numpy()
    for earlier in (0, 1):
        scores = scorer.score(frames, texts, spans, "layerrecall", recalls=(None, None, None, earlier)).metrics
        pair = pair_consistency(place[slice(*spans[earlier])], place[slice(*spans[3])])
        assert scores["proxy.background_consistency"] == pytest.approx(100 * pair, abs=1e-4)
        assert scores["world.recall_fidelity"] > 90 if earlier == 1 else scores["world.recall_fidelity"] < 50


@pytest.fixture(scope="module")
def shown() -> tuple[np.ndarray, str]:
    """A scene of 15 s and its sentence."""
    return scene(A, 1, 240), sentence(A, 5)


@pytest.mark.parametrize(
    ("kind", "frozen", "coherence", "drift", "moves"),
    [
        ("perfect", 0, (90, 100), 0, 100),
        ("frozen", 100, (99.99, 100.01), 0, 0),
        ("half frozen", 50, (90, 100), 0, 50),
        ("drifting", 0, (0, 80), 50, 100),
    ],
)
def test_known_answers_of_whether_a_video_moves_and_stays_itself(
    scorer: EmbeddedScorer, shown, kind, frozen, coherence, drift, moves
) -> None:
    """A frozen video is perfectly consistent: frozen time tells it from a perfect one. A drifting one fades into noise."""
    frames, text = shown
    if kind.endswith("frozen"):
        frames = np.concatenate([frames[: 0 if kind == "frozen" else 120], np.repeat(frames[120:121], 240 if kind == "frozen" else 120, 0)])
    if kind == "drifting":
        noise = np.random.default_rng(0).integers(0, 256, frames.shape)
        share = np.linspace(-2, 1, len(frames)).clip(0)[:, None, None, None]
        frames = np.rint((1 - share) * frames + share * noise).astype(np.uint8)
    found = scorer.score(frames, [text], [(0, len(frames))], "long60").metrics
    assert found["proxy.frozen_time"] == pytest.approx(frozen, abs=0.5)
    assert coherence[0] <= found["proxy.coherence_10"] <= coherence[1]
    assert found["proxy.quality_drift"] > drift if drift else found["proxy.quality_drift"] < 1
    assert found["proxy.dynamic_degree"] == pytest.approx(moves, abs=15)
    assert "proxy.looping" not in found, "every motion of this world repeats"


@pytest.mark.parametrize(
    ("places", "fidelity", "leakage"),
    [
        ([(A, 1), (B, 2), (C, 3)] * 2, (20, 60), (40, 75)),
        ([(A, 1), (B, 2), *[(C, 3)] * 4], (-5, 5), (97, 101)),
        ([(A, 1), (B, 2), (C, 3), (A, 4), (B, 5), (C, 6)], (5, 25), (40, 75)),
    ],
    ids=["perfect return", "stays in the scene just left", "others of the same words"],
)
def test_known_answers_of_memory(scorer: EmbeddedScorer, places, fidelity, leakage) -> None:
    """The subject is in all places, so that leakage is never 0; what the words bring back is less than the whole."""
    found = scorer.score(*video(places), "recall").metrics
    assert fidelity[0] <= found["proxy.memory_fidelity"] <= fidelity[1] and leakage[0] <= found["proxy.memory_leakage"] <= leakage[1], found


def test_pairs_may_be_joined(scorer: EmbeddedScorer) -> None:
    """It is added to the mean across the pair, which does not change; other tasks do not have it."""
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3), (A, 4), (B, 5), (C, 6)])
    features = scorer.encoder.frames(torch.from_numpy(frames)).features
    plain, found = scorer.score(frames, texts, spans, "recall").metrics, scorer.score(frames, texts, spans, "recall", joined=True).metrics
    for dimension, seen in (("subject_consistency", features.subject.numpy()), ("background_consistency", features.place.numpy())):
        pairs = [np.concatenate([seen[slice(*spans[place])] for place in (early, early + 3)]) for early in range(3)]
        assert found[f"proxy_joined.{dimension}"] == pytest.approx(100 * np.mean([consistency(pair) for pair in pairs]), abs=1e-4)
    assert {name: found[name] for name in plain} == plain and len(found) == len(plain) + 2
    assert (
        scorer.score(frames, texts, spans, "hard", joined=True).metrics.keys() == scorer.score(frames, texts, spans, "hard").metrics.keys()
    )


def test_vbenchs_dimensions_take_other_stretches_where_they_are_told(scorer: EmbeddedScorer) -> None:
    """Ten frames later: text and place are read there, what the world says of places stays with the blocks."""
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3)] * 2)
    later = [(start + 10 * (start > 0), end + 10 * (end < len(frames))) for start, end in spans]
    blocks, told = (scorer.score(frames, texts, spans, "hard", stretches=stretches) for stretches in ((), later))
    place = scorer.encoder.frames(torch.from_numpy(frames)).features.place.numpy()
    inside = [consistency(place[start:end]) for start, end in later]
    assert told.metrics["proxy.background_consistency"] == pytest.approx(100 * np.mean(inside), abs=1e-4)
    assert blocks.metrics["proxy.background_consistency"] > told.metrics["proxy.background_consistency"] + 1
    assert told.per_block == blocks.per_block and told.metrics["world.leakage"] == blocks.metrics["world.leakage"]
    assert [segment["start"] for segment in told.per_segment] == [start for start, _ in later]


def test_quality_drift_is_of_the_ends(scorer: EmbeddedScorer) -> None:
    """Thirteen seconds whose last five are blurred; a video under ten has none."""
    frames = np.concatenate([scene(A, 1, 24)] * 9)
    frames[-80:] = np.stack([cv2.GaussianBlur(frame, (9, 9), 3) for frame in frames[-80:]])
    quality = np.repeat(scorer.quality.scores(frames[::3]), 3)[: len(frames)]
    found = scorer.score(frames, [sentence(A, 5)], [(0, len(frames))], "long60").metrics["proxy.quality_drift"]
    assert found == pytest.approx(abs(quality[:80].mean() - quality[-80:].mean()), abs=1e-6) and found > 5
    assert "proxy.quality_drift" not in scorer.score(frames[:144], [sentence(A, 5)], [(0, 144)], "long60").metrics


def test_text_alignment_is_the_mean_over_scenes_and_hears_the_words(scorer: EmbeddedScorer) -> None:
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3)] * 2)
    right = scorer.score(frames, texts, spans, "recall")
    assert right.metrics["proxy.text_alignment"] == pytest.approx(np.mean([s["proxy.text_alignment"] for s in right.per_segment]), abs=1e-3)
    wrong = scorer.score(frames, texts[1:] + texts[:1], spans, "recall")
    assert right.metrics["proxy.text_alignment"] > wrong.metrics["proxy.text_alignment"] + 10


def test_same_place_beats_another_of_the_same_words_beats_other_words(scorer: EmbeddedScorer) -> None:
    def recall(seeds: tuple[int, ...], late: tuple[Words, ...] = (A, B, C)) -> float:
        places = list(zip((A, B, C), (1, 2, 3))) + list(zip(late, seeds))
        frames, texts, spans = video(places)
        return scorer.score(frames, texts, spans, "recall").metrics["proxy.background_consistency"]

    same, alike, other = recall((1, 2, 3)), recall((11, 12, 13)), recall((2, 3, 1), (B, C, A))
    assert same > alike + 3 > other + 6


def test_blocks_tell_what_their_scene_says(scorer: EmbeddedScorer) -> None:
    frames, texts, spans = video([(A, 1), (B, 2), (C, 3)])
    right = scorer.score(frames, texts, spans, "hard").per_block
    assert len(right) == len(frames) // 12
    for number, block in enumerate(right):
        assert min(block[kind] for kind in ("colour", "shape", "place", "pattern")) > 0.8
        assert (block["place_right"], block["subject_right"]) == (1, 1) and 60 < block["quality"] <= 100
        # One block of a scene is too short to tell a motion.
        assert block["motion_right"] == (None if number % 2 == 0 else 1)
    wrong = scorer.score(frames, [texts[0]] * 3, spans, "hard")
    assert [block["place_right"] for block in wrong.per_block] == [1, 1, 0, 0, 0, 0]
    assert not SWITCHED & set(wrong.metrics)
    vague = scorer.score(frames, ["a red ball"] * 3, spans, "hard").per_block[0]
    assert vague["place_right"] is None and vague["motion_right"] is None and "place" not in vague


def test_under_lights_it_tells_of_identity_motion_and_response_too(scorer: EmbeddedScorer, tmp_path: Path) -> None:
    """By name alone, of a network that was not trained; and it is the same behind a file."""
    lit = EmbeddedScorer(FrameEncoder(LIT, lit=True).eval(), scorer.quality)
    lit.save(tmp_path / "lit.safetensors")
    frames, spans = scene(A, 1, 384), [(0, 192), (192, 384)]
    texts = [sentence(A, 5), sentence(replace(A, light=UNLIT), 5)]
    told = EmbeddedScorer.load(tmp_path / "lit.safetensors").score(frames, texts, spans, "smooth")
    by_day = scorer.score(frames, [texts[0]] * 2, spans, "smooth")
    new = {f"world.{name}" for name in ("identity_kept", "motion_followed", "light_followed", "response_blocks", "image_distance")}
    assert told.metrics.keys() - by_day.metrics.keys() <= new
    assert told.metrics["world.image_distance"] == pytest.approx(np.mean([block["image_distance"] for block in told.per_block]), abs=1e-3)
    assert told.metrics.keys() >= {"world.motion_followed", "world.response_blocks"} and not any(
        "world." in name for name in by_day.metrics
    )
    assert all("identity_kept" in block and "light" in block for block in told.per_block)
    assert not any("identity_kept" in block or "light" in block for block in by_day.per_block)
    assert [block["place_right"] is None for block in told.per_block] == [False] * 16 + [True] * 16, "nobody sees a place in the dark"
    with pytest.raises(ValueError, match="unknown word"):
        scorer.score(frames, texts, spans, "smooth")


def test_saved_scorer_is_the_same_and_small(scorer: EmbeddedScorer, tmp_path: Path) -> None:
    scorer.save(tmp_path / "scorer.safetensors")
    again = EmbeddedScorer.load(tmp_path / "scorer.safetensors")
    frames, texts, spans = video([(A, 1)])
    assert again.score(frames, texts, spans, "long60") == scorer.score(frames, texts, spans, "long60")
    assert WEIGHTS.stat().st_size <= 1.5 * 2**20


def test_unreadable_input_is_refused(scorer: EmbeddedScorer) -> None:
    frames, texts, spans = video([(A, 1)])
    with pytest.raises(ValueError, match="float64"):
        scorer.score(frames.astype(float), texts, spans, "long60")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not cover"):
        scorer.score(frames, texts, [(0, 12)], "long60")
    with pytest.raises(ValueError, match="2 sentences for 1 segments"):
        scorer.score(frames, texts * 2, spans, "long60")
    with pytest.raises(ValueError, match="`echo-harness train scorer"):
        EmbeddedScorer.load("nowhere.safetensors")


def test_what_is_no_number_is_not_scored(scorer: EmbeddedScorer, tmp_path: Path) -> None:
    frames, texts, spans = video([(A, 1), (B, 2)])
    broken = EmbeddedScorer(scorer.encoder, replace(scorer.quality, d95=float("nan")))
    with pytest.raises(ValueError, match="^proxy.imaging_quality of this video: no number"):
        broken.score(frames, texts, spans, "hard")
    weight = scorer.encoder.trunk[0][0].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0, 0, 0] = float("nan")
    scorer.save(tmp_path / "nan.safetensors")
    with torch.no_grad():
        weight.copy_(kept)
    with pytest.raises(ValueError, match=r"nan.safetensors.*trunk.0.0.weight holds a NaN or an infinity"):
        EmbeddedScorer.load(tmp_path / "nan.safetensors")


def test_a_minute_is_scored_in_seconds(scorer: EmbeddedScorer) -> None:
    frames = np.tile(scene(A, 1, 24), (40, 1, 1, 1))
    start = time.process_time()
    scorer.score(frames, [sentence(A, 0)], [(0, 960)], "long60")
    assert time.process_time() - start < 10
