"""Cleaning of texts in prompt files, and errors for malformed tags."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from echo.refusals import shown
from echo.scene import LONGEST_S, says

TAG = re.compile(r"\[(\d+(?:\.\d+)?) *s([#@]?)\]")
"""Seconds and mark of a scene; the first one in a text counts, and all are removed."""
BRACKETS = re.compile(r"[\[［【][^\[\]［］【】]*[\]］】]?|[\]］】]")
TAGLIKE = re.compile(
    r"[\[［【]\s*\d{1,3}(?:[.,]\d+)?\s*(?:(?:s|sec\w*|m|min\w*)\s*[\]］】]\s*(?=$|[|;])|(?:s|sec\w*|m|min\w*)?\s*[#@＃＠]\s*[\]］】])"
)
"""A tag, well-formed or not, in a format without tags: seconds at a scene's end, or a mark. `[1980s]`, `[42]` and `[0-2s]` are text."""
OTHER_TAGS = re.compile(r"[({]\s*\d{1,3}(?:[.,]\d+)?\s*(?:s|sec\w*|m|min\w*)\s*[#@]?\s*[)}]|(?<!\d)\d+(?:\.\d+)? *s[#@]", re.IGNORECASE)
"""Malformed tags, which would stay in the text."""
INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad\u200e\u200f"))
"""Invisible characters, which the text encoder would read."""


def tidy(text: str, where: str) -> str:
    """Text without invisible characters and with single spaces; everything else is unchanged.

    Raises:
        ValueError: for a control character.
    """
    shown = " ".join(text.translate(INVISIBLE).split())
    for sign in shown:
        if unicodedata.category(sign) == "Cc" or sign == "\ufffd":
            raise ValueError(f"{where}: unreadable character U+{ord(sign):04X}; remove it")
    return shown


def nearest_tag(text: str) -> str:
    """The valid tag nearest to a malformed one: `[10 sec]` is `[10s]`, `[1 min @]` is `[60s@]`."""
    number = re.search(r"(\d+)(?:[.,](\d+))?\s*(m)?", text, re.IGNORECASE)
    seconds = 10.0 if number is None else min(float(f"{number[1]}.{number[2] or 0}") * (60 if number[3] else 1), LONGEST_S)
    mark = next((sign for sign in unicodedata.normalize("NFKC", text) if sign in "#@"), "")
    return f"[{seconds:g}s{mark}]"


def refuse_tags(text: str, where: str, patterns: Sequence[re.Pattern[str]] = (BRACKETS, OTHER_TAGS)) -> None:
    """Raise ValueError for a bracket or a malformed tag in a scene's text, naming the nearest valid form."""
    for pattern in patterns:
        wrong = pattern.search(text)
        if wrong is None:
            continue
        if not re.search(r"[\d#@＃＠]", wrong[0]) and len(wrong[0]) > 1:
            raise ValueError(f"{where}: {shown(wrong[0])} is no tag; nearest is the text without brackets, or a tag such as '[10s]'")
        raise ValueError(f"{where}: {shown(wrong[0])} is no tag; nearest is {nearest_tag(wrong[0])!r}")


def plain(line: str, where: str) -> str:
    """A cleaned text without a tag. Raises ValueError for an empty text, or one with something like a tag."""
    text = tidy(line, where)
    if not says(text):
        raise ValueError(f"{where}: holds nothing but signs that take no room; nearest is to remove it")
    tag = TAGLIKE.search(text)
    if tag is not None and TAG.match(tag[0]):
        raise ValueError(f"{where}: holds the tag {tag[0]!r}; nearest is format=released")
    refuse_tags(text, where, (TAGLIKE,))
    return text
