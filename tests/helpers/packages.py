"""A package with a policy as pip leaves it in an environment: its module, a preset, metadata with an entry point. Nothing is installed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from echo.files import ROOT

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "both-ends"
version = "1.2"

[project.entry-points."echo_harness.policies"]
ends = "both_ends.policy:Ends"

[tool.setuptools]
packages = ["both_ends"]

[tool.setuptools.package-data]
both_ends = ["conf/method/*.yaml"]
"""


def fenced(language: str) -> str:
    """The block of docs/policies.md in a language, its indent taken off."""
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / "docs" / "policies.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    assert len(blocks) == 1, f"{len(blocks)} blocks of {language}"
    return textwrap.dedent(blocks[0])


def write_package(folder: Path, preset: bool = True) -> Path:
    """The sources of package `both_ends`: the documented policy and its preset."""
    package = folder / "both_ends"
    (package / "conf" / "method").mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "policy.py").write_text(fenced("python"), encoding="utf-8")
    if preset:
        (package / "conf" / "method" / "ends.yaml").write_text(fenced("yaml"), encoding="utf-8")
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    return folder


def write_metadata(folder: Path, version: str = "1.2", entry: str = "ends = both_ends.policy:Ends") -> None:
    """The metadata that an installation of the package in `folder` would leave."""
    info = folder / "both_ends-1.2.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: both-ends\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[echo_harness.policies]\n{entry}\n", encoding="utf-8")
    (info / "RECORD").write_text("both_ends/__init__.py,,\nboth_ends/policy.py,,\n", encoding="utf-8")
