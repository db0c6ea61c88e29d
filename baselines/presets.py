"""Presets by name: the files of conf/method, and the ablations of conf/ablations.yaml, each a base and a change."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from baselines import registry
from echo.cache.policy import Policy
from echo.files import ROOT
from echo.refusals import brief, nearest, reading

CONF = ROOT / "conf"
Preset = dict[str, Any]
"""Content of a YAML file of `conf/`, as plain values."""


@cache
def _changes() -> Preset:
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / "ablations.yaml"))
    return dict(content)


def bases() -> list[str]:
    """The presets around which ablations are made."""
    return list(_changes()["bases"])


@cache
def ablations() -> dict[str, Preset]:
    """Each ablation as if it had a preset file, by the name BASE_CHANGE: base, name, label and change."""
    files = {}
    for base in bases():
        start = preset("method", base)["label"].replace("Echo-Forcing", "Echo")
        for change, settings in _changes()["changes"].items():
            own = {"defaults": [base, "_self_"], "name": f"{base}_{change}", "label": f"{start}, {settings['label']}"}
            files[f"{base}_{change}"] = settings | own
    return files


def without_file(name: str) -> Preset | None:
    """The preset of an ablation, or of another package's policy at its defaults, which have no files; None for any other name."""
    if name in ablations():
        return ablations()[name]
    return {"name": name.rpartition(":")[2], "policy": name} if ":" in name or name in registry.packaged() else None


def choices(group: str) -> list[str]:
    """All named choices of a config group, those of packages with policies included."""
    files = [path for folder in (CONF, *registry.conf_folders()) for path in (folder / group).glob("*.yaml")]
    return sorted({*(path.stem for path in files), *((*ablations(), *registry.packaged()) if group == "method" else ())})


def _read(group: str, name: str) -> tuple[Path, DictConfig, list[Any]]:
    """The file of one choice, its content, and its defaults. Raises ValueError that names the nearest choice."""
    path = CONF / group / f"{name}.yaml"
    if not path.is_file():
        path = next((file for folder in registry.conf_folders() if (file := folder / group / path.name).is_file()), path)
    made = without_file(name) if group == "method" and not path.is_file() else None
    if made is None and not path.is_file():
        known = choices(group)
        raise ValueError(f"unknown {group} {name!r}; nearest is {nearest(name, known)!r} of {', '.join(known)}")
    with reading(path, "a choice is a YAML file of keys and values"):
        content = OmegaConf.load(path) if made is None else OmegaConf.create(made)
        if not isinstance(content, DictConfig):
            raise ValueError(f"{path}: a list; a choice is a YAML file of keys and values")
        return path, content, list(content.pop("defaults", []))


def _ours(group: str, name: str) -> bool:
    """Whether a choice is of this project, so that it can be cached."""
    return (CONF / group / f"{name}.yaml").is_file() or (group == "method" and name in ablations())


@cache
def elsewhere(method: str) -> tuple[str, ...] | None:
    """What a preset of this project overrides of other groups, such as the backbone; None for any other name."""
    if not _ours("method", method):
        return None
    defaults = [base for base in _read("method", method)[2] if base != "_self_"]
    return tuple(said for base in defaults for said in ((elsewhere(base) or ()) if isinstance(base, str) else (str(base),)))


def preset(group: str, name: str) -> Preset:
    """One choice of a config group, merged with those in its defaults. Raises ValueError that names the nearest choice."""
    return deepcopy((_kept if _ours(group, name) else _merged)(group, name))


def _merged(group: str, name: str) -> Preset:
    path, content, defaults = _read(group, name)
    below = [preset(group, base) for base in defaults if isinstance(base, str) and base != "_self_"]  # others are of other groups
    with reading(path, "a choice is a YAML file of keys and values"):
        merged = OmegaConf.to_container(OmegaConf.merge(*below, content))
        assert isinstance(merged, dict)
        if group == "method" and not isinstance(merged.get("policy"), str):
            said = brief(merged.get("policy"))
            raise ValueError(f"{path}: policy={said}; it names the policy that it is a preset of; nearest is policy={name}")
    return {str(key): value for key, value in merged.items()}


_kept = cache(_merged)


def prompt_set(task: str, backbone: str = "tiny") -> str:
    """Path of a task's prompts for a backbone, relative to the project. Raises ValueError like `preset`."""
    folders = {"own": preset("backbone", backbone)["prompt_folder"]}
    return str(OmegaConf.create({"prompt_folders": folders, "checkpoints": "checkpoints", "task": preset("task", task)}).task.prompt_set)


def make_policy(options: Mapping[str, Any]) -> Policy:
    """The named preset with the command line's `method.*` settings."""
    settings = OmegaConf.create(preset("method", options["method"]))
    dotted = [f"{key.removeprefix('method.')}={value}" for key, value in options.items() if key.startswith("method.")]
    merged = OmegaConf.to_container(OmegaConf.merge(settings, OmegaConf.from_dotlist(dotted)))
    assert isinstance(merged, dict)
    return registry.make(merged["policy"], {str(k): v for k, v in merged.items() if k not in ("name", "policy")})
