"""Policies by name: Echo-Forcing, the modules of this package, and the policies of other packages.

Another package declares its policies as entry points of the group `echo_harness.policies`, and may ship presets in a folder
`conf/method` of its own; or a config names a class directly: `method.policy=package.module:Class`. An installed package cannot override
shipped names and presets. `method=package.module:Class` is short for a preset with only the policy.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import baselines
from echo.cache.policy import Policy
from echo.files import file_digest
from echo.policy import Echo
from echo.refusals import first_line, nearest, nearest_of
from echo.settings import build

GROUP = "echo_harness.policies"
NOT_POLICIES = ("ours", "presets", "registry")
OWN = ("echo", "baselines", "data")
"""Packages of this project with policies, and with the renderer that takes a policy's place."""


def shipped() -> list[str]:
    """Echo and the modules of this package."""
    return ["echo", *sorted(module.name for module in pkgutil.iter_modules(baselines.__path__) if module.name not in NOT_POLICIES)]


def packaged() -> dict[str, metadata.EntryPoint]:
    """The entry points of other packages by the names of their policies; the first one of each name."""
    policies: dict[str, metadata.EntryPoint] = {}
    for info in _installed("entry_points.txt"):
        with contextlib.suppress(Exception):  # metadata that cannot be read declares nothing
            for entry in metadata.Distribution.at(info).entry_points.select(group=GROUP):
                if entry.name not in shipped() and metadata.EntryPoint.pattern.match(entry.value):
                    policies.setdefault(entry.name, entry)
    return policies


def _installed(file: str) -> Iterator[Path]:
    """Metadata folders that have such a regular file, in Python's order; anything else is skipped, since a pipe would block."""
    for place in sys.path:
        with contextlib.suppress(OSError):  # unreadable folders are skipped
            yield from (path.parent for path in sorted(Path(place).glob(f"*.*-info/{file}")) if path.is_file())


def _package_of(top: str) -> tuple[str | None, str | None]:
    """Name and version of the installed package that contains a module; None for a module of no package."""
    held = re.compile(rf"^{re.escape(top)}(/|\.py,|$)", re.MULTILINE)
    for file in ("top_level.txt", "RECORD"):
        for info in _installed(file):
            if held.search((info / file).read_text(encoding="utf-8")):
                if not any((info / name).is_file() for name in ("METADATA", "PKG-INFO")):
                    raise ValueError(f"{info}: no METADATA")
                package = metadata.Distribution.at(info)
                return package.name, package.version
    return None, None


def names() -> list[str]:
    """Every policy that has a name, without `module:Class`."""
    return [*shipped(), *sorted(packaged())]


def conf_folders() -> list[Path]:
    """Folders `conf` of the packages that declare policies, which are not imported."""
    specs = [find_spec(module) for module in sorted({entry.module.partition(".")[0] for entry in packaged().values()})]
    places = [Path(place) / "conf" for spec in specs if spec for place in spec.submodule_search_locations or ()]
    return [place for place in places if place.is_dir()]


def find(name: str) -> type[Policy]:
    """The class of a policy. Raises ValueError for an unknown name, or a module without the named policy."""
    if name == "echo":
        return Echo
    if name in shipped():
        module = f"baselines.{name}"
        own = [kind for kind in _policies(module, name).values() if kind.__module__ == module]
        if len(own) != 1:
            raise ValueError(f"{module}: a policy module defines exactly one Policy, not {len(own)}")
        return own[0]
    entry = packaged().get(name)
    module, colon, kind = (entry.value if entry else name).partition(":")
    if not colon:
        tail = "or method.policy=package.module:Class of another package"
        raise ValueError(f"unknown policy {name!r}; nearest is {nearest(name, names())!r} of {', '.join(names())}, {tail}")
    kinds = _policies(module, name)
    if kind not in kinds:
        raise ValueError(f"policy {name!r}: {module} has no such policy; {nearest_of(kind, kinds) if kinds else 'it has none at all'}")
    return kinds[kind]


def _policies(module: str, name: str) -> dict[str, type[Policy]]:
    """The policies that can be named in a module."""
    try:
        content = vars(importlib.import_module(module))
    except Exception as error:  # any error of foreign code becomes one line
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(
            f"policy {name!r}: {module} cannot be imported ({why}); install its package, or add its folder to PYTHONPATH"
        ) from error
    kinds = {key: kind for key, kind in content.items() if isinstance(kind, type) and issubclass(kind, Policy)}
    return {key: kind for key, kind in kinds.items() if not inspect.isabstract(kind)}


def make(name: str, settings: Mapping[str, Any], where: str = "") -> Policy:
    """A policy from its settings. Raises ValueError that names an unknown key or a bad value and the nearest valid one."""
    return build(find(name), settings, where, of=f"policy {name}")


def source_of(policy: Policy) -> dict[str, str | None] | None:
    """Package, version and file digest of another package's policy, which identify its code.

    None for a policy of this project, which its settings identify.
    """
    kind = type(policy)
    top = kind.__module__.partition(".")[0]
    if top in OWN:
        return None
    try:
        package, version = _package_of(top)
    except Exception as error:  # file lists of installed packages may hold anything
        why = first_line(error)
        raise ValueError(f"policy {kind.__module__}:{kind.__name__}: its package cannot be told ({why}); install it again") from error
    return {"package": package, "version": version, "file": file_digest(Path(inspect.getfile(kind)))}
