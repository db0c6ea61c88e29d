"""Low-rank additions to a network's linear layers (LoRA, arXiv 2106.09685, section 4.1): W + scale * up @ down.

Tensors are named as peft names them: `<layer>.lora_A.weight` (down, [rank, in]) and `<layer>.lora_B.weight` (up, [out, rank]).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


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
    """Freeze `model` and give each linear layer under `within` a trainable addition of `rank`; layer's name -> addition."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(within)]
    additions = {}
    for name, layer in layers:
        additions[name] = LowRank(layer.out_features, layer.in_features, rank, generator)
        parametrize.register_parametrization(layer, "weight", additions[name])
    return additions


def tensors_of(additions: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """What `merge` reads."""
    pairs = ((name, addition.down, addition.up) for name, addition in additions.items())
    return {f"{name}{end}": part.detach().clone() for name, down, up in pairs for end, part in ((DOWN, down), (UP, up))}


@torch.no_grad()
def merge(model: nn.Module, tensors: Mapping[str, Tensor], scale: float = 1.0) -> None:
    """Add scale * up @ down to the weights of `model`, in place and summed in fp32.

    Raises ValueError for a tensor without its partner, of a layer that the model lacks, or of another shape.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = {key.removesuffix(DOWN).removesuffix(UP) for key in tensors}
    for name in sorted(names):
        if name not in layers:
            nearest = get_close_matches(name, layers, 1, 0)[0]
            raise ValueError(f"low-rank addition to {name!r}: the network has no such layer; nearest: {nearest}")
        down, up = tensors.get(name + DOWN), tensors.get(name + UP)
        weight = layers[name].weight
        if down is None or up is None:
            raise ValueError(f"low-rank addition to {name!r}: lora_A and lora_B come in pairs, one of them is missing")
        if (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]:
            raise ValueError(f"low-rank addition to {name!r}: {list(up.shape)} @ {list(down.shape)} does not fit {list(weight.shape)}")
        weight.copy_(weight.float() + scale * (up.float() @ down.float()))
