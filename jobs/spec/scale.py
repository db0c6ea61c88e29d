"""Settings that determine the runs of a command: `ours=`, `scale=`, sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException

from baselines.ours import bases_of
from echo.refusals import brief

MOST_RUNS = 10_000
"""Largest number of runs of a command; each is composed and checked before the first begins."""


def check(words: Sequence[str]) -> None:
    """Raises ValueError in one line for a wrong value of `ours`, for several scales, since an experiment has one list of rows, and for too
    many runs.
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
    """Settings to add to a composed config: the scale's backbone in place of the embedded one, and its scorer.

    Args:
        plain: the composed config.
        words: the settings that it was composed from, which take precedence.
    """
    scale = plain.get("scale") or {}
    taken = {word.partition("=")[0].lstrip("+") for word in words}
    backbone = scale.get("backbones", {}).get(plain["backbone"]["name"])
    more = [f"backbone={backbone}"] if backbone and "backbone" not in taken else []
    return more + ([f"eval={scale['eval']}"] if scale.get("eval") and "eval" not in taken else [])


def _values(word: str) -> int:
    """Number of values of a sweep, without making them; 0 for a setting that is not a sweep, or is refused elsewhere."""
    try:
        value: Any = OverridesParser.create().parse_override(word).value() if "," in word or "range(" in word else None
    except HydraException:
        return 0
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, RangeSweep) and value.step and value.stop is not None:
        return -int(((value.start or 0) - value.stop) // value.step)  # a floor, of which the other sign is rounded up
    return 0
