"""The same videos and weights by our path and by the package's; and the command whose output stands in `docs/data`.

python -m tests.vbench.compared docs/data/vbench_equality.json     all networks in their true sizes, random weights
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from eval.vbench import package
from eval.vbench.networks import catalogue, interface, packages

HERE = Path(__file__).parent


def word_pieces(cache):
    """Where the package looks for word pieces when it is imported; without them it would fetch them. Comes before it."""
    packages.prepare()
    (cache / "ViCLIP").mkdir(parents=True)
    source = Path(find_spec("clip").submodule_search_locations[0]) / interface.VOCABULARY
    shutil.copy(source, cache / "ViCLIP" / interface.VOCABULARY)
    os.environ["VBENCH_CACHE_DIR"] = str(cache)


@dataclass(frozen=True)
class Written:
    """Weights files by network, as a source of networks."""

    files: dict[str, Path] = field(default_factory=dict)

    def identity(self, name):
        return f"random {name}"

    def make(self, name, dtype, device):
        return catalogue.network_class(name).load(self.files[name], dtype=dtype, device=device)


def ours(files, paths, prompts, folder, dimensions=tuple(package.DIMENSIONS)):
    """Scores in 0..1 by dimension, in the order of the videos, by the path that eval=vbench takes."""
    from eval.vbench.kit import Kit, Wish
    from eval.vbench.records import RecordStore
    from eval.vbench.scorer import VideoScorer

    wish = Wish(
        tuple("text_alignment" if name == "overall_consistency" else name for name in dimensions), kinds=("viclip",), firsts="dino_clip"
    )
    scorer, found = VideoScorer(Kit(wish, Written(files)), RecordStore(folder)), {}
    for path, prompt in zip(paths, prompts, strict=True):
        facts = scorer.inspect(path)
        metrics = scorer.score(facts, "long60", [(0, facts.frames)], [prompt]).metrics
        for dimension in dimensions:
            name = "text_alignment.viclip" if dimension == "overall_consistency" else f"{dimension}.vbench"
            found.setdefault(dimension, []).append(metrics[name] / 100)
    return found


def theirs(files, paths, prompts, folder, size):
    """The package's answers."""
    setup = HERE / "small_viclip.py" if size == "tiny" else None
    asked = package.PackageJob(tuple(paths), tuple(prompts), tuple(package.DIMENSIONS), files, folder, HERE / "dino_code", setup=setup)
    return package.evaluate(asked)


def our_radii(file, paths):
    """RAFT's radii of each video, from frames that another decoder read."""
    import cv2

    raft, found = catalogue.network_class("raft").load(file), []
    for path in paths:
        video, frames = cv2.VideoCapture(str(path)), []
        step = max(1, round(video.get(cv2.CAP_PROP_FPS) / 8))
        while (read := video.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        kept = np.stack(frames[::step])
        found.append(raft.radius(kept[:-1], kept[1:]))
    return found


def main(target):
    """Write how far apart the two are with all networks in their true sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        word_pieces(folder / "cache")
        from tests.helpers import vbench_files as made

        files, paths = made.write(folder / "weights", "true"), made.videos(folder / "videos")
        mine = ours(files, paths, made.PROMPTS, folder / "records")
        answers = theirs(files, paths, made.PROMPTS, folder / "package", "true")
        apart = package.differences(mine, answers.scores, paths)
        pairs = zip(our_radii(files["raft"], paths), answers.radii_px, strict=True)
        radii = max(float(np.abs(np.subtract(one, other)).max()) for one, other in pairs)
        size_of = {path.name: made.VIDEOS[number][:4] for number, path in enumerate(paths)}
    content = {
        "what": "our path and VBench.evaluate on the same files, scores in 0..1",
        "weights": "random, networks in their true sizes, fp32 on the CPU",
        "command": "tests/vbench/run true",
        "videos": {name: dict(zip(("height", "width", "fps", "frames"), sizes, strict=True)) for name, sizes in size_of.items()},
        "versions": packages.versions("torch", "torchvision", "transformers", "timm", "pyiqa", "vbench", "openai-clip", "numpy", "av"),
        "dimensions": {
            key: {"largest": row.largest, "mean": row.mean, "ours": mine[key], "theirs": answers.scores[key]} for key, row in apart.items()
        },
        "dynamic_degree_radius_px": {"largest": radii, "theirs": answers.radii_px},
    }
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(package.lines(apart)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
