"""Hydra's errors about a command line in one line with the nearest valid choice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines.presets import choices
from echo.refusals import first_line, similar, suggestion
from jobs.spec.compose import CONF, chosen, hydra_words, plain_file

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)
"""Errors that Hydra raises for a wrong command line."""
LAUNCHER = "hydra.launcher."
OURS = (LAUNCHER, "hydra.searchpath", "hydra.verbose", "hydra.help")
"""Hydra's own settings that are allowed."""


@contextmanager
def explained(words: Sequence[str]) -> Iterator[None]:
    """Turn Hydra's errors about these settings into a ValueError of one line."""
    try:
        yield
    except REFUSALS as error:
        raise ValueError(explain(error, words)) from error


def explain(error: Exception, words: Sequence[str]) -> str:
    """One line for an error of Hydra or OmegaConf about the arguments of a command line."""
    multirun = any(word in ("-m", "--multirun") for word in words)
    overrides: list[Override] = []
    for word in hydra_words(word for word in words if not word.startswith("-")):
        if "=" not in word and not word.startswith("~"):
            return f"{word}: not understood; a setting is key=value, sweeps are key=a,b"
        try:
            overrides.append(OverridesParser.create().parse_override(word))
        except HydraException as complaint:
            return f"{word}: cannot be read ({first_line(complaint)}); a setting is key=value, sweeps are key=a,b"
    slurm = any((override.key_or_group, override.value()) == ("hydra/launcher", "slurm") for override in overrides)
    known: list[str] = []
    for override in overrides:
        name = override.key_or_group
        if slurm and name.startswith(LAUNCHER) and name.removeprefix(LAUNCHER).partition(".")[0] in _launcher_keys():
            continue
        if not known and not (CONF / name).is_dir():
            known = _known(overrides)
        line = _mistake(override, multirun, known)
        if line is not None:
            return line
    if isinstance(error, HydraException) and error.__cause__ is not None:
        return f"{first_line(error)} ({first_line(error.__cause__)})"
    return first_line(error)


def check_own(words: Iterable[str]) -> None:
    """Raises ValueError in one line for a setting of Hydra's own that is not allowed."""
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key == "hydra" or key.startswith("hydra.") and (not key.startswith(OURS) or "_target_" in key):
            raise ValueError(f"{key}: Hydra's own folders and parts have no say here; nearest is store=DIR, below which all goes")


def _mistake(override: Override, multirun: bool, known: Sequence[str]) -> str | None:
    key = override.key_or_group
    written = (override.input_line or "").lstrip("+~")
    if not key:
        return f"{written}: has no key; a setting is key=value, for example seed{written}"
    if override.is_sweep_override() and not multirun:
        path = f", or, for one path, '{key}=\"{written.partition('=')[2]}\"'" if "/" in written.partition("=")[2] else ""
        return f"{written}: asks for several runs; add -m{path}"
    if key == "hydra/launcher":
        options, value = sorted(path.stem for path in (CONF / key).glob("*.yaml")), written.partition("=")[2]
        return None if value in options else f"{written}: no such launcher; {suggestion(value, options)}"
    if key.startswith(LAUNCHER):
        return _launcher(key.removeprefix(LAUNCHER))
    if key.startswith(("hydra.", "hydra/", "method.")):
        return None
    if (CONF / key).is_dir():
        return _choice(key, _values(override))
    if key in _launcher_keys():
        return f"unknown key {key}: nearest is launcher.{key}"
    if key not in known:
        return f"unknown key {key}: {suggestion(key, known if similar(key, known) else [name for name in known if '.' not in name])}"
    return None


def _choice(group: str, values: Iterable[str]) -> str | None:
    """Message for a wrong choice of a group; valid are its files and, if it is optional, null."""
    options = choices(group)
    may_lack = any(group in entry and entry[group] is None for entry in plain_file(CONF / "config.yaml")["defaults"] if entry != "_self_")
    for value in values:
        lacks = value == "null" and may_lack
        if not lacks and value not in options and not (group == "method" and re.fullmatch(r"[\w.]+:\w+", value)):
            return f"{group}={value}: no such {group}; {suggestion(value, options)}"
    return None


def _known(overrides: Sequence[Override]) -> list[str]:
    """All keys of the configs with the groups that these overrides choose."""
    groups = {
        override.key_or_group: [
            f"{override.key_or_group}={value}" for value in _values(override) if value in choices(override.key_or_group)
        ]
        for override in overrides
        if override.key_or_group not in ("method", "hydra/launcher") and (CONF / override.key_or_group).is_dir()
    }
    first = {group: words[0] for group, words in groups.items() if words}
    composed = [chosen((first | {group: word}).values()) for group, words in groups.items() for word in words[1:]]
    return list(dict.fromkeys(key for config in (chosen(first.values()), *composed) for key in _keys(config)))


def _launcher_keys() -> list[str]:
    return [key for key in plain_file(CONF / "hydra" / "launcher" / "slurm.yaml") if key != "_target_"]


def _launcher(name: str) -> str | None:
    """Message for a setting of the launcher that only the SLURM launcher has."""
    known = _launcher_keys()
    if name.partition(".")[0] in known:
        return f"launcher.{name}: is a setting of jobs on a cluster; add hydra/launcher=slurm"
    return f"unknown key launcher.{name}: {suggestion(name, known)}"


def _values(override: Override) -> list[str]:
    if isinstance(override.value(), Glob):  # takes what is there
        return []
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return ["null" if override.value() is None else str(override.value())]


def _keys(config: Any, where: str = "") -> Iterator[str]:
    for key in config:
        path = f"{where}{key}"
        yield path
        node = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        if isinstance(node, DictConfig):
            yield from _keys(node, path + ".")
    if not where:
        yield from (path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
