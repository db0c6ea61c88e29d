"""Hydra's complaints about a command line, told in one line with the nearest valid choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from baselines.presets import choices
from echo.refusals import suggestion
from jobs.spec.compose import CONF, defaults, plain_file

REFUSALS = (HydraException, OmegaConfBaseException)
"""What Hydra raises for a command line that it does not understand."""
LAUNCHER = "hydra.launcher."


@contextmanager
def explained(words: Sequence[str]) -> Iterator[None]:
    """Hydra's errors over these words as a ValueError of one line."""
    try:
        yield
    except REFUSALS as error:
        raise ValueError(explain(error, words)) from error


def explain(error: Exception, words: Sequence[str]) -> str:
    """One line for what Hydra or OmegaConf raised over the arguments of a command line."""
    overrides = [word for word in words if "=" in word.lstrip("-")]
    multirun = any(word in ("-m", "--multirun") for word in words)
    slurm = "hydra/launcher=slurm" in overrides
    for word in overrides:
        key = word.lstrip("+").partition("=")[0]
        if slurm and key.startswith(LAUNCHER) and key.removeprefix(LAUNCHER).partition(".")[0] in _launcher_keys():
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as complaint:
            return f"{word}: cannot be read ({_first(complaint)}); a setting is key=value, sweeps are key=a,b"
        line = _mistake(override, multirun)
        if line is not None:
            return line
    if isinstance(error, HydraException) and error.__cause__ is not None:
        return f"{_first(error)} ({_first(error.__cause__)})"
    return _first(error)


def _mistake(override: Override, multirun: bool) -> str | None:
    key = override.key_or_group
    written = (override.input_line or "").lstrip("+~")
    if override.is_sweep_override() and not multirun:
        return f"{written}: asks for several runs; add -m"
    if key == "hydra/launcher":
        options, value = sorted(path.stem for path in (CONF / key).glob("*.yaml")), written.partition("=")[2]
        return None if value in options else f"{written}: no such launcher; {suggestion(value, options)}"
    if key.startswith(LAUNCHER):
        return _launcher(key.removeprefix(LAUNCHER))
    if key.startswith(("hydra.", "hydra/", "method.")):
        return None
    if (CONF / key).is_dir():
        options = choices(key)
        for value in _values(override):
            if value not in (*options, "null", "None") and ":" not in value:
                return f"{key}={value}: no such {key}; {suggestion(value, options)}"
        return None
    known = list(_keys(defaults()))
    if key in _launcher_keys():
        return f"unknown key {key}: nearest is launcher.{key}"
    if key not in known:
        return f"unknown key {key}: {suggestion(key, known)}"
    return None


def _launcher_keys() -> list[str]:
    return [key for key in plain_file(CONF / "hydra" / "launcher" / "slurm.yaml") if key != "_target_"]


def _launcher(name: str) -> str | None:
    """What is wrong with a setting of the launcher, which belongs to the one that has settings."""
    known = _launcher_keys()
    if name.partition(".")[0] in known:
        return f"launcher.{name}: is a setting of jobs on a cluster; add hydra/launcher=slurm"
    return f"unknown key launcher.{name}: {suggestion(name, known)}"


def _values(override: Override) -> list[str]:
    if isinstance(override.value(), Glob):  # takes what is there
        return []
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.value())]


def _keys(config: Any, where: str = "") -> Iterator[str]:
    for key in config:
        path = f"{where}{key}"
        yield path
        node = None if OmegaConf.is_missing(config, key) else config._get_node(key)
        if isinstance(node, DictConfig):
            yield from _keys(node, path + ".")
    if not where:
        yield from (path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
