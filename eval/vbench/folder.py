"""Score a folder of videos of any system by VBench's formulas over the scopes of the paper's appendix A.2.

PATH is a video or a folder of videos. With prompts, a video belongs to the prompt whose id is its name, or its name up to a `-`:
`recall-007.mp4`, `recall-007-2.mp4`; for other names use `names=` or `manifest=` (`eval.vbench.naming`). Without prompts there is no text
alignment. Scenes are those of the run if its `<name>.trace.jsonl` or a scores file `<name>.<scorer>-<id>.json` lies beside the video (in
blocks, with one or four frames of the first latent frame); otherwise they follow the prompt's durations; without a prompt the video is one
scene. The output says which of these was used.

Measurements are kept below `records`, so that a stopped command continues and runs no network twice. Scores of each video go to
`output/<file name>.json`, means with intervals to `output/scores.json`, which never overwrites scores of other videos. Videos that cannot
be read are reported before any work; if one fails later, the others are still scored, the failure is reported at the end, and the exit
status is 1. Hidden files, other file endings and subfolders are not read, and the output names them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
from tqdm import tqdm

from data.outgoing import said
from echo.files import RESULTS, digest, read_json, read_text, write_atomic
from echo.refusals import Unfinished
from echo.scene import Prompt, load_prompts, prompt_digest
from eval.protocol import TASKS, scopes
from eval.stats.statistics import estimate
from eval.vbench.borders import borders
from eval.vbench.kit import DIMENSIONS, Files, Kit, NetworkSource, Random, Wish, listed
from eval.vbench.measure import Span
from eval.vbench.naming import NameRule, Naming
from eval.vbench.naming import manifest as manifest_of
from eval.vbench.package import beside
from eval.vbench.records import RecordStore
from eval.vbench.scorer import ScoredVideo, VideoScorer, check
from eval.vbench.video import ENDINGS, Facts

NAMED = 3
"""Most bad videos that a refusal names, and most files in a line."""
OWN = (".json", ".jsonl", ".npz")
"""Endings of a run's other files beside its videos."""


