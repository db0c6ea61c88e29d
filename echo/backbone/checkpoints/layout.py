"""Weight files of text encoders and codecs, from any tool, under the names of the class that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from echo.backbone.checkpoints.headers import Shape
from echo.backbone.checkpoints.names import bare, looks_like, mismatch
from echo.backbone.checkpoints.weights import FLOATS, PartKind, Weights, open_weights
from echo.backbone.finite import broken
from echo.refusals import reading

Rename = Callable[[dict[str, str]], Mapping[str, str]]
"""From the file's names (name -> name) to a mapping from the names in use to the file's."""


@dataclass(frozen=True)
class Layout:
    """An opened file; names: the name in use -> the file's own."""

    weights: Weights
    names: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes under the names in use."""
        return {name: self.weights.shapes[own] for name, own in self.names.items()}

    def get(self, name: str) -> Tensor:
        """One tensor, memory-mapped if possible."""
        return self.weights.get(self.names[name])

    def check(self, what: str, wanted: Mapping[str, Shape], *, beside: tuple[str, ...] = (), whole: bool = False) -> None:
        """Raise a ValueError of one line unless the file has the names and shapes of `what`, as floats.

        whole: whether all wanted tensors are read too. beside: prefixes of further names that are allowed and ignored;
            further tensors that are not floats are always allowed.
        """
        self.weights.floats(own for name, own in self.names.items() if name in wanted)
        dtypes = self.weights.dtypes
        extra = {name for name, own in self.names.items() if name.startswith(beside) or dtypes[own] not in FLOATS}
        shapes = {name: shape for name, shape in self.shapes.items() if name in wanted or name not in extra}
        wrong = mismatch(shapes, wanted)
        if wrong is not None:
            raise ValueError(f"{self.weights.path}: not {what}: {wrong}; it looks like {looks_like(self.weights.shapes)}")
        if whole:
            self.weights.judge(self.names[name] for name in wanted)


def open_layout(path: Path, part: PartKind, rename: Rename = dict) -> Layout:
    """Open a file or folder of weights under new names, without wrapper prefixes; if two tensors get one name, one of them is used.

    Raises ValueError for a missing, foreign or damaged file (`echo.backbone.checkpoints.weights.open_weights`).
    """
    weights = open_weights(path, part)
    with reading(path, f"nearest is {part.what}"):
        return Layout(weights, rename({bare(own): own for own in weights.shapes}))


def module_shapes(module: nn.Module) -> dict[str, Shape]:
    """Shapes of a module's parameters and buffers."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def fill(module: nn.Module, prefix: str, layout: Layout, dtype: torch.dtype, device: torch.device | str) -> None:
    """Load the tensors with a prefix into a module on the meta device, cast and moved one after another.

    Raises ValueError for one that is not finite.
    """
    module.load_state_dict({name: layout.get(prefix + name).to(device, dtype) for name in module.state_dict()}, assign=True)
    refuse_broken(str(layout.weights.path), module, lambda name: layout.get(prefix + name))


def refuse_broken(owner: str, module: nn.Module, source: Callable[[str], Tensor]) -> None:
    """Raise a ValueError for a module with a tensor that is not finite. All-zero matrices are not checked here (see `Weights.judge`).

    owner: the file or the part, for messages. source: returns a tensor by its name before the cast.
    """
    if wrong := broken({name: value.flatten() for name, value in module.state_dict().items()}):
        name, what = wrong
        cast = "" if broken({name: source(name)}) else f" once it is {str(module.state_dict()[name].dtype).removeprefix('torch.')}"
        raise ValueError(f"{owner}: {name} {what}{cast}; {'nearest is float32' if cast else 'download it again'}")
