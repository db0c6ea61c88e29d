"""Scores of renders: chance and ceiling of the world's scores, and the fit of the quality score."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.world.render import LANDMARK, PERIOD, Place, Truth, background, draw, draw_place, draw_words, render, shaded, under
from data.world.words import BEAM, DAY, KINDS, LIGHTS, UNLIT, Words, sentence
from echo.backbone.parts.codec import PatchCodec
from echo.geometry import scene_spans
from echo.scene import FPS, FRAMES_PER_BLOCK
from eval.measures.formulas import Frames
from eval.measures.quality import Quality, statistics
from eval.protocol import recalled
from eval.world.encoder import FrameEncoder
from eval.world.identity import AFTER, FIRST, IDENTITY_KEPT, LIGHT_FOLLOWED, MOTION_FOLLOWED, RESPONSE_BLOCKS, lit_scores
from eval.world.places import place_scores
from eval.world.readings import BLOCK, MOTION_WINDOW, motion_of, read, said

SCENE_BLOCKS = 13
"""Blocks of a scene of 10 s."""
SEED = 7_000_003
"""Seed of this module's clips; neither the encoder nor a backbone was trained on them."""


@dataclass(frozen=True)
class RecallFilm:
    """A video of the world with its prompt: frames uint8 [T, 48, 48, 3], a sentence and a span for each scene."""

    frames: Frames
    texts: tuple[str, ...]
    spans: list[tuple[int, int]]
    truths: tuple[Truth, ...]


def scene(seed: Sequence[int], words: Words, place: Place, blocks: int = SCENE_BLOCKS) -> Truth:
    """A clip of `words` in `place`; only the subject's start and size come from the seed."""
    return dataclasses.replace(draw([SEED, *seed], blocks * BLOCK, words=words), place=place)


def recall_script(index: int, again: bool = True, blocks: int = SCENE_BLOCKS) -> list[Truth]:
    """Six scenes A-B-C-A-B-C of one subject with other motions.

    again: whether the last three are in the same places as the first three, or in others of the same words.
    """
    rng = np.random.default_rng([SEED, index])
    subject = draw_words(rng)
    looks = rng.choice(len(KINDS["place"]) * len(KINDS["pattern"]), size=3, replace=False)
    places = [draw_place(rng) for _ in range(6)]
    truths = []
    for number in range(6):
        place, pattern = divmod(int(looks[number % 3]), len(KINDS["pattern"]))
        words = dataclasses.replace(
            subject, place=KINDS["place"][place], pattern=KINDS["pattern"][pattern], motion=str(rng.choice(KINDS["motion"]))
        )
        truths.append(scene((index, number), words, places[number % 3 if again else number], blocks))
    return truths


