"""LoRA for a network's linear layers (arXiv 2106.09685, section 4.1): W + scale * up @ down.

Tensors are named as peft names them: `<layer>.lora_A.weight` (down, [rank, in]) and `<layer>.lora_B.weight` (up, [out, rank]).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from echo.backbone.checkpoints.headers import DOWN, UP, misfit


class LowRank(nn.Module):
    """The parametrization weight + up @ down; `up` starts at zero, so that nothing changes at first."""

    def __init__(self, out_features: int, in_features: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, in_features, generator=generator) / math.sqrt(in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight [out, in]."""
        return weight + self.up @ self.down


def attach(model: nn.Module, rank: int, seed: int, *, within: str = "blocks.") -> dict[str, LowRank]:
    """Freeze `model` and add trainable LoRA weights of `rank` to each linear layer under `within`; layer's name -> weights."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(within)]
    additions = {}
    for name, layer in layers:
        additions[name] = LowRank(layer.out_features, layer.in_features, rank, generator)
        parametrize.register_parametrization(layer, "weight", additions[name])
    return additions


def tensors_of(additions: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """LoRA weights as tensors, for `merge`."""
    pairs = ((name, addition.down, addition.up) for name, addition in additions.items())
    return {f"{name}{end}": part.detach().clone() for name, down, up in pairs for end, part in ((DOWN, down), (UP, up))}


def with_addition(weight: Tensor, down: Tensor, up: Tensor, scale: float = 1.0) -> Tensor:
    """weight + scale * up @ down in fp32, [out, in]; all on one device."""
    return weight.float() + scale * (up.float() @ down.float())


@torch.no_grad()
def merge(model: nn.Module, tensors: Mapping[str, Tensor], scale: float = 1.0) -> None:
    """Add scale * up @ down to the weights of `model`, in place and summed in fp32.

    Raises ValueError if they do not fit (`echo.backbone.checkpoints.headers.misfit`).
    """
    layers = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    shapes = ({name: tuple(tensor.shape) for name, tensor in group.items()} for group in (tensors, layers))
    if wrong := misfit(*shapes):
        raise ValueError(wrong)
    for name in {key.removesuffix(DOWN).removesuffix(UP) for key in tensors}:
        weight = layers[name]
        weight.copy_(with_addition(weight, tensors[name + DOWN], tensors[name + UP], scale))
