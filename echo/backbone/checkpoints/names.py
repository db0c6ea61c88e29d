"""Names of a Wan network's tensors in files of other tools, and a guess at what a weight file holds.

Two layouts: that of the Wan release, which the Self-Forcing line keeps, and that of diffusers' `WanTransformer3DModel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from echo.backbone.checkpoints.headers import Shape

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Parts that FSDP, activation checkpointing and torch.compile add anywhere in a name."""
PREFIXES = (
    "base_model.model.", "module.", "model.", "diffusion_model.", "transformer.", "generator.",
    "vae.", "first_stage_model.", "cond_stage_model.", "text_encoder.", "text_encoders.", "umt5xxl.",
)  # fmt: skip
"""Prefixes of the object that held a part when it was saved; no name inside a part begins with one."""
ATTENTIONS = {"attn1": "self_attn", "attn2": "cross_attn"}
PARTS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o", "norm_q": "norm_q", "norm_k": "norm_k"}
IN_BLOCK = {f"{a}.{p}": f"{ours}.{part}" for a, ours in ATTENTIONS.items() for p, part in PARTS.items()} | {
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
}
"""diffusers' name of a layer inside a block -> Wan's."""
OUTSIDE = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
"""diffusers' name of a layer outside the blocks -> Wan's; `patch_embedding` is called the same."""
SIZES = {
    (1536, 30): "Wan2.1-1.3B",
    (5120, 40): "Wan2.1-14B or Wan2.2-A14B",
    (3072, 30): "Wan2.2-5B",
}
"""Released transformers by width and layers."""
KINDS = (
    (r"^decoder\.(up_blocks|upsamples)\.\d+\.(.+\.)?(upsampler|upsamples)\.", "the VAE of Wan2.2 (48 channels)"),
    (r"^decoder\.upsamples\.", "a VAE in Wan's layout (Wan2.1_VAE.pth)"),
    (r"^decoder\.up_blocks\.", "a VAE in diffusers' layout"),
    (r"^decoder\.3\.conv\.0\.", "a TAEHV decoder (taew2_1.pth)"),
    (r"^blocks\.0\.ffn\.gate\.0\.", "a UMT5 encoder in Wan's layout (models_t5_umt5-xxl-enc-bf16.pth)"),
    (r"^encoder\.block\.0\.", "a T5 or UMT5 encoder in transformers' layout"),
    (r"^condition_embedder\.", "a Wan network in diffusers' layout"),
    (r"(^|\.)blocks\.0\.self_attn\.", "a Wan network"),
)
"""A pattern of tensor names in each kind of file, and a description of the kind; the first match counts."""
LOW_RANK = (".lora_A", ".lora_B", ".lora_down", ".lora_up", ".lora.down", ".lora.up")


def bare(name: str) -> str:
    """A tensor's name without wrapper prefixes."""
    for mark in WRAPPERS:
        name = name.replace(mark, "")
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name[len(prefix) :]
    return name


def _placed(name: str) -> tuple[str, str, Mapping[str, str]]:
    """The block prefix of a name, the rest of the name, and the table of names for it."""
    if not name.startswith("blocks."):
        return "", name, OUTSIDE
    number, _, rest = name.removeprefix("blocks.").partition(".")
    return f"blocks.{number}.", rest, IN_BLOCK


def from_diffusers(name: str) -> str:
    """Wan's name for diffusers' name of a tensor, LoRA weights included; any other name is unchanged."""
    head, rest, table = _placed(name)
    for theirs, ours in table.items():
        if rest == theirs or rest.startswith(f"{theirs}."):
            return head + ours + rest[len(theirs) :]
    return name


def to_diffusers(layer: str) -> str:
    """diffusers' name for Wan's name of a layer; any other name is unchanged."""
    head, rest, table = _placed(layer)
    return head + next((theirs for theirs, ours in table.items() if ours == rest), rest)


def wan_names(names: Iterable[str]) -> dict[str, str]:
    """Wan's name -> the name in the file, for all tensors of a file in either layout.

    Raises:
        ValueError: if two names of the file mean the same tensor.
    """
    by_ours: dict[str, str] = {}
    for name in names:
        ours = from_diffusers(bare(name))
        if ours in by_ours:
            raise ValueError(f"{by_ours[ours]} and {name} both mean {ours}; keep one of the two networks of the file")
        by_ours[ours] = name
    return by_ours


def looks_like(shapes: Mapping[str, Shape]) -> str:
    """What a file seems to hold, by the names and shapes of its tensors."""
    if any(mark in name for name in shapes for mark in LOW_RANK):
        return "a LoRA (low-rank additions)"
    if any(name.startswith("codec.") for name in shapes):
        return "a backbone of this project (backbone=tiny)"
    plain = {from_diffusers(bare(name)): shape for name, shape in shapes.items()}
    if plain.get("patch_embedding.weight") and any(name.startswith("blocks.") for name in plain):
        return _transformer(plain)
    kinds = (kind for pattern, kind in KINDS if any(re.search(pattern, name) for name in shapes))
    return next(kinds, "nothing that this project knows")


def _transformer(plain: Mapping[str, Shape]) -> str:
    """The kind of a Wan transformer, by its sizes and by branches that text-to-video models lack."""
    first = plain["patch_embedding.weight"]
    layers = 1 + max((int(name.split(".")[1]) for name in plain if name.startswith("blocks.") and name.split(".")[1].isdigit()), default=-1)
    kind = SIZES.get((first[0], layers), "a Wan transformer")
    if any(".k_img." in name or name.startswith(("img_emb.", "condition_embedder.image_embedder.")) for name in plain):
        kind += " for image-to-video"
    elif any(name.startswith("vace_") for name in plain):
        kind += " VACE"
    return f"{kind}, {first[0]} wide with {layers} layers"


def mismatch(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> str | None:
    """Counts and first keys of missing, unexpected and misshapen tensors; None if everything fits."""
    missing = [name for name in wanted if name not in shapes]
    unexpected = [name for name in shapes if name not in wanted]
    other = [name for name in wanted if name in shapes and shapes[name] != wanted[name]]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing keys, first {missing[0]} {list(wanted[missing[0]])}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected, first {unexpected[0]} {list(shapes[unexpected[0]])}")
    if other:
        parts.append(f"{len(other)} misshapen, first {other[0]} {list(shapes[other[0]])} where {list(wanted[other[0]])} belongs")
    return "; ".join(parts) or None
