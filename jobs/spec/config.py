"""The typed configuration of a run, checked before any work starts; nothing here imports torch.

Every field declares in its metadata what it may change: pixels, scores, or nothing. `jobs.spec.identity` builds the names of
runs from these declarations, so that no new field can be forgotten in a name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from echo.files import ROOT
from echo.geometry import SHIFT, STEPS, TRAIN_STEPS, check_steps
from echo.refusals import brief, path_part, within
from echo.scene import FRAMES_PER_BLOCK
from echo.settings import LARGEST, build

Plain = dict[str, Any]
"""A composed config as plain values, from YAML and the command line, as in orders and attempts."""
Key = dict[str, Any]
"""Plain values whose hash is a name."""
APART = ("hydra", "table", "prompt_folders", "scale", "ours")
"""Parts of a composed config that change no run: Hydra's own, folders of prompts, and the definition of an experiment."""
RELEASED = "released"
"""The authors' own prompts, in place of this project's."""
MOST_PX = 4320
"""Largest height or width of a frame."""
RANDOM = "random"
"""In place of a file: random weights."""

sys.path.insert(0, str(Path(__file__).with_name("plugins")))  # makes ablations available as methods when Hydra composes


def pixels(most: int = LARGEST, **later: Any) -> Any:
    """A field whose value can change a pixel.

    Args:
        most: its largest value.
        later: `default=` of a field that was added later: at its default it enters no name, so that older runs keep theirs.
    """
    return field(metadata={"enters": "pixels", "silent": bool(later), "most": most}, **later)


def scores(**later: Any) -> Any:
    """A field whose value can change a score, never a pixel; `later` as in `pixels`."""
    return field(metadata={"enters": "scores", "silent": bool(later)}, **later)


def file_of(kind: Literal["pixels", "scores"], **default: Any) -> Any:
    """A path whose file's content can change a pixel, or only a score."""
    return field(metadata={"enters": f"{kind}_file"}, **default)


def inert(reason: str, most: int = LARGEST, **later: Any) -> Any:
    """A field that changes neither pixels nor scores, and why; `default=` of one that older configs may lack."""
    return field(metadata={"enters": "nothing", "reason": reason, "most": most}, **later)


@dataclass(frozen=True)
class PartsConfig:
    """The parts of a Wan2.1 backbone besides its network, sizes, and where and how they are computed."""

    text: str = file_of("pixels")
    tokenizer: str = file_of("pixels")
    codec: str = file_of("pixels")
    decoder: Literal["wan", "taehv"] = pixels()
    text_dtype: Literal["float32", "bfloat16"] = pixels()
    text_device: Literal["auto", "cpu", "cuda"] = pixels()
    codec_dtype: Literal["float32", "bfloat16"] = pixels()
    height_px: int = pixels(most=MOST_PX)
    width_px: int = pixels(most=MOST_PX)
    window_frames: int = pixels(most=1024)
    device: Literal["auto", "cpu", "cuda"] = pixels()
    kernel: Literal["auto", "sdpa", "cudnn", "flash", "flash3"] = pixels()
    compile: Literal["none", "blocks", "graphs"] = pixels()  # a fused sum may round differently
    window: Literal["auto", "shared", "resident"] = inert("bit for bit the same")
    text_cache: str = inert("entries are named by their content")

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            value = getattr(self, name)
            if value % 16 or value < 32:
                near = max(32, round(value / 16) * 16)
                rule = "a multiple of 16 and at least 32 (8 px a latent cell, 2 cells a token)"
                raise ValueError(f"backbone.parts.{name}={value}: {rule}; nearest is {near}")


