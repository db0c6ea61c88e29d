"""Provenance of an attempt: machine, versions, commit. It enters no name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from data.outgoing import without_secrets
from echo.files import ROOT, digest, file_digest
from eval.store.origin import git
from eval.store.records import CodeState, Provenance

PACKAGES = (
    "torch", "numpy", "scipy", "einops", "safetensors", "hydra-core", "omegaconf", "submitit", "tqdm", "matplotlib",
    "av", "opencv-python-headless", "pillow", "imageio", "decord", "torchvision", "triton", "flash-attn-3",
    "diffusers", "transformers", "tokenizers", "huggingface-hub", "ftfy", "regex", "peft", "accelerate",
    "vbench", "openai-clip", "open-clip-torch", "pyiqa", "timm", "dreamsim", "easydict", "pyyaml", "requests", "setuptools", "urllib3",
    "msgspec", "pandas", "typer", "wandb", "jinja2", "markupsafe", "gradio",
)  # fmt: skip
"""Packages whose versions are recorded: the project's dependencies, and those of theirs that compute."""
DRIVER = Path("/proc/driver/nvidia/version")
CODE = ("run.py", "echo", "baselines", "data", "eval", "jobs", "conf", "pyproject.toml")
"""Files whose changes can change a result, unlike documents and tests."""
PIXELS = ("echo", "baselines", "data/world", "jobs/work/blocks.py", "jobs/work/models.py")
"""Files whose changes can change a pixel."""
SLURM = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "JOB_NAME", "JOB_PARTITION", "JOB_ACCOUNT", "NODELIST", "CLUSTER_NAME")
"""SLURM's variables, without the prefix `SLURM_`."""


def describe(argv: Sequence[str], config: Mapping[str, Any]) -> Provenance:
    """Provenance of this process, with the user's command line (not the worker's) and the full config."""
    return Provenance(
        argv=without_secrets(list(argv)),
        config=without_secrets(dict(config)),
        code=commit(),
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        host=socket.gethostname(),
        machine=f"{platform.system()} {platform.machine()}",
        cpu=cpu(),
        gpu=gpu(),
        cores=cores(),
        slurm=slurm(),
        pid=os.getpid(),
    )


@lru_cache(maxsize=1)
def pixel_code() -> str:
    """Digest of the code that makes pixels, as on disk when a process first calls this: 80 bits of BLAKE2b, as 20 hex digits.

    It enters no name, since even a comment changes it. Two videos of one name with different digests may differ in arithmetic.
    """
    files = (file for place in PIXELS for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py")))
    return digest(sorted((file.relative_to(ROOT).as_posix(), file_digest(file)) for file in files))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slurm() -> dict[str, str] | None:
    """Ids, number of requeues and nodes of this process's SLURM job; None outside a job."""
    ids = {name.lower(): os.environ[f"SLURM_{name}"] for name in SLURM if f"SLURM_{name}" in os.environ}
    return ids if "job_id" in ids else None


def commit() -> CodeState:
    """The commit of the code and a hash of uncommitted changes, new files of the code included, None without changes.

    Both are None without a commit, as outside a clone; the hash is "unknown" if git does not list the changes.
    """
    head = git("rev-parse", "HEAD")
    if not head:
        return CodeState()
    differs, fresh = git("diff", "HEAD"), git("ls-files", "--others", "--exclude-standard", "--", *CODE)
    if differs is None or fresh is None:
        return CodeState(head, "unknown")
    content = hashlib.blake2b(differs.encode(), digest_size=10)
    for name in fresh.splitlines():
        with contextlib.suppress(OSError):  # deleted meanwhile
            content.update(f"{name} {file_digest(ROOT / name)}\n".encode())
    changed = content.digest() != hashlib.blake2b(digest_size=10).digest()
    return CodeState(head, content.hexdigest() if changed else None)


def changes() -> list[str] | None:
    """Changed and new files of the code, which a run may import; empty outside a clone.

    None in a clone if git does not answer, for example because it is not installed or the clone belongs to another user.
    """
    said = git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    if said is None:
        return None if (ROOT / ".git").exists() else []
    lines = said.splitlines()
    return [line[2:].strip() + (", new" if line.startswith("??") else "") for line in lines]


def refuse_dirty(experiment: str | None, allowed: bool) -> None:
    """Refuse a table of the paper (an experiment `table...`) from uncommitted code, unless it is `allowed`.

    Raises ValueError in one line with the experiment and the first changed files, or if git does not answer.
    """
    if allowed or not (experiment or "").startswith("table"):
        return
    changed = changes()
    if changed is None:
        raise ValueError(
            f"experiment={experiment}: git does not say whether the code differs from its commit, and a table of the paper names one; "
            f"make `git status` work in {ROOT}, or allow_dirty=true"
        )
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"experiment={experiment}: the code differs from its commit ({'; '.join(changed[:3])}{more}), and a table of the paper names "
            "one; commit the changes, or allow_dirty=true"
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def gpu() -> dict[str, str | int | None] | None:
    """The first GPU that torch sees, with its driver and the versions of CUDA and cuDNN; None without a GPU.

    Torch is not imported on a machine without NVIDIA's driver, unless it already is.
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
    """Version of NVIDIA's driver according to the kernel; None without one."""
    try:
        version = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return version[1] if version else None


def gpu_name() -> str:
    """The first GPU's name; empty without one."""
    card = gpu()
    return "" if card is None else str(card["name"])


def cpu() -> str:
    """The CPU's name, according to the system."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
