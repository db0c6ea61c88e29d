"""The door of a live session, attacked: other hosts and pages, uploads, large requests, files that the session did not write."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobs.live.door import MOST_BYTES, POSTED, Door, from_own_page


def answered(path: str, written: set[Path] = frozenset(), method: str = "GET", kind: str = "http", **headers: str) -> int:
    """Status that a request gets; 200 is the application's behind the door, 0 a closed socket."""
    said: list[dict] = []

    async def behind(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message) -> None:
        said.append(message)

    named = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"type": kind, "path": path, "method": method, "headers": [(name.encode(), value.encode()) for name, value in named.items()]}
    asyncio.run(Door(behind, "127.0.0.1", set(written))(scope, None, send))
    return said[0].get("status", 0)


@pytest.mark.parametrize(
    ("host", "asked", "origin", "let_in"),
    [
        ("127.0.0.1", ["127.0.0.1:7860"], None, True),
        ("127.0.0.1", ["localhost:7860"], "http://localhost:7860", True),
        ("::1", ["[::1]:7860"], "http://[::1]:7860", True),
        ("127.0.0.1", ["127.0.0.1:7860"], "http://evil.example", False),
        ("127.0.0.1", ["127.0.0.1:7860"], "http://127.0.0.1:8000", False),
        ("127.0.0.1", ["127.0.0.1:7860"], "null", False),
        ("127.0.0.1", ["evil.example:7860"], "http://evil.example:7860", False),
        ("127.0.0.1", ["evil.example:7860"], None, False),
        ("127.0.0.1", ["127.0.0.1.evil.example"], None, False),
        ("127.0.0.1", ["evil.example@127.0.0.1", "127.0.0.1"], None, False),
        ("127.0.0.1", [], None, False),
        ("127.0.0.1", ["[::1"], None, False),
        ("0.0.0.0", ["lab.example:7860"], "http://lab.example:7860", True),
        ("0.0.0.0", ["lab.example:7860"], "http://evil.example", False),
    ],
)
def test_pages_of_others_are_not_let_in(host, asked, origin, let_in):
    assert from_own_page(host, asked, [] if origin is None else [origin]) is let_in


def test_the_host_is_asked_for_before_anything_else():
    for path in ("/", "/config", "/theme.css", "/nothing", POSTED, "/gradio_api/file=/etc/passwd", "/gradio_api/upload"):
        assert answered(path, host="evil.example") == 403, path
        assert answered(path, method="POST", host="evil.example", content_length="1") == 403, path


def test_nothing_is_uploaded_and_requests_have_a_size():
    assert answered(POSTED, method="POST", content_length="200") == 200
    assert answered(POSTED, method="POST", content_length=str(MOST_BYTES + 1)) == 413
    assert answered(POSTED, method="POST") == 411
    assert answered(POSTED, method="POST", content_length="-1") == 411
    assert answered(POSTED, method="POST", content_length="1", transfer_encoding="chunked") == 411
    for path in (
        "/upload",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/run/predict",
        "/gradio_api/process_recording",
        "/login",
    ):
        assert answered(path, method="POST", content_length="1") == 404, path
    for path in ("/gradio_api/proxy=http://evil.example", "/proxy=http://evil.example", "/gradio_api/dev/reload", "/monitoring"):
        assert answered(path) == 404, path
    assert answered("/", method="DELETE") == 404 and answered("/", kind="websocket") == 0
    for path in ("/", "/config", "/theme.css", "/assets/index.js", "/gradio_api/info", "/gradio_api/heartbeat/x"):
        assert answered(path) == 200, path


def test_only_what_the_session_wrote_is_served(tmp_path):
    own, other, link = tmp_path / "film.mp4", tmp_path / "key.pem", tmp_path / "link.mp4"
    own.touch()
    other.touch()
    link.symlink_to(other)
    for start in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/file/"):
        assert answered(f"{start}{own}", {own}) == 200
        assert answered(f"{start}{tmp_path}/x/../film.mp4", {own}) == 200, "the same file"
        for name in (
            other,
            link,
            tmp_path,
            "/etc/passwd",
            f"{own}\0",
            f"{tmp_path}/../{tmp_path.name}/key.pem",
            "http://evil.example",
        ):
            assert answered(f"{start}{name}", {own}) == 404, name