def film(truths: Sequence[Truth], codec: PatchCodec | None = None, spoken: Sequence[Words] | None = None) -> RecallFilm:
    """Scenes end to end, passed through the codec if there is one, with sentences of their own words or of `spoken`."""
    frames = np.concatenate([render([truth]) for truth in truths], axis=1)
    if codec is not None:
        frames = codec.decode(codec.encode(torch.from_numpy(frames))).numpy()
    texts = tuple(sentence(words, number) for number, words in enumerate(spoken or [truth.words for truth in truths]))
    spans = scene_spans([len(truth.centres) // BLOCK for truth in truths], PatchCodec.first_frames, FRAMES_PER_BLOCK)
    return RecallFilm(frames[0], texts, spans, tuple(truths))


def world_metrics(encoder: FrameEncoder, video: RecallFilm) -> dict[str, float]:
    """The `world.` scores of a video of six scenes."""
    words = [said(text) for text in video.texts]
    return place_scores(read(encoder, video.frames), words, video.spans, recalled(len(video.spans))).metrics


def measure_anchors(encoder: FrameEncoder, codec: PatchCodec, films: int) -> dict[str, tuple[float, float]]:
    """Score without its prefix -> (chance, ceiling): means over `films` videos of six scenes of 10 s, through the codec.

    Recall fidelity: other places of the same words, and the same places. Leakage and its half-life: a video that
    never leaves its first place, and clean cuts between the places.
    """
    results: dict[str, list[tuple[float, float]]] = {}
    for index in range(films):
        truths = recall_script(index)
        best = world_metrics(encoder, film(truths, codec))
        other = world_metrics(encoder, film(recall_script(index, again=False), codec))
        stays = world_metrics(encoder, film(staying(truths), codec, [truth.words for truth in truths]))
        results.setdefault("recall_fidelity", []).append((other["world.recall_fidelity"], best["world.recall_fidelity"]))
        for name in ("leakage", "half_life_blocks"):
            results.setdefault(name, []).append((stays[f"world.{name}"], best[f"world.{name}"]))
    return _means(results)


def measure_lit_anchors(encoder: FrameEncoder, codec: PatchCodec, films: int) -> dict[str, tuple[float, float]]:
    """Score without its prefix -> (chance, ceiling): means over `films` films of 24 s under a passing light, through the codec.

    Identity: a film that shows another place of its words as soon as it is asked what is left of the first, and one that stays. Motion:
    a film that moves in another way, and one that does as is said. Light: a film that stays by day whatever is said, and one whose beam
    goes round. Response: the same film by day, and one whose light goes out at once.
    """
    results: dict[str, list[tuple[float, float]]] = {}
    asked = FIRST + AFTER
    for index in range(films):
        rng = np.random.default_rng([SEED, 5, index])
        words = dataclasses.replace(draw_words(rng), light=BEAM)
        stays, other = (draw((SEED, 5, index, which), 24 * FPS, words=words) for which in (0, 1))
        moved = [stays.part(0, asked), dataclasses.replace(other, beam=stays.beam).part(asked, 24 * FPS)]
        by_day = under(stays.part(0, SCENE_BLOCKS * BLOCK), DAY, 0)
        dark, day = ([by_day, under(by_day, light, 0)] for light in (UNLIT, DAY))
        spoken = [truth.words for truth in dark]
        turned = dataclasses.replace(words, motion=str(rng.choice([motion for motion in KINDS["motion"] if motion != words.motion])))
        pairs = {
            IDENTITY_KEPT: (_lit_metrics(encoder, film(moved, codec)), _lit_metrics(encoder, film([stays], codec))),
            MOTION_FOLLOWED: (_lit_metrics(encoder, film([stays], codec, [turned])), _lit_metrics(encoder, film([stays], codec))),
            LIGHT_FOLLOWED: (_lit_metrics(encoder, film(day, codec, spoken)), _lit_metrics(encoder, film([stays], codec))),
            RESPONSE_BLOCKS: (_lit_metrics(encoder, film(day, codec, spoken)), _lit_metrics(encoder, film(dark, codec, spoken))),
        }  # fmt: skip
        for name, (worst, best) in pairs.items():
            results.setdefault(name, []).append((worst[f"world.{name}"], best[f"world.{name}"]))
    return _means(results)


def _lit_metrics(encoder: FrameEncoder, video: RecallFilm) -> dict[str, float]:
    """The scores of a film that its light and its time decide."""
    return lit_scores(read(encoder, video.frames), [said(text) for text in video.texts], video.spans).metrics


def _means(results: dict[str, list[tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    pairs = {name: np.mean(both, axis=0) for name, both in results.items()}
    return {name: (round(float(chance), 2), round(float(ceiling), 2)) for name, (chance, ceiling) in pairs.items()}


def staying(script: Sequence[Truth]) -> list[Truth]:
    """The same scenes, all in the place of the first."""
    first = script[0]
    words = [dataclasses.replace(truth.words, place=first.words.place, pattern=first.words.pattern) for truth in script]
    return [dataclasses.replace(truth, words=word, place=first.place) for truth, word in zip(script, words, strict=True)]


def hidden_share(frames: NDArray[np.uint8], truths: Sequence[Truth]) -> NDArray[np.float64]:
    """Share of each cell's landmark square that the subject covers, [N, T, 16], of renders uint8 [N, T, 48, 48, 3]."""
    bare = np.stack([background(truth.words.place, truth.words.pattern, truth.place) for truth in truths])
    bare = np.stack([shaded(np.repeat(scene[None], frames.shape[1], 0), truth) for scene, truth in zip(bare, truths, strict=True)])
    covered = np.abs(frames - bare).sum(-1) > 60
    cells = covered.reshape(*covered.shape[:2], 4, PERIOD, 4, PERIOD)[..., LANDMARK:, :, LANDMARK:]
    shares: NDArray[np.float64] = cells.mean(axis=(3, 5)).reshape(*covered.shape[:2], -1)
    return shares


def motion_accuracy(encoder: FrameEncoder, codec: PatchCodec | None, clips: int) -> float:
    """Share of `clips` clips of three blocks whose motion is read correctly, through the codec if there is one."""
    right = 0
    for start in range(0, clips, 48):
        truths = [draw((SEED, 3, index), MOTION_WINDOW) for index in range(start, min(start + 48, clips))]
        frames = render(truths)
        if codec is not None:
            frames = codec.decode(codec.encode(torch.from_numpy(frames))).numpy()
        paths = read(encoder, frames.reshape(-1, *frames.shape[2:])).centres.reshape(len(truths), MOTION_WINDOW, 2)
        right += sum(motion_of(path) == truth.words.motion for path, truth in zip(paths, truths, strict=True))
    return right / clips


def fit_quality(codec: PatchCodec, clips: int, seed: int = 0, lights: bool = False) -> Quality:
    """The quality score from `clips` clips of one block, as rendered and through the codec; d95 from a quarter as many others."""

    def measure(number: int, part: int) -> tuple[NDArray[np.float64], list[int]]:
        truths = [draw((SEED, seed, part, index), BLOCK, easy=index % 7 == 0, before=2) for index in range(number)]
        if lights:
            truths = [under(truth, LIGHTS[index % len(LIGHTS)], (SEED, seed, part, index)) for index, truth in enumerate(truths)]
        frames = render(truths)
        coded = codec.decode(codec.encode(torch.from_numpy(frames))).numpy()
        looks = [KINDS["place"].index(t.words.place) * len(KINDS["pattern"]) + KINDS["pattern"].index(t.words.pattern) for t in truths]
        count = len(KINDS["place"]) * len(KINDS["pattern"])
        kinds = [
            look + count * (coded + 2 * LIGHTS.index(t.words.light)) for coded in (0, 1) for look, t in zip(looks, truths, strict=True)
        ]
        shown = np.concatenate([frames, coded])[:, ::3]
        return np.stack([statistics(clip) for clip in shown]), kinds

    measured, kinds = measure(clips, 0)
    quality = Quality.fit(measured.reshape(-1, measured.shape[-1]), np.repeat(np.array(kinds), measured.shape[1]))
    held_out = measure(clips // 4, 1)[0]
    return quality.calibrated(held_out.reshape(-1, held_out.shape[-1]))
