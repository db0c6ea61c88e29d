"""LAION's aesthetic head: one linear layer on unit features of CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.measures.formulas import Vectors
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.weights import answer


class Aesthetic(VBenchNetwork):
    """Quality of frames, about 0..10, from their "clip_l14" features.

    The published file, `sa_0_4_vit_l_14_linear.pth`, has only 4 KB. The head always runs in fp32, like in VBench, which runs it on
    half-precision features.
    """

    name = "aesthetic"
    what = "LAION's aesthetic head"
    tiny, true = 32, 768
    fp32_only = True

    @classmethod
    def size_of(cls, tensors: Mapping[str, Tensor], path: Path) -> int:
        rows = tensors.get("weight")
        return rows.shape[1] if rows is not None and rows.ndim == 2 else cls.true

    @classmethod
    def build(cls, size: int) -> nn.Module:
        return nn.Linear(size, 1)

    @torch.inference_mode()
    def quality(self, features: Vectors) -> Vectors:
        """Quality [T] of unit features [T, D]. Raises ValueError for features of another width, and for NaN."""
        wanted = self.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != wanted:
            raise ValueError(f"features {list(features.shape)}: the aesthetic head takes [T, {wanted}], those of its own CLIP ViT-L/14")
        scores = self.network(torch.from_numpy(features).to(self.device, torch.float32))
        return answer(scores.squeeze(-1), self.name)
