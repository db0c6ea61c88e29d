"""Sizes of the parts of a Wan2.1 backbone: parameters, caches and peak memory of a forward pass. No torch.

Counts of parameters and of caches are exact. The peak of a forward pass is an estimate: the sum of the tensors that are alive
together at the peak; a kernel's workspace and an allocator's rounding come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from echo.backbone import sizes
from echo.backbone.sizes import CELL_PX, WanConfig
from echo.geometry import PATCH, Geometry

BYTES = {"float32": 4, "bfloat16": 2}
FLOAT = 4
"""Bytes of fp32, in which rotations, norms and statistics are computed whatever the network's dtype."""


class TextMemory(sizes.TextSizes):
    """Memory of a UMT5 encoder of these sizes."""

    @property
    def parameters(self) -> int:
        """Parameters of the encoder with its embedding table; every layer has its own position bias."""
        inner = self.heads * self.head_dim
        layer = 4 * self.width * inner + 3 * self.width * self.ffn + 2 * self.width + self.buckets * self.heads
        return self.vocabulary * self.width + self.layers * layer + self.width

    def work(self, rows: int, item: int) -> int:
        """Peak bytes of a forward pass over `rows` tokens: a layer's scores in fp32 twice (with their softmax), and its MLP."""
        scores = 2 * self.heads * rows * rows * FLOAT + self.heads * rows * rows * item
        mlp = 3 * rows * self.ffn * item
        return 3 * rows * self.width * FLOAT + max(scores, mlp)


def network_parameters(c: WanConfig) -> int:
    """Parameters of the transformer."""
    square, cell = c.dim * c.dim, PATCH[1] * PATCH[2]
    attention = 4 * (square + c.dim) + 2 * c.dim
    mlp = 2 * c.dim * c.ffn_dim + c.ffn_dim + c.dim
    block = 2 * attention + mlp + 2 * c.dim + 6 * c.dim
    patch = c.in_channels * cell * c.dim + c.dim
    text = c.text_dim * c.dim + c.dim + square + c.dim
    time = c.freq_dim * c.dim + c.dim + square + c.dim + 6 * (square + c.dim)
    head = (c.dim + 1) * c.out_channels * cell + 2 * c.dim
    return patch + text + time + c.layers * block + head


def states(c: WanConfig, geometry: Geometry, batch: int, item: int, timesteps: int) -> int:
    """Bytes of states that are derived once: modulations of each timestep (eight vectors per layer and frame), text keys and values."""
    time = timesteps * geometry.frames_per_block * c.dim * (8 * c.layers + 3)
    text = 2 * c.layers * batch * c.text_len * c.dim
    return (time + text) * item


def frame_bytes(geometry: Geometry, batch: int, item: int, layers: int | None = None) -> int:
    """Bytes of keys and values of one latent frame, by default of all layers."""
    width = geometry.heads * geometry.head_dim
    return 2 * (geometry.layers if layers is None else layers) * batch * geometry.tokens_per_frame * width * item


def pass_bytes(c: WanConfig, geometry: Geometry, batch: int, item: int, *, context: int, candidates: int, queries: int) -> int:
    """Peak bytes of a pass besides weights, states and cache.

    context: frames of the past that are gathered and rotated. candidates: frames that a selection chooses from (0: none).
    queries: frames of the pass itself, more than a block's in a recache.
    """
    token = batch * geometry.tokens_per_frame * c.dim
    own, past, chosen = queries * token, context * token, candidates * token
    tables = (queries + context) * geometry.tokens_per_frame * geometry.head_dim * FLOAT  # a complex number for each pair of channels
    stream = 2 * own * item + tables  # the residual stream and its modulated copy
    qkv = 3 * own * item
    rotated = past * (2 * FLOAT + item)  # a copy in fp32, its product, and that in the network's dtype
    selecting = chosen * (2 * item + 2 * FLOAT)  # keys and values, keys in fp32, their squares
    gathered = 2 * past * item
    assembling = stream + qkv + gathered + max(rotated, selecting)
    attending = stream + qkv + own * (2 * FLOAT + 2 * item)
    mlp = stream + 2 * own * item + 2 * batch * queries * geometry.tokens_per_frame * c.ffn_dim * item
    return max(assembling, attending, mlp)


