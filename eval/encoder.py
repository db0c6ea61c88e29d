"""The embedded encoder: what DINO and CLIP are to VBench, for frames of the small world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from echo.backbone.text import WordEncoder
from echo.backbone.words import Vocabulary

SIZE = 32
SUBJECT_DIM = 64
WORDS_DIM = 48
"""The part of a place's vector that prompts speak of; the rest is the place's own identity."""
CELLS = 16
LANDMARK_COLOURS = 4
SURFACE = 5
"""Hue, then cosine and sine of the pattern's shift down and right."""
PLACE_DIM = WORDS_DIM + CELLS * LANDMARK_COLOURS + SURFACE
JOINT_DIM = 64
BATCH = 240


class Features(NamedTuple):
    """Unit vectors of frames: subject [N, 64], place [N, 117], joint with text [N, 64]."""

    subject: Tensor
    place: Tensor
    joint: Tensor


def _head(size: int) -> nn.Sequential:
    """From the trunk's 4x4 cells to one vector of `size`."""
    return nn.Sequential(nn.Flatten(), nn.Linear(96 * CELLS, 256), nn.ReLU(), nn.Linear(256, size))


class FrameEncoder(nn.Module):
    """A small convolutional network with a few heads, and a bag of words for the text.

    The subject head knows shape and colour. A place's vector has two halves: colour and pattern, which sentences say, and
    its own identity (which landmark in which cell, hue, phase), which they do not. The joint head knows what a sentence
    can say of one frame.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(64, 96, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.subject, self.joint = _head(SUBJECT_DIM), _head(JOINT_DIM)
        self.place, self.surface = _head(WORDS_DIM), _head(SURFACE)
        self.landmarks = nn.Conv2d(96, 1 + LANDMARK_COLOURS, 1)
        self.words = WordEncoder(vocabulary, JOINT_DIM)
        self.said = nn.Sequential(nn.Linear(JOINT_DIM, 128), nn.ReLU(), nn.Linear(128, JOINT_DIM))

    def forward(self, frames: Tensor) -> Features:
        """Features of `frames` float [N, 3, 32, 32] in 0..255."""
        return self.features(self.trunk(frames / 127.5 - 1.0))

    def features(self, hidden: Tensor) -> Features:
        """Features of the trunk's output [N, 96, 4, 4]."""
        held = self.cells(hidden).softmax(-1)[..., 1:].flatten(1)
        own = torch.cat([held, self.surface(hidden)], dim=-1)
        # Two unit halves: a place of the same words that is another place comes to a cosine of about a half.
        halves = [fn.normalize(self.place(hidden), dim=-1), fn.normalize(own, dim=-1)]
        subject, joint = (fn.normalize(head(hidden), dim=-1) for head in (self.subject, self.joint))
        return Features(subject, torch.cat(halves, dim=-1) / 2**0.5, joint)

    def cells(self, hidden: Tensor) -> Tensor:
        """Scores of what each cell of the coarse grid holds, nothing or a colour: [N, 16, 5] of the trunk's output."""
        return self.landmarks(hidden).flatten(2).transpose(1, 2)

    def text(self, rows: Tensor) -> Tensor:
        """Unit vectors [B, 64] of sentences given as rows of `words` [B, 8]."""
        return fn.normalize(self.said(self.words(rows).sum(1)), dim=-1)

    @torch.inference_mode()
    def frames(self, frames: Tensor) -> Features:
        """Features of video frames uint8 [T, 32, 32, 3], in batches."""
        parts = [self(part.permute(0, 3, 1, 2).float()) for part in frames.split(BATCH)]
        return Features(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    @torch.inference_mode()
    def sentences(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors [B, 64] of `sentences`; ValueError names an unknown word and the nearest known ones."""
        return self.text(self.words.rows(sentences))

    def save(self) -> dict[str, Tensor]:
        """All tensors, the vocabulary included."""
        weights = {name: value.detach().contiguous() for name, value in self.state_dict().items() if not name.startswith("words.")}
        return weights | {f"words.{name}": value for name, value in self.words.save().items()}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> FrameEncoder:
        """The encoder that `save` wrote, frozen."""
        words = WordEncoder.load({name.removeprefix("words."): value for name, value in tensors.items() if name.startswith("words.")})
        encoder = cls(words.vocabulary)
        encoder.words = words
        rest = {name: value for name, value in tensors.items() if not name.startswith("words.")}
        encoder.load_state_dict(rest | {"words.embedding.weight": words.embedding.weight})
        return encoder.requires_grad_(False).eval()
