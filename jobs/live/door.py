"""The door of a live session: what a request is asked before anything else of the server sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data.outgoing import loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
MOST_BYTES = 2**16
"""Of a request's body: a prompt has 10 kB at most."""
POSTED = "/gradio_api/component_server"
"""The one path that the page sends anything to; there is no upload, no queue and no event."""
FILES = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/")
CLOSED = ("proxy=", "stream/", "monitoring", "profiling", "dev/", "run-history", "runs", "login", "vibe", "pwa_icon", "deep_link")
"""Beginnings of gradio's paths that a session has no use for."""


class Door:
    """ASGI application in front of gradio's. It lets in whoever names this host, comes from its own page and asks for what there is.

    Args:
        app: what is behind it.
        host: the address that is listened at. On a loopback a request has to name a loopback: a name that somebody turned to this
            machine (DNS rebinding) is a stranger's.
        written: files that the session wrote, resolved; no other is served.
    """

    def __init__(self, app: App, host: str, written: set[Path]) -> None:
        self._app, self._host, self._written = app, host, written

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer for the session, or hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal := self._refusal(scope):
            status, words = refusal
            await send(
                {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain"), (b"connection", b"close")]}
            )
            await send({"type": "http.response.body", "body": words.encode()})
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and words for a request that is not let in; None for one that is."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if not from_own_page(self._host, headers.get("host", []), headers.get("origin", [])):
            return 403, "a page of another host"
        path, method = scope["path"], scope["method"]
        if path.startswith(FILES):
            name = next(path[len(start) :] for start in FILES if path.startswith(start))
            return None if "\0" not in name and Path(name).resolve() in self._written else (404, "no file of this session")
        if method not in ("GET", "HEAD", "POST") or path.removeprefix("/gradio_api").lstrip("/").startswith(CLOSED):
            return 404, "nothing is here"
        if method == "POST" and path.rstrip("/") != POSTED:
            return 404, "nothing is taken here"
        length = headers.get("content-length", ["0"] if method != "POST" else [""])[0]
        if not length.isdecimal() or "transfer-encoding" in headers:
            return 411, "a request says its length"
        return (413, f"a request has {MOST_BYTES} bytes at most") if int(length) > MOST_BYTES else None


def from_own_page(host: str, asked: list[str], origins: list[str]) -> bool:
    """Whether a request names the host that is listened at, and comes from a page of it or from no page.

    Args:
        host: what is listened at.
        asked: its Host headers; there is one.
        origins: its Origin headers.
    """
    try:
        name = urlsplit(f"//{asked[0]}").hostname if len(asked) == 1 else None
        own = name is not None and (loopback(name) or not loopback(host))
        return own and all(urlsplit(origin).netloc == asked[0] for origin in origins)
    except ValueError:
        return False
