"""Files of weights as others save them, opened without reading a tensor: torch, safetensors, a folder of shards.

Nothing in a file is ever run: torch files are read weights-only, and one that needs more is refused.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from echo.backbone.checkpoints.headers import Shape, read_header, shapes_of
from echo.refusals import nearest

FLOATS = ("float64", "float32", "bfloat16", "float16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
SAFETENSORS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
SAFETENSORS |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
NETWORK = ("generator_ema", "generator", "model", "state_dict")
"""Where a training state keeps its network, best first: averaged weights before the last ones."""
ADDITIONS = ("generator_lora", "lora", "state_dict")
MAGIC = {
    b"version https://git-lfs": "a git LFS pointer, not the file itself: run `git lfs pull`, or download it again",
    b"GGUF": "a GGUF file, whose weights are quantized: take the original",
    b"<!doctype html": "a web page, not the file itself: download it again",
    b"<html": "a web page, not the file itself: download it again",
    b"{": "a text file: give the file of weights beside it",
}
"""First bytes of what is often mistaken for weights."""


@dataclass(frozen=True)
class Weights:
    """Tensors of a file or folder under their own names, none of them read yet.

    get: reads one tensor; from a file of the common kinds it shares the file's pages, so copy before changing it.
    """

    path: Path
    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    get: Callable[[str], Tensor]


def open_weights(path: Path, sections: Sequence[str] = NETWORK) -> Weights:
    """Open a file, or the weights inside a folder.

    Args:
        path: a torch or safetensors file; a folder with one such file, with shards and their index, or a diffusers pipeline. Single
            whole numbers, such as the step at which a state was saved, are no weights and are left out.
        sections: keys of a training state to look under, best first; a plain mapping of tensors needs none.

    Raises:
        ValueError: in one line, for a missing, cut, foreign or unsafe file, or one whose numbers are not floats.
    """
    if path.is_dir():
        weights = _folder(path, sections)
    elif not path.is_file():
        raise ValueError(f"no weights at {path}{_nearest(path)}; `echo-harness data download --list` tells what can be fetched")
    elif path.suffix == ".safetensors":
        weights = _safetensors(path)
    else:
        weights = _torch(path, sections)
    counters = {name for name, shape in weights.shapes.items() if shape == () and weights.dtypes[name] in INTEGERS}
    shapes = {name: shape for name, shape in weights.shapes.items() if name not in counters}
    weights = replace(weights, shapes=shapes, dtypes={name: weights.dtypes[name] for name in shapes})
    odd = next((name for name, dtype in weights.dtypes.items() if dtype not in FLOATS), None)
    if odd is not None:
        raise ValueError(f"{path}: {odd} is {weights.dtypes[odd]}, quantized weights are not read; nearest is the original in bfloat16")
    return weights


def _nearest(path: Path) -> str:
    """The file most like a missing one, in words."""
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES or entry.is_dir())
    return f", nearest there is {nearest(path.name, names)}" if names else ""


def _foreign(path: Path, expected: str) -> ValueError:
    """The refusal of a file that does not begin as expected."""
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start:
        return ValueError(f"{path}: the file is empty; download it again")
    for magic, meaning in MAGIC.items():
        if start.startswith(magic.lower()):
            return ValueError(f"{path}: it is {meaning}")
    return ValueError(f"{path}: not a {expected} file; nearest is one whose name ends as what it is, {' or '.join(SUFFIXES)}")


def _safetensors(path: Path) -> Weights:
    header = read_header(path)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if not entries or not all(isinstance(entry, dict) and "data_offsets" in entry for entry in entries.values()):
        raise _foreign(path, "safetensors")
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    needed, size = start + max(entry["data_offsets"][1] for entry in entries.values()), path.stat().st_size
    if size < needed:
        raise ValueError(f"{path}: cut short, {size} of {needed} bytes; download it again")
    dtypes = {name: SAFETENSORS.get(entry["dtype"], entry["dtype"]) for name, entry in entries.items()}
    mapped = cache(lambda: safe_open(path, framework="pt"))  # maps the whole file, so not before a tensor is asked for
    return Weights(path, shapes_of(header), dtypes, lambda name: mapped().get_tensor(name))


def _torch(path: Path, sections: Sequence[str]) -> Weights:
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise _foreign(path, "torch")
    tensors = _section(path, _unpickle(path), sections)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return Weights(path, shapes, dtypes, tensors.__getitem__)


def _unpickle(path: Path) -> Any:
    """The content of a torch file; its tensors are mapped from the disk. Raises ValueError as `open_weights` does."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # the format before 2020 cannot be mapped
    except pickle.UnpicklingError as error:
        what = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "it is no plain mapping of tensors")
        raise ValueError(
            f"{path}: a pickled object, refused and not run ({what}); nearest is the same weights as safetensors or as a plain mapping"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: cut short or damaged ({str(error).splitlines()[0]}); download it again") from None


def _section(path: Path, content: Any, sections: Sequence[str]) -> dict[str, Tensor]:
    """The tensors to read of a torch file's content. Raises ValueError where there are none."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, a mapping from names to tensors belongs there")
    named = (content[key] for key in sections if isinstance(content.get(key), Mapping))
    kept = ({str(name): value for name, value in part.items() if isinstance(value, Tensor)} for part in (*named, content))
    tensors = next(filter(None, kept), None)
    if tensors is None:
        keys = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise ValueError(f"{path}: no tensors under {' or '.join(sections)}; it looks like a training state with {keys}")
    return tensors


def _folder(path: Path, sections: Sequence[str]) -> Weights:
    """Weights of a folder: those of its `transformer`, those that an index lists, or its only file."""
    if (path / "transformer").is_dir():
        return _folder(path / "transformer", sections)
    config = path / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("_class_name") if config.is_file() else None
    if kind not in (None, "WanTransformer3DModel", "CausalWanTransformer3DModel", "WanModel", "CausalWanModel"):
        raise ValueError(f"{path}: config.json says {kind}; a folder of WanTransformer3DModel belongs there, nearest is transformer/")
    indexes = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("*.bin.index.json"))
    if indexes:
        listed = json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(listed.values()))
        absent = [name for name in names if not (path / name).is_file()]
        if absent:
            raise ValueError(f"{path}: {len(absent)} of {len(names)} shards are missing, first {absent[0]}; download the folder again")
        return _shards(path, [path / name for name in names], sections)
    files = sorted(path.glob("diffusion_pytorch_model*.safetensors")) or sorted(path.glob("*.safetensors"))
    if files:
        return _shards(path, files, sections)
    others = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES)
    if len(others) == 1:
        return open_weights(others[0], sections)
    names = [entry.name for entry in others]
    raise ValueError(f"{path}: {'no file of weights' if not names else 'several files, give one of ' + ', '.join(names)}")


def _shards(path: Path, files: Sequence[Path], sections: Sequence[str]) -> Weights:
    """Several files as one. Raises ValueError for a name that two of them hold."""
    parts = [_safetensors(file) if file.suffix == ".safetensors" else _torch(file, sections) for file in files]
    holder: dict[str, Weights] = {}
    for part in parts:
        for name in part.shapes:
            if name in holder:
                raise ValueError(f"{path}: {name} is in {holder[name].path.name} and in {part.path.name}; give one of the files")
            holder[name] = part
    shapes = {name: part.shapes[name] for name, part in holder.items()}
    dtypes = {name: part.dtypes[name] for name, part in holder.items()}
    return Weights(path, shapes, dtypes, lambda name: holder[name].get(name))
