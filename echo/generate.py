"""From prompts to blocks: scripts, text, noise and the rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from echo.backbone.interface import VideoModel, latent_shape, reader
from echo.cache.policy import Policy, held_frames, plans, script_of
from echo.noise import keyed_noise
from echo.rollout import Block, Rollout
from echo.scene import Prompt, Script


def check(backbone: VideoModel, policy: Policy, prompt: Prompt) -> Script:
    """The prompt's script. Raises ValueError if the policy or the text encoder cannot run it."""
    try:
        script = script_of(prompt, policy, backbone.geometry.frames_per_block, reader(backbone.text))
        policy.check(backbone.geometry, script.blocks)
        backbone.text.check(prompt.scenes)
    except ValueError as error:
        raise ValueError(f"prompt {prompt.id!r}: {error}") from None
    return script


def begin(
    backbone: VideoModel, policy: Policy, ids: Sequence[str], seed: int, *,
    repeat_initial_noise: bool = False, capacity: int | None = None,
) -> Rollout:  # fmt: skip
    """A rollout before its first scene, with the noise of the prompts with these ids; `capacity` as in `Rollout`."""
    noise = keyed_noise(
        seed, ids, latent_shape(backbone.geometry),
        dtype=backbone.dtype, device=backbone.device, repeat_initial=repeat_initial_noise,
    )  # fmt: skip
    return Rollout(
        backbone.network, policy, backbone.geometry, noise, batch=len(ids), steps=backbone.schedule,
        attention=backbone.attention, shared_window=backbone.shared_window, capacity=capacity,
    )  # fmt: skip


def generate(
    backbone: VideoModel, policy: Policy, prompts: Sequence[Prompt], seed: int, *,
    repeat_initial_noise: bool = False, watch: Callable[[Rollout], None] | None = None,
) -> Iterator[Block]:  # fmt: skip
    """Blocks of a batch of prompts, as they are made; `repeat_initial_noise` as in `echo.noise.keyed_noise`.

    watch: called with the rollout before its first block, for example `echo.recording.Recorder.watch`.

    Raises ValueError if the prompts' scripts differ, since their scenes must switch and recall together.
    """
    scripts = [check(backbone, policy, prompt) for prompt in prompts]
    script = scripts[0]
    for prompt, other in zip(prompts, scripts, strict=True):
        if other != script:
            raise ValueError(f"prompts {prompts[0].id!r} and {prompt.id!r} cannot share a batch: their scripts differ; nearest is batch=1")
    rollout = begin(
        backbone, policy, [prompt.id for prompt in prompts], seed, repeat_initial_noise=repeat_initial_noise,
        capacity=held_frames(plans(policy, script, backbone.geometry)),
    )  # fmt: skip
    if watch is not None:
        watch(rollout)
    starts = {start.block: scene for scene, start in enumerate(script.starts)}
    for block in range(script.blocks):
        if block in starts:
            start = script.starts[starts[block]]
            text = backbone.text.encode([prompt.scenes[starts[block]] for prompt in prompts])
            rollout.switch(text.to(backbone.device, backbone.dtype), start.transition, start.recalls, start.jump)
        yield rollout.next()
