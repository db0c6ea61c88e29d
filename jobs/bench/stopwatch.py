"""The device's own clock, and a network whose passes it times."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from echo.backbone.packed import Network
from echo.backbone.wan import Attend

Figures = dict[str, Any]
"""Measured values, as in the JSON file."""


class Stopwatch:
    """Times on a device: events on CUDA, which are waited for only when a difference is asked for; otherwise the host's clock.

    With one thread that is CPU time, so that other programs' load is not in it.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self._device = device
        self._now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    @property
    def clock(self) -> str:
        """Name of the clock, for records."""
        if self.cuda:
            return "CUDA events"
        return "processor time of one thread" if self._now is time.process_time else "wall clock"

    def mark(self) -> Any:
        """The present time of the device."""
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
        """Wait until the device has finished."""
        if self.cuda:
            torch.cuda.synchronize(self._device)


class TimedNetwork:
    """Wraps a network in a rollout and times each pass: "pass" computes a flow, "clean" only leaves keys and values."""

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
        """The network's own `leave_states`, or its forward if it has none."""
        start = self._watch.mark()
        self._leave_states(latents, time, text, attend)
        self.marks.append(("clean", start, self._watch.mark()))

    def taken(self) -> list[tuple[str, float]]:
        """Kind and milliseconds of the passes since the last call."""
        passes = [(kind, self._watch.ms(start, end)) for kind, start, end in self.marks]
        self.marks.clear()
        return passes