@dataclass(frozen=True)
class FolderVideo:
    """A video of the folder and its prompt. prompt: None if unknown. borders: source of the scenes' borders."""

    facts: Facts
    prompt: Prompt | None
    spans: tuple[Span, ...]
    borders: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the file with its scores."""
        return self.facts.path.name

    @property
    def texts(self) -> tuple[str, ...]:
        """A sentence per segment, or none."""
        return () if self.prompt is None else self.prompt.scenes

    @property
    def recalls(self) -> tuple[int | None, ...]:
        """For each scene the scene that it recalls, if the prompt says so."""
        return () if self.prompt is None else self.prompt.recalls


@dataclass(frozen=True)
class Measures:
    """Settings of scoring: dimensions and networks.

    Attributes:
        dimensions: all, or some, joined by +.
        text: definitions of text alignment, joined by +: clip_b32, clip_l14, viclip, vbench_text_alignment.
        clip_features: networks that compare VBench-Long's clips; dinov2_dreamsim by default, dino_clip with random weights.
        clip_dtype: CLIP's type; fp16 is what openai-clip uses on CUDA.
        weights: a folder of weights, such as VBench's own ~/.cache/vbench; or random: small random networks, to try everything out.
        device: where networks run; auto takes a GPU if there is one.
        long_for: all also scores videos of several scenes by VBench-Long, as a whole and scene by scene.
        static_filter: also score temporal flickering over only those clips that VBench's static filter classifies as still.
    """

    dimensions: str = "all"
    text: str = "clip_b32"
    clip_features: Literal["", "dinov2_dreamsim", "dino_clip"] = ""
    clip_dtype: Literal["fp32", "fp16"] = "fp32"
    weights: str = "checkpoints/vbench"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    long_for: Literal["one_scene", "all"] = "one_scene"
    static_filter: Literal["false", "true"] = "false"


def score(
    path: Path,
    prompts: Path | None = None,
    /,
    task: str = "",
    measures: Measures = Measures(),
    backend: Literal["native", "vbench_package"] = "native",
    shard: str = "",
    names: str = "",
    manifest: Path | None = None,
    *,
    label: str = "",
    records: Path = RESULTS / "records",
    output: Path = RESULTS / "vbench",
) -> Iterator[str]:
    """Score a folder of videos of any system by VBench's formulas over the scopes of the paper's appendix A.2.

        echo-harness score videos/
        echo-harness score videos/ prompts.jsonl task=recall shard=1/2
        echo-harness score their_videos/ prompts.jsonl 'names={index}-{seed}_*' --label LongLive --output results/longlive
        echo-harness score videos/ weights=random dimensions=subject_consistency+temporal_flickering

    Args:
        path: a video or a folder of videos.
        prompts: a prompt set; a video belongs to the prompt whose id is its name, or its name up to a `-`. Without prompts, each video is
            one scene and has no text alignment.
        task: the protocol: long60, long120, smooth, hard, recall, or another set's; required if prompts have several scenes.
        measures: settings of scoring.
        backend: vbench_package also scores with the package itself, and prints the largest difference.
        shard: i/n scores the i-th of n parts.
        names: pattern of another system's file names: {id}, {index} (from 0), {number} (from 1) or {text} of the prompt, {seed}, * for
            anything; for example names={index}-{seed}_*.
        manifest: a CSV or JSONL file with each video's file, prompt and seed, and without a prompt set its scenes, durations, recalls.
        label: the system's name in tables; the folder's name by default.
        records: the folder of measurements, with which a stopped command continues.
        output: the folder of each video's scores and of their means, scores.json.
    """
    naming = _naming(path, load_prompts(str(prompts)) if prompts else (), names, manifest)
    task = task_of(task, naming.asked)
    scorer = VideoScorer(Kit(wish_of(measures), source_of(measures.weights)), RecordStore(records))
    clips, aside = videos_of(path, naming, task, scorer, shard)
    scorer.kit.check(long=scorer.kit.wish.long(task), text=naming.texts)
    yield from aside
    if backend == "vbench_package":
        yield from beside([clip.facts for clip in clips], [clip.texts for clip in clips], task, scorer)
        return
    place = output / (f"scores-{shard.replace('/', '-of-')}.json" if shard else "scores.json")
    free(place, clips, task, scorer)
    outcomes, failures = scored(clips, task, scorer, output)
    yield from summary(outcomes, task, scorer, place, aside, failures, label or path.resolve().stem) if outcomes else ()
    if failures:
        raise Unfinished(
            "\n".join([*failures.values(), f"{len(failures)} of {len(clips)} videos failed; the same command tries them again"])
        )


def _naming(path: Path, prompts: Sequence[Prompt], names: str, file: Path | None) -> Naming:
    """How videos are named. Raises ValueError for settings that exclude each other."""
    if names and (file or not prompts):
        raise ValueError(f"names={names}: {'manifest= says it already' if file else 'says which prompt of a set, and there is none'}")
    if file and not path.is_dir():
        raise ValueError(f"manifest={file}: names videos of a folder, and {path} is none")
    return Naming(prompts, NameRule(names), manifest_of(file, path, prompts) if file else {})


def scored(
    clips: Sequence[FolderVideo], task: str, scorer: VideoScorer, output: Path
) -> tuple[dict[str, tuple[FolderVideo, ScoredVideo]], dict[str, str]]:
    """Outcomes by name, each written at once, and the reason of each failed video in one line; the others are still scored."""
    outcomes, failures = {}, {}
    for number, clip in enumerate(clips, 1):
        title = f"{number}/{len(clips)} {clip.name}"
        sys.stderr.write("" if sys.stderr.isatty() else said(f"{title}: {clip.facts.frames} frames\n"))  # in a log, no bar
        try:
            with tqdm(total=clip.facts.frames, desc=said(title), unit=" frames", disable=None) as bar:
                outcome = scorer.score(clip.facts, task, clip.spans, clip.texts, bar.update, clip.recalls)
            text = prompt_digest(clip.prompt) if clip.prompt else ""
            unit = {"prompt": clip.prompt.id if clip.prompt else Path(clip.name).stem, "seed": clip.seed, "text": text}
            content = msgspec.to_builtins(outcome) | {"task": task, "borders": clip.borders, **unit}
            write_atomic(output / f"{clip.name}.json", json.dumps(content, indent=1).encode())
            outcomes[clip.name] = clip, outcome
        except Exception as error:
            why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            failures[clip.name] = " ".join((why if clip.name in why else f"{clip.facts.name}: {why}").split())
            sys.stderr.write(said(f"{title} failed; the others go on\n"))
    return outcomes, failures


def task_of(word: str, prompts: Sequence[Prompt]) -> str:
    """The protocol. Raises ValueError if it is required but missing, or unknown."""
    if word:
        scopes(word)
        return word
    if any(len(prompt.scenes) > 1 for prompt in prompts):
        raise ValueError(f"task=: prompts of several scenes need one of {', '.join(TASKS)}; nearest is task=smooth")
    return "long60"


def wish_of(measures: Measures) -> Wish:
    """The requested scores, checked. Raises ValueError."""
    dimensions = DIMENSIONS if measures.dimensions == "all" else listed(measures.dimensions)
    device: str = measures.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    random = measures.weights == "random"
    if random and measures.clip_features == "dinov2_dreamsim":
        raise ValueError("clip_features=dinov2_dreamsim: DreamSim has no random weights; nearest with weights=random is dino_clip")
    firsts = measures.clip_features or ("dino_clip" if random else "dinov2_dreamsim")
    return Wish(dimensions, listed(measures.text), firsts, measures.clip_dtype, device, measures.long_for, measures.static_filter == "true")


def source_of(word: str) -> NetworkSource:
    """The source of networks: `random`, or a folder of weights."""
    return Random() if word == "random" else Files(Path(word).expanduser())


def listed_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The videos of a folder, sorted by name, and lines about files that are left out.

    Raises ValueError in one line if the folder cannot be read or holds no video; subfolders with videos are named.
    """
    try:
        every = sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(f"{folder}: no such video or folder of videos ({error.strerror})") from None
    films = [file for file in every if file.suffix.lower() in ENDINGS and not file.is_dir()]
    videos = [file for file in films if not file.name.startswith(".")]
    others = [file for file in every if file.is_file() and not file.name.startswith(".") and file.suffix.lower() not in (*ENDINGS, *OWN)]
    below = {
        place.name: count
        for place in every
        if place.is_dir() and (count := sum(file.suffix.lower() in ENDINGS and not file.name.startswith(".") for file in place.rglob("*")))
    }
    hidden = [file.name for file in films if file not in videos]
    lines = [f"left out: {len(hidden)} hidden (nobody's video, or a part of one): {_first(hidden)}"] * bool(hidden)
    lines += [f"left out: {len(others)} of other endings than {', '.join(ENDINGS)}: {_first([file.name for file in others])}"] * bool(
        others
    )
    lines += [f"left out: {sum(below.values())} in folders below, each to be scored by its name: {_first(list(below))}"] * bool(below)
    if not videos:
        near = f"; nearest is {folder / next(iter(below))}" if below else ""
        raise ValueError("; ".join([f"{folder}: no video ({', '.join(ENDINGS)}) lies in it{near}", *lines]))
    return videos, lines


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)


