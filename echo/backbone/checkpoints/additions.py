"""LoRA files of other tools: the names of their tensors, and their scale.

Names are those of peft, diffusers, ComfyUI, kohya and musubi. A scale, alpha / rank (LoRA, arXiv 2106.09685, section 4.1), stands in a
folder's config, in a file's header, or beside each layer; where it stands nowhere it is 1, as in LongLive's file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echo.backbone.checkpoints.headers import DOWN, UP, misfit
from echo.backbone.checkpoints.names import bare, from_diffusers, looks_like, to_diffusers
from echo.backbone.checkpoints.weights import ADDITIONS, Weights, open_weights
from echo.refusals import reading

ADAPTER = "adapter_config.json"
ALPHA = ".alpha"
END = re.compile(r"\.(?:lora_(?P<peft>[AB])(?:\.\w+)?\.weight|lora[._](?P<kohya>down|up)\.weight|(?P<alpha>alpha))$")
"""Ends of a tensor's name after the layer: peft's and diffusers' (with an adapter's name), kohya's and ComfyUI's, a scale."""
OURS = {"A": DOWN, "down": DOWN, "B": UP, "up": UP, "alpha": ALPHA}
FLAT = re.compile(r"^lora_(unet|transformer)_")
"""Prefix of a layer's name whose dots have become underscores (kohya, musubi)."""
OTHERS = (
    (r"\.hada_w", "a LoHa, a product of two low-rank matrices"),
    (r"\.lokr_", "a LoKr, a Kronecker product"),
    (r"dora_scale|lora_magnitude_vector", "a DoRA, which scales the columns of the sum"),
    (r"\.lora_mid\.", "a LoCon with a middle matrix"),
    (r"\.(diff|diff_b|set_weight)$", "a whole difference of a tensor, as ComfyUI saves them"),
    (r"lora_(B|up)\.(\w+\.)?bias$", "an addition to a bias"),
    (r"^(lora_te|text_encoder)", "an addition to a text encoder"),
)
"""Names of tensors of other adapters, which cannot be merged, and what they are."""
RECORD = "lora_adapter_metadata"
"""Where diffusers keeps peft's config in a file's header."""
KOHYA = {"ss_network_alpha": "lora_alpha", "ss_network_dim": "r"}
"""kohya's and musubi's keys in a header; they are ignored where each layer has its own alpha."""
KEYS = ("lora_alpha", "r", "use_rslora", "rank_pattern", "alpha_pattern", "use_dora")

Pair = tuple[Tensor, Tensor, float]
"""down [rank, in], up [out, rank] and the scale of one layer's addition."""


def names_of(names: Collection[str], layers: Collection[str]) -> dict[str, str]:
    """`<layer>.lora_A.weight`, `<layer>.lora_B.weight` and `<layer>.alpha` by the network's names of its layers -> the file's own names.

    Other names stand for themselves. Raises ValueError for tensors that are not LoRA weights, and for two names of one tensor.
    """
    flat = {name.replace(".", "_"): layer for layer in layers for name in (layer, to_diffusers(layer))}
    by_ours: dict[str, str] = {}
    for own in names:
        for pattern, what in OTHERS:
            if re.search(pattern, own):
                raise ValueError(f"{own}: {what}, which is not merged; nearest is a LoRA of linear layers")
        short = from_diffusers(bare(own))
        if end := END.search(short):
            layer = short[: end.start()]
            short = flat.get(FLAT.sub("", layer), layer) + OURS[str(end[end.lastgroup or 0])]
        if short in by_ours:
            raise ValueError(f"{by_ours[short]} and {own} both mean {short}; keep one of the two additions")
        by_ours[short] = own
    return by_ours


def check_lora(
    path: Path, layers: Mapping[str, tuple[int, ...]], *, whole: bool = False
) -> Callable[[str, torch.device | str], Pair | None]:
    """Check LoRA weights by their header and scale, or completely.

    Args:
        path: a file, or the folder that peft writes.
        layers: shapes [out, in] of the network's linear layers.
        whole: whether all tensors are read too.

    Returns:
        A function from a layer's name and a device to its LoRA weights; None for a layer without.

    Raises:
        ValueError: in one line with the first wrong key and the rule.
    """
    weights = open_weights(path, ADDITIONS)
    with reading(path):
        names = names_of(weights.shapes, layers)
        weights.floats(own for name, own in names.items() if not name.endswith(ALPHA))
        shapes = {name: weights.shapes[own] for name, own in names.items() if not name.endswith(ALPHA)}
        if wrong := misfit(shapes, layers):
            kind = looks_like(weights.shapes)
            hint = f"; it looks like {kind}; nearest is lora.pt, which `echo-harness data download backbone=longlive` fetches"
            raise ValueError(f"{path}: {wrong}{'' if 'LoRA' in kind else hint}")
    scales = _scales(path, weights, names, {name.removesuffix(DOWN): shape[0] for name, shape in shapes.items() if name.endswith(DOWN)})
    if whole:
        ups = {own for name, own in names.items() if name.endswith(UP)}
        weights.judge((own for name, own in names.items() if not name.endswith(ALPHA)), zeros=ups)
        if not any(bool(weights.get(own).any()) for own in ups):
            raise ValueError(f"{path}: every {UP[1:]} is zero, so nothing would be added; it was never trained, or is damaged")

    def addition(layer: str, device: torch.device | str) -> Pair | None:
        if layer + DOWN not in names:
            return None
        down, up = (weights.get(names[layer + end]).to(device) for end in (DOWN, UP))
        return down, up, scales[layer]

    return addition


