"""Wan's text encoder: UMT5-XXL through transformers, with each prompt's embeddings ("rows") cached on disk.

Cleaning and padding are Wan's own. The encoder takes 11 GB in bfloat16 and is needed for seconds, so its rows are cached in files
named by content, and only a process with missing rows loads it. Rows past a prompt's end are zero, as in the network's training.
"""

from __future__ import annotations

import gc
import hashlib
import html
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from echo.backbone.checkpoints.headers import Shape
from echo.backbone.checkpoints.layout import Layout, module_shapes, open_layout, refuse_broken
from echo.backbone.checkpoints.weights import TEXT
from echo.backbone.extras import need, version_of
from echo.backbone.finite import broken
from echo.backbone.load import DTYPES
from echo.backbone.parts.tokens import END, PAD, TEXT_LEN, Tokenizer, from_file, pieces, refuse_long
from echo.backbone.sizes import RANDOM_TEXT, TextSizes
from echo.files import replacing
from echo.refusals import one_of

FORMAT = 1
"""Version of the cached rows; part of their names, so that a change of this module can invalidate them."""

_LAYER = r"^blocks\.(\d+)\."
TEXT_FROM_WAN = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (_LAYER + r"norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (_LAYER + r"attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (_LAYER + r"pos_embedding\.embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (_LAYER + r"norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (_LAYER + r"ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (_LAYER + r"ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (_LAYER + r"ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    (r"^encoder\.embed_tokens\.", "shared."),
)
"""Names in Wan's file to names in transformers, which are left as they are."""


DECODING_HALF = ("decoder.", "lm_head.")
"""Prefixes of the decoder's tensors in a file of a whole UMT5; they are not read."""


def clean(text: str) -> str:
    """A prompt as Wan's tokenizer gets it: repaired by ftfy, HTML entities unescaped twice, white space collapsed."""
    repaired = html.unescape(html.unescape(need("ftfy").fix_text(text)))
    return re.sub(r"\s+", " ", repaired).strip()


Tensors = Callable[[str], Tensor]
"""Tensors by their names in transformers."""


class Umt5Text:
    """The `Text` of a Wan2.1 backbone (echo.backbone.interface): prompts to rows [B, text_len, text_dim].

    Several processes may share a cache folder: rows are written completely or not at all, and a process that waits for
    another one's encoder then finds the rows instead of loading the encoder again.
    """

    def __init__(
        self, sizes: TextSizes, tensors: Callable[[nn.Module], Tensors], tokenize: Tokenizer, *,
        identity: str, cache: Path, dtype: str = "bfloat16", device: str = "cpu", text_len: int = TEXT_LEN,
    ) -> None:  # fmt: skip
        """`tensors` opens the encoder's tensors when they are first needed; `identity` is their digest in the names of the rows."""
        one_of(f"text encoder in {dtype!r}", dtype, DTYPES)
        self.text_len, self.text_dim, self.dtype = text_len, sizes.width, DTYPES[dtype]
        self._sizes, self._tensors, self._tokenize, self._identity, self._cache = sizes, tensors, tokenize, identity, cache
        self._device = torch.device(device)
        self._encoder: nn.Module | None = None
        self._entries: dict[str, _Entry] = {}
        self.loads = 0
        """How often the encoder was loaded."""

    @classmethod
    def load(
        cls, weights: Path, tokenizer: Path, *, identity: str, cache: Path, dtype: str = "bfloat16", device: str = "cpu",
        text_len: int = TEXT_LEN,
    ) -> Umt5Text:  # fmt: skip
        """The encoder of a weights file or folder, which is checked now and loaded when a prompt needs it.

        weights: Wan's `models_t5_umt5-xxl-enc-bf16.pth`, or a folder of diffusers or transformers (safetensors or torch files, in
        shards or not, with or without the decoder). tokenizer: a folder with tokenizer.json, or that file. identity: a
        digest of the weights, so that 11 GB are not read to name the rows. Raises ValueError for a missing or foreign file.
        """
        sizes = _fitting(weights)
        return cls(
            sizes, lambda model: _open(weights).get, from_file(tokenizer, sizes.vocabulary),
            identity=identity, cache=cache, dtype=dtype, device=device, text_len=text_len,
        )  # fmt: skip

    @classmethod
    def random(cls, size: str, *, cache: Path, dtype: str = "bfloat16", device: str = "cpu") -> Umt5Text:
        """An encoder with fixed random weights, and a tokenizer without a file (see `echo.backbone.parts.tokens.pieces`).

        "tiny" has two layers of width 32. "native" has XXL's widths, so that rows have the real width and a layer the real
        cost, but two layers instead of 24 and 4096 tokens: 0.8 GB in bfloat16 instead of 11.
        """
        one_of(f"random text encoder {size!r}", size, RANDOM_TEXT)
        sizes = RANDOM_TEXT[size]
        return cls(
            sizes, lambda model: partial(_noise, sizes, _expected(model)), pieces(sizes.vocabulary),
            identity=f"random {sizes}", cache=cache, dtype=dtype, device=device,
        )  # fmt: skip

    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for a text of more than `text_len` tokens, the end token included; texts are never truncated."""
        for text in texts:
            refuse_long(text, self._entry(text).tokens, self.text_len)

    def pieces(self, text: str) -> list[str]:
        """The tokenizer's pieces of letters of a script without spaces, in order."""
        return self._tokenize.cut(text)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Rows [B, text_len, text_dim] on the host, zero past a text's end. Raises ValueError like `check`."""
        self.prepare(texts)
        table = torch.zeros(len(texts), self.text_len, self.text_dim, dtype=self.dtype)
        for line, text in zip(table, texts, strict=True):
            rows = self._kept(self._entry(text))
            if rows is None:
                raise ValueError(f"{self._cache}: rows of a prompt vanished while they were in use; start again")
            line[: len(rows)] = rows
        return table

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode the texts whose rows are not on disk yet, on a CPU with all cores that this process may use.

        The last bits of rows depend on the number of cores of a CPU, or on the GPU; cached rows are used wherever they
        were made. Raises ValueError like `check`, before any text is encoded.
        """
        self.check(texts)
        lacking = [entry for entry in map(self._entry, dict.fromkeys(texts)) if self._kept(entry) is None]
        if not lacking:
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        with need("filelock").FileLock(self._cache / "encoder.lock"), _all_cores(self._device):
            for entry in lacking:
                # Another process may have written these rows while this one waited.
                if self._kept(entry) is None:
                    self._keep(entry, self._rows(entry.tokens))

    def release(self) -> None:
        """Free the encoder; prepared texts can still be encoded, other texts load it again."""
        self._encoder = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def _rows(self, tokens: list[int]) -> Tensor:
        """The encoder's output [n, text_dim] at n tokens, padded to `text_len` as Wan does, alone in its batch."""
        if self._encoder is None:
            model = _model(self._sizes)
            self._encoder = _assign(model, self._tensors(model), self.dtype, self._device)
            self.loads += 1
        count = len(tokens)
        numbers = torch.tensor([tokens + [PAD] * (self.text_len - count)], device=self._device)
        mask = (torch.arange(self.text_len, device=self._device) < count).long()[None]
        out: Tensor = self._encoder(input_ids=numbers, attention_mask=mask).last_hidden_state
        rows = out[0, :count].to("cpu", self.dtype)
        if broken({"rows": rows}):
            raise ValueError(f"the text encoder's rows are not finite in {self.dtype}; nearest is backbone.parts.text_dtype=float32")
        return rows

    def _entry(self, text: str) -> _Entry:
        if text in self._entries:
            return self._entries[text]
        cleaned = clean(text)
        tokens = self._tokenize(cleaned)
        decides = [FORMAT, self._identity, str(self.dtype), self._device.type, self.text_len, cleaned, tokens, version_of("transformers")]
        name = hashlib.blake2b(json.dumps(decides).encode(), digest_size=16).hexdigest()
        self._entries[text] = _Entry(cleaned, tokens, self._cache / name[:2] / f"{name}.safetensors")
        return self._entries[text]

    def _kept(self, entry: _Entry) -> Tensor | None:
        """Cached rows [n, text_dim]; None if they are missing, damaged or of other tokens."""
        try:
            with safe_open(entry.path, framework="pt") as file:
                rows: Tensor = file.get_tensor("rows")
        except (OSError, SafetensorError):
            return None
        fits = rows.shape == (len(entry.tokens), self.text_dim) and rows.dtype == self.dtype
        return rows if fits and not broken({"rows": rows}) else None

    def _keep(self, entry: _Entry, rows: Tensor) -> None:
        with replacing(entry.path) as part:
            save_file({"rows": rows.contiguous()}, part, metadata={"text": entry.text, "encoder": self._identity})


@dataclass(frozen=True)
class _Entry:
    """A cleaned text, its tokens, and the file of its rows."""

    text: str
    tokens: list[int]
    path: Path


@contextmanager
def _all_cores(device: torch.device) -> Iterator[None]:
    """Use all cores while encoding: workers compute with few threads each, but the others wait while one encodes."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open(path: Path) -> Layout:
    """A file or folder under transformers' names; for a pipeline, its `text_encoder`."""
    return open_layout(path, TEXT, _from_wan)


def _from_wan(names: dict[str, str]) -> dict[str, str]:
    renamed = {}
    for name, own in names.items():
        for pattern, replacement in TEXT_FROM_WAN:
            name = re.sub(pattern, replacement, name)
        renamed[name] = own
    return renamed


def check(weights: Path, tokenizer: Path, *, whole: bool = False) -> Tokenizer:
    """Check an encoder's files by their headers, or completely, and read its tokenizer.

    Raises ValueError like `Umt5Text.load`.
    """
    return from_file(tokenizer, _fitting(weights, whole).vocabulary)


def _fitting(path: Path, whole: bool = False) -> TextSizes:
    """Sizes of an encoder's file. Raises ValueError like `Umt5Text.load`."""
    layout = _open(path)
    sizes = _sizes(layout.shapes)
    layout.check("a UMT5 encoder", _expected(_model(sizes)), beside=DECODING_HALF, whole=whole)
    return sizes


def _sizes(shapes: Mapping[str, Shape]) -> TextSizes:
    """Sizes by the shapes; XXL's sizes as a fallback, so that the check can name what is wrong."""
    layer = "encoder.block.0.layer."
    names = ("shared.weight", layer + "0.SelfAttention.q.weight", layer + "1.DenseReluDense.wi_0.weight",
             layer + "0.SelfAttention.relative_attention_bias.weight")  # fmt: skip
    if any(len(shapes.get(name, ())) != 2 for name in names):
        return TextSizes()
    (vocabulary, width), (inner, _), (ffn, _), (buckets, heads) = (shapes[name] for name in names)
    layers = {name.split(".")[2] for name in shapes if name.startswith("encoder.block.")}
    return TextSizes(vocabulary, width, heads, inner // heads, ffn, len(layers), buckets)


def _model(sizes: TextSizes) -> nn.Module:
    """An encoder on the meta device."""
    transformers = need("transformers")
    config = transformers.UMT5Config(
        vocab_size=sizes.vocabulary, d_model=sizes.width, d_kv=sizes.head_dim, d_ff=sizes.ffn, num_layers=sizes.layers,
        num_heads=sizes.heads, relative_attention_num_buckets=sizes.buckets, relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, layer_norm_epsilon=1e-6, pad_token_id=PAD, eos_token_id=END,
        attn_implementation="eager",
    )  # fmt: skip
    with torch.device("meta"):
        model: nn.Module = transformers.UMT5EncoderModel(config)
    return model.eval().requires_grad_(False)


def _expected(model: nn.Module) -> dict[str, Shape]:
    """Shapes of a model's tensors, with the embedding table under one of its two names."""
    return {name: shape for name, shape in module_shapes(model).items() if not name.startswith("encoder.embed_tokens.")}


def _assign(model: nn.Module, tensor: Tensors, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Load tensors into a model on the meta device one after another, so that memory never holds two encoders."""
    for name in _expected(model):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor(name).to(device, dtype), requires_grad=False))
    encoder: Any = model
    encoder.set_input_embeddings(encoder.shared)
    refuse_broken("the text encoder", model, lambda name: tensor("shared.weight" if "embed_tokens" in name else name))
    return model


def _noise(sizes: TextSizes, shapes: Mapping[str, Shape], name: str) -> Tensor:
    """A random tensor at a scale that keeps the variance of products; queries are smaller because T5's attention is not scaled."""
    shape = shapes[name]
    if len(shape) == 1:
        return torch.ones(shape)
    inputs = 1 if name == "shared.weight" or "relative" in name else shape[1] * (sizes.head_dim if ".q." in name else 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * inputs**-0.5
