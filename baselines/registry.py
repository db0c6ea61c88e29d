"""Policies by name: Echo-Forcing, the modules of this package, and the policies of other packages.

Another package declares its policies as entry points of the group `echo_harness.policies`, or a config names one outright:
`method.policy=package.module:Class`. Shipped names come first: no installed package can take them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import baselines
from echo.cache.policy import Policy
from echo.policy import Echo
from echo.refusals import nearest
from echo.settings import build

NOT_POLICIES = ("presets", "registry")


def names() -> list[str]:
    """Every policy that can be named: Echo and the modules of this package."""
    return ["echo", *sorted(module.name for module in pkgutil.iter_modules(baselines.__path__) if module.name not in NOT_POLICIES)]


def find(name: str) -> type[Policy]:
    """The class of a policy. Raises ValueError for an unknown name, or a module with none or several policies."""
    if name == "echo":
        return Echo
    if name not in names():
        raise ValueError(f"unknown policy {name!r}; nearest is {nearest(name, names())!r} of {', '.join(names())}")
    module = importlib.import_module(f"baselines.{name}")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Policy) and c.__module__ == module.__name__]
    if len(classes) != 1:
        raise ValueError(f"{module.__name__}: a policy module defines exactly one Policy, not {len(classes)}")
    return classes[0]


def make(name: str, settings: Mapping[str, Any], where: str = "") -> Policy:
    """A policy from its settings. Raises ValueError that names an unknown key or a bad value and the nearest valid one."""
    return build(find(name), settings, where, of=f"policy {name}")
