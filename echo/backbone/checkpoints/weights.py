"""Weight files of other tools, opened without reading a tensor: torch, safetensors, folders of shards.

No code in a file is ever run: torch files are read weights-only, and a file that needs more is refused.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from echo.backbone.checkpoints.headers import Shape, read_header, shapes_of
from echo.backbone.finite import broken
from echo.refusals import nearest, reading

FLOATS = ("float64", "float32", "bfloat16", "float16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
SAFETENSORS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
SAFETENSORS |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
UNFINISHED = (".aria2", ".part", ".incomplete", ".crdownload")
"""Endings of files that a download keeps beside its file, or instead of it, until it is complete."""
MAGIC = {
    b"version https://git-lfs": "a git LFS pointer, not the file itself: run `git lfs pull`, or download it again",
    b"GGUF": "a GGUF file, whose weights are quantized: take the original",
    b"<!doctype html": "a web page, not the file itself: download it again",
    b"<html": "a web page, not the file itself: download it again",
    b"{": "a text file: give the file of weights beside it",
}
"""First bytes of files that are often mistaken for weights."""


@dataclass(frozen=True)
class Weights:
    """Tensors of a file or folder under their own names, none of them read yet.

    get: reads one tensor; it may be memory-mapped, so copy it before changing it. said: metadata of a file's header, or of a
    folder's config. files: the files that it was opened from.
    """

    path: Path
    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    get: Callable[[str], Tensor]
    said: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def floats(self, names: Iterable[str]) -> None:
        """Raise ValueError if one of these tensors is not of floats: quantized weights are not supported."""
        odd = next((name for name in names if self.dtypes[name] not in FLOATS), None)
        if odd is not None:
            rule = "quantized weights are not read; nearest is the original in bfloat16"
            raise ValueError(f"{self.path}: {odd} is {self.dtypes[odd]}, {rule}")

    def judge(self, names: Iterable[str], zeros: Container[str] = ()) -> None:
        """Read these tensors and the checksums of their files once. zeros: names of tensors that may be zero.

        Raises ValueError for a file with wrong checksums, and for a tensor that is unreadable, not finite or an all-zero matrix.
        """
        for file in self.files:
            _check_sums(file)
        for name in names:
            tensor = self.get(name)
            with reading(self.path):
                wrong = broken({name: tensor.flatten() if name in zeros else tensor})
            if wrong is not None:
                raise ValueError(f"{self.path}: {' '.join(wrong)}; download it again")


@dataclass(frozen=True)
class PartKind:
    """One of the parts of a backbone in weight files.

    what: description for messages. folder: its name in a pipeline. classes: its class names in a folder's config.json. sections: its
    keys in a training state, best first: averaged weights before the last ones. marks: prefixes of names in files of several parts.
    """

    what: str
    folder: str = ""
    classes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ("state_dict", "model")
    marks: tuple[str, ...] = ()


CAUSAL = ("CausalWanTransformer3DModel", "CausalWanModel")
"""Classes of causal networks."""
PLAIN = ("diffusion_pytorch_model", "model", "pytorch_model")
"""File names of diffusers and transformers without a variant."""
NETWORK = PartKind(
    "a Wan transformer", "transformer", ("WanTransformer3DModel", "WanModel", *CAUSAL),
    ("generator_ema", "generator", "model", "state_dict"), ("model.diffusion_model.",),
)  # fmt: skip
CODEC = PartKind("the VAE of Wan2.1", "vae", ("AutoencoderKLWan",), marks=("first_stage_model.", "vae."))
SMALL_CODEC = PartKind("a TAEHV decoder", "taehv", marks=("first_stage_model.", "vae."))
TEXT = PartKind(
    "a UMT5 encoder", "text_encoder", ("UMT5EncoderModel", "UMT5ForConditionalGeneration", "UMT5Model"),
    marks=("cond_stage_model.", "text_encoder.", "text_encoders."),
)  # fmt: skip
ADDITIONS = PartKind("low-rank additions", sections=("generator_lora", "lora", "state_dict"))


def open_weights(path: Path, part: PartKind = NETWORK) -> Weights:
    """Open a file, or the weights inside a folder.

    Args:
        path: a torch or safetensors file; a folder with one such file, with shards and their index, or a diffusers pipeline. Integer
            scalars, such as the step at which a state was saved, are left out.
        part: the part to look for.

    Raises:
        ValueError: in one line, for a missing, cut, foreign, unsafe or unreadable file.
    """
    with reading(path):
        if path.is_dir():
            weights = _folder(path, part)
        elif not path.is_file():
            raise ValueError(f"no weights at {path}{_nearest(path)}; `echo-harness data download --list` tells what can be fetched")
        else:
            weights = _file(path, part)
        counters = {name for name, shape in weights.shapes.items() if shape == () and weights.dtypes[name] in INTEGERS}
        kept = {name for name in weights.shapes if name not in counters or name.endswith(".alpha")}  # the scale of LoRA weights
        if marked := {name for name in kept if name.startswith(part.marks)} if part.marks else set():
            kept = marked
        shapes = {name: shape for name, shape in weights.shapes.items() if name in kept}

    def get(name: str) -> Tensor:
        with reading(path):
            return weights.get(name)

    return replace(weights, shapes=shapes, get=get)


def _file(path: Path, part: PartKind) -> Weights:
    beside = next((file for ending in UNFINISHED if (file := path.with_name(path.name + ending)).exists()), None)
    if beside is not None or path.suffix in UNFINISHED:
        raise ValueError(f"{path}: its download is not finished, {(beside or path).name} says so; let it end, or download it again")
    with reading(path):
        return _safetensors(path) if path.suffix == ".safetensors" else _torch(path, part)


def _nearest(path: Path) -> str:
    """A phrase that names the file most similar to a missing one."""
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES or entry.is_dir())
    return f", nearest there is {nearest(path.name, names)}" if names else ""


def _foreign(path: Path, expected: str) -> ValueError:
    """The error for a file that does not begin as expected."""
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
    mapped = cache(lambda: safe_open(path, framework="pt"))  # maps the whole file, so only once a tensor is read
    said = header.get("__metadata__") or {}
    return Weights(path, shapes_of(header), dtypes, lambda name: mapped().get_tensor(name), said, (path,))


def _torch(path: Path, part: PartKind) -> Weights:
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise _foreign(path, "torch")
    if start.startswith(b"PK"):
        _refuse_other_archives(path)
    tensors = _section(path, _unpickle(path), part)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return Weights(path, shapes, dtypes, tensors.__getitem__, files=(path,))


def _refuse_other_archives(path: Path) -> None:
    """Raise ValueError for a zip that torch.save has not written, and say what it is; a truncated zip has no list of members."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        raise ValueError(f"{path}: it is a TorchScript archive, a program: take the weights alone, as safetensors or a plain mapping")
    if names and all(name.endswith(".npy") for name in names):
        raise ValueError(f"{path}: it is a NumPy archive (.npz): take the weights as safetensors")
    if not any(name.endswith("/data.pkl") for name in names):
        raise ValueError(f"{path}: it is a zip archive of {names[0] if names else 'nothing'}: unpack it, and give the file of weights")


