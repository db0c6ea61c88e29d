"""Live sessions on a toy backbone, and their own commands carried out by a worker of run.py's."""

from __future__ import annotations

import json
import shlex
from functools import cache

from jobs.live import command as live
from jobs.live.session import LiveBlock, LiveOrder, Session
from jobs.spec.compose import sweep as composed
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder
from jobs.work.worker import work

A, B, C = "a red ball left meadow", "a red ball up striped desert", "a red ball over a plain meadow"


@cache
def order(*words: str) -> LiveOrder:
    """Composed once for all tests."""
    return live.order(words)


def film(session: Session, blocks: int) -> list[LiveBlock]:
    """The next blocks."""
    return [session.next_block() for _ in range(blocks)]


def replayed(command: str) -> tuple[str, bytes, bytes]:
    """Latents hash, bytes of the video and trace of a session's own command, by a worker of run.py's."""
    python, program, *rest = shlex.split(command)
    assert (python, program) == ("python", "run.py")
    plain = composed([f"++{word}" if word.startswith("method.") else word for word in rest])[0]
    job = prepare(plain)
    (prompt,) = job.prompt_set
    folder, attempt = RunFolder(job), f"replay-{job.unit_id(prompt)}"
    assert folder.missing() and work(job, attempt, rest, plain, lambda event: None) == 0
    found = json.loads((folder.path / "records" / f"{attempt}.jsonl").read_text(encoding="utf-8"))
    units = folder.path / "units"
    return found["latents_sha256"], (units / found["files"]["video"]).read_bytes(), (units / found["files"]["trace"]).read_bytes()
