"""The calls that the page of a live session may make, in plain values; the page and the server are elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain, count
from math import isfinite
from pathlib import Path
from urllib.parse import quote

from data.outgoing import said
from data.world.words import KINDS
from echo.scene import Prompt
from jobs.live.player import Player
from jobs.live.session import LiveOrder, Scene, Session
from jobs.live.view import Json, entered, legend
from jobs.work import models

Answer = Callable[[Json], Json]
AWAY_MS = 1e7
"""Largest number of milliseconds that a page may report as still to show or as stalled."""
MOST_SAID = 1000
"""Most characters of an error on the page."""
IDEAS = 24
"""Prompts of the task's set whose scenes are offered as ideas."""


def session(asked: LiveOrder) -> Session:
    """Load the model of an order and open its session; called in the thread that computes."""
    backbone, _ = models.load(asked.job)
    assert backbone is not None
    began = f"{asked.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    places = chain([asked.save / began], (asked.save / f"{began}-{number}" for number in count(2)))
    return Session(asked.job, backbone, asked.name, asked.words, asked.threshold, next(place for place in places if not place.exists()))


def about(asked: LiveOrder) -> Json:
    """The facts on the page that do not change."""
    config = asked.job.config
    method = asked.job.policy.label or config.method.name
    return {
        "method": method, "backbone": config.backbone.label, "seed": config.seed, "id": asked.name, "legend": legend(),
        "recalls": asked.job.policy.recalls, "ideas": stories(asked.job.prompt_set[:IDEAS]),
        "words": {kind: list(words) for kind, words in KINDS.items()} if config.backbone.parts is None else {},
    }  # fmt: skip


def answers(player: Player, asked: LiveOrder, written: set[Path]) -> list[Answer]:
    """The page's calls, by name; each takes and returns plain values, and an error is a line under `error`.

    written: saved files are added to it, resolved.
    """

    def know(data: Json) -> Json:
        return about(asked)

    def news(data: Json) -> Json:
        left, stood = (float(data[key]) for key in ("left", "stood"))
        if not (isfinite(left) and isfinite(stood)):
            raise ValueError(f"left {left}, stood {stood}: milliseconds are numbers")
        player.watched(*(min(max(number, 0.0), AWAY_MS) for number in (left, stood)))
        return player.news(*(int(data[key]) for key in ("epoch", "after", "version", "notes")))

    def say(data: Json) -> Json:
        recalls = data.get("recalls")
        text, transition, scene_number = str(data["text"]), data.get("transition"), None if recalls is None else int(recalls)
        scene = player.ask(lambda session: session.say(text, transition, scene_number))
        return {"scene": scene.number, "note": announcement(scene)}

    def pause(data: Json) -> Json:
        player.pause(bool(data["paused"]))
        return {}

    def restart(data: Json) -> Json:
        player.restart()
        return {}

    def save(data: Json) -> Json:
        saved = player.ask(lambda session: session.save())
        written.update(path.resolve() for path in saved.files)
        files = [
            {"name": path.name, "href": f"gradio_api/file={quote(str(path.resolve()))}", "bytes": path.stat().st_size}
            for path in saved.files
        ]
        return {"files": files, "folder": str(saved.video.parent), "command": saved.command, "sha256": saved.latents_sha256}

    return [_told(one) for one in (know, news, say, pause, restart, save)]


def _told(call: Answer) -> Answer:
    """The call with its errors as values, because gradio would replace them by a status without a message."""

    def answered(data: Json) -> Json:
        try:
            return call(data)
        except (ValueError, OSError, KeyError, TypeError, OverflowError) as error:
            return {"error": said(str(error))[:MOST_SAID]}

    answered.__name__ = call.__name__
    return answered


def announcement(scene: Scene) -> str:
    """The page's message when a scene was accepted."""
    if scene.start.transition is None:
        return "It begins."
    routed = ", routed by the texts" if scene.routed else ""
    return f"Scene {scene.number + 1} begins with the next block: {entered(scene)}{routed}."


def stories(prompts: Sequence[Prompt]) -> list[list[str]]:
    """Ideas for a user from a prompt set: each prompt's scenes."""
    return [list(dict.fromkeys(prompt.scenes)) for prompt in prompts]
