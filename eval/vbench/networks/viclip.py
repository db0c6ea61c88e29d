"""ViCLIP-L/14: the video side through the `vbench` package, the text side, which is CLIP's, through transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.clip import Clip, side
from eval.vbench.networks.interface import HEAD_CHANNELS, TextFeatures
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.vocabulary import SIZE, tokens
from eval.vbench.networks.weights import unit

FRAMES: Final = 8
CONTEXT: Final = 32
"""Most tokens of a sentence."""
VIDEO, TEXT = "vision_encoder.", "text_encoder."
"""Prefixes of the names of a published file's tensors, by side."""
Sizes = tuple[int, int, int, int, int, int]
"""Width, blocks and patch of the video side, width and blocks of the text side, joint width."""


class Viclip(VBenchNetwork):
    """Overall consistency: compares eight frames of a video with its sentence; from `ViClip-InternVid-10M-FLT.pth`, 1.7 GB."""

    name = "viclip"
    what = "ViCLIP"
    inside = "model"
    tiny: Sizes = (64, 1, 14, 64, 1, 32)
    true: Sizes = (1024, 24, 14, 768, 12, 768)

    @classmethod
    def size_of(cls, tensors: Mapping[str, Tensor], path: Path) -> Sizes:
        for name, axes in {
            f"{VIDEO}conv1.weight": 5, f"{VIDEO}proj": 2, f"{TEXT}token_embedding.weight": 2, f"{TEXT}text_projection": 2,
        }.items():  # fmt: skip
            if name not in tensors or tensors[name].ndim != axes:
                raise ValueError(f"{path} is not {cls.what}: it has no {name} of {axes} axes")
        first, projection = tensors[f"{VIDEO}conv1.weight"], tensors[f"{TEXT}text_projection"]
        blocks = [sum(name.startswith(start) and name.endswith("ln_1.weight") for name in tensors) for start in (VIDEO, TEXT)]
        return first.shape[0], blocks[0], first.shape[-1], projection.shape[0], blocks[1], projection.shape[1]

    @classmethod
    def build(cls, size: Sizes) -> nn.Module:
        """Both sides, as `video` and `text`."""
        width, blocks, patch_px, text_width, text_blocks, joint = size
        video = need("vbench.third_party.ViCLIP.viclip_vision", asked=cls.what).VisionTransformer(
            input_resolution=images.SIDE_PX,
            patch_size=patch_px,
            width=width,
            layers=blocks,
            heads=max(1, width // HEAD_CHANNELS),
            output_dim=joint,
            num_frames=FRAMES,
        )
        transformers = need("transformers", asked=cls.what)
        settings = side(text_width, text_blocks, joint) | {"vocab_size": SIZE, "max_position_embeddings": CONTEXT}
        text = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**settings))
        # The package leaves the projection uninitialised and the frames' positions zero.
        nn.init.normal_(video.get_parameter("proj"), std=width**-0.5)
        nn.init.normal_(video.get_parameter("temporal_positional_embedding"), std=0.02)
        return nn.ModuleDict({"video": video, "text": text})

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        if old.startswith(VIDEO):
            yield f"video.{old.removeprefix(VIDEO)}", value
        elif old.startswith(TEXT):
            yield from ((f"text.{name}", each) for name, each in Clip.names(old.removeprefix(TEXT), value))
        elif old != "temp":  # the temperature of its training
            yield old, value

    @torch.inference_mode()
    def video(self, frames: Frames) -> Vectors:
        """Unit feature [D] of eight frames [8, H, W, 3] in order. Raises ValueError for another number of frames, and for NaN."""
        if len(frames) != FRAMES:
            raise ValueError(f"{len(frames)} frames: ViCLIP looks at {FRAMES} of a video, the middles of as many equal parts")
        pixels = images.for_clip_in_bytes(frames, self.device).to(self.weight.dtype)
        # The package expects colours before time.
        features = self.network["video"](pixels.transpose(0, 1)[None].contiguous())
        return unit(features, self.name)[0]

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> TextFeatures:
        """Unit features of sentences, cut at 32 tokens. Raises ValueError if the vocabulary is not found."""
        rows, cut = tokens(prompts, CONTEXT, self.folder)
        features = self.network["text"](input_ids=rows.to(self.device)).text_embeds
        return TextFeatures(unit(features, self.name), cut)
