"""Words of the command line that say which runs an experiment stands for: `ours=` and `scale=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baselines.ours import bases_of


def check(words: Sequence[str]) -> None:
    """Raises ValueError in one line for a wrong word of `ours`, and for several scales: an experiment has one list of rows."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "ours":
            first, *_ = bases_of(value)
            if not any(other.startswith("experiment=") for other in words):
                raise ValueError(f"ours={value}: says which rows of an experiment are ours, and there is none; nearest is method={first}")
        if key == "scale" and "," in value:
            raise ValueError(f"{word}: a sweep is of one scale; nearest is scale={value.partition(',')[0]}")


def choices(plain: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """Words that a composed config lacks: the scale's backbone in the place of the embedded one, and its scorer.

    Args:
        plain: the composed config.
        words: what it was composed of; what they choose stays.
    """
    scale = plain.get("scale") or {}
    taken = {word.partition("=")[0].lstrip("+") for word in words}
    backbone = scale.get("backbones", {}).get(plain["backbone"]["name"])
    more = [f"backbone={backbone}"] if backbone and "backbone" not in taken else []
    return more + ([f"eval={scale['eval']}"] if scale.get("eval") and "eval" not in taken else [])
