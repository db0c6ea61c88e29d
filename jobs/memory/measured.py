"""Measured memory of a process: on a GPU by torch's count, on the host by Linux's."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from echo.files import Json

if TYPE_CHECKING:
    import torch


class Meter:
    """Peak memory of a run, from `start` on.

    On CUDA: torch's peak allocation, earlier weights included. On a CPU: the largest growth of the
    process's resident memory (Linux), so start it before anything is built.
    """

    def __init__(self, device: torch.device | str) -> None:
        import torch

        self.device, self._cards = torch.device(device), torch.cuda
        self._base = 0

    @property
    def what(self) -> str:
        """Description of `peak`, for records."""
        return "cuda max allocated" if self.device.type == "cuda" else "growth of resident memory, libraries in it"

    def start(self) -> None:
        """Begin to measure."""
        if self.device.type == "cuda":
            self._cards.synchronize(self.device)
            self._cards.reset_peak_memory_stats(self.device)
            return
        reset_peak()
        self._base = resident("VmRSS")

    def again(self) -> None:
        """Reset the peak; growth is still counted from `start`."""
        if self.device.type == "cuda":
            self.start()
        else:
            reset_peak()

    def peak(self) -> int:
        """Peak bytes so far."""
        if self.device.type == "cuda":
            return self._cards.max_memory_allocated(self.device)
        return max(0, resident("VmHWM") - self._base)

    def compared(self, computed: int) -> Json:
        """Measured and computed bytes, for a record."""
        measured = self.peak()
        return {"measured_bytes": measured, "measured": self.what, "computed_bytes": computed, "ratio": round(measured / computed, 3)}


def resident(name: str) -> int:
    """A value of this process's memory in bytes: VmRSS now, VmHWM peak (Linux); 0 if unavailable."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
    return 0


def reset_peak() -> None:
    """Reset the peak of resident memory, if the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def keep_pages(up_to: int | None = None) -> None:
    """Let this process keep freed memory: otherwise glibc maps new pages for each large tensor, which takes up to half of the time.

    Args:
        up_to: bytes of the largest tensors whose memory is kept, 32 MiB at most; by default of all.
    """
    # M_MMAP_MAX or M_MMAP_THRESHOLD: who has a mapping of its own; M_TOP_PAD, M_TRIM_THRESHOLD: what is taken and kept at the heap's top.
    options = {-4: 0, -1: 2**31 - 1} if up_to is None else {-3: up_to, -2: up_to // 2, -1: 4 * up_to}
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)
