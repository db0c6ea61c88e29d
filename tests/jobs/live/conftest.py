"""Sessions on the toy backbone, closed when their test is over."""

from __future__ import annotations

import pytest

from jobs.live.session import Session
from jobs.work import models
from tests.helpers.live import order


@pytest.fixture(scope="module")
def words(toy, tmp_path_factory):
    store = tmp_path_factory.mktemp("live")
    given = (f"backbone.weights={toy / 'model.safetensors'}", f"task.prompt_set={toy / 'prompts-3-3.jsonl'}", f"store={store}")
    return (*given, "video.height_px=16")


@pytest.fixture
def opened(words):
    """Open a session of a method, or of more settings."""
    sessions = []

    def open_one(method="echo", *more):
        asked = order(*words, f"method={method}", *more)
        backbone, _ = models.load(asked.job)
        sessions.append(Session(asked.job, backbone, asked.name, asked.words, asked.threshold))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()
