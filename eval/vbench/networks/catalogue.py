"""The networks of VBench's dimensions by name, each imported at its first use."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from echo.refusals import one_of

CLASSES: Final = MappingProxyType(
    {
        "dino": ("eval.vbench.networks.dino", "Dino"),
        "clip_b32": ("eval.vbench.networks.clip", "ClipB32"),
        "clip_l14": ("eval.vbench.networks.clip", "ClipL14"),
        "aesthetic": ("eval.vbench.networks.aesthetic", "Aesthetic"),
        "musiq": ("eval.vbench.networks.musiq", "Musiq"),
        "raft": ("eval.vbench.networks.raft", "Raft"),
        "amt": ("eval.vbench.networks.amt", "Amt"),
        "viclip": ("eval.vbench.networks.viclip", "Viclip"),
        "dinov2": ("eval.vbench.networks.dino", "Dinov2"),
        "dreamsim": ("eval.vbench.networks.dreamsim", "Dreamsim"),
    }
)
"""Name -> module and class; each has `load(path, *, dtype="fp32", device="cpu")` and `random(size="tiny", seed=0, *, ...)`."""


def network_class(name: str) -> Any:
    """The class of a network, imported now. Raises ValueError for an unknown name or a missing package, which it names."""
    one_of(f"network {name!r}", name, CLASSES)
    module, cls = CLASSES[name]
    return getattr(import_module(module), cls)
