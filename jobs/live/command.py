"""A live session in the browser: a prompt takes effect at the next block, and the session leaves a script that replays the video."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data.outgoing import loopback
from echo.refusals import nearest
from echo.routing import Router
from echo.scene import Prompt, load_prompts
from jobs.live.session import LiveOrder, refuse
from jobs.spec.compose import sweep
from jobs.spec.mistakes import REFUSALS, explain
from jobs.spec.plan import Job, prepare
from jobs.store import unwritable
from jobs.work import models
from jobs.work.progress import say

FIXED = {
    "eval": "nothing is scored while it is made", "tracker": "nothing is scored while it is made",
    "duration_scale": "a scene ends when the next begins",
    **dict.fromkeys(("prompts", "batch", "shard", "max_workers", "max_tries"), "it makes one video"),
    **dict.fromkeys(("experiment", "debug", "m", "multirun"), "it is one run"),
    **dict.fromkeys(("launcher", "hydra"), "it runs here"),
}  # fmt: skip
"""Settings of run.py that a session does not have -> the reason."""
THRESHOLD = 0.7
"""Default for the embedded text encoder: it routes 950 of the 960 transitions of its prompt sets as tagged; eq. (17)'s 0.85 routes 530."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def order(
    words: Sequence[str], id: str = "", script: Path | None = None, threshold: float | None = None, host: str = "127.0.0.1",
    port: int | None = None, output: Path | None = None,
) -> LiveOrder:  # fmt: skip
    """Check the arguments of `live` completely; no model is loaded. Raises ValueError: one line with the nearest choice."""
    for word in words:
        head = re.split(r"[./@=]", word.lstrip("+-"))[0]
        if head in FIXED:
            raise ValueError(f"{word}: not in a live session ({FIXED[head]}); nearest is to leave it out, or to give it to the replay")
        if "=" not in word:
            raise ValueError(f"{word}: not understood; settings are key=value, for example backbone=tiny method=echo")
    job, extra = _job(words)
    refuse(job)
    models.cards([job.config])
    first = _first(script, id)
    name = id or (first.id if first else "live")
    if not NAME.fullmatch(name):
        near = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "live"
        raise ValueError(f"id={name}: names files, so letters, digits, '.', '_' and '-'; nearest is id={near}")
    save = output or Path(job.config.store) / "live"
    try:
        unwritable.check(str(save))
    except OSError as error:
        raise ValueError(unwritable.refusal(str(save), error)) from None
    if threshold is None and job.config.backbone.parts is None:
        threshold = THRESHOLD
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold:g}: likeness of two texts, 0 to 1; nearest is threshold={THRESHOLD}")
    open_to = f"warning: --host {host} is no loopback: whoever reaches this machine steers the session, no password"
    kept = tuple(word for word in words if not word.startswith(("task=", "task.")))
    notes = (*extra, *([] if loopback(host) else [open_to]))
    return LiveOrder(job, (*kept, *extra), name, host, _port(port, host), save, first, threshold, notes)


def _job(typed: Sequence[str]) -> tuple[Job, list[str]]:
    """The job, and the settings that a session adds so that its router overrules no user and reads no later scene."""
    job = prepare(_plain(typed))
    routing = job.policy.routed_by
    extra = [] if routing is None or routing.causal else ["method.routing.causal=true"]
    extra += [] if routing is None or routing.router is Router.tags else ["method.routing.router=tags"]
    extra = [word for word in extra if not any(one.startswith(word.partition("=")[0] + "=") for one in typed)]
    return (prepare(_plain([*typed, *extra])), extra) if extra else (job, [])


def _plain(typed: Sequence[str]) -> dict[str, object]:
    try:
        configs = sweep([*typed, "eval=none", "prompts=1"])
    except REFUSALS as error:
        line = explain(error, ["-m", *typed])
        unknown = re.match(r"unknown key (\w+):", line)
        if unknown and (near := nearest(unknown[1], ("id", "script", "threshold")))[:2] == unknown[1][:2]:
            line = f"unknown key {unknown[1]}: nearest is {near}"
        raise ValueError(line) from error
    if len(configs) != 1:
        raise ValueError(f"{' '.join(typed)}: asks for {len(configs)} runs; a live session is one")
    return configs[0]


def _first(script: Path | None, name: str) -> Prompt | None:
    """The prompt of a script that is followed first. Raises ValueError if the file is no script, or holds several and none is named."""
    if script is None:
        return None
    try:
        prompts = load_prompts(str(script))
    except ValueError as error:
        raise ValueError(f"script={error}; nearest is a file that a session has saved") from None
    wanted = name or prompts[0].id
    if len(prompts) > 1 and not name:
        raise ValueError(f"script={script}: holds {len(prompts)} prompts; id= says which, for example id={prompts[0].id}")
    named = next((prompt for prompt in prompts if prompt.id == wanted), None)
    if named is None:
        raise ValueError(f"id={wanted}: not in {script}; nearest is id={nearest(wanted, [prompt.id for prompt in prompts])}")
    return named


def _port(port: int | None, host: str) -> int | None:
    """The port if it is free. Raises ValueError for a number out of range or a port in use."""
    if port is None:
        return None
    if not 1 <= port <= 65535:
        raise ValueError(f"--port {port}: a whole number, 1 to 65535; nearest is to leave it out, which takes a free one from 7860 on")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"--host {host} --port {port}: {error.strerror}; nearest is to leave --port out, which takes a free one"
            ) from None
    return port


def live(
    words: Sequence[str], /, id: str = "", script: Path | None = None, threshold: float | None = None, *, host: str = "127.0.0.1",
    port: int | None = None, output: Path | None = None,
) -> int:  # fmt: skip
    """Serve a live session in the browser until it is interrupted: a prompt takes effect at the next block.

        echo-harness live backbone=tiny method=echo
        echo-harness live backbone=self_forcing method=echo seed=3 id=harbour --port 7860 --output sessions

    Args:
        words: settings of run.py: backbone= method= method.SETTING= seed= weights= geometry= store= video.crf=; task= names the prompt
            set from which the page offers ideas.
        id: name of the video, which seeds its noise; live by default.
        script: a prompt set with one prompt, which is followed first.
        threshold: similarity of two texts, 0 to 1, from which an unnamed transition is smooth or a recall; 0.7 by default for the embedded
            backbones, on whose prompts it was tuned, otherwise the method's own.
        host: the address to listen at.
        port: the port; by default the first free one from 7860 on.
        output: the folder of saved sessions; STORE/live by default.
    """
    asked = order(words, id, script, threshold, host, port, output)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("a live session needs gradio: pip install -e '.[live]'")
    for note in asked.notes:
        sys.stderr.write(f"{note if ':' in note else f'added for a live session: {note}'}\n")
    from jobs.live.page import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM also ends the session in order, so that the video is saved
    try:
        with serve(asked) as url:
            say(f"live session of {asked.job.title.partition(' ')[0]} on {asked.job.config.backbone.name}: {url}   (Ctrl-C ends it)")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        return 0
