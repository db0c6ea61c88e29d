"""RAFT through torchvision's `raft_large`, from the authors' `raft-things.pth` or torchvision's own port of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import Tensors, answer, choose_size, digest, drawn, fill, read, ready, renamed

UPDATES: Final = 20
DIVISOR_PX: Final = 8
FASTEST: Final = 0.05

_RENAMES: Final = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm([12])\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""The authors' names to torchvision's, one rule after the other; torchvision's own stay as they are."""
_BACK: Final = (
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"^([fc]net)\.conv\.", r"\1.conv2."),
    (r"^([fc]net)\.convnormrelu\.0\.", r"\1.conv1."),
    (r"^([fc]net)\.convnormrelu\.1\.", r"\1.norm1."),
    (r"convnormrelu([12])\.0\.", r"conv\1."),
    (r"convnormrelu([12])\.1\.", r"norm\1."),
    (r"\.motion_encoder\.convcorr(\d)\.0\.", r".encoder.convc\1."),
    (r"\.motion_encoder\.convflow(\d)\.0\.", r".encoder.convf\1."),
    (r"\.motion_encoder\.conv\.0\.", ".encoder.conv."),
    (r"\.recurrent_block\.convgru(\d)\.conv([zrq])\.", r".gru.conv\2\1."),
    (r"^mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
)
"""torchvision's names to the authors'; the authors' own stay as they are."""
_TWICE: Final = re.compile(r"layer\d\.\d\.norm3\.")
"""The authors' files hold these a second time, as `downsample.1`."""


class Raft:
    """Dynamic degree: optical flow between sampled frames."""

    name = "raft"

    def __init__(self, network: nn.Module, identity: str, dtype: str) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Raft:
        """From `raft-things.pth` or `raft_large_C_T_V1-22a6c225.pth`, which are the same training.

        Raises ValueError naming the file, if it is not there, not readable or another network's, RAFT-small among them.
        """
        identity, tensors = f"sha256 {digest(path)}", read(path)
        with drawn(0):
            network = _network()
        fill(network, renamed(tensors, _names), what="RAFT (large)", path=path)
        return cls(ready(network, dtype, device), identity, dtype)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Raft:
        """With random weights; there is one size, 21 MB. Raises ValueError for a size that is not tiny or true."""
        choose_size(size)
        with drawn(seed):
            network = _network()
        return cls(ready(network, dtype, device), f"random {size} seed {seed}", dtype)

    @torch.inference_mode()
    def radius(self, first: Frames, second: Frames) -> Vectors:
        """How far the fastest 5 % of pixels move, mean in px, [N], for frame pairs [N, H, W, 3].

        As VBench has it, the 5 % are of the frame padded to a multiple of 8 px. Raises ValueError for frames of unequal
        shapes or under 128 px, and for NaN.
        """
        if first.shape != second.shape:
            raise ValueError(f"pairs of {list(first.shape)} and {list(second.shape)}: flow is between frames of one shape")
        images.big_enough(first, "RAFT")
        device, dtype = next(self.network.parameters()).device, next(self.network.parameters()).dtype
        pair = [2 * (images.padded(images.planes(part, device).float(), DIVISOR_PX) / 255.0) - 1.0 for part in (first, second)]
        flow = self.network(pair[0].to(dtype), pair[1].to(dtype), num_flow_updates=UPDATES)[-1].float()
        lengths = flow.square().sum(1).sqrt().flatten(1)
        kept = int(lengths.shape[1] * FASTEST)
        return answer(lengths.topk(kept, dim=1).values.mean(1), self.name)


def authors_names(tensors: Mapping[str, Tensor]) -> Tensors:
    """Weights by the authors' names, as VBench reads them, from torchvision's or theirs."""
    found: Tensors = {}
    for name, value in tensors.items():
        for pattern, replacement in _BACK:
            name = re.sub(pattern, replacement, name)
        found[name] = value
        if "downsample.1." in name:
            found[name.replace("downsample.1.", "norm3.")] = value
    return {f"module.{name.removeprefix('module.')}": value for name, value in found.items()}


def _network() -> nn.Module:
    flow = need("torchvision.models.optical_flow", asked="RAFT")
    network: nn.Module = flow.raft_large(weights=None, progress=False)
    return network


def _names(old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if _TWICE.search(old):
        return
    for pattern, replacement in _RENAMES:
        old = re.sub(pattern, replacement, old)
    yield old, value