def _check_sums(path: Path) -> None:
    """Raise ValueError for a torch file with an entry whose CRC is wrong."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with reading(path), archive.open(entry) as content:
                if entry.CRC:  # torch can be configured to write none
                    while content.read(2**22):
                        pass


def _unpickle(path: Path) -> Any:
    """The content of a torch file; its tensors are mapped from the disk. Raises ValueError as `open_weights` does."""
    try:
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # warned for every protocol but the second
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


def _section(path: Path, content: Any, part: PartKind) -> dict[str, Tensor]:
    """The part's tensors in a torch file's content. Raises ValueError if there are none."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, a mapping from names to tensors belongs there")
    named = (content[key] for key in part.sections if isinstance(content.get(key), Mapping))
    kept = (_tensors(inner) for inner in (*named, content))
    tensors = next(filter(None, kept), None)
    if tensors is None:
        keys = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise ValueError(f"{path}: no tensors under {' or '.join(part.sections)}; it looks like a training state with {keys}")
    return tensors


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping; LoRA scales may be plain numbers."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return tensors | {str(n): torch.tensor(v) for n, v in content.items() if str(n).endswith(".alpha") and isinstance(v, (int, float))}


def _folder(path: Path, part: PartKind) -> Weights:
    """A part's weights in a folder: its own folder in a pipeline, the files that an index lists, or the only file."""
    if part.folder and (path / part.folder).is_dir():
        return _folder(path / part.folder, part)
    said = _config(path)
    kind = said.get("_class_name") or next(iter(said.get("architectures") or ()), None)
    if part.classes and kind not in (None, *part.classes):
        raise ValueError(f"{path}: config.json says {kind}; a folder of {part.classes[0]} belongs there, nearest is {part.folder}/")
    unfinished = sorted(entry.name for entry in path.iterdir() if entry.suffix in UNFINISHED)
    if unfinished:
        raise ValueError(f"{path}: a download is not finished, {unfinished[0]} says so; let it end, or download it again")
    weights = _shards(path, _members(path), part)
    return replace(weights, said={**weights.said, **said})


def _members(path: Path) -> list[Path]:
    """The files of a folder that are read as one. Raises ValueError if there are none, or several without an index."""
    index = next(iter(sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("*.bin.index.json"))), None)
    if index is not None:
        with reading(index):
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        absent = [name for name in names if not (path / name).is_file()]
        if absent:
            raise ValueError(f"{path}: {len(absent)} of {len(names)} shards are missing, first {absent[0]}; download the folder again")
        return [path / name for name in names]
    files = sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES and not entry.name.startswith("."))
    safe = [file for file in files if file.suffix == ".safetensors"]
    plain = [file for file in safe or files if file.stem in PLAIN]  # beside variants such as fp16
    named = [file for file in safe if file.name.startswith(PLAIN[0])]
    members = plain[:1] or named or safe or files
    if len(members) == 1 or safe:
        return members
    names = [file.name for file in files]
    raise ValueError(f"{path}: {'no file of weights' if not names else 'several files, give one of ' + ', '.join(names)}")


def _config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json; empty if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    with reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, not a mapping")
    return content


def _shards(path: Path, files: Sequence[Path], part: PartKind) -> Weights:
    """Several files as one. Raises ValueError for a name that two of them hold."""
    parts = [_file(file, part) for file in files]
    holder: dict[str, Weights] = {}
    for weights in parts:
        for name in weights.shapes:
            if name in holder:
                raise ValueError(f"{path}: {name} is in {holder[name].path.name} and in {weights.path.name}; give one of the files")
            holder[name] = weights
    shapes = {name: weights.shapes[name] for name, weights in holder.items()}
    dtypes = {name: weights.dtypes[name] for name, weights in holder.items()}
    said = parts[0].said if len(parts) == 1 else {}
    return Weights(path, shapes, dtypes, lambda name: holder[name].get(name), said, tuple(files))
