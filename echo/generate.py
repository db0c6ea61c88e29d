"""From prompts to blocks: scripts, text, noise and the rollout put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from echo.backbone.interface import VideoModel, features, latent_shape
from echo.cache.policy import Policy, held_frames, plans
from echo.noise import keyed_noise
from echo.rollout import Block, Rollout
from echo.routing import script_of
from echo.scene import Prompt, Script


def check(backbone: VideoModel, policy: Policy, prompt: Prompt) -> Script:
    """The prompt's script, refused with a ValueError where the policy or the text encoder cannot run it."""
    script = script_of(prompt, policy, partial(features, backbone.text))
    try:
        policy.check(backbone.geometry, script.blocks)
        backbone.text.check(prompt.scenes)
    except ValueError as error:
        raise ValueError(f"prompt {prompt.id!r}: {error}") from None
    return script


def generate(
    backbone: VideoModel, policy: Policy, prompts: Sequence[Prompt], seed: int, *, repeat_initial_noise: bool = False
) -> Iterator[Block]:
    """Blocks of a batch of prompts, as they are made; `repeat_initial_noise` as in `echo.noise.keyed_noise`.

    Raises ValueError where the prompts' scripts differ: their scenes must switch, and recall, together.
    """
    scripts = [check(backbone, policy, prompt) for prompt in prompts]
    script = scripts[0]
    for prompt, other in zip(prompts, scripts, strict=True):
        if other != script:
            raise ValueError(f"prompts {prompts[0].id!r} and {prompt.id!r} cannot share a batch: their scripts differ; nearest is batch=1")
    noise = keyed_noise(
        seed, [prompt.id for prompt in prompts], latent_shape(backbone.geometry),
        dtype=backbone.dtype, device=backbone.device, repeat_initial=repeat_initial_noise,
    )  # fmt: skip
    rollout = Rollout(
        backbone.network, policy, backbone.geometry, noise, batch=len(prompts), steps=backbone.schedule,
        attention=backbone.attention, shared_window=backbone.shared_window,
        capacity=held_frames(plans(policy, script, backbone.geometry)),
    )  # fmt: skip
    starts = {start.block: scene for scene, start in enumerate(script.starts)}
    for block in range(script.blocks):
        if block in starts:
            start = script.starts[starts[block]]
            text = backbone.text.encode([prompt.scenes[starts[block]] for prompt in prompts])
            rollout.switch(text.to(backbone.device, backbone.dtype), start.transition, start.recalls, start.jump)
        yield rollout.next()
