"""What safetensors files say of themselves, read without torch: a header, and whether low-rank additions fit a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

LONGEST_BYTES = 2**27
"""A longer header is none."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""As in `echo.backbone.lora`, which imports torch."""


def read_header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file (8 bytes of length, then JSON): entries by tensor name; empty for any other file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length < LONGEST_BYTES else {}
        except ValueError:
            return {}
    return header if isinstance(header, dict) else {}


def misfit(additions: Mapping[str, Any], backbone: Mapping[str, Any]) -> str | None:
    """Why low-rank additions cannot be merged into a backbone: the first wrong key and the rule; None where they fit.

    Args:
        additions: header of a file of `<layer>.lora_A.weight` [rank, in] and `<layer>.lora_B.weight` [out, rank].
        backbone: header of a backbone's file, whose network has `model.<layer>.weight` [out, in].
    """
    shapes = {key: list(entry["shape"]) for key, entry in additions.items() if key != "__metadata__"}
    if not shapes:
        return "no tensors in its header; it is not a file of low-rank additions that jobs.self_rollout wrote"
    layers = {key[len("model.") : -len(".weight")]: list(entry["shape"]) for key, entry in backbone.items() if _is_layer(key, entry)}
    for key in sorted(shapes):
        layer = key.removesuffix(DOWN).removesuffix(UP)
        if key not in (layer + DOWN, layer + UP):
            return f"{key}: low-rank additions are named <layer>{DOWN} and <layer>{UP}"
        if layer not in layers:
            near = get_close_matches(layer, layers, 1, 0)
            return f"{key}: the network has no such linear layer, nearest is {near[0] if near else 'none'}"
        partner = layer + (UP if key.endswith(DOWN) else DOWN)
        if partner not in shapes:
            return f"{key}: low-rank additions come in pairs, {partner} is missing"
        down, up, weight = shapes[layer + DOWN], shapes[layer + UP], layers[layer]
        if len(down) != 2 or len(up) != 2 or [up[0], down[1]] != weight or up[1] != down[0]:
            return f"{key}: the product of {UP[1:]} {up} and {DOWN[1:]} {down} must have the shape of the layer's weight, {weight}"
    return None


def _is_layer(key: str, entry: Any) -> bool:
    return key.startswith("model.") and key.endswith(".weight") and len(entry["shape"]) == 2
