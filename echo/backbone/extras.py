"""Packages that only the Wan2.1 backbones need (`pip install -e '.[wan]'`)."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from echo.refusals import Missing

INSTALL = "pip install -e '.[wan]'"
PACKAGES = ("transformers", "tokenizers", "diffusers", "ftfy", "filelock")
"""Packages that a Wan2.1 backbone imports."""


def check(asked: str) -> None:
    """Check that all of `PACKAGES` are installed, without importing any. Raises `Missing` that names the missing ones."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise Missing(f"{asked} needs {names}: {INSTALL}", f"packages {names}", INSTALL)


def need(name: str, *, asked: str = "a Wan2.1 backbone") -> Any:
    """The module `name` of an optional package, imported on demand; typed Any, since it may be missing.

    Raises ValueError if it is missing or cannot be imported; the message names `asked`, which needs it, and how to install it.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        broken = "" if getattr(error, "name", None) == package else f" (it does not import: {str(error).partition(chr(10))[0]})"
        raise ValueError(f"{asked} needs {package}: pip install -e '.[wan]'{broken}") from None


@cache
def version_of(package: str) -> str:
    """A package's version without importing it; "missing" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
