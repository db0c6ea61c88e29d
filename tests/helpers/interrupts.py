"""Ctrl-C for commands that tests start."""

from __future__ import annotations

import signal


def hear_interrupts() -> None:
    """To be called in a new process: whoever runs tests in the background has interrupts ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