@dataclass(frozen=True)
class Convolution:
    """One convolution of the decoder at work on one latent frame.

    kernel: (frames, rows, columns). frames: pixel frames that it makes; rows, columns: of its output. cached: whether it
    keeps its last two input frames for the next latent frame.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int, int]
    frames: int
    rows: int
    columns: int
    cached: bool

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs * self.kernel[0] * self.kernel[1] * self.kernel[2] + self.outputs


class CodecMemory(sizes.CodecSizes):
    """Memory of a Wan2.1 decoder of these sizes."""

    def convolutions(self, height_px: int, width_px: int) -> Iterator[Convolution]:
        """All convolutions, in order."""
        rows, columns, frames = height_px // CELL_PX, width_px // CELL_PX, 1
        wide = [self.base * m for m in (self.multipliers[-1], *reversed(self.multipliers))]
        yield Convolution(self.channels, self.channels, (1, 1, 1), 1, rows, columns, False)
        yield Convolution(self.channels, wide[0], (3, 3, 3), 1, rows, columns, True)
        yield from self._residual(wide[0], wide[0], 1, rows, columns)
        yield Convolution(wide[0], 3 * wide[0], (1, 1, 1), 1, rows, columns, False)
        yield Convolution(wide[0], wide[0], (1, 1, 1), 1, rows, columns, False)
        yield from self._residual(wide[0], wide[0], 1, rows, columns)
        for level, (before, made) in enumerate(zip(wide[:-1], wide[1:])):
            inputs = before // 2 if level else before
            for _ in range(self.res_blocks + 1):
                yield from self._residual(inputs, made, frames, rows, columns)
                inputs = made
            if level < len(self.temporal):
                if self.temporal[level]:
                    yield Convolution(made, 2 * made, (3, 1, 1), frames, rows, columns, True)
                    frames *= 2
                rows, columns = 2 * rows, 2 * columns
                yield Convolution(made, made // 2, (1, 3, 3), frames, rows, columns, False)
        yield Convolution(wide[-1], 3, (3, 3, 3), frames, rows, columns, True)

    def _residual(self, inputs: int, outputs: int, frames: int, rows: int, columns: int) -> Iterator[Convolution]:
        yield Convolution(inputs, outputs, (3, 3, 3), frames, rows, columns, True)
        yield Convolution(outputs, outputs, (3, 3, 3), frames, rows, columns, True)
        if inputs != outputs:
            yield Convolution(inputs, outputs, (1, 1, 1), frames, rows, columns, False)

    @property
    def parameters(self) -> int:
        """Parameters of the decoder and the convolution before it; each cached 3x3x3 convolution but the first, and the
        attention in the middle, is preceded by a norm."""
        every = list(self.convolutions(CELL_PX, CELL_PX))
        norms = sum(c.inputs for c in every[2:] if c.kernel == (3, 3, 3)) + self.base * self.multipliers[-1]
        return sum(c.parameters for c in every) + norms

    def operations(self, height_px: int, width_px: int) -> int:
        """FLOPs of the convolutions of one latent frame except a video's first; a multiplication and an addition count as two."""
        every = self.convolutions(height_px, width_px)
        return sum(2 * (c.parameters - c.outputs) * c.frames * c.rows * c.columns for c in every)

    def cache(self, height_px: int, width_px: int, item: int) -> int:
        """Bytes of the frames that are kept from one latent frame to the next."""
        every = self.convolutions(height_px, width_px)
        return sum(2 * c.inputs * c.rows * c.columns for c in every if c.cached) * item

    def work(self, height_px: int, width_px: int, item: int) -> int:
        """Peak bytes of decoding one latent frame besides weights and cache."""
        return max(_held(c, item) for c in self.convolutions(height_px, width_px))


def _held(c: Convolution, item: int) -> int:
    """A cached convolution: the level's input, the skipped one, its own, that behind its cache and again padded (or its output), and
    the frames that are to be the next cache. One after a doubling: its input doubled in fp32 and in the codec's type, and its output."""
    area = c.rows * c.columns
    if c.kernel == (1, 3, 3):
        small = c.inputs * c.frames * area // 4
        return small * item + 4 * small * (FLOAT + (item if item != FLOAT else 0)) + c.outputs * c.frames * area * item
    if not c.cached:
        return (c.inputs + c.outputs) * c.frames * area * item
    fed = c.inputs * (c.frames + 2) * area
    return (3 * c.inputs * c.frames * area + 2 * c.inputs * area + fed + max(fed, c.outputs * c.frames * area)) * item


class TaehvMemory(sizes.TaehvSizes):
    """Memory of a small decoder of these sizes."""

    @property
    def parameters(self) -> int:
        """Parameters of the decoder."""
        total = 9 * self.channels * self.widths[0] + self.widths[0] + 9 * self.widths[-1] * 3 + 3
        for wide, following, growth in zip(self.widths[:-1], self.widths[1:], self.growth):
            total += self.blocks * (4 * 9 * wide * wide + 3 * wide) + wide * wide * growth + 9 * wide * following
        return total

    def _levels(self, height_px: int, width_px: int) -> Iterator[tuple[int, int, int, int]]:
        """(width, frames made of a latent frame so far, growth, cells of a frame) of each level."""
        area, frames = height_px * width_px // CELL_PX**2, 1
        for wide, growth in zip(self.widths[:-1], self.growth):
            yield wide, frames, growth, area
            frames, area = frames * growth, 4 * area

    def cache(self, height_px: int, width_px: int, item: int) -> int:
        """Bytes of the frame that each block keeps."""
        return sum(self.blocks * wide * area for wide, _, _, area in self._levels(height_px, width_px)) * item

    def work(self, height_px: int, width_px: int, item: int) -> int:
        """Peak bytes: a level's frames doubled in size, and expanded to more frames."""
        return max(4 * wide * frames * (1 + 2 * growth) * area for wide, frames, growth, area in self._levels(height_px, width_px)) * item


def codec_sizes(decoder: str, size: str) -> CodecMemory | TaehvMemory:
    """Memory of a decoder with random weights of a size; real files are native."""
    return TaehvMemory() if decoder == "taehv" else CodecMemory(**vars(sizes.CODECS[size]))


def text_sizes(size: str, random: bool) -> TextMemory:
    """Memory of a text encoder: XXL, or one with random weights."""
    return TextMemory(**vars(sizes.RANDOM_TEXT[size])) if random or size == "tiny" else TextMemory()
