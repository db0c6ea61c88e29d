"""Backbones, policies and prompts for recorded figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from baselines.presets import make_policy, preset, prompt_set
from echo.cache.policy import Policy
from echo.files import ROOT
from echo.geometry import STEPS
from echo.refusals import nearest
from echo.scene import FRAMES_PER_BLOCK, Prompt, load_prompts

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel

Loader = Callable[[str], "VideoModel"]
"""From a backbone's name to the backbone."""


def embedded(name: str) -> VideoModel:
    """A shipped backbone. Raises ValueError for an unknown name, or a backbone that is not shipped."""
    import torch

    from echo.backbone.load import load
    from echo.sampler import schedule

    settings = preset("backbone", name)
    if settings.get("parts"):
        raise ValueError(f"backbone={name}: its weights are loaded by `echo-harness figures`, with the same words; nearest here is tiny")
    torch.set_num_threads(int(settings.get("threads", 1)))
    backbone = load(settings["weights"], settings["dtype"], settings.get("lora"))
    return backbone.paced(settings.get("frames_per_block", FRAMES_PER_BLOCK), schedule(settings.get("steps", STEPS)))


def policy(name: str) -> Policy:
    """A preset's policy. Raises ValueError for an unknown name."""
    return make_policy({"method": name})


def prompts_of(task: str, backbone: str, count: int) -> list[Prompt]:
    """The first prompts of a task. Raises ValueError for more than it has."""
    prompts = load_prompts(ROOT / prompt_set(task, backbone))
    if count > len(prompts):
        raise ValueError(f"prompts={count}: task {task} has {len(prompts)}; nearest is {len(prompts)}")
    return list(prompts[:count])


def prompt_of(task: str, backbone: str, wanted: str) -> Prompt:
    """A task's prompt by its id, the first by default. Raises ValueError for an unknown id."""
    prompts = {prompt.id: prompt for prompt in load_prompts(ROOT / prompt_set(task, backbone))}
    if wanted and wanted not in prompts:
        raise ValueError(f"prompt={wanted}: task {task} has none of this id; nearest is {nearest(wanted, list(prompts))}")
    return prompts[wanted or next(iter(prompts))]
