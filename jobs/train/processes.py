"""One training step shared by processes: gradients are added up over gloo, so that several cores work on it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing


def start(work: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `work(rank, processes, *arguments)` in processes that can `add_up`; with one process, run it in this one."""
    if processes == 1:
        work(0, 1, *arguments)
        return
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(_join, (processes, f"file://{meeting}/gloo", work, arguments), processes)


def _join(rank: int, processes: int, meeting: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    work(rank, processes, *arguments)
    torch.distributed.destroy_process_group()


def _leave_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would go on writing beside the next start."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(4)


def add_up(loss: torch.Tensor, parameters: Sequence[torch.Tensor], processes: int) -> torch.Tensor:
    """Sum a loss (returned) and the parameters' gradients (in place) over all processes."""
    if processes == 1:
        return loss
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    torch.distributed.all_reduce(flat)
    parts = flat[1:].split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)])
    return flat[0]
