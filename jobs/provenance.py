"""Where and with what an attempt was made. It names nothing and decides nothing; it is kept for whoever asks."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from eval.origin import git

PACKAGES = (
    "torch", "numpy", "scipy", "hydra-core", "omegaconf", "av", "opencv-python-headless", "safetensors", "diffusers", "transformers",
    "flash-attn-3",
)  # fmt: skip
DRIVER = Path("/proc/driver/nvidia/version")


def describe(argv: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """All that is worth knowing about this process.

    Args:
        argv: the user's command line, not the worker's.
        config: the full config as plain values.
    """
    return {
        "v": 1,
        "argv": list(argv),
        "config": dict(config),
        "code": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "gpu": gpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "pid": os.getpid(),
    }


def commit() -> dict[str, str | None]:
    """The commit of the code and a hash of what differs from it; both None outside a clone."""
    head = git("rev-parse", "HEAD")
    changes = git("diff", "HEAD")
    dirty = hashlib.blake2b(changes.encode(), digest_size=10).hexdigest() if changes else None
    return {"commit": head or None, "dirty": dirty}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def gpu() -> dict[str, Any] | None:
    """The first graphics card that torch sees, with its driver and the versions of CUDA and cuDNN; None where there is none.

    Torch is not imported on a machine without NVIDIA's driver, unless it is there already.
    """
    if not DRIVER.exists() and "torch" not in sys.modules:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def driver() -> str | None:
    """Version of NVIDIA's driver as the kernel tells it, None without one."""
    try:
        found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def gpu_name() -> str:
    """The first card's name; empty without one."""
    found = gpu()
    return "" if found is None else str(found["name"])


def cpu() -> str:
    """The processor's name, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
