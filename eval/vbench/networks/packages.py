"""Packages that only VBench's networks need: the line that installs them, and a check before any work for missing ones.

They pin conflicting versions of each other, so the second half of the line installs them without their dependencies. This is harmless
for the eight dimensions: scores with the pinned versions and with these were bit-equal on the same weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from echo.backbone.extras import version_of
from echo.refusals import Missing

INSTALL: Final = (
    "pip install -e '.[vbench]' && pip install --no-deps vbench==0.1.5 openai-clip==1.0.1 pyiqa==0.1.16 timm==1.0.31 torchvision==0.28.0"
)
"""The line that installs them."""
DREAMSIM: Final = "pip install --no-deps dreamsim==0.2.1 open-clip-torch==3.3.0 peft==0.21.2 accelerate==1.15.0 psutil==7.2.2"
"""The line after it, only for DreamSim."""

NATIVE: Final = ("transformers", "torchvision", "pyiqa", "timm", "vbench", "decord", "einops", "ftfy", "PIL", "yaml", "requests")
"""Modules that our own scoring imports."""
PACKAGE: Final = (*NATIVE, "clip", "pkg_resources", "easydict", "imageio", "omegaconf")
"""Modules that `backend=vbench_package` imports."""

_DISTRIBUTIONS: Final = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "clip": "openai-clip",
    "open_clip": "open-clip-torch",
    "pkg_resources": "setuptools<81",
}
_SCHEMAS: Final = ("nms", "qnms")
_KEPT_ALIVE: list[Any] = []


def missing(modules: Sequence[str] = NATIVE) -> list[str]:
    """The modules that are not installed, by the names of their packages; none of them is imported."""
    return [distribution(name) for name in modules if find_spec(name) is None]


def distribution(module: str) -> str:
    """The name of a module's package on PyPI."""
    return _DISTRIBUTIONS.get(module, module)


def check(modules: Sequence[str] = NATIVE, *, asked: str = "eval=vbench") -> None:
    """Raise `Missing`, with all missing packages and the line that installs them, unless all modules are installed."""
    if absent := missing(modules):
        names = ", ".join(absent)
        raise Missing(f"{asked} needs {names}: {INSTALL}", f"packages {names}", INSTALL)


def need(name: str, *, asked: str) -> Any:
    """Import the module `name` of an optional package; typed Any, since it may not be installed.

    Raises ValueError, with what `asked` for it and the line that installs it, if it is missing or cannot be imported.
    """
    package = name.partition(".")[0]
    prepare()
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:
        gone = isinstance(error, ImportError) and error.name == package
        broken = "" if gone else f" (it does not import: {str(error).strip().partition(chr(10))[0]})"
        line = DREAMSIM if package == "dreamsim" else INSTALL
        raise ValueError(f"{asked} needs {distribution(package)}: {line}{broken}") from None


def versions(*distributions: str) -> dict[str, str]:
    """Versions of installed packages without importing them; "missing" for one that is not installed."""
    return {name: version_of(name) for name in sorted(distributions)}


@lru_cache(maxsize=1)
def prepare() -> None:
    """Make torchvision importable with a torch that lacks the CUDA libraries that torchvision's compiled part needs.

    torchvision ignores that its compiled part fails to load, then registers two of that part's operators, which torch does not know. The
    RuntimeError also breaks transformers, which imports torchvision if it is installed. After declaring the two operators, the Python
    part of torchvision works. If the compiled part loads, this function does nothing.
    """
    import torch

    spec = None if "torchvision" in sys.modules else find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        for part in sorted(Path(spec.origin).parent.glob("_C*.so")):
            torch.ops.load_library(str(part))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in _SCHEMAS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # The operators disappear together with the library object.
        _KEPT_ALIVE.append(library)
