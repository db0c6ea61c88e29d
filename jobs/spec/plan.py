"""A checked config as a `Job`: policy, prompts and their order, without torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from baselines.registry import find, source_of
from data.sets.known import SETS
from echo.backbone.checkpoints.headers import layers_of, misfit, read_header, shapes_of
from echo.cache.policy import Policy, script_of
from echo.files import ROOT, digest
from echo.geometry import Geometry, scene_spans
from echo.refusals import Missing, brief, lacks, nearest, reading
from echo.scene import FPS, PIXEL_FRAMES_PER_LATENT, Prompt, load_prompts, scene_blocks
from echo.settings import build, spoken
from eval.protocol import exact, scopes
from eval.store.records import RENDER
from jobs.spec import backbones, identity, scoring
from jobs.spec.config import RANDOM, RELEASED, Key, RunConfig, from_plain, located, looked_at, parse_shard


@dataclass(frozen=True)
class Job:
    """One run to be made: a policy on a backbone over prompts, with one seed."""

    config: RunConfig
    policy: Policy
    prompt_set: tuple[Prompt, ...]  # the whole set, so that batches do not depend on the number of requested prompts

    @cached_property
    def run_key(self) -> Key:
        """Everything that can change a pixel of any unit of this run."""
        settings = spoken(self.policy)
        del settings["label"]  # for people
        return identity.run_key(self.config, settings, source_of(self.policy))

    @cached_property
    def run_id(self) -> str:
        """Name of the run by content."""
        return digest(self.run_key)

    @cached_property
    def scores_key(self) -> Key | None:
        """What can change a score of a finished video; None when nothing is scored."""
        return identity.scores_key(self.config)

    @property
    def scores_id(self) -> str | None:
        """Name of the way of scoring by content."""
        return None if self.scores_key is None else digest(self.scores_key)

    def unit_id(self, prompt: Prompt) -> str:
        """Name of one video by content."""
        group = self.prompt_set if identity.mixes(self.config) else None
        return digest(identity.unit_key(self.run_id, prompt, group, routed=self.policy.recalls))

    @property
    def asked(self) -> tuple[Prompt, ...]:
        """The requested prompts, whatever the shard."""
        return self.prompt_set[: self.config.prompts]

    @property
    def mine(self) -> tuple[Prompt, ...]:
        """The prompts of this shard."""
        if self.config.shard is None:
            return self.asked
        part, whole = parse_shard(self.config.shard)
        return tuple(p for index, p in enumerate(self.asked) if identity.shard_of(index, whole) == part)

    def blocks(self, *prompts: Prompt) -> int:
        """Blocks of the videos of some prompts."""
        return sum(sum(self.lengths(prompt)) for prompt in prompts)

    @property
    def block_frames(self) -> int:
        """Pixel frames of a block; the codec may make fewer of a video's first latent frame."""
        return self.config.backbone.frames_per_block * PIXEL_FRAMES_PER_LATENT

    @property
    def pace(self) -> tuple[int, int]:
        """Latent frames and denoising steps per block; only blocks of one pace are compared by time."""
        return self.config.backbone.frames_per_block, len(self.config.backbone.steps)

    def lengths(self, prompt: Prompt) -> tuple[int, ...]:
        """Blocks of each scene of a prompt."""
        return scene_blocks(prompt.durations_s, self.policy.durations, self.config.backbone.frames_per_block)

    def spans(self, prompt: Prompt) -> list[tuple[int, int]]:
        """Pixel frames of a prompt's scenes in its MP4: Wan's codecs make one frame of the first latent frame, the embedded one four."""
        first_frames = PIXEL_FRAMES_PER_LATENT if self.config.backbone.parts is None else 1
        return scene_spans(self.lengths(prompt), first_frames, self.config.backbone.frames_per_block)

    def stretches(self, prompt: Prompt) -> list[tuple[int, int]]:
        """Pixel frames of the scored stretches: scenes end with blocks or, with `task.borders=seconds`, at the prompt's seconds.

        Raises ValueError if the video's length and the prompt's are more than a second apart.
        """
        spans = self.spans(prompt)
        return spans if self.config.task.borders == "blocks" else exact(spans[-1][1], FPS, prompt.durations_s)

    @property
    def rendered(self) -> bool:
        """Whether the video is rendered without a backbone; the policy is then a `data.world.film.Render`."""
        return self.config.method.policy == RENDER

    @property
    def title(self) -> str:
        """Short name for people."""
        return f"{self.config.method.name} {self.config.task.name} seed={self.config.seed}"


def prepare(plain: Mapping[str, Any], *, elsewhere: bool = False) -> Job:
    """Check a composed and resolved config completely, so that nothing can be refused after work has started.

    elsewhere: whether another machine computes it, so that packages and files of a backbone with parts are not needed here.

    Raises ValueError in one line with the value, the rule and the nearest valid choice.
    """
    config = from_plain(plain)
    policy = _policy(config)
    config = scoring.resolved(backbones.resolved(config, biased=policy.biased))
    job = Job(config, _fitted(config, policy), _prompts(config))
    _check(job, elsewhere)
    return job


