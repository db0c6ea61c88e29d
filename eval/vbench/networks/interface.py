"""What the networks of VBench's eight dimensions have in common: what they answer, and the files that they are published in. No torch here.

Frames are uint8 [T, H, W, 3], red first. Every network is a pure function of a batch: no loop over videos, no state, and the
answer of one frame does not depend on the others in its batch (but for rounding, 1e-6). An answer that is not finite is refused
in the network's name. All networks have `name`, `identity` (what the weights are: the file's sha256, or how random ones were
drawn) and `dtype` ("fp32", "fp16", "bf16"); whose code runs is told in `eval.vbench.kit.NEEDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from eval.measures.formulas import Vectors

LEAST_SIDE_PX: Final = 128
"""RAFT and AMT answer NaN below it: their coarsest correlation level has no pixels left."""
HEAD_CHANNELS: Final = 64
"""Channels of an attention head, in every vision transformer here: their number follows from the width."""


@dataclass(frozen=True)
class TextFeatures:
    """Sentences as a network sees them: unit features [B, D], and for each how many tokens did not fit and were cut."""

    features: Vectors
    tokens_cut: tuple[int, ...]


FILES: Final = MappingProxyType(
    {
        "dino": ("dino_vitbase16_pretrain.pth",),
        "clip_b32": ("ViT-B-32.pt",),
        "clip_l14": ("ViT-L-14.pt",),
        "aesthetic": ("sa_0_4_vit_l_14_linear.pth",),
        "musiq": ("musiq_spaq_ckpt-358bb6af.pth",),
        "raft": ("raft-things.pth", "raft_large_C_T_V1-22a6c225.pth"),
        "amt": ("amt-s.pth",),
        "viclip": ("ViClip-InternVid-10M-FLT.pth",),
        "dinov2": ("dinov2_vitb14_pretrain.pth",),
        "dreamsim": ("dreamsim_ensemble_checkpoint.zip",),
    }
)
"""Name -> names under which its weights are published, VBench's own first."""

VOCABULARY: Final = "bpe_simple_vocab_16e6.txt.gz"
"""Word pieces of CLIP and ViCLIP; it is looked for near their weights, then in an installed `clip` package."""