@dataclass(frozen=True)
class BackboneConfig:
    """A set of weights and how they are computed."""

    name: str = inert("the content of the weights enters")
    label: str = inert("for people")
    weights: str = file_of("pixels")
    dtype: Literal["float32", "bfloat16"] = pixels()
    threads: int = pixels(most=1024)  # reductions are split by thread, and a sum's last bit depends on the split
    batch: int = inert("default of the run's batch")
    prompts: int | None = inert("default of the run's prompts")
    lora: str | None = file_of("pixels", default=None)
    frames_per_block: int = pixels(most=1024, default=FRAMES_PER_BLOCK)  # latent frames per block
    steps: tuple[int, ...] = pixels(most=TRAIN_STEPS, default=STEPS)  # denoising steps of a block, nominal ones if they are warped
    first_steps: tuple[int, ...] = pixels(most=TRAIN_STEPS, default=())  # of a video's first block, if it has others
    shift: float = pixels(most=100, default=SHIFT)  # of the noise levels (`echo.sampler`)
    warp: bool = pixels(default=True)  # whether steps are warped by the shift, or are the timesteps themselves
    prompt_folder: str = inert("each unit carries the content of its prompt", default="data/prompts")
    parts: PartsConfig | None = pixels(default=None)

    def __post_init__(self) -> None:
        path_part("backbone.name", self.name)
        at_least("backbone.threads", self.threads, 1)
        at_least("backbone.frames_per_block", self.frames_per_block, 1)
        for steps in (self.steps, self.first_steps or self.steps):
            check_steps(steps)
        within("backbone.shift", self.shift, 1, 100)


@dataclass(frozen=True)
class MethodConfig:
    """A named preset: the policy and the settings that differ from the policy's defaults."""

    name: str = inert("policy and settings enter")
    policy: str = pixels()
    settings: Mapping[str, Any] = pixels()

    def __post_init__(self) -> None:
        path_part("method.name", self.name)


@dataclass(frozen=True)
class TaskConfig:
    """A prompt set and the protocol that scores it."""

    name: str = scores()
    label: str = inert("for people")
    prompt_set: str = inert("each unit carries the content of its prompt")
    prompts: Literal["own", "released"] = inert("each unit carries the content of its prompt", default="own")
    borders: Literal["blocks", "seconds"] = scores(default="blocks")  # borders of the scored stretches

    def __post_init__(self) -> None:
        path_part("task.name", self.name)


@dataclass(frozen=True)
class VbenchConfig:
    """Settings of VBench's networks; `eval.vbench.kit.Wish` checks their values."""

    dimensions: str = scores()
    text: str = scores()
    clip_features: str = scores()
    clip_dtype: str = scores()
    device: Literal["auto", "cpu", "cuda"] = scores()
    long_for: str = scores(default="one_scene")
    static_filter: bool = scores(default=False)


@dataclass(frozen=True)
class EvalConfig:
    """The scorer of finished videos."""

    name: str = inert("scorer and weights enter")
    label: str = inert("for people")
    scorer: Literal["embedded", "vbench"] | None = scores()
    weights: str | None = file_of("scores")
    vbench: VbenchConfig | None = scores(default=None)
    pairs: Literal["mean", "joined"] = scores(default="mean")  # of the embedded scorer; older stores have mean

    def __post_init__(self) -> None:
        path_part("eval.name", self.name)


@dataclass(frozen=True)
class NoiseConfig:
    """Noise of blocks; the same for all compared methods."""

    repeat_initial: bool = pixels()


@dataclass(frozen=True)
class VideoConfig:
    """Storage of frames: for people, and for `eval=vbench`, which reads the file and includes this in its scores' name."""

    height_px: int = inert("the file is for watching", most=MOST_PX)
    crf: int = inert("the file is for watching")

    def __post_init__(self) -> None:
        at_least("video.height_px", self.height_px, 16)
        if not 0 <= self.crf <= 51:
            raise ValueError(f"video.crf={self.crf}: H.264 takes 0 (lossless) to 51")


@dataclass(frozen=True)
class RunConfig:
    """Configuration of one run, built from the composed YAML by `from_plain`."""

    backbone: BackboneConfig = pixels()
    method: MethodConfig = pixels()
    task: TaskConfig = scores()
    eval: EvalConfig = scores()
    noise: NoiseConfig = pixels()
    video: VideoConfig = inert("the file is for watching")
    seed: int = pixels(most=2**63 - 1)  # of the tables of a store
    batch: int = pixels(most=1024)  # a batched matrix product may round differently from a single one
    duration_scale: float = pixels(most=10_000)
    prompts: int | None = inert("how many units, not what they are")
    shard: str | None = inert("where a unit is computed, not what it is")
    store: str = inert("a place")
    max_workers: int | None = inert("how many processes, one run each", most=1024)
    max_tries: int = inert("which units are tried again")
    checkpoints: str = inert("a place; the content of files enters", default="checkpoints")
    weights: Literal["trained", "random"] = pixels(default="trained")
    geometry: Literal["native", "tiny"] = pixels(default="native")
    experiment: str | None = inert("where the run was asked for; tables and trackers group by it", default=None)
    tracker: Literal["none", "jsonl", "wandb"] = inert("told of results, never asked for any", default="none")
    allow_dirty: bool = inert("whether code that no commit names may make a table of the paper", default=False)

    def __post_init__(self) -> None:
        if self.experiment is not None:
            path_part("experiment", self.experiment)
        at_least("seed", self.seed, 0)
        for name in ("batch", "max_tries", "prompts", "max_workers"):
            at_least(name, getattr(self, name), 1)
        if self.duration_scale <= 0:
            raise ValueError(f"duration_scale={self.duration_scale}: durations are multiplied by it, so it is above 0")
        if self.shard is not None:
            parse_shard(self.shard)