def _prompts(config: RunConfig) -> tuple[Prompt, ...]:
    """The prompt set with scaled durations. Raises ValueError for a set that is missing or too small."""
    if config.task.name in SETS:
        _check_set(config)
    elif config.task.prompts == RELEASED:
        _check_released(config)
    _is_there("task.prompt_set", config.task.prompt_set)
    prompts = load_prompts(located(config.task.prompt_set))
    if config.prompts is not None and config.prompts > len(prompts):
        raise ValueError(f"prompts={config.prompts}: the set {config.task.name} has {len(prompts)}; nearest is {len(prompts)}")
    return tuple(_scaled(prompt, config.duration_scale) for prompt in prompts)


def _check_set(config: RunConfig) -> None:
    """Raises ValueError for a prompt set that is not imported, or a backbone that does not know its words."""
    task = config.task
    if config.backbone.parts is None:
        rule = f"has sentences of any words, backbone={config.backbone.name} knows those of its own world alone"
        raise ValueError(f"task={task.name}: {rule}; nearest is backbone=self_forcing")
    if task.prompts == RELEASED:
        raise ValueError(f"task.prompts={RELEASED}: the authors have no prompts of task={task.name}; nearest is task.prompts=own")
    if not located(task.prompt_set).exists():
        command = f"echo-harness data import FILE format={task.name} --output {task.prompt_set}"
        raise ValueError(f"task.prompt_set={task.prompt_set}: not there; `{command}` makes it of {task.label}'s own file")


def _check_released(config: RunConfig) -> None:
    """Raises ValueError for the authors' prompts if they are not downloaded, or if the backbone does not know their words."""
    if config.backbone.parts is None:
        rule = f"are sentences of any words, backbone={config.backbone.name} knows those of its own world alone"
        raise ValueError(f"task.prompts={RELEASED}: {rule}; nearest is task.prompts=own")
    if not located(config.task.prompt_set).is_file():
        download = "echo-harness data download prompts=echo_forcing"
        told = f"`{download}` brings the authors' own, checkpoints=DIR looks elsewhere, task.prompts=own needs no file"
        line = f"task.prompts={RELEASED}: {config.task.prompt_set} is not there; {told}"
        raise Missing(line, "the authors' prompts", download)


def lacking(plain: Iterable[Mapping[str, Any]]) -> list[Missing]:
    """Like `missing`, for composed configs, each thing once."""
    configs = dict[tuple[str, str, str], Mapping[str, Any]]()
    for one in plain:
        configs.setdefault((one["backbone"]["name"], one["task"]["name"], str(one["method"]["policy"])), one)
    resolved = [scoring.resolved(backbones.resolved(from_plain(one))) for one in configs.values()]
    return list({absent.what: absent for config in resolved for absent in missing(config)}.values())


def told_of(every: Iterable[Missing]) -> str:
    """Missing things, each with the command that installs or downloads it."""
    return "; ".join(f"{absent.what} ({absent.remedy})" for absent in every)


def missing(config: RunConfig) -> Iterator[Missing]:
    """Missing things of a resolved config on this machine, except a GPU: packages and files of backbone and scorer, prompts."""
    if config.backbone.parts is not None:
        yield from backbones.missing(config)
    yield from scoring.missing(config)
    if config.task.prompts == RELEASED:
        yield from lacks(lambda: _check_released(config))
    yield from lacks(lambda: _fitted(config, _policy(config)))


def _check(job: Job, elsewhere: bool = False) -> None:
    """Raises ValueError in one line for a job that files, backbone, policy or scorer do not allow."""
    config, policy = job.config, job.policy
    if config.backbone.parts is None:
        _is_there("backbone.weights", config.backbone.weights)
        _is_there("backbone.lora", config.backbone.lora)
    elif not elsewhere:
        backbones.check(config)
    if config.eval.scorer != scoring.SCORER:
        _is_there("eval.weights", config.eval.weights)
    if config.eval.scorer is not None:
        scopes(config.task.name)
    geometry = _geometry(config, policy, job.asked)
    for blocks in {job.blocks(prompt) for prompt in job.asked}:
        try:
            policy.check(geometry, blocks)
        except ValueError as error:
            raise ValueError(f"method={config.method.name}: {error}") from error
    for prompt in job.asked:
        _can_recall(prompt, policy, geometry.frames_per_block)
        try:
            job.stretches(prompt)
        except ValueError as error:
            raise ValueError(f"task.borders={config.task.borders}: prompt {prompt.id!r} {error}; nearest is task.borders=blocks") from None
    if config.backbone.parts is not None and not elsewhere:
        backbones.check_texts(config, job.asked)
    if config.eval.scorer == scoring.SCORER:
        scoring.check(config, job.asked)


