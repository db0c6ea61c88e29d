"""A small text encoder: one learned vector for each concept of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from echo.backbone.parts.words import Vocabulary


class WordEncoder(nn.Module):
    """Sentences to [B, text_len, text_dim]: a row for each concept in order of appearance, then rows of zeros.

    The zero rows are the same padding as in Wan's text encoder.
    """

    def __init__(self, vocabulary: Vocabulary, text_dim: int, text_len: int = 8) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.text_len = text_len
        self.text_dim = text_dim
        self.embedding = nn.Embedding(len(vocabulary.concepts), text_dim)

    def rows(self, sentences: Sequence[str]) -> torch.Tensor:
        """Embedding rows [B, text_len] int64, -1 past the last word.

        Raises ValueError for an unknown word, or for a sentence with more concepts than text_len.
        """
        table = torch.full((len(sentences), self.text_len), -1, dtype=torch.int64)
        for line, sentence in zip(table, sentences, strict=True):
            own = self.vocabulary.rows_of(sentence)
            if len(own) > self.text_len:
                raise ValueError(f"{sentence!r} has {len(own)} meaningful words; the text encoder takes at most {self.text_len}")
            line[: len(own)] = torch.tensor(own, dtype=torch.int64)
        return table

    def check(self, sentences: Sequence[str]) -> None:
        """Raises like `rows`."""
        self.rows(sentences)

    def pieces(self, text: str) -> list[str]:
        """The words."""
        return text.split()

    def prepare(self, sentences: Sequence[str]) -> None:
        """Does nothing, since encoding is cheap."""

    def release(self) -> None:
        """Does nothing."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors [B, text_len, text_dim] of `rows` (as from `rows`), zero where the row is -1."""
        return self.embedding(rows.clamp(min=0)) * (rows >= 0).unsqueeze(-1)

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Vectors [B, text_len, text_dim] of `sentences`; raises like `rows`."""
        weight = self.embedding.weight
        return self.forward(self.rows(sentences).to(weight.device))

    def save(self) -> dict[str, torch.Tensor]:
        """Everything that `load` needs, as tensors (the vocabulary as bytes of JSON)."""
        words = torch.tensor(list(self.vocabulary.as_json().encode()), dtype=torch.uint8)
        return {
            "embedding": self.embedding.weight.detach().clone(),
            "vocabulary": words,
            "text_len": torch.tensor([self.text_len]),
        }

    @classmethod
    def load(cls, tensors: Mapping[str, torch.Tensor]) -> WordEncoder:
        """The encoder that `save` wrote."""
        vocabulary = Vocabulary.from_json(bytes(tensors["vocabulary"].tolist()).decode())
        weight = tensors["embedding"]
        encoder = cls(vocabulary, weight.shape[1], int(tensors["text_len"].item()))
        with torch.no_grad():
            encoder.embedding.weight.copy_(weight)
        return encoder.requires_grad_(False)
