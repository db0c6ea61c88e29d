"""MUSIQ, trained on SPAQ, through pyiqa, with VBench's preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer, choose_size, digest, drawn, fill, read, ready


class Musiq:
    """Imaging quality of single frames, 0..100."""

    name = "musiq"

    def __init__(self, network: nn.Module, identity: str, dtype: str) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Musiq:
        """From `musiq_spaq_ckpt-358bb6af.pth`.

        Raises ValueError naming the file, if it is not there, not readable or another network's. The MUSIQ of KonIQ has the
        same shapes: only the sum that its published name carries tells it apart.
        """
        identity, tensors = f"sha256 {digest(path)}", read(path, inside="params")
        with drawn(0):
            network = _network()
        plain = {name.removeprefix("module."): value for name, value in tensors.items()}
        fill(network, plain, what="a MUSIQ that answers one number (SPAQ's)", path=path)
        return cls(ready(network, dtype, device), identity, dtype)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Musiq:
        """With random weights; there is one size, 108 MB. Raises ValueError for a size that is not tiny or true."""
        choose_size(size)
        with drawn(seed):
            network = _network()
        return cls(ready(network, dtype, device), f"random {size} seed {seed}", dtype)

    @torch.inference_mode()
    def quality(self, frames: Frames) -> Vectors:
        """Quality [T] of frames [T, H, W, 3], each at three sizes of its own. Raises ValueError for NaN."""
        weight = self.network.conv_root.weight
        pixels = images.for_quality(frames, weight.device).to(weight.dtype)
        return answer(self.network(pixels).reshape(len(frames)), self.name)


def _network() -> nn.Module:
    arch = need("pyiqa.archs.musiq_arch", asked="MUSIQ")
    network: nn.Module = arch.MUSIQ(pretrained=False)
    return network
