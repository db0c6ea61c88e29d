"""Each of VBench's eight dimensions, our path from the file to the score against `VBench.evaluate`, same weights, same videos."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from eval.vbench import networks, package, packages

pytestmark = pytest.mark.skipif(bool(packages.missing(packages.PACKAGE)), reason="the vbench package is not installed: tests/vbench/run")
HERE = Path(__file__).parent
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Written:
    """Weights files by network, as a source of networks."""

    files: dict[str, Path] = field(default_factory=dict)

    def identity(self, name):
        return f"random {name}"

    def make(self, name, dtype, device):
        return networks.load(name, self.files[name], dtype=dtype, device=device)


def ours(files, paths, prompts, folder):
    """Scores in 0..1 by dimension, in the order of the videos, by the path that eval=vbench takes."""
    from eval.vbench.kit import Kit, Wish
    from eval.vbench.records import RecordStore
    from eval.vbench.scorer import VideoScorer

    scorer = VideoScorer(Kit(Wish(kinds=("viclip",), firsts="dino_clip"), Written(files)), RecordStore(folder))
    found = {}
    for path, prompt in zip(paths, prompts, strict=True):
        facts = scorer.inspect(path)
        metrics = scorer.score(facts, "long60", [(0, facts.frames)], [prompt]).scores.metrics
        for dimension in package.NETWORKS:
            name = "text_alignment.viclip" if dimension == "overall_consistency" else f"{dimension}.vbench"
            found.setdefault(dimension, []).append(metrics[name] / 100)
    return found


def our_radii(file, paths):
    """RAFT's radii of each video, from frames that another decoder read."""
    import cv2

    raft, found = networks.load("raft", file), []
    for path in paths:
        video, frames = cv2.VideoCapture(str(path)), []
        step = max(1, round(video.get(cv2.CAP_PROP_FPS) / 8))
        while (read := video.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        kept = np.stack(frames[::step])
        found.append(raft.radius(kept[:-1], kept[1:]))
    return found


@pytest.fixture(scope="session")
def both(files, tmp_path_factory):
    from tests.vbench import made

    folder = tmp_path_factory.mktemp("videos")
    paths = made.videos(folder)
    mine = ours(files, paths, made.PROMPTS, tmp_path_factory.mktemp("records"))
    asked = package.Asked(
        tuple(paths), made.PROMPTS, tuple(package.NETWORKS), files, tmp_path_factory.mktemp("package"), HERE / "dino_code", setup=HERE / "small_viclip.py"
    )
    theirs = package.evaluate(asked)
    return mine, theirs, paths


@pytest.mark.parametrize("dimension", package.NETWORKS)
def test_a_dimension_is_the_packages(both, dimension):
    mine, theirs, paths = both
    found = package.differences(mine, theirs.scores, paths)[dimension]
    told = f"ours {mine[dimension]}, theirs {theirs.scores[dimension]}"
    assert len(mine[dimension]) == len(theirs.scores[dimension]) == 3
    assert found.largest <= (0 if dimension == "dynamic_degree" else TOLERANCE), f"{package.lines({dimension: found})[0]}: {told}"
    assert len({round(score, 6) for score in theirs.scores[dimension]}) > 1, f"these videos cannot tell a right {dimension} from a constant: {told}"


def test_the_radii_behind_yes_and_no_are_the_packages(both, files):
    """A yes or no hides much: the numbers that it is made of are compared themselves."""
    _, theirs, paths = both
    apart = [np.abs(np.subtract(mine, radii)) for mine, radii in zip(our_radii(files["raft"], paths), theirs.radii_px, strict=True)]
    largest, mean = max(part.max() for part in apart), np.mean(np.concatenate(apart))
    assert largest <= 1e-3, f"largest {largest:.1e} px, mean {mean:.1e} px of radii about {np.mean(theirs.radii_px[0]):.1f} px"
