"""Presets that stand for the paper's own method: three bases, the same on LongLive, and every ablation around each.

An experiment's list of methods may hold `${ours:full,no_amp}`, a row for each change of `conf/ablations.yaml` (`full` is no change) around
each base in `ours`; `${ours:longlive,full}`, the same on LongLive; and `${beyond:rolling_eq1,render}`, rows that the paper's table does not
have and that a scale may leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from omegaconf import DictConfig, OmegaConf

from baselines.presets import preset
from echo.refusals import nearest_of

OURS = {"echo": "echo", "official": "echo_official", "paper": "echo_paper"}
"""Values of `ours`, alone or joined by `+`: our default, the released code, the paper's text."""
BASES = tuple(OURS.values())
TUNED = "longlive_"
"""Prefix of the same presets on the long-tuned backbone."""
FULL = "full"
RENDER = "render"
RENDERED = ("render_truth", "render_other", "render_shuffled")


def bases_of(ours: str) -> list[str]:
    """Bases in `ours=`. Raises ValueError in one line for another word."""
    words = list(dict.fromkeys(ours.split("+")))
    for word in words:
        if word not in OURS:
            raise ValueError(f"ours={ours}: {nearest_of(word, OURS)}; several stand side by side with +: ours=official+paper")
    return [OURS[word] for word in words]


@cache
def row_of(base: str, change: str) -> str:
    """The preset of a change around a base; the base itself if the change is already its setting."""
    if change == FULL:
        return base
    own, whole = preset("method", f"{base}_{change}"), preset("method", base)
    differs = any(own[key] != whole.get(key) for key in own if key not in ("name", "label"))
    return f"{base}_{change}" if differs else base


def rebased(name: str, base: str) -> str:
    """The same preset on another base; unchanged if it has no base.

    >>> rebased("longlive_echo_recall_none", "echo_paper"), rebased("rolling_sink", "echo_paper")
    ('longlive_echo_paper_recall_none', 'rolling_sink')
    """
    start = TUNED if name.startswith(TUNED) else ""
    first, _, change = name.removeprefix(start).partition("_")
    return row_of(start + base, change or FULL) if first == OURS["echo"] else name


def _rows(*changes: str, _root_: DictConfig) -> str:
    """The resolver `${ours:...}`: presets with commas between."""
    start = TUNED if f"{changes[0]}_" == TUNED else ""
    return ",".join(row_of(start + base, change) for base in bases_of(_root_.ours) for change in changes[bool(start) :])


def _beyond(*names: str, _root_: DictConfig) -> str:
    """The resolver `${beyond:...}`: a comma and presets, or nothing if only the paper's rows are wanted."""
    if not _root_.scale.beyond:
        return ""
    changes = [name for name in names if name != RENDER]
    return "".join(f",{name}" for name in ([_rows(*changes, _root_=_root_)] if changes else []) + [*RENDERED] * (RENDER in names))


OmegaConf.register_new_resolver("ours", _rows, replace=True)
OmegaConf.register_new_resolver("beyond", _beyond, replace=True)


def methods(listed: str, ours: Sequence[str]) -> list[str]:
    """Presets of an experiment's list, only the paper's own rows; ours: words of `OURS`."""
    config = OmegaConf.create({"ours": "+".join(ours), "scale": {"beyond": False}, "methods": listed})
    return str(config.methods).split(",")
