"""MUSIQ, trained on SPAQ, through pyiqa, with VBench's preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer


class Musiq(VBenchNetwork):
    """Imaging quality of single frames, 0..100, from `musiq_spaq_ckpt-358bb6af.pth`, 108 MB.

    KonIQ's MUSIQ has the same shapes; only the checksum in its published name distinguishes it.
    """

    name = "musiq"
    what = "a MUSIQ that answers one number (SPAQ's)"
    inside = "params"
    tiny = MappingProxyType({"hidden_size": 48, "mlp_dim": 96, "num_layers": 1, "longer_side_lengths": [64, 96]})
    true = MappingProxyType[str, Any]({})

    @classmethod
    def build(cls, size: Mapping[str, Any]) -> nn.Module:
        network: nn.Module = need("pyiqa.archs.musiq_arch", asked="MUSIQ").MUSIQ(pretrained=False, **size)
        return network

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield old.removeprefix("module."), value

    @torch.inference_mode()
    def quality(self, frames: Frames) -> Vectors:
        """Quality [T] of frames [T, H, W, 3], each at three scales. Raises ValueError for NaN."""
        weight = self.network.conv_root.weight
        pixels = images.for_quality(frames, weight.device).to(weight.dtype)
        return answer(self.network(pixels).reshape(len(frames)), self.name)
