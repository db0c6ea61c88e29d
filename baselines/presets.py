"""Policies by the names of conf/method, without Hydra: what `eval.figures.trace`, `eval.audit.replay` and the benchmarks read."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from baselines import registry
from echo.cache.policy import Policy
from echo.files import ROOT
from echo.refusals import nearest

CONF = ROOT / "conf"


def preset(group: str, name: str) -> dict[str, Any]:
    """One YAML of a config group upon those that its defaults name. Raises ValueError that names the nearest choice."""
    known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if name not in known:
        raise ValueError(f"unknown {group} {name!r}; nearest is {nearest(name, known)!r} of {', '.join(known)}")
    content = OmegaConf.load(CONF / group / f"{name}.yaml")
    assert isinstance(content, DictConfig)
    bases = [base for base in content.pop("defaults", []) if isinstance(base, str) and base != "_self_"]  # others are of other groups
    merged = OmegaConf.to_container(OmegaConf.merge(*(preset(group, base) for base in bases), content))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def prompt_set(task: str, backbone: str = "tiny") -> str:
    """Path of a task's prompts for a backbone, from the project on. Raises ValueError as `preset` does."""
    folder = {"prompt_folder": preset("backbone", backbone)["prompt_folder"]}
    return str(OmegaConf.create({"backbone": folder, "task": preset("task", task)}).task.prompt_set)


def make_policy(options: dict[str, Any]) -> Policy:
    """The named preset with the command line's `method.*` settings."""
    settings = OmegaConf.create(preset("method", options["method"]))
    dotted = [f"{key.removeprefix('method.')}={value}" for key, value in options.items() if key.startswith("method.")]
    merged = OmegaConf.to_container(OmegaConf.merge(settings, OmegaConf.from_dotlist(dotted)))
    assert isinstance(merged, dict)
    return registry.make(merged["policy"], {str(k): v for k, v in merged.items() if k not in ("name", "policy")})
