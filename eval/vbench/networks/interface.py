"""The common interface of the networks of VBench's eight dimensions, and their published files. This module needs no torch.

Frames are uint8 [T, H, W, 3], RGB. Every network is a pure function of a batch, and the result of one frame does not depend on the others
in its batch (except for rounding, 1e-6). A result that is not finite raises ValueError with the network's name. All networks have `name`,
`identity` (of the weights: the file's sha256, or how random ones were drawn) and `dtype` ("fp32", "fp16", "bf16").
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from eval.measures.formulas import Vectors

LEAST_SIDE_PX: Final = 128
"""Below it RAFT and AMT return NaN (tried at 64 and 96 px), because their coarsest correlation level has no pixels left."""
HEAD_CHANNELS: Final = 64
"""Channels of an attention head in every vision transformer here; the number of heads follows from the width."""


@dataclass(frozen=True)
class TextFeatures:
    """Encoded sentences: unit features [B, D], and for each the number of tokens that did not fit and were cut."""

    features: Vectors
    tokens_cut: tuple[int, ...]


@dataclass(frozen=True)
class PublishedNetwork:
    """A network's published files, and the packages that run it.

    Attributes:
        files: names of its weights, VBench's own first.
        code: modules, besides torch, that compute results; their versions are part of a record's key.
        around: modules that are imported but do not affect results.
        batch: units at a time; part of a record's key, because another batch may round differently.
        package_path: where the vbench package looks for its weights, below its cache; empty if it has no such network.
    """

    files: tuple[str, ...]
    code: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    batch: int = 32
    package_path: str = ""

    @property
    def modules(self) -> tuple[str, ...]:
        """All modules that must be importable."""
        return (*self.code, *self.around)


NETWORKS: Final = MappingProxyType(
    {
        "dino": PublishedNetwork(
            ("dino_vitbase16_pretrain.pth",), ("transformers",), (), 16, "torch/hub/checkpoints/dino_vitbase16_pretrain.pth"
        ),
        "clip_b32": PublishedNetwork(("ViT-B-32.pt",), ("transformers",), package_path="clip_model/ViT-B-32.pt"),
        "clip_l14": PublishedNetwork(("ViT-L-14.pt",), ("transformers",), package_path="clip_model/ViT-L-14.pt"),
        "aesthetic": PublishedNetwork(
            ("sa_0_4_vit_l_14_linear.pth",), package_path="aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"
        ),
        "musiq": PublishedNetwork(
            ("musiq_spaq_ckpt-358bb6af.pth",), ("pyiqa", "torchvision"), ("PIL", "yaml", "requests"), 16,
            "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        ),
        "raft": PublishedNetwork(
            ("raft-things.pth", "raft_large_C_T_V1-22a6c225.pth"), ("torchvision",), ("PIL",), 4, "raft_model/models/raft-things.pth"
        ),
        "amt": PublishedNetwork(("amt-s.pth",), ("vbench", "torchvision"), ("decord", "PIL"), 4, "amt_model/amt-s.pth"),
        "viclip": PublishedNetwork(
            ("ViClip-InternVid-10M-FLT.pth",), ("vbench", "timm", "transformers", "torchvision"), ("decord", "PIL"), 1,
            "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        ),
        "dinov2": PublishedNetwork(("dinov2_vitb14_pretrain.pth",), ("transformers",)),
        "dreamsim": PublishedNetwork(
            ("dreamsim_ensemble_checkpoint.zip",), ("dreamsim", "open_clip", "peft", "timm", "transformers", "torchvision"),
            ("accelerate", "psutil", "ftfy", "regex", "PIL", "yaml"),
        ),
    }
)  # fmt: skip
"""The networks by name."""

VOCABULARY: Final = "bpe_simple_vocab_16e6.txt.gz"
"""Vocabulary of CLIP and ViCLIP; it is looked for near their weights, then in an installed `clip` package."""
