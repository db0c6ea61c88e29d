"""`backend=vbench_package`: for comparison, the `vbench` package itself scores the same files in a process and a cache of its own.

    python -m eval.vbench.package JOB.json     what that process runs

The package downloads missing files, loads weights by its own rules and writes nothing before it ends. So it gets a cache of links to
checked weights and one dimension at a time, and each result is written at once: a repeated command continues after the last one.
Its results are kept unchanged except for the scale, 0..1 (imaging quality over 100, dynamic degree 0 or 1).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np

from echo.files import ROOT, replacing, write_atomic
from eval.vbench.kit import Files, Kit
from eval.vbench.networks import packages
from eval.vbench.networks.interface import NETWORKS, VOCABULARY
from eval.vbench.scorer import VideoScorer
from eval.vbench.video import Facts

DIMENSIONS: Final = MappingProxyType(
    {
        "subject_consistency": ("dino",),
        "background_consistency": ("clip_b32",),
        "temporal_flickering": (),
        "motion_smoothness": ("amt",),
        "dynamic_degree": ("raft",),
        "aesthetic_quality": ("clip_l14", "aesthetic"),
        "imaging_quality": ("musiq",),
        "overall_consistency": ("viclip",),
    }
)
"""The package's names of the eight dimensions -> the networks whose weights each reads."""
VERSIONS: Final = ("torch", "torchvision", "numpy", "vbench", "openai-clip", "pyiqa", "timm")
"""Packages whose versions can change a result."""
DINO_CODE: Final = "dino_model/facebookresearch_dino_main"
CLONE: Final = "git clone https://github.com/facebookresearch/dino"


@dataclass(frozen=True)
class PackageJob:
    """A job for the package.

    Attributes:
        videos: MP4 files; their names do not matter.
        prompts: a sentence for each video, used only for overall consistency.
        dimensions: keys of `DIMENSIONS`.
        files: weights by network; those of `DIMENSIONS` for the dimensions.
        cache: a folder for links to weights and videos, and for results.
        dino_code: a checkout of facebookresearch/dino, whose code the package runs; for subject consistency.
        device: torch's name of the device.
        setup: a Python file that runs first in the package's process (tests make its largest network small with it).
    """

    videos: tuple[Path, ...]
    prompts: tuple[str, ...]
    dimensions: tuple[str, ...]
    files: Mapping[str, Path]
    cache: Path
    dino_code: Path | None = None
    device: str = "cpu"
    setup: Path | None = None


@dataclass(frozen=True)
class PackageScores:
    """Results of the package. scores: dimension -> a number in 0..1 per video, in order. radii_px: RAFT's radii of each pair."""

    scores: dict[str, list[float]]
    radii_px: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class BackendDifference:
    """Difference in one dimension over the videos: largest and mean absolute, in 0..1, and the video where it is largest."""

    largest: float
    mean: float
    video: Path