def _scales(path: Path, weights: Weights, names: Mapping[str, str], ranks: Mapping[str, int]) -> dict[str, float]:
    """The scale of each layer. Raises ValueError for one that is not a number, and for two sources that disagree."""
    own = {name.removesuffix(ALPHA): float(weights.get(names[name])) for name in names if name.endswith(ALPHA)}
    whole = _scale(path, weights, ranks, KEYS if own else (*KEYS, *KOHYA))
    if not own:
        return dict.fromkeys(ranks, 1.0 if whole is None else whole)
    if own.keys() != ranks.keys():
        odd = min(own.keys() ^ ranks.keys())
        raise ValueError(f"{path}: {odd}: of {len(ranks)} layers {len(own.keys() & ranks.keys())} have an alpha; all of them, or none")
    scales = {layer: own[layer] / rank for layer, rank in ranks.items()}
    bad = next((layer for layer, scale in scales.items() if not math.isfinite(scale) or scale == 0), None)
    if bad is not None:
        raise ValueError(f"{path}: {names[bad + ALPHA]} is {own[bad]}; a number other than 0 belongs there")
    other = next((layer for layer, scale in scales.items() if whole is not None and not math.isclose(scale, whole, rel_tol=1e-6)), None)
    if other is not None:
        raise ValueError(f"{path}: {other} has scale {scales[other]:g} by its alpha, and {whole:g} by the config; keep one of the two")
    return scales


def _scale(path: Path, weights: Weights, ranks: Mapping[str, int], keys: Collection[str]) -> float | None:
    """The scale that a folder's config or a file's header gives all layers; None if neither has one.

    Files beside the weight file are ignored, because a run's name covers only the file itself.

    Raises:
        ValueError: in one line, for a config without both numbers, with others for single layers, or beside a file that peft wrote.
    """
    config = (path if path.is_dir() else path.parent) / ADAPTER
    if path.is_dir() and config.is_file():
        with reading(config, "numbers r (above 0) and lora_alpha belong there"):
            return _scale_of(str(config), json.loads(config.read_text(encoding="utf-8")), ranks)
    if config.is_file() and path.name.startswith("adapter_model."):
        raise ValueError(f"{path}: its scale stands in the {ADAPTER} beside it; nearest is the folder, {path.parent}")
    said: dict[str, Any] = {"r": next(iter(ranks.values()))} | _header(path, weights.said, keys)
    told = any(key in said for key in ("lora_alpha", "rank_pattern", "alpha_pattern", "use_dora"))
    return _scale_of(f"{path}, in its header", said, ranks) if told else None


def _header(path: Path, entries: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The scale in a file's header, under peft's keys: from diffusers' record, from plain keys, or from kohya's."""
    said: dict[str, Any] = {}
    for key, value in entries.items():
        short = key.removeprefix("transformer.")
        with reading(path, f"{key} in its header is no JSON"):
            if key == RECORD:
                said |= {name.removeprefix("transformer."): inner for name, inner in json.loads(value).items()}
            elif short in keys and value != "None":
                said[KOHYA.get(short, short)] = json.loads(value.lower())
    return said


def _scale_of(where: str, values: Any, ranks: Mapping[str, int]) -> float:
    """alpha / rank; with rank stabilisation alpha / sqrt(rank) (arXiv 2312.03732). Raises ValueError like `_scale`."""
    try:
        rank, alpha = values["r"], values["lora_alpha"]
        scale = alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
        if rank < 0:
            raise ValueError(f"r is {rank}")
        special = next((name for name in ("rank_pattern", "alpha_pattern") if values.get(name)), None)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where}: no scale in it ({reason}); numbers r (above 0) and lora_alpha belong there") from None
    if special is not None:
        raise ValueError(f"{where}: {special} gives layers scales of their own, which are not read; nearest is one r and lora_alpha")
    if values.get("use_dora"):
        raise ValueError(f"{where}: use_dora: a DoRA scales the columns of the sum, which is not merged; nearest is a LoRA")
    layer = next((layer for layer, own in ranks.items() if own != rank), None)
    if layer is not None:
        raise ValueError(f"{where}: r is {rank}, but the addition to {layer} has rank {ranks[layer]}; one of the two is of another file")
    if not math.isfinite(scale) or scale == 0:
        raise ValueError(f"{where}: lora_alpha is {alpha}; a number other than 0 belongs there")
    return float(scale)
