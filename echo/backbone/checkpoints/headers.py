"""Headers of safetensors files, read without torch, and whether LoRA weights fit a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echo.files import Json
from echo.refusals import nearest

LONGEST_BYTES = 2**27
"""A longer header is not one."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Ends of the names of an addition's two tensors, as peft names them."""
Shape = tuple[int, ...]


def read_header(path: Path) -> Json:
    """Header of a safetensors file (8 bytes of length, then JSON): entries by tensor name; empty for any other file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length < LONGEST_BYTES else {}
        except ValueError:
            return {}
    return header if isinstance(header, dict) else {}


def shapes_of(header: Mapping[str, Any]) -> dict[str, Shape]:
    """Shape of every tensor of a file, by name."""
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}


def layers_of(header: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes [out, in] of the linear layers of a backbone's network, by name: `model.<layer>.weight` in its file."""
    weights = {key: shape for key, shape in shapes_of(header).items() if key.startswith("model.") and key.endswith(".weight")}
    return {key[len("model.") : -len(".weight")]: shape for key, shape in weights.items() if len(shape) == 2}


def misfit(additions: Mapping[str, Shape], layers: Mapping[str, Shape]) -> str | None:
    """Why LoRA weights cannot be merged into a network: the first wrong key and the rule; None if they fit.

    Args:
        additions: shapes of `<layer>.lora_A.weight` [rank, in] and `<layer>.lora_B.weight` [out, rank].
        layers: shapes [out, in] of the network's linear layers.
    """
    if not additions:
        return "no tensors; it is not a file of low-rank additions that jobs.train.self_rollout wrote"
    for key in sorted(additions):
        layer = key.removesuffix(DOWN).removesuffix(UP)
        if key not in (layer + DOWN, layer + UP):
            return f"{key}: low-rank additions are named <layer>{DOWN} and <layer>{UP}"
        if layer not in layers:
            return f"{key}: the network has no such linear layer, nearest is {nearest(layer, layers)}"
        partner = layer + (UP if key.endswith(DOWN) else DOWN)
        if partner not in additions:
            return f"{key}: low-rank additions come in pairs, {partner} is missing"
        down, up, weight = additions[layer + DOWN], additions[layer + UP], layers[layer]
        if len(down) != 2 or len(up) != 2 or (up[0], down[1]) != weight or up[1] != down[0]:
            product = f"{UP[1:]} {list(up)} and {DOWN[1:]} {list(down)}"
            return f"{key}: the product of {product} must have the shape of the layer's weight, {list(weight)}"
    return None