def evaluate(job: PackageJob) -> PackageScores:
    """The package's scores of some videos.

    Raises ValueError for missing files and unknown names before the package starts, and with the end of its log if it fails.
    """
    check(job)
    cache = _prepare(job)
    job_file = cache / "job.json"
    named = {video.name: prompt for video, prompt in zip(_links(job, cache), job.prompts)}
    setup = str(job.setup.resolve()) if job.setup else None
    job_file.write_bytes(msgspec.json.encode(ProcessJob(str(cache / "videos"), named, job.dimensions, job.device, setup)))
    environment = os.environ | {"VBENCH_CACHE_DIR": str(cache), "TORCH_HOME": str(cache / "torch")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with (cache / "log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "eval.vbench.package", str(job_file)]
        ended = subprocess.run(command, cwd=cache, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        last = ((cache / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"])[-1]
        raise ValueError(f"the vbench package ended with {ended.returncode}: {last[:200]}; its log is {cache / 'log'}")
    answers = {dimension: json.loads((cache / f"{dimension}.json").read_text(encoding="utf-8")) for dimension in job.dimensions}
    order = list(named)
    scores = {dimension: [float(answer["scores"][name]) for name in order] for dimension, answer in answers.items()}
    return PackageScores(scores, answers.get("dynamic_degree", {}).get("radii_px", []))


def check(job: PackageJob) -> None:
    """Raise ValueError for a job that the package cannot do, with the nearest valid choice, or for missing files."""
    unknown = [dimension for dimension in job.dimensions if dimension not in DIMENSIONS]
    if unknown or not job.dimensions:
        raise ValueError(f"dimensions {unknown or 'none'}: the vbench package is asked for some of {', '.join(DIMENSIONS)}")
    if not job.videos or len(job.prompts) != len(job.videos):
        raise ValueError(f"{len(job.videos)} videos and {len(job.prompts)} prompts: at least one video, and a prompt for each")
    if others := [video for video in job.videos if video.suffix != ".mp4" or not video.is_file()]:
        raise ValueError(f"{others[0]}: the vbench package reads files that end in .mp4")
    wanted = {name for dimension in job.dimensions for name in DIMENSIONS[dimension]}
    if absent := sorted(name for name in wanted if name not in job.files or not job.files[name].is_file()):
        raise ValueError(f"no weights of {', '.join(absent)} for the vbench package; `echo-harness data download eval=vbench` fetches them")
    if "dino" in wanted and (job.dino_code is None or not (job.dino_code / "hubconf.py").is_file()):
        place = job.dino_code or "checkpoints/vbench/dino"
        raise ValueError(f"dino_code={job.dino_code}: subject consistency runs DINO's own code; `{CLONE} {place}` fetches it")
    packages.check(packages.PACKAGE, asked="backend=vbench_package")


def beside(facts: Sequence[Facts], texts: Sequence[Sequence[str]], task: str, scorer: VideoScorer) -> list[str]:
    """Score whole videos by our code and by the package, from the same files: lines with the largest difference in each dimension.

    The package knows no scenes, so a video is one scene here for every task; text is compared if each video has one sentence.
    Records of our code are kept as usual; the package's results lie beside their folder. Raises ValueError, before any work,
    for missing files.
    """
    wish, source = replace(scorer.kit.wish, kinds=("viclip",)), scorer.kit.source
    if not isinstance(source, Files):
        raise ValueError("backend=vbench_package: both read published files, so weights= is a folder; nearest is checkpoints/vbench")
    with_text = all(len(sentences) == 1 for sentences in texts)
    named = {name: "overall_consistency" if name == "text_alignment" else name for name in wish.dimensions}
    names = tuple(theirs for name, theirs in named.items() if name != "text_alignment" or with_text)
    files = {name: paths[0] for name in NETWORKS if (paths := source.paths(name))}
    code = next((path.parent for path in sorted(source.folder.rglob("hubconf.py"))), source.folder / "dino")
    prompts = tuple(sentences[0] if with_text else "" for sentences in texts)
    cache = scorer.store.folder.parent / "vbench_package"
    job = PackageJob(tuple(fact.path for fact in facts), prompts, names, files, cache, code, wish.device)
    check(job)
    ours = _ours(VideoScorer(Kit(wish, source), scorer.store), job, facts)
    report = lines(differences(ours, evaluate(job).scores, job.videos))
    if not with_text and "text_alignment" in wish.dimensions:
        report.append("text_alignment: left out, for a video has not just one scene with a sentence")
    return [
        *report,
        f"{len(facts)} videos, each as one scene, whatever task={task} says; scores in 0..1; the package's answers are in {cache}",
    ]


def _ours(scorer: VideoScorer, job: PackageJob, facts: Sequence[Facts]) -> dict[str, list[float]]:
    """Our scores in 0..1 by the package's names of dimensions, each video as one scene."""
    scores_by_dimension: dict[str, list[float]] = {dimension: [] for dimension in job.dimensions}
    for fact, prompt in zip(facts, job.prompts):
        texts = [prompt] if "overall_consistency" in scores_by_dimension else []
        metrics = scorer.score(fact, "smooth", [(0, fact.frames)], texts).metrics
        for dimension, scores in scores_by_dimension.items():
            value = metrics["text_alignment.viclip" if dimension == "overall_consistency" else f"{dimension}.vbench"]
            scores.append(float("nan") if value is None else value / 100)
    return scores_by_dimension


def differences(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], videos: Sequence[Path]
) -> dict[str, BackendDifference]:
    """Differences of two backends in the dimensions that both have; scores are 0..1, of the same videos in the same order."""
    differences = {}
    for dimension in (name for name in theirs if name in ours):
        apart = np.abs(np.asarray(ours[dimension], np.float64) - np.asarray(theirs[dimension], np.float64))
        worst = int(np.argmax(apart))
        differences[dimension] = BackendDifference(float(apart[worst]), float(apart.mean()), videos[worst])
    return differences


def lines(differences: Mapping[str, BackendDifference]) -> list[str]:
    """Differences in words, one line per dimension."""
    return [f"{name:<24} largest {row.largest:.1e}  mean {row.mean:.1e}  ({row.video.name})" for name, row in differences.items()]


def _prepare(job: PackageJob) -> Path:
    """A cache for these videos and weights: links if the package can read the published file, otherwise files with the same tensors."""
    files = {name: job.files[name].resolve() for dimension in job.dimensions for name in DIMENSIONS[dimension]}
    parts = [*files.values(), *(video.resolve() for video in job.videos), *([job.setup.resolve()] if job.setup else [])]
    known = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in parts]
    known += [*job.prompts, str(job.dino_code), job.device, json.dumps(packages.versions(*VERSIONS))]
    cache = job.cache.resolve() / hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
    for name, path in files.items():
        place = cache / NETWORKS[name].package_path
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(name, path, place)
    if "dino" in files and job.dino_code is not None:
        _link(job.dino_code.resolve(), cache / DINO_CODE)
        _link(files["dino"], cache / "dino_model" / Path(NETWORKS["dino"].package_path).name)
    if "viclip" in files:
        from eval.vbench.networks.vocabulary import find

        _link(find(files["viclip"].parent).resolve(), cache / "ViCLIP" / VOCABULARY)
    return cache


def _put(name: str, path: Path, place: Path) -> None:
    """Put a weights file where the package looks for it."""
    if name not in ("amt", "raft"):
        _link(path, place)
        return
    # Torch's default of loading, which the package uses, refuses files with more than tensors; RAFT has to have the authors' names.
    import torch

    from eval.vbench.networks.weights import read

    tensors = read(path, inside="state_dict")
    with replacing(place) as part:
        torch.save({"state_dict": tensors} if name == "amt" else authors_names(tensors), part)


def authors_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """RAFT's weights by the authors' names, which VBench reads, from torchvision's or theirs; the names are taken from their network."""
    from eval.vbench.networks.raft import ported

    settings = packages.need("easydict", asked="RAFT").EasyDict(small=False, mixed_precision=False, alternate_corr=False)
    network = packages.need("vbench.third_party.RAFT.core.raft", asked="RAFT").RAFT(settings)
    by_port = {ported(name): value for name, value in tensors.items()}
    return {f"module.{name}": by_port[port] for name in network.state_dict() if (port := ported(name)) in by_port}


def _links(job: PackageJob, cache: Path) -> list[Path]:
    """Links to the videos under names that match no prompt of the package and keep the videos' order."""
    places = [cache / "videos" / f"{number:06d}.mp4" for number in range(len(job.videos))]
    for place, video in zip(places, job.videos):
        _link(video.resolve(), place)
    return places


def _link(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink() or place.resolve() != path:
        place.unlink(missing_ok=True)
        place.symlink_to(path)


class ProcessJob(msgspec.Struct):
    """The job of the package's process: a folder of videos, a prompt for each by its name, and the other fields of `PackageJob`."""

    videos: str
    prompts: dict[str, str]
    dimensions: tuple[str, ...]
    device: str
    setup: str | None


def _main(job_path: Path) -> None:
    """The package's process: compute one dimension after the other, and write each result at once."""
    job = msgspec.json.decode(job_path.read_bytes(), type=ProcessJob)
    vbench, torch = packages.need("vbench", asked="backend=vbench_package"), packages.need("torch", asked="backend=vbench_package")
    if job.setup:
        source = Path(job.setup).read_text(encoding="utf-8")
        exec(compile(source, job.setup, "exec"), {"__name__": "setup"})
    radii = _watch_radii()
    # Otherwise background consistency keeps its whole graph: 55 MB per frame.
    torch.set_grad_enabled(False)
    folder = Path(vbench.__file__).parent
    bench = vbench.VBench(torch.device(job.device), str(folder / "VBench_full_info.json"), str(job_path.parent / "out"))
    for dimension in job.dimensions:
        if (job_path.parent / f"{dimension}.json").is_file():
            continue
        radii.clear()
        bench.evaluate(job.videos, dimension, prompt_list=job.prompts, dimension_list=[dimension], local=True, mode="custom_input")
        result = json.loads((job_path.parent / "out" / f"{dimension}_eval_results.json").read_text(encoding="utf-8"))[dimension]
        scale = 100.0 if dimension == "imaging_quality" else 1.0
        names = [Path(row["video_path"]).name for row in result[1]]
        scores = {name: float(row["video_results"]) / scale for name, row in zip(names, result[1])}
        rows = [radii[names.index(name)] for name in job.prompts] if radii else []
        answer = {"scores": scores, "radii_px": rows, "said": result[0]}
        write_atomic(job_path.parent / f"{dimension}.json", json.dumps(answer).encode())


def _watch_radii() -> list[list[float]]:
    """A list that gets, for each video of dynamic degree, the numbers behind its yes or no."""
    degree, radii = packages.need("vbench.dynamic_degree", asked="dynamic degree").DynamicDegree, list[list[float]]()
    judge = degree.check_move

    def watched(self: Any, score_list: list[float]) -> bool:
        radii.append([float(score) for score in score_list])
        return bool(judge(self, score_list))

    degree.check_move = watched
    return radii


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
