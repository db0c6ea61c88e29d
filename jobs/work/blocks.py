"""Blocks of video as they are made: rolled out by a backbone, or rendered for a calibration row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from data.world.film import Render
from echo.scene import FRAMES_PER_BLOCK, Prompt
from jobs.spec.plan import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from echo.backbone.interface import Stream, VideoModel
    from echo.rollout import Block


@dataclass(frozen=True)
class MadeBlock:
    """One block of each wanted prompt.

    content: the bytes that enter the video's hash, latents or frames. frames: decodes uint8 [T, H, W, 3] of each; call it once and
    in order, since a codec may keep state.
    plan: the block's line of the trace. kept: frames in the store after the block; attended: frames that a head attended to on
    average; both 0 for rendered blocks.
    """

    index: int
    scene: int
    content: Callable[[], list[bytes]]
    frames: Callable[[], Sequence[NDArray[np.uint8]]]
    plan: Mapping[str, Any]
    kept: int = 0
    attended: float = 0


def blocks(job: Job, backbone: VideoModel | None, group: Sequence[Prompt], wanted: Sequence[Prompt]) -> Iterator[MadeBlock]:
    """All blocks of a batch; `backbone` is None for rendered jobs."""
    if job.rendered:
        return _rendered(job, wanted)
    assert backbone is not None
    return _rolled(job, backbone, group, [group.index(prompt) for prompt in wanted])


def _rolled(job: Job, backbone: VideoModel, group: Sequence[Prompt], rows: list[int]) -> Iterator[MadeBlock]:
    from echo.generate import generate

    stream = backbone.codec.stream()
    for block in generate(backbone, job.policy, group, job.config.seed, repeat_initial_noise=job.config.noise.repeat_initial):
        yield developed(block, rows, stream)


def developed(block: Block, rows: list[int], stream: Stream) -> MadeBlock:
    """The made block of a rollout's block, for the batch's `rows`; `stream` decodes its frames on demand.

    Raises ValueError for latents that are not finite, as `frames` does for pixels; the message names the block and the part.
    """
    from echo.backbone.finite import Finite

    kept = block.latents[rows].float().cpu()  # waits until the device has finished the block
    latents = Finite()
    latents.see(kept)
    if not latents:
        raise ValueError(f"block {block.index}: the network's latents are not finite (NaN or infinity), so there is no video")

    def frames() -> list[NDArray[np.uint8]]:
        decoded = list(stream.decode(block.latents)[rows].cpu().numpy())
        if not stream.finite:  # costs no further wait, since the block's frames are on the host
            raise ValueError(f"block {block.index}: the codec's pixels are not finite (NaN or infinity), so there is no video")
        return decoded

    return MadeBlock(
        block.index,
        block.scene,
        lambda: [row.contiguous().numpy().tobytes() for row in kept],
        frames,
        block.plan.as_json(),
        block.kept,
        block.attended,
    )


def _rendered(job: Job, wanted: Sequence[Prompt]) -> Iterator[MadeBlock]:
    policy, size = cast(Render, job.policy), job.block_frames
    scenes = [scene for scene, blocks in enumerate(job.lengths(wanted[0])) for _ in range(blocks)]
    latents = job.config.backbone.frames_per_block
    films = [policy.film(prompt, job.config.seed, latents) for prompt in wanted]
    told = {} if latents == FRAMES_PER_BLOCK else {"frames": latents}  # a block without queries is of three, unless it says so
    for index, scene in enumerate(scenes):
        part = [film[index * size : (index + 1) * size] for film in films]
        plan = {"block": index, "scene": scene, "keys": [], "queries": []} | told
        yield MadeBlock(index, scene, lambda part=part: [frames.tobytes() for frames in part], lambda part=part: part, plan)  # type: ignore[misc]
