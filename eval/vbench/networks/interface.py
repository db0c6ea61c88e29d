"""The networks that VBench's eight dimensions are made of, by name: what each one answers, and how one is made. No torch here.

Frames are uint8 [T, H, W, 3], red first. Every network is a pure function of a batch: no loop over videos, no state, and the
answer of one frame does not depend on the others in its batch (but for rounding, 1e-6). An answer that is not finite is refused
in the network's name. All networks have `name`, `identity` (what the weights are: the file's sha256, or how random ones were
drawn) and `dtype` ("fp32", "fp16", "bf16"); whose code runs is told in `eval.vbench.kit.NEEDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from echo.refusals import nearest
from eval.measures.formulas import Vectors

LEAST_SIDE_PX: Final = 128
"""RAFT and AMT answer NaN below it: their coarsest correlation level has no pixels left."""


@dataclass(frozen=True)
class Text:
    """Sentences as a network sees them: unit features [B, D], and for each how many tokens did not fit and were cut."""

    features: Vectors
    tokens_cut: tuple[int, ...]


CLASSES: Final = MappingProxyType(
    {
        "dino": ("eval.vbench.networks.dino", "Dino"),
        "clip_b32": ("eval.vbench.networks.clip", "ClipB32"),
        "clip_l14": ("eval.vbench.networks.clip", "ClipL14"),
        "aesthetic": ("eval.vbench.networks.aesthetic", "Aesthetic"),
        "musiq": ("eval.vbench.networks.musiq", "Musiq"),
        "raft": ("eval.vbench.networks.raft", "Raft"),
        "amt": ("eval.vbench.networks.amt", "Amt"),
        "viclip": ("eval.vbench.networks.viclip", "Viclip"),
        "dinov2": ("eval.vbench.networks.firsts", "Dinov2"),
        "dreamsim": ("eval.vbench.networks.firsts", "Dreamsim"),
    }
)
"""Name -> module and class; each has `load(path, *, dtype="fp32", device="cpu")` and `random(size="tiny", seed=0, *, ...)`."""

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
"""Word pieces of CLIP and ViCLIP; it is looked for beside their weights, then in an installed `clip` package."""


def network_class(name: str) -> Any:
    """The class of a network, imported now. Raises ValueError for an unknown name, or naming the package that is missing."""
    if name not in CLASSES:
        raise ValueError(f"network {name!r}: one of {', '.join(CLASSES)}; nearest is {nearest(name, CLASSES)}")
    module, cls = CLASSES[name]
    return getattr(import_module(module), cls)


def load(name: str, path: str | Path, *, dtype: str = "fp32", device: str = "cpu") -> Any:
    """The network of a published weights file. Raises ValueError, before it computes anything, for a file of another network."""
    return network_class(name).load(Path(path), dtype=dtype, device=device)


def random(name: str, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Any:
    """The network with random weights. size: "true" as published, "tiny" for tests; RAFT, MUSIQ and AMT have one size only."""
    return network_class(name).random(size, seed, dtype=dtype, device=device)
