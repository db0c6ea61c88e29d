"""The embedded encoder, the counterpart of VBench's DINO and CLIP for frames of the embedded world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn
from torch.utils._pytree import tree_map

from data.world.render import LANDMARK_RGB, PERIOD, SIZE
from data.world.words import LIGHT, SAYABLE
from echo.backbone.parts.text import WordEncoder
from echo.backbone.parts.words import Vocabulary

SUBJECT_DIM = 64
WORDS_DIM = 48
"""The part of a place's vector that prompts determine; the rest is the place's identity."""
GRID = SIZE // PERIOD
CELLS = GRID**2
LANDMARKS = tuple(sorted(LANDMARK_RGB))
"""Colours of landmarks in the order of the heads; class 0 of a cell is none, class 1 the first of these."""
ANGLES = ("down", "right", "sum", "difference")
"""Shifts of a pattern, as angles in its period."""
SHOWN = {"plain": (), "striped": ("right",), "checked": ("sum", "difference"), "dotted": ("down", "right")}
"""Angles that a pattern shows: stripes are vertical, and a chequerboard shifted by half a period both ways is unchanged."""
SURFACE = 1 + 2 * len(ANGLES)
"""Hue, then the cosines of the angles, then their sines."""
JOINT_DIM = 64
VISIBLE = ("colour", "shape", "place", "pattern")
"""Kinds of words that a single frame shows (all but motion)."""
BATCH = 48
"""Frames a pass: what four blocks leave stays in a core's cache, and a larger batch takes half as long again, for the same bytes."""
STRIDE = 4
"""Side in pixels of a position of the fine map."""
FINE = SIZE // STRIDE
WIDTH = 64
SHARPNESS = 16.0
"""Scale from cosines to class scores."""


class Features(NamedTuple):
    """Unit vectors of frames: subject [N, 64], place [N, 121], joint with text [N, 64]."""

    subject: Tensor
    place: Tensor
    joint: Tensor


class Seen(NamedTuple):
    """All outputs of the encoder for N frames.

    words: kind -> scores of its words [N, K], also of the light if the encoder reads lights. cells [N, 16, 5]: scores of each cell's
    content, none or a colour of LANDMARKS; [N, 16, 6] with darkness last if it reads lights. surface [N, 9]: hue, cosines and sines of
    ANGLES. centre [N, 4]: cosines, then sines, of the subject's (x, y) as angles around the frame, shorter than 1 if the position is
    uncertain.
    """

    features: Features
    words: dict[str, Tensor]
    cells: Tensor
    surface: Tensor
    centre: Tensor


