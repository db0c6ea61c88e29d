"""Weights files as they were published: read without running what they hold, mapped to another network's names, refused if wrong."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from echo.files import replacing
from eval.measures.formulas import Vectors
from eval.vbench.networks.interface import FILES

Tensors = dict[str, Tensor]

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NAMED_AFTER: Final = re.compile(r"-([0-9a-f]{8})\.pth?$")
"""torch's habit, in some published names: eight digits before the ending are the beginning of the file's sha256."""


class _Inert:
    """Stands in for an object of a foreign class inside a checkpoint: takes whatever it is given, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass


_TENSOR_PARTS: Final = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", f"{kind}Storage") for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")),
    ("torch.storage", "UntypedStorage"),
}


class _TensorsOnly(pickle.Unpickler):
    """Builds tensors and containers; whatever else a checkpoint holds becomes inert, so that no code of it runs."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _TENSOR_PARTS else _Inert


class _Pickle:
    """What torch.load asks of a pickle module."""

    Unpickler = _TensorsOnly

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _TensorsOnly(file, **kwargs).load()


def dtype_of(name: str) -> torch.dtype:
    """The type of that name. Raises ValueError for another than fp32, fp16, bf16."""
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} is not one that networks run in; one of {', '.join(DTYPES)}; nearest is fp32")
    return DTYPES[name]


def digest(path: Path) -> str:
    """sha256 of a file. Raises ValueError where there is none, or where its name says that it should be another."""
    if not path.is_file():
        raise ValueError(f"no weights at {path}; `echo-harness data download eval=vbench` fetches them")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    published = any(path.name in names for names in FILES.values())
    named = NAMED_AFTER.search(path.name) if published else None
    if named and not sha256.startswith(named[1]):
        raise ValueError(f"{path}: its name says that its sha256 starts with {named[1]}, but it starts with {sha256[:8]}: not that file")
    return sha256


def read(path: Path, *, inside: str = "") -> Tensors:
    """All tensors of a weights file by name, on the host.

    TorchScript archives are read by torch's own loader for them; everything else with weights only, and where a checkpoint
    holds other objects beside them, by an unpickler that builds tensors and makes the others inert.

    Args:
        path: the file.
        inside: key under which the tensors lie, if the file has it ("state_dict", "model").

    Raises:
        ValueError: naming the file, if it is not there, not readable, or holds no tensors.
    """
    if not path.is_file():
        raise ValueError(f"no weights at {path}; `echo-harness data download eval=vbench` fetches them")
    try:
        content = _content(path)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        why = str(error).strip().partition("\n")[0][:120]
        raise ValueError(f"{path} is not a weights file that torch can read ({why}); away with it, and fetch it again") from error
    if inside and isinstance(content, Mapping) and isinstance(content.get(inside), Mapping):
        content = content[inside]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name; away with it, and fetch it again")
    return tensors


def _content(path: Path) -> Any:
    if _is_script(path):
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Pickle)


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def keep(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors by name, or a dictionary of them, as a file of torch's; it appears when it is whole."""
    with replacing(path) as part:
        torch.save(dict(content), part)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, what: str, path: Path) -> None:
    """Put tensors into a network: all of its names in their shapes, and no other ones.

    Raises ValueError naming the file, what it was to be, and the first names that do not fit.
    """
    wanted = network.state_dict()
    # Counters of steps are not weights, and old checkpoints lack them.
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


def renamed(tensors: Mapping[str, Tensor], rename: Callable[[str, Tensor], Iterator[tuple[str, Tensor]]]) -> Tensors:
    """Tensors under another network's names; `rename` yields none, one or several of each."""
    return {name: value for old, tensor in tensors.items() for name, value in rename(old, tensor)}


def ready(network: nn.Module, dtype: str, device: str) -> nn.Module:
    """The network for answers only: no gradients, no dropout, in its type and place."""
    return network.eval().requires_grad_(False).to(device=torch.device(device), dtype=dtype_of(dtype))


@contextmanager
def drawn(seed: int) -> Iterator[None]:
    """Random numbers of a seed inside; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def answer(values: Tensor, name: str) -> Vectors:
    """A network's answer on the host in float32. Raises ValueError naming the network where it is not finite."""
    host = values.detach().float().cpu()
    good = torch.isfinite(host).reshape(len(host), -1).all(1) if host.ndim else torch.isfinite(host)
    if not bool(good.all()):
        first = int((~good).nonzero()[0, 0]) if host.ndim else 0
        raise ValueError(f"{name} answered NaN or infinity, first for item {first} of {len(host)} of its batch; nothing is made of it")
    return host.numpy()


def choose_size(size: str) -> bool:
    """Whether a random network is a tiny one. Raises ValueError for another word than tiny and true."""
    if size not in ("tiny", "true"):
        raise ValueError(f"size {size!r} of a random network; one of tiny, true; nearest is tiny")
    return size == "tiny"
