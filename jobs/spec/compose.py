"""The only place where Hydra composes configs: settings of run.py to plain values, of one run or of all runs of a sweep.

The launchers below `jobs.launch.plugins` get theirs from Hydra itself. Hydra's errors are raised unchanged; `jobs.spec.mistakes.explained`
turns them into one line.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from baselines.presets import choices, elsewhere, preset
from echo.files import ROOT
from echo.refusals import nearest
from jobs.spec import scale
from jobs.spec.config import Plain, anchored

CONF = ROOT / "conf"
Axes = dict[str, list[str]]
"""Values of each swept setting, in the order of the command."""
SETTING = re.compile(r"(?P<key>\+{0,2}[\w./@:-]+)=(?P<value>.+)", re.DOTALL)


def hydra_words(words: Iterable[str]) -> list[str]:
    """A command line for Hydra.

    `method.x` may be a setting that its YAML leaves at the default, so it becomes `++method.x`; the policy itself refuses unknown ones.
    `launcher.x` is short for `hydra.launcher.x`, and `launcher.extra` takes any name. A value that begins with `~` is a path in a home
    folder. Values that Hydra cannot parse, and existing paths with commas, are quoted.
    """
    prefixes = {"method.": "++", "launcher.extra": "++hydra.", "launcher.": "hydra."}
    return [next((more for start, more in prefixes.items() if word.startswith(start)), "") + _quoted(word) for word in words]


def _quoted(word: str) -> str:
    setting = SETTING.fullmatch(word)
    if setting is None:
        return word
    value = os.path.expanduser(setting["value"])
    if value == setting["value"] and (override := _read(word)) and not (override.is_sweep_override() and os.path.exists(value)):
        return word
    quoted = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + ('\\"' if match[2] else ""), value)
    return written if _read(written := f'{setting["key"]}="{quoted}"') else word


def _read(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def value_of(key: str, words: Sequence[str], default: str) -> str:
    """The last value of a setting in a command line."""
    read = [override for word in hydra_words(words) if word.startswith(f"{key}=") and (override := _read(word))]
    return str(read[-1].value()) if read else default


def chosen(words: Iterable[str] = (), hydra: bool = False) -> DictConfig:
    """The config of one run's settings, in Hydra's words, with unresolved interpolations; with Hydra's own part if wanted."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=hydra)


def one(words: Sequence[str]) -> Plain:
    """The config of some settings of run.py, as plain values."""
    (plain,) = product({}, hydra_words(words))
    return plain


def plain_of(config: DictConfig, words: Sequence[str]) -> Plain:
    """A composed config as plain values, without Hydra's own, with the backbone and scorer of its scale and with resolved paths.

    words: the settings that it was composed from.
    """
    return anchored(_plain(config, words), words)


def _plain(config: DictConfig, words: Sequence[str]) -> Plain:
    bare = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(bare, resolve=True)
    more = scale.choices(plain, words)
    return _composed((*words, *more)) if more else dict(plain)


def plain_file(path: Path) -> Plain:
    """A single file of `conf/`, with unresolved interpolations."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    return dict(content)


def _swept(words: Sequence[str]) -> dict[str, str]:
    """The sweep of the settings' experiment: comma-separated values by setting."""
    params: Any = OmegaConf.to_container(compose("config", list(words), return_hydra_config=True).hydra.sweeper, resolve=True)
    return {str(key): str(value) for key, value in (params["params"] or {}).items()}


def sweep(words: Sequence[str]) -> list[Plain]:
    """The config of every run of `python run.py WORDS -m`, in Hydra's order, by which jobs are packed.

    Raises ValueError for an empty sweep and for a mistake in `ours` or `scale`.
    """
    words = hydra_words(words)
    scale.check(words)
    check_sweeps(words)
    experiment = next((word.partition("=")[2] for word in reversed(words) if word.startswith("experiment=")), None)
    axes: Axes = {}
    fixed: list[str] = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # it knows the groups, for glob(...)
        overrides = [(word, parser.parse_overrides([word])[0]) for word in words]  # parse_override does not pass the groups on
        own = [f"{key}={value}" for key, value in _swept([word for word, one in overrides if not one.is_sweep_override()]).items()]
        for word, override in (*((word, parser.parse_overrides([word])[0]) for word in own), *overrides):
            axes.pop(override.key_or_group, None)
            if override.is_sweep_override():
                axes[override.key_or_group] = [str(value) for value in override.sweep_string_iterator()]
            elif word in words:
                fixed.append(word)
            else:  # an experiment's only value, which the command line may replace
                axes[override.key_or_group] = [word.partition("=")[2]]
    return [plain | {"experiment": experiment} for plain in product(axes, fixed)]


def check_sweeps(words: Iterable[str]) -> None:
    """Raises ValueError in one line for an empty sweep."""
    for word in words:
        override = _read(word)
        if override is None or not override.is_sweep_override():
            continue
        glob: Any = override.value()
        key, names = override.key_or_group, choices(override.key_or_group)
        if isinstance(glob, Glob):
            if not glob.filter(names):
                raise ValueError(f"{word}: matches nothing; nearest is {key}={nearest(''.join(glob.include[:1]).strip('*'), names)}")
        elif next(iter(override.sweep_iterator()), None) is None:
            raise ValueError(f"{word}: is a sweep over nothing; nearest is {key}=0,1")


def product(axes: Mapping[str, Sequence[str]], fixed: Sequence[str]) -> list[Plain]:
    """The config of every combination of swept values; configs that differ only in seed or method are composed once."""
    rows = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for values in itertools.product(*axes.values()):
            pairs = dict(zip(axes, values))
            put: Plain = {}
            if (seed := pairs.pop("seed", None)) is not None:
                put["seed"] = int(seed) if seed.isdecimal() else seed  # what is no number is refused where the config is read
            chosen = (f"{'++' if key.startswith('method.') else ''}{key}={value}" for key, value in pairs.items())
            written = (*fixed, *chosen)
            rows.append(anchored(_row(written), written) | put)
    return rows


def _row(words: tuple[str, ...]) -> Plain:
    """The composed config of some settings. A preset replaces another that overrides the same of other groups without composing again."""
    names = [word.removeprefix("method=") for word in words if word.startswith("method=")]
    if len(names) != 1 or any("method." in word for word in words) or elsewhere(names[0]) is None:
        return _composed(words)
    like = next((name for name in ("echo", "longlive") if elsewhere(name) == elsewhere(names[0])), names[0])
    plain = _composed(tuple(f"method={like}" if word.startswith("method=") else word for word in words))
    return plain | {"method": preset("method", names[0])}


@lru_cache(maxsize=1024)
def _composed(words: tuple[str, ...]) -> Plain:
    return _plain(compose("config", list(words)), words)
