"""Words of the command line that say which runs it stands for, and how many: `ours=`, `scale=`, sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException

from baselines.ours import bases_of
from echo.refusals import brief

MOST_RUNS = 10_000
"""Of a command; each is composed and checked before the first begins."""


def check(words: Sequence[str]) -> None:
    """Raises ValueError in one line for a wrong word of `ours`, for several scales, since an experiment has one list of rows, and for more
    runs than a command may stand for.
    """
    runs = 1
    for word in words:
        runs *= max(1, _values(word))
        if runs > MOST_RUNS:
            raise ValueError(f"{brief(word)}: makes it {brief(runs)} runs, {MOST_RUNS} at most; nearest is several commands")
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


def _values(word: str) -> int:
    """How many values a word sweeps over, without making them; 0 of one that is no sweep, or is refused elsewhere."""
    try:
        value: Any = OverridesParser.create().parse_override(word).value() if "," in word or "range(" in word else None
    except HydraException:
        return 0
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, RangeSweep) and value.step and value.stop is not None:
        return -int(((value.start or 0) - value.stop) // value.step)  # a floor, of which the other sign is rounded up
    return 0
