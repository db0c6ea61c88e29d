"""RAFT through torchvision's `raft_large`, from the authors' `raft-things.pth` or torchvision's own port of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import answer

UPDATES: Final = 20
DRAWN_UPDATES: Final = 2
"""Updates with random weights, whose result is meaningless after any number."""
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
    (r"(layer\d\.\d)\.norm3\.", r"\1.downsample.1."),  # the authors' files contain these twice
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""Rules from the authors' names to torchvision's, applied in order; torchvision's own names stay unchanged."""


class Raft(VBenchNetwork):
    """Dynamic degree: optical flow between sampled frames; 21 MB. The small random one is RAFT's own small network.

    Its files are `raft-things.pth` or `raft_large_C_T_V1-22a6c225.pth`, which come from the same training.
    """

    name = "raft"
    what = "RAFT (large)"

    tiny, true = "raft_small", "raft_large"

    @classmethod
    def build(cls, size: str) -> nn.Module:
        flow = need("torchvision.models.optical_flow", asked="RAFT")
        network: nn.Module = getattr(flow, size)(weights=None, progress=False)
        return network

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield ported(old), value

    @torch.inference_mode()
    def radius(self, first: Frames, second: Frames, share: float = FASTEST) -> Vectors:
        """Mean motion in px, [N], of the fastest 5 % of pixels, or of another share, for frame pairs [N, H, W, 3].

        Like in VBench, the share counts the frame padded to a multiple of 8 px. Raises ValueError for frames of unequal shapes or under
        128 px, and for NaN.
        """
        if first.shape != second.shape:
            raise ValueError(f"pairs of {list(first.shape)} and {list(second.shape)}: flow is between frames of one shape")
        images.big_enough(first, "RAFT")
        device, dtype = self.device, self.weight.dtype
        pair = [2 * (images.padded(images.planes(part, device).float(), DIVISOR_PX) / 255.0) - 1.0 for part in (first, second)]
        updates = UPDATES if self.folder is not None else DRAWN_UPDATES
        flow = self.network(pair[0].to(dtype), pair[1].to(dtype), num_flow_updates=updates)[-1].float()
        lengths = flow.square().sum(1).sqrt().flatten(1)
        fastest = int(lengths.shape[1] * share)
        return answer(lengths.topk(fastest, dim=1).values.mean(1), self.name)


def ported(name: str) -> str:
    """A tensor's name in torchvision, from the authors' or its own."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
