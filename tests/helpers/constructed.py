"""Videos whose right scores are known by construction, and networks that read them: a band of grey for each dimension.

A frame is eight bands; a band's grey is one of nine levels. The stand-in networks tell levels apart perfectly (a feature is the
level's unit vector), so that each cosine is 1 or 0 and every score can be worked out by hand. The video is stored without loss.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from eval.vbench.kit import Kit, Wish
from eval.vbench.networks.interface import TextFeatures
from eval.vbench.records import RecordStore
from eval.vbench.scorer import VideoScorer

SIDE, LEVELS, FPS = 128, 9, 16
SUBJECT, PLACE, IMAGE, BEAUTY, MOTION, SMOOTH, WEIGHT, SAID = range(8)
HEIGHT = SIDE // 8
SPANS = [(0, 100), (100, 200)]
TEXTS = ("shows 1", "shows 2 of more words than fit here")


def film(levels: np.ndarray) -> np.ndarray:
    """Frames uint8 [T, 128, 128, 3] of levels [T, 8]."""
    rows = np.repeat(20 + 25 * levels.astype(np.uint8), HEIGHT, axis=1)
    return np.broadcast_to(rows[:, :, None, None], (len(levels), SIDE, SIDE, 3))


def write(path: Path, frames: np.ndarray, fps: int = FPS) -> Path:
    """An H.264 file without loss (but for the conversion of colours)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "0", "preset": "ultrafast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def level(frames: np.ndarray, band: int) -> np.ndarray:
    """Levels [N] of a band."""
    shown = frames[:, band * HEIGHT + 2 : (band + 1) * HEIGHT - 2].reshape(len(frames), -1).mean(1)
    found = (shown - 20) / 25
    assert np.abs(found - found.round()).max() < 0.2, found
    return found.round().astype(int)


class StandIn:
    """One class for all networks; `asked` counts frames, pairs and triples by network."""

    def __init__(self, name: str, asked: dict[str, int]) -> None:
        self.name, self.asked = name, asked

    def _count(self, frames: np.ndarray) -> None:
        self.asked[self.name] = self.asked.get(self.name, 0) + len(frames)

    def _features(self, frames: np.ndarray, band: int) -> np.ndarray:
        self._count(frames)
        return np.eye(LEVELS, dtype=np.float32)[level(frames, band)] * 3  # lengths are the rule's affair

    def images(self, frames: np.ndarray) -> np.ndarray:
        bands = {"dino": SUBJECT, "dinov2": SUBJECT, "clip_b32": PLACE, "dreamsim": PLACE, "clip_l14": BEAUTY}
        return self._features(frames, bands[self.name])

    def images_bytes(self, frames: np.ndarray) -> np.ndarray:
        return self._features(frames, SAID)

    def video(self, frames: np.ndarray) -> np.ndarray:
        return self._features(frames, SAID).mean(0)

    def text(self, prompts: list[str]) -> TextFeatures:
        said = [int(prompt.split()[1]) for prompt in prompts]
        return TextFeatures(np.eye(LEVELS, dtype=np.float32)[said], tuple(max(0, len(prompt.split()) - 5) for prompt in prompts))

    def quality(self, seen: np.ndarray) -> np.ndarray:
        if self.name == "aesthetic":
            return seen.argmax(1) * np.float32(10 / 8)
        self._count(seen)
        return level(seen, IMAGE) * np.float32(100 / 8)

    def radius(self, first: np.ndarray, second: np.ndarray, share: float = 0.05) -> np.ndarray:
        self._count(first)
        return np.abs(level(first, MOTION) - level(second, MOTION)) * np.float32(2.0)

    def error(self, first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> np.ndarray:
        self._count(first)
        a, b, c = (level(frames, SMOOTH) for frames in (first, middle, last))
        return np.abs(b - (a + c) / 2).astype(np.float32) / 8


class StandIns:
    """A source of them. asked: what all of them were asked; made: which were made."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.made: list[str] = []

    def check(self, names: object, *, text: bool) -> None:
        """Nothing is missing."""

    def identity(self, name: str) -> str:
        return f"stand-in {name}"

    def make(self, name: str, dtype: str, device: str) -> StandIn:
        self.made.append(name)
        return StandIn(name, self.asked)


def scorer(folder: Path, source: StandIns) -> VideoScorer:
    """A scorer of all dimensions and three kinds of text, its records below a folder."""
    return VideoScorer(Kit(Wish(kinds=("clip_b32", "viclip", "clip_l14")), source), RecordStore(folder))
