"""One bar on a terminal, plain lines in a log."""

from __future__ import annotations

import io

import pytest

from jobs.work import progress
from jobs.work.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_log_gets_plain_lines_now_and_then(clock):
    log = io.StringIO()
    shown = Progress(80, 1, log)
    for _ in range(40):
        clock[0] += 1
        shown.block()
    shown.video()
    clock[0] += 40
    shown.block(40)
    shown.close()
    lines = log.getvalue().splitlines()
    assert lines[0] == "0/1 videos, 15/80 blocks, 12 FPS, 15 s passed, 65 s left"
    assert lines[-1] == "1/1 videos, 80/80 blocks, 12 FPS, 80 s passed, 0 s left"
    assert len(lines) == 4 and "\r" not in log.getvalue()


def test_terminal_gets_a_bar_with_blocks_speed_and_time_left():
    screen = Terminal()
    shown = Progress(80, 2, screen)
    shown.block(40)
    shown.video()
    shown._bar.refresh()
    last = screen.getvalue().split("\r")[-1]
    shown.close()
    for part in ("1/2 videos", "40/80 blocks", "FPS", "<"):
        assert part in last


def test_blocks_of_a_failed_video_are_taken_back(clock):
    log = io.StringIO()
    shown = Progress(80, 2, log)
    shown.block(10)
    shown.block(-10)
    shown.close()
    assert "0/80 blocks" in log.getvalue()
