"""The order in which a rater sees tasks, groups and videos: a shuffle by the rater's random id, the same in the page and here.

Names are sorted by a hash of the id and the name: FNV-1a of 32 bits over `<rater>/<name>`, followed by the finalizer of MurmurHash3
(both in the public domain). `eval/pages/templates/study.js` has the same two lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eval.study.files import PRACTICE

WORD = 0xFFFFFFFF


def stirred(text: str) -> int:
    """Hash of a text, 0 to 2**32 - 1."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & WORD
    value = (value ^ value >> 16) * 0x85EBCA6B & WORD
    value = (value ^ value >> 13) * 0xC2B2AE35 & WORD
    return value ^ value >> 16


def shuffled(rater: str, names: Iterable[str]) -> list[str]:
    """Names in the order in which this rater sees them."""
    return sorted(names, key=lambda name: (stirred(f"{rater}/{name}"), name))


def order_of(rater: str, tasks: Mapping[str, Mapping[str, Iterable[str]]]) -> list[dict[str, object]]:
    """Everything that a rater sees, in order: task, group and its videos from left to right; the practice comes first.

    Args:
        rater: the id.
        tasks: task -> group -> names of its videos.
    """
    return [
        {"task": task, "group": group, "videos": shuffled(rater, tasks[task][group])}
        for task in sorted(shuffled(rater, tasks), key=lambda name: name != PRACTICE)
        for group in shuffled(rater, tasks[task])
    ]