def videos_of(path: Path, naming: Naming, task: str, scorer: VideoScorer, shard: str) -> tuple[list[FolderVideo], list[str]]:
    """The videos of a shard, sorted by name and all inspected before any work, and lines about files that are left out.

    Raises ValueError with the first videos that cannot be scored, and their number.
    """
    paths, aside = ([path], list[str]()) if path.is_file() else listed_in(path)
    if naming.owners:
        rest = [file.name for file in paths if file not in naming.owners]
        paths, aside = list(naming.owners), aside + [f"left out: {len(rest)} that the manifest does not name: {_first(rest)}"] * bool(rest)
    part, whole = _shard(shard)
    clips, complaints, units = [], list[str](), set[tuple[str, int]]()
    for index, file in enumerate(paths):
        if index % whole + 1 != part:
            continue
        try:
            owner = naming.owner(file)
            facts = scorer.inspect(file)
            prompt = owner.lasting(facts.frames / facts.fps)
            spans, by = borders(facts, prompt.durations_s if prompt else None)
            clips.append(FolderVideo(facts, prompt, tuple(spans), by, naming.free(file, owner, units)))
            check(facts, task, spans, clips[-1].texts, clips[-1].recalls)
        except ValueError as error:
            complaints.append(str(error))
    if complaints:
        more = f"; {len(complaints)} of {len(paths)} videos cannot be scored" if len(complaints) > 1 else ""
        raise ValueError("; ".join(complaints[:NAMED]) + more)
    return clips, aside


def _shard(text: str) -> tuple[int, int]:
    part, slash, whole = text.partition("/")
    if not text:
        return 1, 1
    if not (slash and part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole)):
        raise ValueError(f"shard={text}: a shard is i/n with 1 <= i <= n, for example 1/4")
    return int(part), int(whole)


