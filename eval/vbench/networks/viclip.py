"""ViCLIP-L/14: the video side through the `vbench` package, the text side, which is CLIP's, through transformers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.clip import block_names
from eval.vbench.networks.interface import Text
from eval.vbench.networks.packages import need
from eval.vbench.networks.vocabulary import SIZE, Tokenizer, find
from eval.vbench.networks.weights import Tensors, answer, choose_size, digest, drawn, fill, read, ready

FRAMES: Final = 8
CONTEXT: Final = 32
HEAD: Final = 64
"""Channels of an attention head."""

_WHAT: Final = "ViCLIP"
_TEXT: Final = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
_BLOCK: Final = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")

Sizes = tuple[int, int, int, int, int, int]
"""Width, blocks and patch of the video side, width and blocks of the text side, joint width."""


class Viclip:
    """Overall consistency: eight frames of a video against its sentence."""

    name = "viclip"

    def __init__(self, vision: nn.Module, words: nn.Module, identity: str, dtype: str, vocabulary: Path | None) -> None:
        self.vision: Any = vision
        self.words: Any = words
        self.identity = identity
        self.dtype = dtype
        self._vocabulary = vocabulary

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Viclip:
        """From `ViClip-InternVid-10M-FLT.pth`.

        Raises ValueError naming the file, if it is not there, not readable or another network's.
        """
        identity, tensors = f"sha256 {digest(path)}", read(path, inside="model")
        seen, said = _part(tensors, "vision_encoder."), _part(tensors, "text_encoder.")
        strange = [name for name in tensors if not name.startswith(("vision_encoder.", "text_encoder.")) and name != "temp"]
        if strange or not seen or not said:
            raise ValueError(f"{path} is not {_WHAT}: {strange[0] if strange else 'a side'} is {'unknown' if strange else 'missing'}")
        sizes = _sizes(seen, said, path)
        with drawn(0):
            vision, words = _vision(sizes), _words(sizes)
        fill(vision, seen, what=f"{_WHAT}'s video side", path=path)
        fill(words, dict(row for name, value in said.items() for row in _names(name, value)), what=f"{_WHAT}'s text side", path=path)
        return cls(ready(vision, dtype, device), ready(words, dtype, device), identity, dtype, path.parent)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Viclip:
        """With random weights; size "true" as published (1.7 GB), "tiny" a block each side. Raises ValueError for another size."""
        sizes = (64, 1, 14, 64, 1, 32) if choose_size(size) else (1024, 24, 14, 768, 12, 768)
        with drawn(seed):
            vision, words = _vision(sizes), _words(sizes)
            # The package leaves the projection as uninitialised memory, and the frames' positions zero.
            nn.init.normal_(vision.get_parameter("proj"), std=sizes[0] ** -0.5)
            nn.init.normal_(vision.get_parameter("temporal_positional_embedding"), std=0.02)
        return cls(ready(vision, dtype, device), ready(words, dtype, device), f"random {size} seed {seed}", dtype, None)

    @torch.inference_mode()
    def video(self, frames: Frames) -> Vectors:
        """Unit feature [D] of eight frames [8, H, W, 3] in order. Raises ValueError for another number of frames, and for NaN."""
        if len(frames) != FRAMES:
            raise ValueError(f"{len(frames)} frames: ViCLIP looks at {FRAMES} of a video, the middles of as many equal parts")
        weight = self.vision.conv1.weight
        pixels = images.for_clip_in_bytes(frames, weight.device).to(weight.dtype)
        # The package wants colours before time.
        found = self.vision(pixels.transpose(0, 1)[None].contiguous())
        return answer(F.normalize(found.float(), dim=-1), self.name)[0]

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> Text:
        """Unit features of sentences, cut at 32 tokens. Raises ValueError where the word pieces are not to be found."""
        tokens, cut = Tokenizer(find(self._vocabulary))(prompts, CONTEXT)
        found = self.words(input_ids=tokens.to(self.words.device)).text_embeds
        return Text(answer(F.normalize(found.float(), dim=-1), self.name), cut)


def _part(tensors: Mapping[str, Tensor], start: str) -> Tensors:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _sizes(seen: Mapping[str, Tensor], said: Mapping[str, Tensor], path: Path) -> Sizes:
    """Sizes that a file's tensors have. Raises ValueError naming what a ViCLIP has and the file lacks."""
    needed = {"conv1.weight": (seen, 5), "proj": (seen, 2), "token_embedding.weight": (said, 2), "text_projection": (said, 2)}
    for name, (side, axes) in needed.items():
        if name not in side or side[name].ndim != axes:
            raise ValueError(f"{path} is not {_WHAT}: it has no {name} of {axes} axes")
    first, projection = seen["conv1.weight"], said["text_projection"]
    blocks = [sum(name.endswith("ln_1.weight") for name in side) for side in (seen, said)]
    return first.shape[0], blocks[0], first.shape[-1], projection.shape[0], blocks[1], projection.shape[1]


def _vision(sizes: Sizes) -> nn.Module:
    arch = need("vbench.third_party.ViCLIP.viclip_vision", asked=_WHAT)
    width, blocks, patch_px, _, _, joint = sizes
    network: nn.Module = arch.VisionTransformer(
        input_resolution=images.SIDE_PX,
        patch_size=patch_px,
        width=width,
        layers=blocks,
        heads=max(1, width // HEAD),
        output_dim=joint,
        num_frames=FRAMES,
    )
    return network


def _words(sizes: Sizes) -> nn.Module:
    transformers = need("transformers", asked=_WHAT)
    _, _, _, width, blocks, joint = sizes
    config = transformers.CLIPTextConfig(
        vocab_size=SIZE,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=max(1, width // HEAD),
        max_position_embeddings=CONTEXT,
        projection_dim=joint,
        hidden_act="quick_gelu",
    )
    network: nn.Module = transformers.CLIPTextModelWithProjection(config)
    return network


def _names(old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The package's name of a text tensor to transformers'; one that is unknown stays, to be complained of."""
    block = _BLOCK.fullmatch(old)
    if block is not None and not block[1]:
        yield from block_names("text_model", block, value)
    else:
        yield _TEXT.get(old, old), value.T if old == "text_projection" else value
