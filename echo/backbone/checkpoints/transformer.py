"""Network weights of every released format, under Wan's names: Self-Forcing, LongLive, Causal- and Infinite-Forcing, diffusers, Wan.

A file is checked by the names and shapes in its header before a tensor is read, then read tensor by tensor: cast, merged with
LoRA weights, moved, given to the network. So memory holds the network once, and one tensor of the file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from echo.backbone.checkpoints.additions import check_lora
from echo.backbone.checkpoints.headers import Shape
from echo.backbone.checkpoints.layout import module_shapes, refuse_broken
from echo.backbone.checkpoints.lora import with_addition
from echo.backbone.checkpoints.names import looks_like, mismatch, wan_names
from echo.backbone.checkpoints.weights import FLOATS, Weights, open_weights
from echo.backbone.sizes import WanConfig
from echo.backbone.wan import WanModel

NEAREST = "nearest is self_forcing_dmd.pt or longlive_base.pt, which `echo-harness data download backbone=self_forcing,longlive` fetches"


def load_network(path: Path, lora: Path | None, config: WanConfig, dtype: torch.dtype, device: torch.device | str) -> WanModel:
    """The network of a checkpoint, for inference.

    Args:
        path: weights in any of the formats.
        lora: LoRA weights to merge, summed in fp32 before the cast.
        config: the sizes that the weights must have.
        dtype: dtype of all parameters.
        device: device of the network; LoRA weights are multiplied there too.

    Raises:
        ValueError: as `check` and `check_lora` (`echo.backbone.checkpoints.additions`), before any tensor is read; for a
            tensor that is not finite.
    """
    weights, names = check(path, config)
    added = None if lora is None else check_lora(lora, linear_layers(config))

    def one(name: str) -> Tensor:
        tensor = weights.get(names[name])
        if added is not None and name.endswith(".weight") and (pair := added(name.removesuffix(".weight"), device)):
            tensor = with_addition(tensor.to(device), *pair)
        return tensor.to(device=device, dtype=dtype, copy=True)

    model = _assemble(config, one)
    refuse_broken(str(path) if lora is None else f"{path} with {lora}", model, lambda name: weights.get(names[name]))
    return model


def random_network(config: WanConfig, dtype: torch.dtype, device: torch.device | str, seed: int = 0) -> WanModel:
    """A network of random weights: each tensor depends only on its name and the seed, not on device and dtype.

    Matrices keep the variance of their input, and a block's contribution to the residual is damped by its depth, so that the
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
    """A network whose every tensor comes from a function of its name, without a copy."""
    model = _empty(config)
    model.load_state_dict({name: tensor(name) for name in model.state_dict()}, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _empty(config: WanConfig) -> WanModel:
    """A network on the meta device."""
    with torch.device("meta"):
        return WanModel(config)


def network_shapes(config: WanConfig) -> dict[str, Shape]:
    """Shape of every tensor of the network by Wan's name, in the order of its state."""
    return module_shapes(_empty(config))


def check(path: Path, config: WanConfig, *, whole: bool = False) -> tuple[Weights, dict[str, str]]:
    """Check a checkpoint by its header, and with `whole` also all tensors that will be used.

    Returns the opened file, and Wan's name -> the name in it.

    Raises:
        ValueError: in one line, with the first missing, unexpected and misshapen key and what the file looks like.
    """
    weights = open_weights(path)
    try:
        names = wan_names(weights.shapes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    wanted = network_shapes(config)
    weights.floats(own for name, own in names.items() if name in wanted)
    own_shapes = {name: weights.shapes[own] for name, own in names.items() if name in wanted or weights.dtypes[own] in FLOATS}
    if wrong := mismatch(own_shapes, wanted):
        kind = looks_like(weights.shapes)
        nearest = "give it as the lora of a base such as longlive_base.pt" if "LoRA" in kind else NEAREST
        if "-of-" in path.name:
            nearest = f"nearest is the folder of all shards, {path.parent}"
        ours = f"a Wan transformer {config.dim} wide with {config.layers} layers"
        raise ValueError(f"{path}: not the weights of {ours}: {wrong}; it looks like {kind}; {nearest}")
    if whole:
        weights.judge(names[name] for name in wanted)
    return weights, names


def linear_layers(config: WanConfig) -> dict[str, Shape]:
    """Shapes [out, in] of the network's linear layers, by name."""
    return {name.removesuffix(".weight"): shape for name, shape in network_shapes(config).items() if len(shape) == 2}