def _is_there(name: str, path: str | None) -> None:
    """Raises ValueError if a setting's file is missing."""
    if path is None or located(path).is_file():
        return
    what = "no file that can be read" if located(path).exists() and not located(path).is_dir() else "no such file"
    raise ValueError(f"{name}={brief(path)}: {what}; {_nearest_file(name, path)}{looked_at(path)}")


def _geometry(config: RunConfig, policy: Policy, prompts: Sequence[Prompt]) -> Geometry:
    """Sizes of the backbone from its files; checks rendered rows against them. Raises ValueError."""
    if config.backbone.parts is not None:
        if config.method.policy == RENDER:
            rule = f"renders the embedded world, backbone={config.backbone.name} is of another; nearest is backbone=tiny"
            raise ValueError(f"method={config.method.name}: {rule}")
        return backbones.geometry(config)
    weights = located(config.backbone.weights)
    with reading(weights, "it is not a backbone of this project, or is damaged"):
        header = read_header(weights)
        if "sizes" not in header.get("__metadata__", {}):
            raise ValueError(f"backbone.weights={weights}: no sizes in its header; it is not a backbone of this project")
        made, layers = Geometry(**json.loads(header["__metadata__"]["sizes"])["geometry"]), layers_of(header)
    geometry = dataclasses.replace(made, frames_per_block=config.backbone.frames_per_block)
    if config.backbone.lora is not None:
        nearest_file = _nearest_file("backbone.lora", config.backbone.lora)
        with reading(located(config.backbone.lora), nearest_file):
            wrong = misfit(shapes_of(read_header(located(config.backbone.lora))), layers)
        if wrong is not None:
            raise ValueError(f"backbone.lora={config.backbone.lora}: {wrong}; {nearest_file}")
    if config.method.policy == RENDER:
        _can_be_rendered(config, policy, prompts, header, geometry)
    return geometry


def _can_recall(prompt: Prompt, policy: Policy, frames_per_block: int) -> None:
    """Raises ValueError for a prompt that recalls a scene which the policy's pool will no longer hold."""
    if prompt.recalls:
        try:
            # the similarity of texts changes only a jump
            script_of(prompt, policy, frames_per_block, lambda texts: [[1.0]] * len(texts))
        except ValueError as error:
            raise ValueError(f"prompt {prompt.id!r}: {error} (recalls in the file counts scenes from 0)") from None


def _can_be_rendered(config: RunConfig, policy: Policy, prompts: Sequence[Prompt], header: Mapping[str, Any], geometry: Geometry) -> None:
    """Raises ValueError for rendered rows with a backbone of other frames than the world's, or prompts of other words."""
    from data.world.film import Render
    from data.world.render import SIZE

    patch = header.get("codec.basis", {}).get("shape", [0])[0]
    side = geometry.latent_height * math.isqrt(patch // (PIXEL_FRAMES_PER_LATENT * 3))
    if side != SIZE:
        made = f"makes frames of {side} px" if side else "has no codec of the embedded world"
        raise ValueError(
            f"method={config.method.name}: renders the embedded world, {SIZE}x{SIZE} px, but backbone={config.backbone.name} {made}; "
            "nearest is backbone=tiny"
        )
    for prompt in prompts:
        cast(Render, policy).check_prompt(prompt)


def _nearest_file(name: str, path: str) -> str:
    """A phrase that names the nearest suitable file of the repository."""
    kinds = {
        "backbone.weights": "data/weights/*/model.safetensors", "backbone.lora": "data/weights/*/lora.safetensors",
        "eval.weights": "data/weights/scorer/*.safetensors",
    }  # fmt: skip
    there = {file.relative_to(ROOT).as_posix() for file in ROOT.glob(kinds.get(name, "data/prompts/**/*.jsonl"))}
    if name == "task.prompt_set":
        there |= {file.as_posix() for file in Path(path).parent.glob("*.jsonl") if file.is_file()}
    if name == "backbone.weights":
        there = {file for file in there if not file.startswith("data/weights/scorer/")}
    return f"nearest is {nearest(path, there)}" if there else "none is shipped"


def _policy(config: RunConfig) -> Policy:
    """The policy with its settings, or the renderer of calibration rows. Raises ValueError."""
    name = config.method.policy
    if name == RENDER:
        from data.world.film import Render  # imports numpy, for which errors should not wait
    try:
        return build(Render if name == RENDER else find(name), config.method.settings, "method.", of=f"policy {name}")
    except ValueError as error:
        raise ValueError(f"method={config.method.name}: {error}") from error


def _fitted(config: RunConfig, policy: Policy) -> Policy:
    """The policy with facts about trained weights. Raises Missing."""
    paths = [located(path) for path in (config.backbone.weights, config.backbone.lora) if path not in (None, RANDOM)]
    return policy.fitted(paths, config.backbone.name) if all(path.is_file() for path in paths) and paths else policy


def _scaled(prompt: Prompt, factor: float) -> Prompt:
    if factor == 1:
        return prompt
    return dataclasses.replace(prompt, durations_s=tuple(d * factor for d in prompt.durations_s))
