"""LAION's aesthetic head: one linear layer on unit features of CLIP ViT-L/14."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from eval.measures.formulas import Vectors
from eval.vbench.networks.weights import answer, choose_size, digest, drawn, fill, read, ready


class Aesthetic:
    """Quality of frames, about 0..10, from what "clip_l14" says of them."""

    name = "aesthetic"

    def __init__(self, head: nn.Module, identity: str, dtype: str) -> None:
        self.head: Any = head
        self.identity = identity
        self.dtype = dtype

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Aesthetic:
        """From `sa_0_4_vit_l_14_linear.pth` (4 KB, rightly). Raises ValueError for a file that is another or none.

        The head runs in fp32 whatever `dtype` says, as VBench runs it on half-precision features.
        """
        identity, tensors = f"sha256 {digest(path)}", read(path)
        rows = tensors.get("weight")
        width = rows.shape[1] if rows is not None and rows.ndim == 2 else 768
        with drawn(0):
            head = nn.Linear(width, 1)
        fill(head, tensors, what="LAION's aesthetic head", path=path)
        return cls(ready(head, "fp32", device), identity, "fp32")

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Aesthetic:
        """For features of a random "clip_l14" of the same size. Raises ValueError for a size that is not tiny or true."""
        with drawn(seed):
            head = nn.Linear(32 if choose_size(size) else 768, 1)
        return cls(ready(head, "fp32", device), f"random {size} seed {seed}", "fp32")

    @torch.inference_mode()
    def quality(self, features: Vectors) -> Vectors:
        """Quality [T] of unit features [T, D]. Raises ValueError for features of another width, and for NaN."""
        wanted = self.head.weight.shape[1]
        if features.ndim != 2 or features.shape[1] != wanted:
            raise ValueError(f"features {list(features.shape)}: the aesthetic head takes [T, {wanted}], those of its own CLIP ViT-L/14")
        found = self.head(torch.from_numpy(features).to(self.head.weight.device, torch.float32))
        return answer(found.squeeze(-1), self.name)