def free(place: Path, clips: Sequence[FolderVideo], task: str, scorer: VideoScorer) -> None:
    """Raise ValueError, before any work, if there is a summary that this command would neither reproduce nor extend."""
    if not place.is_file():
        return
    try:
        last = read_json(read_text(place), str(place))
        mine = {clip.name: clip.facts.digest for clip in clips}
        text = any(clip.prompt for clip in clips)
        asked, said = _asked(clips), last.get("asked", {})
        lost = [name for name, digest in last["videos"].items() if mine.get(name) != digest] + [*last["failed"].keys() - mine.keys()]
        other = {
            f"of other videos ({_first(lost)})": bool(lost),
            f"of task={last['task']}": last["task"] != task,
            "of other prompts": any(said[name] != asked[name] for name in said.keys() & asked.keys()),
            "by other networks, versions or settings": last["identity"] != _plain(_identity(scorer, task, text))
            or last.get("wish", {}) not in ({}, _plain(_wish(scorer))),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        other = {"that cannot be read": True}
    if why := [words for words, holds in other.items() if holds]:
        raise ValueError(f"{place}: scores are there, {' and '.join(why)}, and would be lost; nearest is --output {place.parent}-2")


def _asked(clips: Iterable[FolderVideo]) -> dict[str, str]:
    """Name of a video -> the texts that it is compared with."""
    return {clip.name: digest([list(clip.texts), [list(span) for span in clip.spans]]) for clip in clips}


def _identity(scorer: VideoScorer, task: str, text: bool) -> dict[str, object]:
    return scorer.kit.identity(long=scorer.kit.wish.long(task), text=text)


def _wish(scorer: VideoScorer) -> dict[str, object]:
    return asdict(replace(scorer.kit.wish, device=""))


def _plain(content: object) -> object:
    """Content after a round trip through JSON."""
    return json.loads(json.dumps(content))


def summary(
    outcomes: Mapping[str, tuple[FolderVideo, ScoredVideo]],
    task: str,
    scorer: VideoScorer,
    place: Path,
    aside: Sequence[str],
    failures: Mapping[str, str],
    label: str,
) -> list[str]:
    """Means with intervals over prompts and numbers of videos, as lines and as a file.

    aside: lines about files that are left out. label: name of the system that made the videos.
    """
    values: dict[str, dict[tuple[str, int], float]] = {}
    for number, (name, (clip, outcome)) in enumerate(outcomes.items()):
        group = clip.prompt.id if clip.prompt else name
        for metric, value in outcome.metrics.items():
            if value is not None:
                values.setdefault(metric, {})[group, number] = value
    lines, rows = [], {}
    for metric, scores in values.items():
        mean = estimate(scores)
        assert mean is not None
        rows[metric] = {"mean": mean.mean, "half_width": mean.half_width, "videos": mean.videos, "prompts": mean.prompts}
        half = "" if mean.half_width is None else f" ± {mean.half_width:.2f}"
        lines.append(f"{metric:42s} {mean.mean:8.2f}{half or '       '}  n={mean.videos}")
    videos = [clip.facts for clip, _ in outcomes.values()]
    cut = Counter[str]()
    for _, outcome in outcomes.values():
        cut.update({network: sum(tokens) for network, tokens in outcome.tokens_cut.items()})
    text = any(clip.prompt for clip, _ in outcomes.values())
    content = {
        "v": 1,
        "label": label,
        "task": task,
        "videos": {facts.path.name: facts.digest for facts in videos},
        "failed": dict(failures),
        "borders": {name: clip.borders for name, (clip, _) in outcomes.items()},
        "fps": sorted({facts.fps for facts in videos}),
        "frames": sorted({facts.frames for facts in videos}),
        "tokens_cut": dict(sorted(cut.items())),
        "left_out": list(aside),
        "asked": _asked(clip for clip, _ in outcomes.values()),
        "wish": _wish(scorer),
        "identity": _identity(scorer, task, text),
        "metrics": rows,
    }
    write_atomic(place, json.dumps(content, indent=1).encode())
    for network, count in sorted(cut.items()):
        if count:
            lines.append(f"{count} tokens of prompts did not fit {network} and were cut")
    if isinstance(scorer.kit.source, Random):
        lines.append("RANDOM WEIGHTS: these numbers say nothing")
    taken = ", ".join(f"{by} ({count})" for by, count in Counter(clip.borders for clip, _ in outcomes.values()).items())
    lines.append(f"borders of scenes taken from (videos): {taken}")
    return [*lines, f"{len(outcomes)} videos, task={task}; mean ± 95 % interval over prompts, n videos; {place}"]
