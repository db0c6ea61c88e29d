"""One thread a process, before any library counts the cores: tests share two with each other. And where Hydra finds launchers, of which it
makes a list once in a process: a sweep then needs no process of its own."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.append(str(Path(__file__).parents[1] / "jobs" / "launch" / "plugins"))


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: a collection of garbage need not go through it again."""
    gc.collect()
    gc.freeze()
