"""Tokens of sentences by OpenAI's CLIP, from its published vocabulary, with transformers' tokenizer."""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from eval.vbench.networks.interface import VOCABULARY
from eval.vbench.networks.packages import INSTALL, need

SIZE: Final = 49408
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
_MERGES: Final = SIZE - 2 * 256 - 2


def find(near: Path | None = None) -> Path:
    """The vocabulary's file: in the folder `near` or one around it, otherwise in an installed `clip` package (which is not imported).

    Raises ValueError with the file and the places where it was looked for.
    """
    spec = find_spec("clip")
    around = (near, *near.absolute().parents[:2]) if near else ()
    folders = [place for parent in around for place in (parent, *(path.parent for path in sorted(parent.glob(f"*/{VOCABULARY}"))))]
    folders += [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / VOCABULARY).is_file():
            return folder / VOCABULARY
    where = f"not in {near} and " if near else ""
    raise ValueError(f"text needs {VOCABULARY}: {where}no installed clip package has it: {INSTALL}")


def tokens(prompts: Sequence[str], context: int, near: Path | None = None) -> tuple[Tensor, tuple[int, ...]]:
    """Tokens [B, context] of sentences (zeros after the end), and for each the number of tokens that were cut.

    Start and end marks count; a sentence that is too long keeps its first tokens and, in the last place, its end mark. The vocabulary is
    that of `find`. Raises ValueError without sentences, and if there is no vocabulary.
    """
    if not prompts:
        raise ValueError("no sentence to make features of; at least 1 is needed")
    tokenizer = _tokenizer(find(near))
    rows = [tokenizer(clean(prompt)).input_ids for prompt in prompts]
    fitting = [ids if len(ids) <= context else [*ids[: context - 1], ids[-1]] for ids in rows]
    padded = [[*ids, *[0] * (context - len(ids))] for ids in fitting]
    return torch.tensor(padded), tuple(max(0, len(ids) - context) for ids in rows)


def clean(prompt: str) -> str:
    """A sentence cleaned for CLIP: broken encodings repaired, HTML entities resolved (twice, since some are nested), lower case."""
    repaired = need("ftfy", asked="text").fix_text(prompt)
    return " ".join(html.unescape(html.unescape(repaired)).lower().split())


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> Any:
    transformers = need("transformers", asked="text")
    alphabet = sorted(need("tokenizers", asked="text").pre_tokenizers.ByteLevel.alphabet())
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} holds no word pieces of CLIP ({error}); away with it, and fetch it again") from error
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    if len(merges) != _MERGES or any(len(pair) != 2 for pair in merges):
        raise ValueError(f"{path} holds no word pieces of CLIP: {_MERGES} pairs wanted; away with it, and fetch it again")
    # A piece at the end of a word is another token than the same piece inside one.
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    return transformers.CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)
