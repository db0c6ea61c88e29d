"""A backbone from its file: network, text encoder, codec, sizes, digest."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from echo.backbone.checkpoints.lora import merge
from echo.backbone.finite import broken
from echo.backbone.packed import Network, pack
from echo.backbone.parts.codec import PatchCodec
from echo.backbone.parts.text import WordEncoder
from echo.backbone.wan import WanConfig, WanModel
from echo.files import ROOT, replacing
from echo.geometry import Geometry
from echo.refusals import one_of, reading
from echo.sampler import Schedule, schedule

MAKERS = "it is not a backbone that jobs.train.backbone or jobs.train.self_rollout wrote, or is damaged"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Backbone:
    """An embedded backbone, an `echo.backbone.interface.VideoModel`."""

    model: WanModel
    text: WordEncoder
    codec: PatchCodec
    geometry: Geometry
    schedule: Schedule
    attention: None = None
    """Torch's own choice of a kernel."""
    shared_window: bool = False
    """Each layer has its own window: small, and assembled once per block."""

    def paced(self, frames_per_block: int, steps: Schedule) -> Backbone:
        """The same weights with another number of latent frames per block and these denoising steps."""
        return dataclasses.replace(self, geometry=dataclasses.replace(self.geometry, frames_per_block=frames_per_block), schedule=steps)

    @cached_property
    def network(self) -> Network:
        """The network for rollouts, in a faster layout if this device has one."""
        return pack(self.model)

    @property
    def device(self) -> torch.device:
        return self.model.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.patch_embedding.weight.dtype


def save(
    path: Path, model: WanModel, text: WordEncoder, codec: PatchCodec, geometry: Geometry, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a backbone into one safetensors file; the network's weights are cast to `dtype`."""
    tensors: dict[str, Tensor] = {f"model.{name}": value.detach().to(dtype) for name, value in model.state_dict().items()}
    tensors |= {f"text.{name}": value for name, value in text.save().items()}
    tensors |= {f"codec.{name}": value for name, value in codec.save().items()}
    sizes = {"model": dataclasses.asdict(model.config), "geometry": dataclasses.asdict(geometry)}
    with replacing(path) as part:
        save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata={"sizes": json.dumps(sizes)})


def load(weights: str, dtype: str = "float32", lora: str | None = None, device: torch.device | str = "cpu") -> Backbone:
    """Load a backbone from its file; relative paths are below the project's folder.

    dtype: the dtype to compute in. lora: a file of LoRA weights to merge into the weights.

    Raises ValueError for a missing, foreign or damaged file, LoRA weights that do not fit, or an unknown dtype.
    """
    path = ROOT / weights
    one_of(f"dtype {dtype!r}", dtype, DTYPES)
    if not path.is_file():
        raise ValueError(
            f"no weights at {path}; `echo-harness train self-rollout` makes them (docs/embedded.md), the repository ships them"
        )
    with reading(path, MAKERS):
        return _load(path, DTYPES[dtype], None if lora is None else ROOT / lora, device)


def _load(path: Path, dtype: torch.dtype, lora: Path | None, device: torch.device | str) -> Backbone:
    try:
        with safe_open(path, framework="pt") as file:
            sizes = json.loads((file.metadata() or {}).get("sizes", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
    if "model" not in sizes or "geometry" not in sizes:
        raise ValueError(f"{path}: no sizes in its header; {MAKERS}")
    if wrong := broken(tensors):
        raise ValueError(f"{path}: {' '.join(wrong)}")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    model = WanModel(WanConfig(**sizes["model"]))
    model.load_state_dict(part("model."))
    if lora is not None:
        with reading(lora):
            _merge(model, lora)
    model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
    text, codec = WordEncoder.load(part("text.")), PatchCodec.load(part("codec."))
    return Backbone(model, text, codec, Geometry(**sizes["geometry"]), schedule())


def _merge(model: WanModel, path: Path) -> None:
    """Merge the LoRA weights at `path`. Raises ValueError like `load`."""
    if not path.is_file():
        raise ValueError(f"no low-rank weights at {path}; `echo-harness train self-rollout` makes them, the repository ships them")
    try:
        merge(model, load_file(path))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if wrong := broken(model.state_dict()):
        raise ValueError(f"{path}: with these low-rank additions {' '.join(wrong)}")
