"""CLIP through transformers, from OpenAI's own files, with VBench's preprocessing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.interface import HEAD_CHANNELS, TextFeatures
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.vocabulary import SIZE, tokens
from eval.vbench.networks.weights import unit

CONTEXT: Final = 77
"""Most tokens of a sentence."""
Sizes = tuple[int, int, int, int, int]
"""Width and blocks of the image side, width and blocks of the text side, joint width."""

_NOT_WEIGHTS: Final = ("input_resolution", "context_length", "vocab_size")
_PLAIN: Final = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_TRANSPOSED: Final = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_NORMS: Final = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_IN_BLOCK: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK: Final = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")


class Clip(VBenchNetwork):
    """A CLIP from OpenAI's TorchScript archive, or from a file of its tensors by the same names; see `ClipB32` and `ClipL14`."""

    patch_px = 0
    tiny: Sizes = (64, 1, 64, 1, 32)

    @classmethod
    def size_of(cls, tensors: Mapping[str, Tensor], path: Path) -> Sizes:
        first = tensors.get("visual.conv1.weight")
        joint, words = tensors.get("text_projection"), tensors.get("token_embedding.weight")
        if first is None or joint is None or words is None:
            raise ValueError(f"{path} is not {cls.what}: it lacks its first layer, its words or its projection")
        if first.shape[-1] != cls.patch_px or len(words) != SIZE:
            raise ValueError(f"{path} is not {cls.what}: its patches are of {first.shape[-1]} px, its words {len(words)} of {SIZE}")
        ends = [name.startswith("visual.") for name in tensors if name.endswith("ln_1.weight")]
        return first.shape[0], sum(ends), joint.shape[0], len(ends) - sum(ends), joint.shape[1]

    @classmethod
    def build(cls, size: Sizes) -> nn.Module:
        transformers = need("transformers", asked=cls.name)
        width, blocks, text_width, text_blocks, joint = size
        text = side(text_width, text_blocks, joint) | {"vocab_size": SIZE, "max_position_embeddings": CONTEXT}
        image = side(width, blocks, joint) | {"patch_size": cls.patch_px, "image_size": images.SIDE_PX}
        config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=joint)
        network: nn.Module = transformers.CLIPModel(config)
        return network

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        norm, _, kind = old.rpartition(".")
        block = BLOCK.fullmatch(old)
        if old in _NOT_WEIGHTS:
            return
        if old in _PLAIN:
            yield _PLAIN[old], value
        elif old in _TRANSPOSED:
            yield _TRANSPOSED[old], value.T
        elif norm in _NORMS:
            yield f"{_NORMS[norm]}.{kind}", value
        elif block is None:
            yield old, value
        else:
            start, part = f"{'vision' if block[1] else 'text'}_model.encoder.layers.{block[2]}", block[3]
            if part == "attn.in_proj":  # query, key and value in one
                yield from ((f"{start}.self_attn.{letter}_proj.{block[4]}", third) for letter, third in zip("qkv", value.chunk(3)))
            else:
                yield f"{start}.{_IN_BLOCK.get(part, part)}.{block[4]}", value

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames, resized in floats, for background and aesthetic quality. Raises ValueError for NaN."""
        return self._features(images.for_clip(frames, self.device))

    @torch.inference_mode()
    def images_bytes(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames, resized in bytes, for VBench's clip score. Raises ValueError for NaN."""
        return self._features(images.for_clip_in_bytes(frames, self.device))

    def _features(self, pixels: Tensor) -> Vectors:
        features = self.network.get_image_features(pixel_values=pixels.to(self.network.dtype)).pooler_output
        return unit(features, self.name)

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> TextFeatures:
        """Unit features of sentences, cut at 77 tokens. Raises ValueError if the vocabulary is not found."""
        rows, cut = tokens(prompts, CONTEXT, self.folder)
        features = self.network.get_text_features(input_ids=rows.to(self.device)).pooler_output
        return TextFeatures(unit(features, self.name), cut)


class ClipB32(Clip):
    """ViT-B/32: background consistency and text alignment."""

    name = "clip_b32"
    what = "OpenAI's CLIP with patches of 32 px"
    patch_px = 32
    true: Sizes = (768, 12, 512, 12, 512)


class ClipL14(Clip):
    """ViT-L/14: features for the aesthetic head."""

    name = "clip_l14"
    what = "OpenAI's CLIP with patches of 14 px"
    patch_px = 14
    true: Sizes = (1024, 24, 768, 12, 768)


def side(width: int, blocks: int, joint: int) -> dict[str, int | str]:
    """Settings of either side of a CLIP, by transformers' names. joint: width of the joint features."""
    return {
        "hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "intermediate_size": 4 * width, "hidden_act": "quick_gelu", "projection_dim": joint,
    }  # fmt: skip
