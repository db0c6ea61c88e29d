"""What experiments leave open: the rows that stand for "Ours" by `ours=`, and how much of everything, on which backbones, by `scale=`.

An experiment's list of methods may hold `${ours:full,no_amp}`, a row for each change of `conf/ablations.yaml` (`full` is none) around each
base that was asked for, `${ours:longlive,full}`, the same on LongLive, and `${beyond:rolling_eq1,render}`, rows that the paper's table has
not, which `scale=paper` leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from baselines.presets import preset
from echo.refusals import nearest_of

BASES = {"official": "echo_official", "paper": "echo_paper", "echo": "echo"}
"""What `ours` may be, alone or joined by `+`: the released code, the paper's text, our default."""
FULL = "full"
LONGLIVE = "longlive"
RENDER = "render"
RENDERED = ("render_truth", "render_other", "render_shuffled")


def bases(chosen: str) -> list[str]:
    """Presets that `ours=` names. Raises ValueError in one line for another word."""
    for word in chosen.split("+"):
        if word not in BASES:
            raise ValueError(f"ours={chosen}: {nearest_of(word, BASES)}; several stand side by side with +: ours=official+paper")
    return [BASES[word] for word in dict.fromkeys(chosen.split("+"))]


def check(words: Sequence[str]) -> None:
    """Raises ValueError in one line for a wrong word of `ours`, and for several scales: an experiment has one list of rows."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "ours":
            bases(value)
            if not any(other.startswith("experiment=") for other in words):
                rest = f"nearest is method={bases(value)[0]}"
                raise ValueError(f"ours={value}: says which rows of an experiment are ours, and there is none; {rest}")
        if key == "scale" and "," in value:
            raise ValueError(f"{word}: a sweep is of one scale; nearest is scale={value.partition(',')[0]}")


def rows_of(base: str, changes: Sequence[str]) -> list[str]:
    """Presets of changes around a base; the base itself stands for a change to what it already is."""
    return [_row(base, change) for change in changes]


def _row(base: str, change: str) -> str:
    if change == FULL:
        return base
    own, whole = preset("method", f"{base}_{change}"), preset("method", base)
    differs = any(own[key] != whole.get(key) for key in own if key not in ("name", "label"))
    return f"{base}_{change}" if differs else base


def _ours(*changes: str, _root_: DictConfig) -> str:
    """The resolver `${ours:...}`: presets with commas between."""
    prefix = f"{LONGLIVE}_" if changes[0] == LONGLIVE else ""
    return ",".join(name for base in bases(_root_.ours) for name in rows_of(prefix + base, changes[bool(prefix) :]))


def _beyond(*names: str, _root_: DictConfig) -> str:
    """The resolver `${beyond:...}`: a comma and presets, or nothing where only the paper's rows are wanted."""
    if not _root_.scale.beyond:
        return ""
    changes = [name for name in names if name != RENDER]
    own = _ours(*changes, _root_=_root_).split(",") if set(changes) - {LONGLIVE} else []
    return "".join(f",{name}" for name in (*own, *(RENDERED if RENDER in names else ())))


OmegaConf.register_new_resolver("ours", _ours, replace=True)
OmegaConf.register_new_resolver("beyond", _beyond, replace=True)


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
