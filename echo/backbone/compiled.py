"""The network with its pieces compiled by torch: the same weights, the same numbers to rounding, less time.

Compilation stops at self-attention, so that policies, window and kernels are not affected. Layers differ only in
weights and share one graph; another number of frames (a recache) or of prompts makes a second one, for all sizes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from echo.backbone.wan import TransformerLayer, WanModel
from echo.refusals import nearest

MODES = ("none", "blocks", "graphs")
"""none: not compiled. blocks: everything before and after self-attention is compiled. graphs: the same, replayed from CUDA graphs."""


def speed_up(model: WanModel, mode: str) -> WanModel:
    """A network with the same weights (shared, not copied) whose blocks are compiled at the first pass.

    Raises ValueError for an unknown mode, for CUDA graphs on another device, and without a compiler.
    """
    check(mode, model.patch_embedding.weight.device.type)
    if mode == "none":
        return model
    with torch.device("meta"):
        fast = WanModel(model.config)
    fast.load_state_dict(model.state_dict(), assign=True)
    fast.eval().requires_grad_(False)
    kind = "reduce-overhead" if mode == "graphs" else None
    ask, answer = (
        torch.compile(TransformerLayer.ask, fullgraph=True, mode=kind),
        torch.compile(TransformerLayer.answer, fullgraph=True, mode=kind),
    )
    # Methods of a class, not of each block: a block with methods bound to itself would stay alive until garbage collection.
    kind_of_block = type("CompiledLayer", (TransformerLayer,), {"ask": ask, "answer": answer})
    for block in fast.blocks:
        block.__class__ = kind_of_block
    if mode == "graphs":  # what a pass leaves in the graphs' memory is read before the next one begins
        fast.register_forward_pre_hook(lambda module, arguments: torch.compiler.cudagraph_mark_step_begin())
    return fast


def check(mode: str, device: str) -> None:
    """Raises ValueError like `speed_up`, for a network on `device` ("cpu", "cuda")."""
    if mode not in MODES:
        raise ValueError(f"compile {mode!r}: one of {', '.join(MODES)}; nearest is {nearest(mode, MODES)!r}")
    if mode == "graphs" and device != "cuda":
        raise ValueError(f"compile 'graphs': CUDA graphs need a CUDA device, the network is on {device!r}; nearest is 'blocks'")
    if mode != "none" and not compiler(device):
        needed = "triton" if device == "cuda" else "a C++ compiler (g++, or the one that CXX names)"
        raise ValueError(f"compile {mode!r}: torch needs {needed} on {device!r} and finds none; nearest is 'none'")


def compiler(device: str) -> bool:
    """Whether torch finds a compiler."""
    if device == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))