def enlarged(height: int, width: int, height_px: int) -> int:
    """Factor by which small frames are enlarged in the file: even, since 4:2:0 shares a colour among 2x2 pixels; 1 for large ones."""
    factor = height_px // (2 * height) * 2 or 1
    return 2 if factor == 1 and (height % 2 or width % 2) else factor


def parse_shard(text: str) -> tuple[int, int]:
    """`"i/n"` as (i, n) with 1 <= i <= n. Raises ValueError if the text has another form."""
    part, _, whole = text.partition("/")
    if all(re.fullmatch("[0-9]{1,6}", one) for one in (part, whole)) and 1 <= int(part) <= int(whole):
        return int(part), int(whole)
    raise ValueError(f"shard={brief(text)}: a shard is i/n with 1 <= i <= n, for example 1/4")


def at_least(name: str, value: int | None, least: int) -> None:
    """Raises ValueError for a setting below `least`; None is allowed."""
    if value is not None and value < least:
        raise ValueError(f"{name}={value}: it is at least {least}")


def from_plain(plain: Mapping[str, Any]) -> RunConfig:
    """The run config from a composed and resolved YAML tree.

    A method's YAML is flat (`name`, `policy`, then the policy's fields), so that `method.drift_gate_lambda=2` reads well.

    Raises:
        ValueError: one line for the first wrong key or value.
    """
    tree = {key: value for key, value in plain.items() if key not in APART}
    method = tree.get("method")
    if isinstance(method, Mapping):
        settings = {key: value for key, value in method.items() if key not in ("name", "policy")}
        tree["method"] = {"settings": settings} | {k: method[k] for k in ("name", "policy") if k in method}
    return build(RunConfig, tree)


PLACES = (
    "task.prompt_set", "backbone.weights", "backbone.lora", "backbone.parts.text", "backbone.parts.tokenizer", "backbone.parts.codec",
    "eval.weights",
)  # fmt: skip
"""Settings that are paths of files and folders to read."""


def anchored(plain: Plain, words: Sequence[str]) -> Plain:
    """Composed values with paths of the command line made absolute if they exist relative to the current folder.

    All relative paths are looked up in the current folder first, then among the shipped files. The default path of a config is
    the shipped file if there is one.

    Args:
        plain: composed values.
        words: the settings that they were composed from.
    """
    typed = [word.partition("=")[2].strip("'\"").rstrip("/") for word in words]
    for place in PLACES:
        *groups, key = place.split(".")
        tree = plain
        for group in groups:
            tree = tree.get(group) or {}
        path = tree.get(key)
        if not isinstance(path, str) or path in ("", RANDOM) or not Path(path).exists():
            continue
        if any(said and (path == said or path.startswith(f"{said}/")) for said in typed) or not (ROOT / path).exists():
            plain = _replaced(plain, groups, key, path if located(path) == Path.cwd() / path else str(Path.cwd() / path))
    return plain


def _replaced(plain: Plain, groups: Sequence[str], key: str, value: str) -> Plain:
    """A copy of composed values with another value at a key of nested groups."""
    if not groups:
        return plain | {key: value}
    return plain | {groups[0]: _replaced(plain[groups[0]], groups[1:], key, value)}


def looked_at(path: str) -> str:
    """The folders in which a relative path was looked up, for an error; empty for an absolute path."""
    folders = dict.fromkeys(map(str, (Path.cwd(), ROOT)))
    return "" if Path(path).is_absolute() else f" (looked in {' and in '.join(folders)})"


def located(path: str) -> Path:
    """A path of a composed config as an absolute path; relative ones are below the project."""
    return ROOT / path
