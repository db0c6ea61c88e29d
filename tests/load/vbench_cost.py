"""Cost of scoring a long video.

It makes a video, scores it by all dimensions and both definitions in this process, and reports the largest resident memory since the start
of the process, how often each frame was decoded, and the time. networks=tiny: random weights and few layers; RAFT, AMT and MUSIQ take long
in any size, so simple arithmetic replaces them, and the output names them as `stand_ins`. networks=true: all networks in their published
size (random weights), for a short video, since memory depends on the largest batch and not on the number of batches.
"""

from __future__ import annotations

import json
import platform
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from eval.vbench import video
from eval.vbench.kit import DIMENSIONS, Kit, NetworkSource, Random, Wish
from eval.vbench.networks import packages
from eval.vbench.records import RecordStore
from eval.vbench.scorer import VideoScorer
from eval.vbench.video import Facts, Frames
from jobs.cli.words import command

FPS = 16
SLOW = ("raft", "amt", "musiq")


class Arithmetic:
    """Stands for a network that has no small size."""

    def radius(self, first: Frames, second: Frames) -> NDArray[np.float32]:
        """Mean difference."""
        return np.abs(first.astype(np.float32) - second).mean((1, 2, 3))

    def error(self, first: Frames, middle: Frames, last: Frames) -> NDArray[np.float32]:
        """Mean difference from the mean of the neighbours, over 255."""
        return np.abs(middle - (first.astype(np.float32) + last) / 2).mean((1, 2, 3)) / 255

    def quality(self, frames: Frames) -> NDArray[np.float32]:
        """Mean brightness in percent."""
        return frames.mean((1, 2, 3), dtype=np.float32) / 2.55


@dataclass(frozen=True)
class Small:
    """A source of small networks."""

    drawn: Random

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """As random ones do."""
        self.drawn.check(names, text=text)

    def identity(self, name: str) -> str:
        """What it is."""
        return "arithmetic" if name in SLOW else self.drawn.identity(name)

    def make(self, name: str, dtype: str, device: str) -> Any:
        """Make it."""
        return Arithmetic() if name in SLOW else self.drawn.make(name, dtype, device)


def film(path: Path, frames: int, height: int, width: int) -> None:
    """An H.264 file of a moving pattern, written frame by frame."""
    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "ultrafast"}
        for index in range(frames):
            shown = [(rows * 2 + columns + speed * index) % 256 for speed in (2, 3, 5)]
            picture = np.ascontiguousarray(np.stack(shown, 2).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def measured(seconds: float, height: int, width: int, source: NetworkSource) -> dict[str, Any]:
    """Score such a video once, then once more from its records; sizes in bytes, times in seconds."""
    lacking = packages.missing(("clip", "ftfy"))
    dimensions = tuple(dimension for dimension in DIMENSIONS if dimension != "text_alignment" or not lacking)
    decoded: Counter[int] = Counter()
    plain = video._decoded

    def counted(facts: Facts) -> Iterator[Frames]:
        for index, frame in enumerate(plain(facts)):
            decoded[index] += 1
            yield frame

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "video.mp4"
        film(path, round(seconds * FPS), height, width)
        scorer = VideoScorer(Kit(Wish(dimensions, firsts="dino_clip"), source), RecordStore(Path(place) / "records"))
        video._decoded = counted
        try:
            start = time.perf_counter()
            facts = scorer.inspect(path)
            first = scorer.score(facts, "long60", [(0, facts.frames)], ("a pattern that moves",))
            first_s = time.perf_counter() - start
            again = scorer.score(facts, "long60", [(0, facts.frames)], ("a pattern that moves",))
        finally:
            video._decoded = plain
        records = sum(file.stat().st_size for file in (Path(place) / "records").rglob("*.safetensors"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "frames": facts.frames,
        "height_px": height,
        "width_px": width,
        "dimensions": len(dimensions),
        "decoded_most": max(decoded.values()),
        "decoded_frames": len(decoded),
        "peak_bytes": peak,
        "record_bytes": records,
        "score_s": round(first_s, 1),
        "rescore_s": round(time.perf_counter() - start - first_s, 2),
        "same": first == again,
    }


def cost(
    seconds: float = 60.0,
    height_px: int = 480,
    width_px: int = 832,
    networks: Literal["tiny", "true"] = "tiny",
    *,
    output: Path | None = None,
) -> list[str]:
    """Measure what scoring a long video takes: memory, time, and how often each frame is decoded.

        python -m tests.load.vbench_cost
        python -m tests.load.vbench_cost networks=true seconds=0.7

    Args:
        seconds: of the video.
        height_px: of the video.
        width_px: of the video.
        networks: tiny: few layers, and arithmetic for those that have one size only; true: all of the published size. Weights are random.
        output: also keep the answer as a line of JSON, after those there.
    """
    import torch

    torch.set_num_threads(1)
    source: NetworkSource = Random("true") if networks == "true" else Small(Random())
    stand_ins = [] if networks == "true" else list(SLOW)
    told = {"networks": networks, "stand_ins": stand_ins, "machine": f"{platform.machine()}, one thread"}
    found = told | measured(seconds, height_px, width_px, source)
    if output:
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return [f"{name:16s} {value}" for name, value in found.items()]


if __name__ == "__main__":
    command("tests.load.vbench_cost", "tests.load.vbench_cost:cost").main()
