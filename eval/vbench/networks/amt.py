"""AMT-S through the `vbench` package: the frame between two frames, predicted, and how wrong that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer, choose_size, digest, drawn, fill, read, ready

DIVISOR_PX: Final = 16
_SETTINGS: Final = {"corr_radius": 3, "corr_lvls": 4, "num_flows": 3}
"""Those of the package's AMT-S.yaml."""


class Amt:
    """Motion smoothness."""

    name = "amt"

    def __init__(self, network: nn.Module, identity: str, dtype: str) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Amt:
        """From `amt-s.pth`. Raises ValueError naming the file, if it is not there, not readable or another network's."""
        identity, tensors = f"sha256 {digest(path)}", read(path, inside="state_dict")
        with drawn(0):
            network = _network()
        fill(network, tensors, what="AMT-S", path=path)
        return cls(ready(network, dtype, device), identity, dtype)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Amt:
        """With random weights; there is one size, 12 MB. Raises ValueError for a size that is not tiny or true."""
        choose_size(size)
        with drawn(seed):
            network = _network()
        return cls(ready(network, dtype, device), f"random {size} seed {seed}", dtype)

    @torch.inference_mode()
    def error(self, first: Frames, middle: Frames, last: Frames) -> Vectors:
        """Mean absolute difference over 255, [N], between `middle` and what is predicted of its neighbours, all [N, H, W, 3].

        The prediction is truncated to whole bytes, as VBench truncates it. Raises ValueError for frames of unequal shapes or
        under 128 px, and for NaN.
        """
        if not first.shape == middle.shape == last.shape:
            raise ValueError(f"triples of {list(first.shape)}, {list(middle.shape)}, {list(last.shape)}: they are of one shape")
        images.big_enough(middle, "AMT-S")
        device, dtype = next(self.network.parameters()).device, next(self.network.parameters()).dtype
        ends = [images.padded(images.planes(part, device) / 255.0, DIVISOR_PX).to(dtype) for part in (first, last)]
        half = torch.full((len(middle), 1, 1, 1), 0.5, device=device, dtype=dtype)
        predicted = self.network(*ends, half, scale_factor=1, eval=True)["imgt_pred"].float()
        if not bool(torch.isfinite(predicted).all()):
            raise ValueError(f"{self.name} answered NaN or infinity for frames of {list(middle.shape)}; nothing is made of it")
        height, width = middle.shape[1:3]
        left, _, top, _ = images.padding(height, width, DIVISOR_PX)
        whole = (predicted[..., top : top + height, left : left + width] * 255.0).clamp(0, 255).trunc()
        difference = (whole - images.planes(middle, device)).abs().flatten(1).double().mean(1)
        return answer(difference / 255.0, self.name)


def _network() -> nn.Module:
    arch = need("vbench.third_party.amt.networks.AMT-S", asked="AMT-S")
    network: nn.Module = arch.Model(**_SETTINGS)
    return network
