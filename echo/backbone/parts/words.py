"""From a sentence to concepts: the torch-free half of the small text encoder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from echo.refusals import similar

_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Vocabulary:
    """Words that a text encoder knows.

    concepts: what the words mean, one embedding row each, in row order.
    synonyms: word -> concept; every concept names itself without being listed.
    silent: known words without a meaning (articles, prepositions).
    """

    concepts: tuple[str, ...]
    synonyms: Mapping[str, str]
    silent: frozenset[str]

    def __post_init__(self) -> None:
        """Raise ValueError for a synonym of no concept or a word that is both silent and meant."""
        known = set(self.concepts)
        for word, concept in self.synonyms.items():
            if concept not in known:
                raise ValueError(f"synonym {word!r} points at {concept!r}, which is no concept")
        both = self.silent & (known | set(self.synonyms))
        if both:
            raise ValueError(f"words {sorted(both)} are both silent and meant; a word is one or the other")

    @cached_property
    def rows(self) -> dict[str, int]:
        """Word -> embedding row, synonyms included, silent words not."""
        rows = {concept: row for row, concept in enumerate(self.concepts)}
        return rows | {word: rows[concept] for word, concept in self.synonyms.items()}

    def rows_of(self, sentence: str) -> list[int]:
        """Rows of the concepts in `sentence`, in order of appearance, silent words dropped.

        Raises ValueError naming a word that is not known, and the nearest ones that are.
        """
        known_rows: list[int] = []
        for word in _WORD.findall(sentence.lower()):
            if word in self.silent:
                continue
            if word not in self.rows:
                raise ValueError(self._unknown(word, sentence))
            known_rows.append(self.rows[word])
        return known_rows

    def concepts_of(self, sentence: str) -> list[str]:
        """Names of the concepts in `sentence`; raises like `rows_of`."""
        return [self.concepts[row] for row in self.rows_of(sentence)]

    def _unknown(self, word: str, sentence: str) -> str:
        near = similar(word, [*self.rows, *self.silent], count=3)
        nearest = f"nearest known: {', '.join(near)}" if near else f"known, for example: {', '.join(self.concepts[:6])}"
        return f"unknown word {word!r} in {sentence!r}: the text encoder only knows its own vocabulary; {nearest}"

    def as_json(self) -> str:
        """The vocabulary as one JSON line, the same for equal vocabularies."""
        return json.dumps(
            {"concepts": list(self.concepts), "synonyms": dict(self.synonyms), "silent": sorted(self.silent)},
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that `as_json` wrote."""
        raw = json.loads(text)
        return cls(tuple(raw["concepts"]), dict(raw["synonyms"]), frozenset(raw["silent"]))
