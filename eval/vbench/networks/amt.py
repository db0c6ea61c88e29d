"""AMT-S through the `vbench` package: it predicts the frame between two frames, and the error is measured."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer

DIVISOR_PX: Final = 16


class Amt(VBenchNetwork):
    """Motion smoothness, from `amt-s.pth`, 12 MB. The small random one has fewer correlations and flows."""

    name = "amt"
    what = "AMT-S"
    inside = "state_dict"
    tiny, true = (1, 1, 1), (3, 4, 3)
    """Radius and levels of its correlations, and flows; the true ones are those of the package's AMT-S.yaml."""

    @classmethod
    def build(cls, size: tuple[int, int, int]) -> nn.Module:
        network: nn.Module = need("vbench.third_party.amt.networks.AMT-S", asked="AMT-S").Model(*size)
        return network

    @torch.inference_mode()
    def error(self, first: Frames, middle: Frames, last: Frames) -> Vectors:
        """Mean absolute difference over 255, [N], between `middle` and its prediction from `first` and `last`, all [N, H, W, 3].

        The prediction is truncated to whole bytes, like in VBench. Raises ValueError for frames of unequal shapes or under 128 px, and
        for NaN.
        """
        if not first.shape == middle.shape == last.shape:
            raise ValueError(f"triples of {list(first.shape)}, {list(middle.shape)}, {list(last.shape)}: they are of one shape")
        images.big_enough(middle, "AMT-S")
        device, dtype = self.device, self.weight.dtype
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
