"""The device's own clock, and a network that is timed by it pass by pass."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from echo.backbone.packed import Network
from echo.backbone.wan import Attend

Figures = dict[str, Any]
"""What was measured, as the JSON has it."""


class Stopwatch:
    """Moments on a device: events on CUDA, which nobody waits for until a difference is asked; else the host's clock.

    On one thread that is the processor's time, so that other programs' load is not in it.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._device = device
        self._now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    @property
    def clock(self) -> str:
        """What differences are of, for records."""
        if self.cuda:
            return "CUDA events"
        return "processor time of one thread" if self._now is time.process_time else "wall clock"

    def mark(self) -> Any:
        """Now, as the device sees it."""
        if not self.cuda:
            return self._now()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two marks."""
        if not self.cuda:
            return 1e3 * (end - start)
        end.synchronize()
        return float(start.elapsed_time(end))

    def wait(self) -> None:
        """Until the device has done all that was asked."""
        if self.cuda:
            torch.cuda.synchronize(self._device)


class TimedNetwork:
    """Stands for a network in a rollout and marks each pass: "pass" gives a flow, "clean" leaves states alone."""

    def __init__(self, network: Network, watch: Stopwatch) -> None:
        self._network, self._watch = network, watch
        self._leave_states = getattr(network, "leave_states", network)
        self.time_states, self.text_states, self.text_keys = network.time_states, network.text_states, network.text_keys
        self.marks: list[tuple[str, Any, Any]] = []

    @property
    def patch_embedding(self) -> torch.nn.Conv3d:
        return self._network.patch_embedding

    def __call__(self, latents: Tensor, time: Any, text: Any, attend: Attend) -> Tensor:
        start = self._watch.mark()
        flow = self._network(latents, time, text, attend)
        self.marks.append(("pass", start, self._watch.mark()))
        return flow

    def leave_states(self, latents: Tensor, time: Any, text: Any, attend: Attend) -> None:
        """As the network's own, or its forward, where it has none."""
        start = self._watch.mark()
        self._leave_states(latents, time, text, attend)
        self.marks.append(("clean", start, self._watch.mark()))

    def taken(self) -> list[tuple[str, float]]:
        """Kind and milliseconds of the passes since the last call."""
        passes = [(kind, self._watch.ms(start, end)) for kind, start, end in self.marks]
        self.marks.clear()
        return passes
