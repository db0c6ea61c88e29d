"""Base class of all networks: built in the size of a published file or with random weights, and filled by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from echo.refusals import one_of
from eval.vbench.networks.weights import digest, drawn, fill, read

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class VBenchNetwork:
    """A network for inference only; see `eval.vbench.networks.interface`."""

    name = ""
    what = ""
    """Its name in error messages."""
    inside = ""
    """Key of a published checkpoint that holds its tensors, if the checkpoint has that key."""
    tiny: Any = None
    true: Any = None
    """Sizes of the small random network and of the published one, arguments of `build`; None for networks of one size."""
    fp32_only = False

    def __init__(self, network: nn.Module, identity: str, dtype: str, folder: Path | None = None) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype
        self.folder = folder
        """The folder of its weights; None for random ones."""

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Self:
        """Load it from the published file.

        Raises ValueError with the file if it is missing, unreadable or another network's, or with the missing package.
        """
        identity, tensors = f"sha256 {digest(path)}", read(path, inside=cls.inside)
        with drawn(0):
            network = cls.build(cls.size_of(tensors, path))
        named = {name: value for old, tensor in tensors.items() for name, value in cls.names(old, tensor)}
        fill(network, named, what=cls.what, path=path)
        return cls._ready(network, identity, dtype, device, path.parent)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Self:
        """Build it with random weights; size "true" is the published one, "tiny" is for tests. Raises ValueError for another size."""
        one_of(f"size {size!r} of a random network", size, ("tiny", "true"))
        with drawn(seed):
            network = cls.build(cls.tiny if size == "tiny" else cls.true)
        return cls._ready(network, f"random {size} seed {seed}", dtype, device, None)

    @classmethod
    def _ready(cls, network: nn.Module, identity: str, dtype: str, device: str, folder: Path | None) -> Self:
        one_of(f"dtype {dtype!r}", dtype, DTYPES)
        dtype = "fp32" if cls.fp32_only else dtype
        return cls(network.eval().requires_grad_(False).to(torch.device(device), DTYPES[dtype]), identity, dtype, folder)

    @classmethod
    def size_of(cls, tensors: Mapping[str, Tensor], path: Path) -> Any:
        """The size of a file's tensors. Raises ValueError with the file if they are another network's."""
        return cls.true

    @classmethod
    def build(cls, size: Any) -> nn.Module:
        """The network of a size, with torch's initial weights. Raises ValueError with the missing package."""
        raise NotImplementedError

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A published tensor under the network's name or names of it; an unknown one keeps its name, and is refused later."""
        yield old, value

    @property
    def weight(self) -> Tensor:
        """Its first weight, which has its device and type."""
        first: Tensor = next(self.network.parameters())
        return first

    @property
    def device(self) -> torch.device:
        """Its device."""
        return self.weight.device
