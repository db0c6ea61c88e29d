"""Validity of the embedded scorer: its readings of corrupted clips, compared with the truth (docs/embedded.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.world.render import PERIOD, SIZE, Truth, draw, render
from data.world.words import KINDS
from eval.measures.formulas import Frames
from eval.protocol import recalled
from eval.store.origin import digest_if_there, origin
from eval.world.calibrate import SEED, film, hidden_share, recall_script, staying
from eval.world.places import SHIPPED, anchors, place_scores
from eval.world.readings import MOTION_WINDOW, Readings, motion_of, read, said, wrapped

SCENE_BLOCKS = 6
"""Blocks of a scene of the videos here: enough for every reading, at half the cost of the tables' ten seconds."""
READ = ("colour", "shape", "place", "pattern", "landmark", "shift", "motion")

Spoil = Callable[[Frames, float, np.random.Generator], Frames]


def blurred(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Gaussian blur of `strength` pixels, wrapping around the edges."""
    if strength == 0:
        return frames
    pad = 12
    wide = np.pad(frames, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="wrap")
    out = np.stack([cv2.GaussianBlur(frame, (0, 0), strength)[pad:-pad, pad:-pad] for frame in wide])
    return out.astype(np.uint8)


def noisy(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Independent noise of `strength` (of 255) in every pixel and colour."""
    return _bytes(frames + strength * rng.standard_normal(frames.shape, dtype=np.float32))


def tinted(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """All pixels shifted by `strength` (of 255) in one random direction of colour for the whole video."""
    direction = rng.standard_normal(3)
    return _bytes(frames + strength * (direction / np.linalg.norm(direction)).astype(np.float32))


def covered(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A grey square over a share of `strength` of the frame, at one random position for the whole video."""
    side = round(SIZE * strength**0.5)
    row, column = rng.integers(0, SIZE - side + 1, size=2)
    out = frames.copy()
    out[:, row : row + side, column : column + side] = 128
    return out


def _bytes(values: NDArray[Any]) -> Frames:
    out: Frames = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return out


SPOILT: dict[str, tuple[Spoil, str, tuple[float, ...]]] = {
    "blur": (blurred, "deviation in px", (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)),
    "noise": (noisy, "deviation of 255", (0.0, 10.0, 20.0, 30.0, 45.0, 60.0)),
    "colour drift": (tinted, "shift of 255", (0.0, 10.0, 20.0, 30.0, 45.0, 60.0)),
    "occlusion": (covered, "share of the frame", (0.0, 0.05, 0.1, 0.2, 0.35, 0.5)),
}
"""Corruption -> function, unit of its strength, strengths."""


def agreement(readings: Sequence[Readings], truths: Sequence[Truth], hidden: NDArray[np.float64]) -> dict[str, float]:
    """Shares of correct readings, 0..1, and mean errors, of clips [T] and their truths.

    Words and a pattern's visible shifts (to 1.5 px) count by frame, landmarks by cells that are at least half visible (`hidden`
    [N, T, 16] is the hidden share), motion by clip.
    """
    right: dict[str, list[float]] = {name: [] for name in (*READ, "empty_cell", "hue_error", "centre_error_px")}
    for clip, truth, cover in zip(readings, truths, hidden, strict=True):
        for kind, values in clip.words.items():
            right[kind].append(float((values.argmax(1) == KINDS[kind].index(getattr(truth.words, kind))).mean()))
        _cells(clip, truth, cover, right)
        right["hue_error"].append(float(np.abs(clip.hue - truth.place.hue).mean()))
        right["centre_error_px"].append(float(np.hypot(*wrapped(clip.centres - truth.centres).T).mean()))
        right["motion"].append(float(motion_of(clip.centres) == truth.words.motion))
    return {name: round(float(np.mean(values)), 4) for name, values in right.items()}


def _cells(clip: Readings, truth: Truth, cover: NDArray[np.float64], right: Mapping[str, list[float]]) -> None:
    """Landmarks and shifts of one clip."""
    from eval.world.encoder import ANGLES, LANDMARKS, SHOWN

    held = np.zeros(16, dtype=np.int64)
    for mark in truth.place.landmarks:
        held[mark.row // PERIOD * 4 + mark.column // PERIOD] = 1 + LANDMARKS.index(mark.colour)
    same = clip.cells.argmax(2) == held
    for name, asked in (("landmark", (held > 0) & (cover < 0.5)), ("empty_cell", np.broadcast_to(held == 0, same.shape))):
        if asked.any():
            right[name].append(float(same[asked].mean()))
    down, right_px = np.array(truth.place.phase) * (2 * np.pi / PERIOD)
    angles = np.array([down, right_px, down + right_px, down - right_px])
    shown = [ANGLES.index(angle) for angle in SHOWN[truth.words.pattern]]
    if shown:
        near = np.cos(np.angle(clip.turns[:, shown]) - angles[shown]) > 0.5**0.5
        right["shift"].append(float(near.mean()))


class Subjects:
    """The clips and videos for all corruptions, rendered once."""

    def __init__(self, codec: Any, clips: int, films: int) -> None:
        import torch

        self.truths = [draw((SEED, 4, index), MOTION_WINDOW) for index in range(clips)]
        renders = render(self.truths)
        self.hidden = hidden_share(renders, self.truths)
        self.renders = renders
        self.clips = codec.decode(codec.encode(torch.from_numpy(renders))).numpy()
        scripts = [recall_script(index, blocks=SCENE_BLOCKS) for index in range(films)]
        others = [recall_script(index, again=False, blocks=SCENE_BLOCKS) for index in range(films)]
        self.films = {
            "returned": [film(script, codec) for script in scripts],
            "another": [film(script, codec) for script in others],
            "stayed": [film(staying(script), codec, [truth.words for truth in script]) for script in scripts],
        }


class SpoiltRow(TypedDict):
    """Readings and scores of videos at one strength of corruption."""

    strength: float
    agreement: dict[str, float]
    scores: dict[str, float]


class SpoiltCurve(TypedDict):
    """One corruption: the unit of its strength, and a row for each strength."""

    unit: str
    rows: list[SpoiltRow]


def curves(scorer: Any, subjects: Subjects) -> dict[str, SpoiltCurve]:
    """Agreement and scores under everything in SPOILT, at each strength."""
    curves_by_kind: dict[str, SpoiltCurve] = {}
    for name, (spoil, unit, strengths) in SPOILT.items():
        rows = list[SpoiltRow]()
        for strength in strengths:
            rng = np.random.default_rng([SEED, int(1000 * strength)])
            clips = [spoil(clip, strength, rng) for clip in subjects.clips]
            readings = [read(scorer.encoder, clip) for clip in clips]
            quality = float(np.mean([scorer.quality.scores(clip[::3]).mean() for clip in clips]))
            rows.append(
                SpoiltRow(
                    strength=strength,
                    agreement=agreement(readings, subjects.truths, subjects.hidden),
                    scores=_scores(scorer, subjects, spoil, strength) | {"imaging_quality": round(quality, 2)},
                )
            )
        curves_by_kind[name] = {"unit": unit, "rows": rows}
    return curves_by_kind


def _scores(scorer: Any, subjects: Subjects, spoil: Spoil, strength: float) -> dict[str, float]:
    """Means over the videos: fidelity of places that return and that do not, leakage after clean cuts and without cuts."""
    values: dict[str, list[float]] = {}
    for case, films in subjects.films.items():
        for index, shown in enumerate(films):
            frames = spoil(shown.frames, strength, np.random.default_rng([SEED, 1, index]))
            words = [said(text) for text in shown.texts]
            metrics = place_scores(read(scorer.encoder, frames), words, shown.spans, recalled(len(shown.spans))).metrics
            for name in ("recall_fidelity", "leakage"):
                values.setdefault(f"{name}, {case}", []).append(metrics[f"world.{name}"])
    wanted = ("recall_fidelity, returned", "recall_fidelity, another", "leakage, returned", "leakage, stayed")
    return {name: round(float(np.mean(values[name])), 2) for name in wanted}


def draw_figure(spoilt: Mapping[str, SpoiltCurve], levels: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Two rows of panels, a column for each corruption: readings above, scores below."""
    from eval.figures import style

    anchor = levels["recall_fidelity"]
    figure, axes = style.pyplot().subplots(
        2, len(spoilt), figsize=(11, 5.2), squeeze=False, sharey="row", sharex="col", layout="constrained"
    )
    for (name, curve), upper, lower in zip(spoilt.items(), axes[0], axes[1], strict=True):
        x = [row["strength"] for row in curve["rows"]]
        for kind, colour in zip(READ, style.SERIES, strict=False):
            upper.plot(x, [100 * row["agreement"][kind] for row in curve["rows"]], color=colour, marker="o", ms=3, label=kind)
        looks = (("-", "o"), ("--", "o"), ("-", "s"), ("--", "s"), ("-", "^"))
        for score, series, (line, marker) in zip(curve["rows"][0]["scores"], (0, 0, 1, 1, 2), looks, strict=True):
            values = [row["scores"][score] for row in curve["rows"]]
            lower.plot(x, values, line, color=style.SERIES[series], marker=marker, ms=3, label=score.replace("_", " "))
        for level in anchor:
            lower.axhline(level, color=style.MUTED, lw=0.9, ls=":", label="fidelity's chance and ceiling" if level == min(anchor) else None)
        upper.set(title=name)
        lower.set(xlabel=curve["unit"])
        style.bounded(upper, lower)
    axes[0][0].set_ylabel("read rightly, %")
    axes[1][0].set_ylabel("score")
    for row in axes:
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    style.save(figure, path)


def table(spoilt: Mapping[str, SpoiltCurve]) -> str:
    """Agreement with the truth in percent and scores, a line for each strength."""
    parts = []
    for name, curve in spoilt.items():
        shares = [{kind: 100 * row["agreement"][kind] for kind in READ} | row["scores"] for row in curve["rows"]]
        frame = pd.DataFrame(shares, index=pd.Index([row["strength"] for row in curve["rows"]], name=f"{name}, {curve['unit']}"))
        parts.append(frame.to_string(float_format="{:.1f}".format))
    return "\n".join(parts)


def validate(
    clips: int = 96,
    films: int = 6,
    scorer: Path = SHIPPED.parent / "model.safetensors",
    backbone: Path = SHIPPED.parents[1] / "tiny" / "model.safetensors",
    *,
    output: Path = Path("docs/data/validation.json"),
    figure: Path = Path("docs/validation.png"),
) -> list[str]:
    """Measure what the embedded scorer reads correctly in corrupted videos: blurred, noisy, tinted, covered.

        echo-harness audit validate clips=96 films=6

    Args:
        clips: number of clips to read.
        films: number of videos to score.
        scorer: weights of the embedded scorer.
        backbone: weights of the backbone whose codec is used.
        output: the numbers, JSON.
        figure: the curves, PNG.
    """
    import torch

    from echo.backbone.load import load
    from eval.world.scorer import EmbeddedScorer

    torch.set_num_threads(1)
    start = time.monotonic()
    reader, codec = EmbeddedScorer.load(scorer), load(str(backbone)).codec
    levels = anchors(scorer.parent / "provenance.json")
    if min(clips, films) < 1:
        raise ValueError(f"clips={clips} films={films}: at least 1 of each")
    subjects = Subjects(codec, clips, films)
    unspoilt = agreement([read(reader.encoder, clip) for clip in subjects.renders], subjects.truths, subjects.hidden)
    spoilt = curves(reader, subjects)
    words = (f"clips={clips}", f"films={films}", f"scorer={scorer}", f"backbone={backbone}")
    content = origin("audit validate", words) | {
        "scorer": digest_if_there(scorer), "clips": clips, "films": films, "wall_time_s": round(time.monotonic() - start),
        "anchors": levels, "renders_without_codec": unspoilt, "curves": spoilt,
    }  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw_figure(spoilt, levels, figure)
    return [table(spoilt), str(output), str(figure)]
