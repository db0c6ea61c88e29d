"""What all networks share: built in the size of a published file or drawn at random, filled by name, ready to answer."""

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
    """A network for answers only; see `eval.vbench.networks.interface` for what each of them answers."""

    name = ""
    what = ""
    """What refusals call it."""
    inside = ""
    """Key of a published checkpoint below which its tensors lie, if it has that key."""
    tiny: Any = None
    true: Any = None
    """Sizes of the small random network and of the published one, as `build` takes them; None for networks of one size."""
    fp32_only = False

    def __init__(self, network: nn.Module, identity: str, dtype: str, folder: Path | None = None) -> None:
        self.network: Any = network
        self.identity = identity
        self.dtype = dtype
        self.folder = folder
        """Where its weights lie; None for random ones."""

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Self:
        """From the published file.

        Raises ValueError naming the file, if it is not there, not readable or another network's, or the package that is missing.
        """
        identity, tensors = f"sha256 {digest(path)}", read(path, inside=cls.inside)
        with drawn(0):
            network = cls.build(cls.size_of(tensors, path))
        named = {name: value for old, tensor in tensors.items() for name, value in cls.names(old, tensor)}
        fill(network, named, what=cls.what, path=path)
        return cls._ready(network, identity, dtype, device, path.parent)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Self:
        """With random weights; size "true" as published, "tiny" for tests. Raises ValueError for another size."""
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
        """The size that a file's tensors have. Raises ValueError naming the file where they are another network's."""
        return cls.true

    @classmethod
    def build(cls, size: Any) -> nn.Module:
        """The network of a size, its weights whatever torch draws. Raises ValueError naming the package that is missing."""
        raise NotImplementedError

    @classmethod
    def names(cls, old: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A published tensor under the name or names that the network gives it; an unknown one keeps its name, and is refused."""
        yield old, value

    @property
    def weight(self) -> Tensor:
        """Its first weight, which says where it computes and in which type."""
        first: Tensor = next(self.network.parameters())
        return first

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.weight.device
