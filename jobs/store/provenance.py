"""Where and with what an attempt was made. It names nothing and decides nothing; it is kept for whoever asks."""

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
"""All that this project asks for, and what those bring that computes."""
DRIVER = Path("/proc/driver/nvidia/version")
CODE = ("run.py", "echo", "baselines", "data", "eval", "jobs", "conf", "pyproject.toml")
"""Where a change can change a result; notes, documents and tests beside them cannot."""
PIXELS = ("echo", "baselines", "data/world", "jobs/work/blocks.py", "jobs/work/models.py")
"""Where a change can change a pixel."""
SLURM = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "JOB_NAME", "JOB_PARTITION", "JOB_ACCOUNT", "NODELIST", "CLUSTER_NAME")
"""What SLURM tells its jobs in variables of these names behind `SLURM_`."""


def describe(argv: Sequence[str], config: Mapping[str, Any]) -> Provenance:
    """All that is worth knowing about this process, with the user's command line (not the worker's) and the full config."""
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
    """Digest of the code that makes pixels, as it stands on disk when a process first asks: 80 bits of BLAKE2b, as 20 hex digits.

    It enters no name: a comment changes it. It tells, of two videos of one name, whether they may be of different arithmetic.
    """
    files = (file for place in PIXELS for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py")))
    return digest(sorted((file.relative_to(ROOT).as_posix(), file_digest(file)) for file in files))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slurm() -> dict[str, str] | None:
    """Ids of the SLURM job that this process belongs to, how often it was requeued and where it runs; None outside a job."""
    ids = {name.lower(): os.environ[f"SLURM_{name}"] for name in SLURM if f"SLURM_{name}" in os.environ}
    return ids if "job_id" in ids else None


def commit() -> CodeState:
    """The commit of the code and a hash of what differs from it, new files of the code included, None where nothing does.

    Both None where git names no commit, as outside a clone; the hash is "unknown" where it names one and does not say what differs.
    """
    head = git("rev-parse", "HEAD")
    if not head:
        return CodeState()
    differs, fresh = git("diff", "HEAD"), git("ls-files", "--others", "--exclude-standard", "--", *CODE)
    if differs is None or fresh is None:
        return CodeState(head, "unknown")
    content = hashlib.blake2b(differs.encode(), digest_size=10)
    for name in fresh.splitlines():
        with contextlib.suppress(OSError):  # gone in the meantime
            content.update(f"{name} {file_digest(ROOT / name)}\n".encode())
    changed = content.digest() != hashlib.blake2b(digest_size=10).digest()
    return CodeState(head, content.hexdigest() if changed else None)


def changes() -> list[str] | None:
    """Files of the code that differ from the commit, or that are no part of it, which a run may import as well; empty outside a clone.

    None in a clone where git does not answer: it is not installed, say, or the clone belongs to somebody else.
    """
    said = git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    if said is None:
        return None if (ROOT / ".git").exists() else []
    lines = said.splitlines()
    return [line[2:].strip() + (", new" if line.startswith("??") else "") for line in lines]


def refuse_dirty(experiment: str | None, allowed: bool) -> None:
    """Refuse a table of the paper (an experiment `table...`) from code that no commit names, unless it is `allowed`.

    Raises ValueError: one line that names the experiment and the first changed files, or that git does not answer.
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
        version = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return version[1] if version else None


def gpu_name() -> str:
    """The first card's name; empty without one."""
    card = gpu()
    return "" if card is None else str(card["name"])


def cpu() -> str:
    """The processor's name, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
