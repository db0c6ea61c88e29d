"""Published weights files: read without running code in them, mapped to another network's names, and refused if wrong."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from eval.measures.formulas import Vectors
from eval.vbench.networks.interface import NETWORKS

Tensors = dict[str, Tensor]

NAMED_AFTER: Final = re.compile(r"-([0-9a-f]{8})\.pth?$")
"""torch's convention in some published names: eight hex digits before the ending begin the file's sha256."""


class _Inert:
    """Replaces an object of a foreign class inside a checkpoint: accepts everything, and only keeps its state.

    named: parameters and buffers of a TorchScript module.
    """

    named: frozenset[str] = frozenset()
    state: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, _: Any, __: Any) -> None:
        pass


def digest(path: Path) -> str:
    """sha256 of a file. Raises ValueError if there is none, or if its name contains another sha256."""
    if not path.is_file():
        raise ValueError(f"no weights at {path}; `echo-harness data download eval=vbench` fetches them")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    published = any(path.name in network.files for network in NETWORKS.values())
    named = NAMED_AFTER.search(path.name) if published else None
    if named and not sha256.startswith(named[1]):
        raise ValueError(f"{path}: its name says that its sha256 starts with {named[1]}, but it starts with {sha256[:8]}: not that file")
    return sha256


def read(path: Path, *, inside: str = "") -> Tensors:
    """All tensors of a weights file by name, on the host.

    Files are read with `weights_only`; other objects in a checkpoint become inert, so that neither its code nor the program of a
    TorchScript archive runs.

    Args:
        path: the file.
        inside: key under which the tensors lie, if the file has it ("state_dict", "model").

    Raises:
        ValueError: with the file, if it is missing, unreadable or holds no tensors.
    """
    if not path.is_file():
        raise ValueError(f"no weights at {path}; `echo-harness data download eval=vbench` fetches them")
    try:
        content = _content(path)
    except Exception as error:  # torch, zipfile or safetensors may raise anything
        why = str(error).strip().partition("\n")[0][:120]
        raise ValueError(f"{path} is not a weights file that torch can read ({why}); away with it, and fetch it again") from error
    if inside and isinstance(content, Mapping) and isinstance(content.get(inside), Mapping):
        content = content[inside]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; away with it, and fetch it again")
    return tensors


def _content(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
        file = _without_program(archive) if scripted else path
        named = dict(_module_names(archive)) if scripted else {}
    foreign = get_unsafe_globals_in_checkpoint(file)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with safe_globals([(type("Inert", (_Inert,), {"named": named.get(name, frozenset())}), name) for name in foreign]):
        content = torch.load(file, map_location="cpu", weights_only=True)
    return dict(_held(content)) if scripted else content


def _without_program(archive: zipfile.ZipFile) -> io.BytesIO:
    """The same archive in memory in the format of torch.save: the modules' states and tensors, without TorchScript's program."""
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as copy:
        for entry in archive.infolist():
            if re.search(r"^[^/]+/(data\.pkl|data/\d+|version|byteorder)$", entry.filename):
                copy.writestr(entry.filename, archive.read(entry))
    plain.seek(0)
    return plain


def _module_names(archive: zipfile.ZipFile) -> Iterator[tuple[str, frozenset[str]]]:
    """Classes of a TorchScript archive with the names of their parameters and buffers, read from the program's text."""
    for entry in archive.infolist():
        place = re.search(r"^[^/]+/code/(.+)\.py$", entry.filename)
        if place is None:
            continue
        for name, body in re.findall(r"^class (\w+)\(Module\):\n((?:  .*\n|\n)*)", archive.read(entry).decode("utf-8"), re.MULTILINE):
            lists = re.findall(r"^  __(?:parameters|buffers)__ = \[(.*)\]", body, re.MULTILINE)
            yield f"{place[1].replace('/', '.')}.{name}", frozenset(re.findall(r'"(\w+)"', " ".join(lists)))


def _held(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of an inert module and of its submodules, named like in a state_dict."""
    for name, value in module.state.items():
        if isinstance(value, Tensor) and name in module.named:
            yield prefix + name, value
        elif isinstance(value, _Inert):
            yield from _held(value, f"{prefix}{name}.")


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, what: str, path: Path) -> None:
    """Put tensors into a network, which needs exactly its own names and shapes.

    Raises ValueError with the file, what it should be, and the first names that do not fit.
    """
    wanted = network.state_dict()
    # Step counters are not weights, and old checkpoints lack them.
    absent = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    strange = [name for name in tensors if name not in wanted]
    shapes = [name for name, value in tensors.items() if name in wanted and value.shape != wanted[name].shape]
    kinds = {"missing": absent, "unknown": strange, "misshapen": shapes}
    complaints = [f"{len(names)} {kind} (first {names[0]})" for kind, names in kinds.items() if names]
    if complaints:
        raise ValueError(f"{path} is not {what}: {', '.join(complaints)} of {len(wanted)} tensors")
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        raise ValueError(f"{path}: {broken[0]} holds values that are not finite; away with it, and fetch it again")
    network.load_state_dict(dict(tensors), strict=False)


@contextmanager
def drawn(seed: int) -> Iterator[None]:
    """Random numbers of a seed inside the block; afterwards torch's generator has its former state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def answer(values: Tensor, name: str) -> Vectors:
    """A network's result on the host in float32. Raises ValueError with the network's name if it is not finite."""
    host = values.detach().float().cpu().numpy()
    wrong = np.flatnonzero(~np.isfinite(host).reshape(len(host), -1).all(1))
    if len(wrong):
        raise ValueError(f"{name} answered NaN or infinity, first for item {wrong[0]} of {len(host)} of its batch; nothing is made of it")
    return host


def unit(features: Tensor, name: str) -> Vectors:
    """Features [..., D] scaled to length 1, on the host. Raises ValueError like `answer`."""
    return answer(F.normalize(features.float(), dim=-1), name)
