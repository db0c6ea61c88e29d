"""UMT5's tokenizer: texts to token numbers, from a tokenizer.json or, for random weights, without a file."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from echo.backbone.extras import need
from echo.routing import pairs

TEXT_LEN = 512
"""Tokens that Wan's networks were trained with, the end token included."""

PAD, END = 0, 1
"""UMT5's token numbers of padding and of a text's end."""

UNKNOWN = "<unk>"
"""UMT5's token for an unknown piece."""

SPACE = "\u2581"
"""UMT5's mark for the beginning of a word; a token by itself before unknown letters after a space."""

PADDED = 128
"""An encoder has fewer than this many rows more than its tokenizer has tokens: their number is rounded up (256,300 to 256,384)."""


@dataclass(frozen=True)
class Tokenizer:
    """Token numbers of a cleaned text, the end token included, and the pieces that a script without spaces is cut into."""

    numbers: Callable[[str], list[int]]
    cut: Callable[[str], list[str]]

    def __call__(self, text: str) -> list[int]:
        """The numbers."""
        return self.numbers(text)


def pieces(vocabulary: int) -> Tokenizer:
    """A tokenizer that needs no file: pieces of up to four letters, and marks, numbered by a checksum.

    It makes about as many tokens of English as a trained tokenizer (bytes would be four times as many, and refuse prompts that
    the real one accepts). Two pieces may share a number, which does not matter with random weights. For scripts
    without spaces the router gets pairs of letters, since groups of four would be arbitrary.
    """

    def numbers(text: str) -> list[int]:
        words = re.findall(r"\w{1,4}|[^\w\s]", text)
        return [END + 1 + zlib.crc32(piece.encode()) % (vocabulary - END - 1) for piece in words] + [END]

    return Tokenizer(numbers, pairs)


def refuse_long(text: str, tokens: Sequence[int], most: int = TEXT_LEN) -> None:
    """Raise ValueError for a text of more than `most` tokens, the end token included."""
    if len(tokens) > most:
        rule = f"the text encoder takes at most {most} with the end token, so shorten it by {len(tokens) - most}"
        raise ValueError(f"{_shown(text)} has {len(tokens)} tokens; {rule}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def from_file(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises ValueError for a missing or foreign file."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"no tokenizer at {file}; `echo-harness data download` fetches it (google/umt5-xxl)")
    tokenizers = need("tokenizers")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # The package raises a plain Exception for whatever it cannot read.
        raise ValueError(f"{file}: not a tokenizer.json ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = tokenizer.get_vocab_size()
    if not size <= vocabulary < size + PADDED:
        raise ValueError(f"{file}: {size} tokens, but the text encoder knows {vocabulary}; it belongs to another encoder")
    if tokenizer.encode("a").ids[-1:] != [END]:
        raise ValueError(f"{file}: does not end a text with token {END}, as UMT5's does; it belongs to another encoder")

    unknown = tokenizer.token_to_id(UNKNOWN)

    def numbers(text: str) -> list[int]:
        encoded = tokenizer.encode(text)
        spans = [(number, end - start) for number, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)]
        lost, letters = (
            sum(span for number, span in spans if number == unknown),
            sum(span for _, span in spans),
        )  # a piece may be a sentence
        if 2 * lost > letters:
            rule = "it is another encoder's tokenizer, or the text is in a script that it does not read"
            raise ValueError(f"{_shown(text)}: {lost} of its {letters} letters are unknown to {file}; {rule}")
        numbers: list[int] = encoded.ids
        return numbers

    def cut(text: str) -> list[str]:
        encoded, parts, end = tokenizer.encode(text), list[str](), 0
        for token, (start, stop) in zip(encoded.tokens, encoded.offsets, strict=True):
            if stop > end and token != SPACE:  # several bytes of one letter are a token each
                parts.append(text[max(start, end) : stop])
                end = stop
        return parts

    return Tokenizer(numbers, cut)
