"""What a file of weights is, told by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable

KINDS = (
    (r"(^|\.)lora_[AB]\.", "low-rank additions"),
    (r"^decoder\.(up_blocks|upsamples)\.\d+\.(.+\.)?(upsampler|upsamples)\.", "the VAE of Wan2.2 (48 channels)"),
    (r"^decoder\.upsamples\.", "a VAE in Wan's layout (Wan2.1_VAE.pth)"),
    (r"^decoder\.up_blocks\.", "a VAE in diffusers' layout"),
    (r"^decoder\.3\.conv\.0\.", "a TAEHV decoder (taew2_1.pth)"),
    (r"^blocks\.0\.ffn\.gate\.0\.", "a UMT5 encoder in Wan's layout (models_t5_umt5-xxl-enc-bf16.pth)"),
    (r"^encoder\.block\.0\.", "a T5 or UMT5 encoder in transformers' layout"),
    (r"^condition_embedder\.", "a Wan network in diffusers' layout"),
    (r"(^|\.)blocks\.0\.self_attn\.", "a Wan network"),
)
"""A name of tensors in each kind of file, and what to call that kind; the first that fits counts."""


def looks_like(names: Iterable[str]) -> str:
    """What kind of file has tensors of these names."""
    names = list(names)
    kinds = (kind for pattern, kind in KINDS if any(re.search(pattern, name) for name in names))
    return next(kinds, "nothing that this project knows")
