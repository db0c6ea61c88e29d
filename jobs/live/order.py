"""What a command asks of a live session, checked: everything else in this folder is given it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from echo.scene import Prompt
from jobs.spec.plan import Job


@dataclass(frozen=True)
class LiveOrder:
    """What a command line asks for, checked. words: settings of run.py that make the job."""

    job: Job
    words: tuple[str, ...]
    name: str
    host: str
    port: int | None
    save: Path
    first: Prompt | None
    threshold: float | None
    notes: tuple[str, ...]


def loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, as nobody else reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