def _conv(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    """Convolution with circular padding, since the world wraps around, normalised and rectified."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode="circular", bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _head(inputs: int, outputs: int, hidden: int = 128) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


class FrameEncoder(nn.Module):
    """A small convolutional network with a few heads, and a bag of words for the text.

    The trunk gives a map of 12x12 positions. The subject is read where the *where* head sees it, and from the map's
    maxima; the place from means and maxima over the map; hue and shift from the map laid over itself cell by cell (a cell
    is one period wide); a landmark from its own cell. The joint head knows what a sentence can say of one frame.
    """

    circle: Tensor
    shown: Tensor

    def __init__(self, vocabulary: Vocabulary, lit: bool = False) -> None:
        """lit: whether it is to tell one light from another, and what is dark from what is empty."""
        super().__init__()
        self.trunk = nn.Sequential(_conv(3, 24, 5, 2), _conv(24, 48, 3, 2), _conv(48, WIDTH, 3, 1), _conv(WIDTH, WIDTH, 3, 1))
        self.where = nn.Conv2d(WIDTH, 1, 1)
        self.subject, self.place = _head(2 * WIDTH, SUBJECT_DIM), _head(2 * WIDTH, WORDS_DIM)
        self.surface = _head(WIDTH * (FINE // GRID) ** 2, SURFACE, 64)
        self.joint = _head(3 * WIDTH, JOINT_DIM)
        self.landmarks = nn.Sequential(
            nn.Conv2d(WIDTH, 96, FINE // GRID, FINE // GRID), nn.ReLU(inplace=True), nn.Conv2d(96, 1 + len(LANDMARKS) + lit, 1)
        )
        self.words = WordEncoder(vocabulary, JOINT_DIM)
        self.said = _head(JOINT_DIM, JOINT_DIM)
        sizes = {"colour": SUBJECT_DIM, "shape": SUBJECT_DIM, "place": WORDS_DIM, "pattern": WORDS_DIM}
        sizes |= {LIGHT: WORDS_DIM} if lit else {}
        self.prototypes = nn.ParameterDict({kind: nn.Parameter(torch.randn(len(SAYABLE[kind]), size)) for kind, size in sizes.items()})
        angle = (STRIDE * torch.arange(FINE) + (STRIDE - 1) / 2) * (2 * torch.pi / SIZE)
        self.register_buffer("circle", torch.stack([angle.cos(), angle.sin()], dim=1), persistent=False)
        shown = torch.tensor([[float(angle in SHOWN[pattern]) for angle in ANGLES] for pattern in SAYABLE["pattern"]])
        self.register_buffer("shown", shown, persistent=False)

    def forward(self, frames: Tensor) -> Seen:
        """Outputs for `frames` float [N, 3, 48, 48] in 0..255."""
        fine = self.trunk(frames / 127.5 - 1.0)
        weight = self.where(fine).flatten(1).softmax(1)
        mean, largest = fine.mean((2, 3)), fine.amax((2, 3))
        there = torch.einsum("nchw,nhw->nc", fine, weight.view(-1, FINE, FINE))
        subject = fn.normalize(self.subject(torch.cat([there, largest], 1)), dim=-1)
        told = fn.normalize(self.place(torch.cat([mean, largest], 1)), dim=-1)
        joint = fn.normalize(self.joint(torch.cat([there, mean, largest], 1)), dim=-1)
        side = FINE // GRID
        overlaid = fine.view(-1, WIDTH, GRID, side, GRID, side).mean((2, 4))
        surface = self.surface(overlaid.flatten(1))
        cells = self.landmarks(fine).flatten(2).transpose(1, 2)
        vectors = {"colour": subject, "shape": subject, "place": told, "pattern": told, LIGHT: told}
        words = {
            kind: SHARPNESS * vectors[kind] @ fn.normalize(self.prototypes[kind], dim=-1).T
            for kind in (*VISIBLE, LIGHT)[: len(self.prototypes)]
        }
        place = self._place(told, cells, surface, words["pattern"])
        return Seen(Features(subject, place, joint), words, cells, surface, self._centre(weight.view(-1, FINE, FINE)))

    def _place(self, told: Tensor, cells: Tensor, surface: Tensor, patterns: Tensor) -> Tensor:
        """Two unit halves, so that two places of the same words have a cosine of about a half."""
        seen = (patterns.softmax(-1) @ self.shown).repeat(1, 2)
        own = torch.cat([cells.softmax(-1)[..., 1 : 1 + len(LANDMARKS)].flatten(1), surface[:, :1], surface[:, 1:] * seen], dim=-1)
        return torch.cat([told, fn.normalize(own, dim=-1)], dim=-1) / 2**0.5

    def _centre(self, weight: Tensor) -> Tensor:
        """Mean of the positions [N, 12, 12] as points on a circle, by columns and rows, since the world wraps around."""
        across, down = weight.sum(1) @ self.circle, weight.sum(2) @ self.circle
        return torch.stack([across[:, 0], down[:, 0], across[:, 1], down[:, 1]], dim=1)

    def text(self, rows: Tensor) -> Tensor:
        """Unit vectors [B, 64] of sentences given as rows of `words` [B, 8]."""
        return fn.normalize(self.said(self.words(rows).sum(1)), dim=-1)

    @torch.inference_mode()
    def frames(self, frames: Tensor) -> Seen:
        """Outputs for video frames uint8 [T, 48, 48, 3], in batches."""
        parts = [self(part.permute(0, 3, 1, 2).float()) for part in frames.split(BATCH)]
        seen: Seen = tree_map(lambda *tensors: torch.cat(tensors), *parts)
        return seen

    @torch.inference_mode()
    def sentences(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors [B, 64] of `sentences`. Raises ValueError for an unknown word, with the nearest known ones."""
        return self.text(self.words.rows(sentences))

    def save(self) -> dict[str, Tensor]:
        """All tensors in half precision, the vocabulary as bytes."""
        weights = {name: value.detach() for name, value in self.state_dict().items() if not name.startswith("words.")}
        weights |= {f"words.{name}": value for name, value in self.words.save().items()}
        return {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in weights.items()}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> FrameEncoder:
        """The encoder that `save` wrote, frozen, in single precision."""
        tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        words = WordEncoder.load({name.removeprefix("words."): value for name, value in tensors.items() if name.startswith("words.")})
        encoder = cls(words.vocabulary, f"prototypes.{LIGHT}" in tensors)
        encoder.words = words
        rest = {name: value for name, value in tensors.items() if not name.startswith("words.")}
        encoder.load_state_dict(rest | {"words.embedding.weight": words.embedding.weight})
        return encoder.requires_grad_(False).eval()
