"""Figs 4 and 10 in numbers: the candidates of a scene's recall frame, and how an old scene's memory fades.

Read from the method's own memory while it runs; nothing is computed again.

Shapes: L layers, M candidate frames, R blocks, T old frames, S tokens of a frame, h w the token grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn

from echo.backbone.interface import VideoModel
from echo.cache.plan import Plan
from echo.cache.policy import Policy
from echo.generate import check, generate
from echo.geometry import Geometry
from echo.memory import recall
from echo.memory.settings import EchoSettings, Fusion
from echo.memory.state import EchoMemory
from echo.policy import settings_of
from echo.rollout import Block, Rollout
from echo.scene import Prompt, Script, Transition
from eval.figures.mosaic import native

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class RecallSource:
    """Recall frame of one scene. frames: its candidates, counted from the video's first latent frame.

    alpha: weights of eq. (8) [L, M, S]. shares: share of each candidate in the recall frame, after the blend with the first one,
    [L, M, S]. likeness: by way of keeping one frame, the mean cosine of its keys with those of the scene's candidates.
    """

    scene: int
    frames: tuple[int, ...]
    alpha: Tensor
    shares: Tensor
    likeness: dict[str, float]


@dataclass(frozen=True)
class Fade:
    """The old memory after a switch. sources: its frames, as the plan names them. weights: [R, L, T, S] of each block,
    until the memory is dropped."""

    scene: int
    transition: Transition
    block: int
    sources: tuple[str, ...]
    weights: Tensor


@dataclass(frozen=True)
class RecordedFilm:
    """A rollout. frames: uint8 [F, H, W, 3], one for each latent frame. starts: first block of each scene, and the end. plans: of all
    blocks."""

    prompt: str
    frames: Images
    starts: tuple[int, ...]
    sources: list[RecallSource]
    fades: list[Fade]
    geometry: Geometry
    plans: tuple[Plan, ...] = ()

    def middle(self, scene: int) -> Images:
        """The scene's middle frame."""
        first, end = self.starts[scene], self.starts[scene + 1]
        return np.asarray(self.frames[(first + end) * self.geometry.frames_per_block // 2], dtype=np.uint8)

    def grid(self, values: Tensor) -> NDArray[np.float64]:
        """Values of tokens [..., S] as maps [..., h, w]."""
        return values.double().unflatten(-1, (self.geometry.grid_height, self.geometry.grid_width)).numpy()


def film(backbone: VideoModel, policy: Policy, prompt: Prompt, seed: int, scenes: int) -> RecordedFilm:
    """Roll out the first scenes of a prompt and read the memory at every switch.

    Raises:
        ValueError: for a policy without this memory, or without recall frames, or a prompt with fewer scenes.
    """
    settings = settings_of(policy)
    if settings is None or settings.recall_frame.fusion is Fusion.none:
        raise ValueError(f"{policy.label or type(policy).__name__} keeps no recall frames; nearest is method=echo")
    if not 1 <= scenes <= len(prompt.scenes):
        raise ValueError(
            f"scenes={scenes}: prompt {prompt.id} has {len(prompt.scenes)}; nearest is {min(max(1, scenes), len(prompt.scenes))}"
        )
    script, rollouts = check(backbone, policy, prompt), list[Rollout]()
    starts = (*(start.block for start in script.starts), script.blocks)[: scenes + 1]
    stream, pictures = backbone.codec.stream(), list[Images]()
    sources, fades, traced = list[RecallSource](), dict[int, list[Tensor]](), list[Plan]()
    with torch.inference_mode():
        for block in generate(backbone, policy, [prompt], seed, watch=rollouts.append):
            memory = rollouts[0].memory
            assert isinstance(memory, EchoMemory)
            traced.append(block.plan)
            size = len(block.plan.queries)
            decoded = stream.decode(block.latents)[0].cpu().numpy()
            pictures += list(map(native, decoded[-(len(decoded) // size) * size :: len(decoded) // size][-size:]))
            _fade(memory, settings, script, block, fades)
            if block.index + 1 in starts:
                sources.append(_source(memory, settings, script, block.scene, starts))
            if block.index + 1 == starts[-1]:
                break
    return RecordedFilm(prompt.id, np.stack(pictures), starts, sources, _fades(fades, script, settings), backbone.geometry, tuple(traced))


def _fade(memory: EchoMemory, settings: EchoSettings, script: Script, block: Block, weights_by_scene: dict[int, list[Tensor]]) -> None:
    """Record the weights of the block; the memory already has those of the next one."""
    start, tokens = script.starts[block.scene], memory.geometry.tokens_per_frame
    if not block.plan.faded or start.transition is None:
        return
    if block.index == start.block:
        shape = (memory.geometry.layers, block.plan.faded, tokens)
        weights_by_scene[block.scene] = [torch.full(shape, settings.fading(start.transition).weight)]
    after = torch.stack([one[0] for one in memory.fade if one is not None])
    weights_by_scene[block.scene].append(after.float().cpu().unflatten(1, (block.plan.faded, tokens)))


def _fades(weights_by_scene: dict[int, list[Tensor]], script: Script, settings: EchoSettings) -> list[Fade]:
    made = []
    for scene, weights in weights_by_scene.items():
        start = script.starts[scene]
        assert start.transition is not None
        attended = weights[:-1]  # the weights after the last block were never used
        recent = settings.fading(start.transition).old_recent
        recalled = ("recall frame", "scene just left")[: attended[0].shape[1] - recent]
        names = (*recalled, *(f"{back} before" for back in range(recent, 0, -1)))
        made.append(Fade(scene, start.transition, start.block, names, torch.stack(attended)))
    return made


def _source(memory: EchoMemory, settings: EchoSettings, script: Script, scene: int, starts: Sequence[int]) -> RecallSource:
    """The weights with which the next switch fuses, and the similarity of single frames."""
    size = memory.geometry.frames_per_block
    first, end = starts[scene] * size, starts[scene + 1] * size
    frames = [first + frame for frame in settings.recall_frame.candidates(end - first)]
    held = [frame for frame in range(first, end) if memory.store.holds(frame)]
    alphas, shares, likeness = [], [], {name: list[float]() for name in ("first", "crucial", "fused", "kept")}
    for layer in range(memory.geometry.layers):
        keys, all_keys = (memory.store.frames(layer, some)[0] for some in (frames, held))
        alpha = memory.candidate_weights(layer, keys)
        base = settings.recall_frame.base_weight
        alphas.append(alpha[0])
        shares.append((1 - base) * alpha[0])
        shares[-1][0] += base
        ways = {
            "first": recall.fuse(keys, alpha, 1.0), "crucial": recall.fuse(keys, recall.crucial(alpha), 0.0),
            "fused": recall.fuse(keys, alpha, 0.0), "kept": recall.fuse(keys, alpha, base),
        }  # fmt: skip
        for name, fused in ways.items():
            near = fn.cosine_similarity(all_keys.flatten(-2).float(), fused.flatten(-2).float().unsqueeze(1), dim=-1)
            likeness[name].append(float(near.mean()))
    means = {name: sum(values) / len(values) for name, values in likeness.items()}
    return RecallSource(scene, tuple(frames), torch.stack(alphas).cpu(), torch.stack(shares).cpu(), means)
