"""Network weights of every released format, under Wan's names: Self-Forcing, LongLive, Causal- and Infinite-Forcing, diffusers, Wan.

A file is judged by the names and shapes in its header before a tensor is read, then read tensor by tensor: cast, merged with
low-rank additions, moved, given to the network. So memory holds the network once, and beside it one tensor of the file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from echo.backbone.checkpoints.headers import DOWN, UP, Shape, misfit
from echo.backbone.checkpoints.layout import module_shapes, refuse_broken
from echo.backbone.checkpoints.lora import with_addition
from echo.backbone.checkpoints.names import looks_like, mismatch, wan_names
from echo.backbone.sizes import WanConfig
from echo.backbone.wan import WanModel
from echo.backbone.checkpoints.weights import ADDITIONS, Weights, open_weights

ADAPTER = "adapter_config.json"
NEAREST = "nearest is self_forcing_dmd.pt or longlive_base.pt, which `echo-harness data download backbone=self_forcing,longlive` fetches"


def load_network(path: Path, lora: Path | None, config: WanConfig, dtype: torch.dtype, device: torch.device | str) -> WanModel:
    """The network of a checkpoint, for inference.

    Args:
        path: weights in any of the formats.
        lora: low-rank additions to merge, summed in fp32 before the cast.
        config: the sizes that the weights must have.
        dtype: type of all parameters.
        device: where the network goes; additions are multiplied there too.

    Raises:
        ValueError: as `check` and `check_lora`, before any tensor is read; for a tensor that is not finite or a matrix of zeros alone.
    """
    weights, names = check(path, config)
    added = None if lora is None else check_lora(lora, config)

    def one(name: str) -> Tensor:
        tensor = weights.get(names[name])
        if added is not None and name.endswith(".weight") and (pair := added(name.removesuffix(".weight"), device)):
            tensor = with_addition(tensor.to(device), *pair)
        return tensor.to(device=device, dtype=dtype, copy=True)

    model = _assemble(config, one)
    refuse_broken(str(path) if lora is None else f"{path} with {lora}", model, lambda name: weights.get(names[name]))
    return model


def random_network(config: WanConfig, dtype: torch.dtype, device: torch.device | str, seed: int = 0) -> WanModel:
    """A network of random weights: each tensor depends on its name and the seed alone, whatever the device and the type.

    Matrices keep the variance of their input; what a block adds to the residual is damped by its depth, so that the
    flow of unit noise has about unit variance at every size.
    """
    shapes = network_shapes(config)
    return _assemble(config, lambda name: _drawn(name, shapes[name], config.layers, seed).to(device=device, dtype=dtype))


def _drawn(name: str, shape: Shape, layers: int, seed: int) -> Tensor:
    """Random weights of one tensor, fp32 on the host."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    values = torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "little")))
    if name.endswith("modulation"):
        return values.div_(math.sqrt(shape[-1]))
    if len(shape) == 1:
        return values.mul_(0.02) if name.endswith("bias") else values.mul_(0.05).add_(1)
    damping = math.sqrt(2 * layers) if name.endswith((".o.weight", ".ffn.2.weight")) else 1.0
    return values.div_(math.sqrt(math.prod(shape[1:])) * damping)


def _assemble(config: WanConfig, tensor: Callable[[str], Tensor]) -> WanModel:
    """A network whose every tensor comes from a function of its name; the network takes it as it is, without a copy."""
    model = _empty(config)
    model.load_state_dict({name: tensor(name) for name in model.state_dict()}, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _empty(config: WanConfig) -> WanModel:
    """A network of shapes without numbers."""
    with torch.device("meta"):
        return WanModel(config)


def network_shapes(config: WanConfig) -> dict[str, Shape]:
    """Shape of every tensor of the network by Wan's name, in the order of its state."""
    return module_shapes(_empty(config))


def check(path: Path, config: WanConfig) -> tuple[Weights, dict[str, str]]:
    """Judge a checkpoint by its header; the opened file, and Wan's name -> the name in it.

    Raises:
        ValueError: in one line, with the first missing, unexpected and misshapen key and what the file looks like.
    """
    weights = open_weights(path)
    try:
        names = wan_names(weights.shapes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    own_shapes = {name: weights.shapes[theirs] for name, theirs in names.items()}
    if wrong := mismatch(own_shapes, network_shapes(config)):
        kind = looks_like(weights.shapes)
        nearest = "give it as the lora of a base such as longlive_base.pt" if "LoRA" in kind else NEAREST
        if "-of-" in path.name:
            nearest = f"nearest is the folder of all shards, {path.parent}"
        ours = f"a Wan transformer {config.dim} wide with {config.layers} layers"
        raise ValueError(f"{path}: not the weights of {ours}: {wrong}; it looks like {kind}; {nearest}")
    return weights, names


Pair = tuple[Tensor, Tensor, float]
"""down [rank, in], up [out, rank] and the scale of one layer's addition."""


def check_lora(path: Path, config: WanConfig) -> Callable[[str, torch.device | str], Pair | None]:
    """Judge low-rank additions by their header and their scale; a layer's addition by its name, on a device, None for a layer without.

    Raises:
        ValueError: in one line with the first wrong key and the rule.
    """
    weights = open_weights(path, ADDITIONS)
    names = {name.replace(".default.weight", ".weight"): own for name, own in wan_names(weights.shapes).items()}
    own_shapes = {name: weights.shapes[theirs] for name, theirs in names.items()}
    layers = {name.removesuffix(".weight"): shape for name, shape in network_shapes(config).items() if len(shape) == 2}
    if wrong := misfit(own_shapes, layers):
        kind = looks_like(weights.shapes)
        hint = f"; it looks like {kind}; nearest is lora.pt, which `echo-harness data download backbone=longlive` fetches"
        raise ValueError(f"{path}: {wrong}{'' if 'LoRA' in kind else hint}")
    scale = _scale(path)

    def addition(layer: str, device: torch.device | str) -> Pair | None:
        if layer + DOWN not in names:
            return None
        down, up = (weights.get(names[layer + end]).to(device) for end in (DOWN, UP))
        return down, up, scale

    return addition


def _scale(path: Path) -> float:
    """alpha / rank by the adapter_config.json that peft writes into a folder; 1, as in LongLive, for a file.

    What lies beside a file is not looked at: a run's name covers the file alone, and nothing outside it may change a pixel.

    Raises:
        ValueError: in one line, for a config without both numbers, with others for single layers, or beside a file that peft wrote.
    """
    config = (path if path.is_dir() else path.parent) / ADAPTER
    if not config.is_file():
        return 1.0
    if not path.is_dir():
        if path.name.startswith("adapter_model."):
            raise ValueError(f"{path}: its scale stands in the {ADAPTER} beside it; nearest is the folder, {path.parent}")
        return 1.0
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        rank, alpha = values["r"], values["lora_alpha"]
        scale = alpha / (math.sqrt(rank) if values.get("use_rslora") else rank)
        if rank < 0:
            raise ValueError(f"r is {rank}")
        own = next((name for name in ("rank_pattern", "alpha_pattern") if values.get(name)), None)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{config}: no scale in it ({reason}); numbers r (above 0) and lora_alpha belong there") from None
    if own is not None:
        raise ValueError(f"{config}: {own} gives layers scales of their own, which are not read; nearest is one r and lora_alpha")
    return float(scale)
