"""What a process really takes of memory: of a graphics card by torch's own count, of the machine by Linux's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from echo.files import Json

if TYPE_CHECKING:
    import torch


class Meter:
    """What a run really takes, from `start` on.

    On CUDA: the most that torch had allocated at once, weights that were there before included. On a processor: how much the
    process's resident memory grew at most (Linux), so it starts before anything is built.
    """

    def __init__(self, device: torch.device | str) -> None:
        import torch

        self.device, self._cards = torch.device(device), torch.cuda
        self._base = 0

    @property
    def what(self) -> str:
        """What `peak` is, for records."""
        return "cuda max allocated" if self.device.type == "cuda" else "growth of resident memory, libraries in it"

    def start(self) -> None:
        """From here on."""
        if self.device.type == "cuda":
            self._cards.synchronize(self.device)
            self._cards.reset_peak_memory_stats(self.device)
            return
        reset_peak()
        self._base = resident("VmRSS")

    def again(self) -> None:
        """Forget the fullest moment so far; what there was at `start` stays what growth is counted from."""
        if self.device.type == "cuda":
            self.start()
        else:
            reset_peak()

    def peak(self) -> int:
        """Bytes at the fullest moment so far."""
        if self.device.type == "cuda":
            return self._cards.max_memory_allocated(self.device)
        return max(0, resident("VmHWM") - self._base)

    def compared(self, computed: int) -> Json:
        """What was measured and what was computed, for a record."""
        measured = self.peak()
        return {"measured_bytes": measured, "measured": self.what, "computed_bytes": computed, "ratio": round(measured / computed, 3)}


def resident(name: str) -> int:
    """A line of this process's memory, bytes: VmRSS now, VmHWM at most (Linux); 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
    return 0


def reset_peak() -> None:
    """Let the highest resident memory count from now on, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
