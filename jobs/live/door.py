"""Checks of every request to a live session before the rest of the server sees it."""

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
"""Most bytes of a request's body; a prompt has 10 kB at most."""
POSTED = "/gradio_api/component_server"
"""The one path that the page posts to; there is no upload, no queue and no event."""
FILES = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/")
CLOSED = ("proxy=", "stream/", "monitoring", "profiling", "dev/", "run-history", "runs", "login", "vibe", "pwa_icon", "deep_link")
"""Prefixes of gradio's paths that a session does not use."""


class Door:
    """ASGI application in front of gradio's. It passes on requests that name this host, come from its own page and ask for a used path.

    Args:
        app: the application behind it.
        host: the address that the server listens at. If it is a loopback address, a request has to name a loopback address, which stops
            DNS rebinding.
        written: files that the session wrote, resolved; no other file is served.
    """

    def __init__(self, app: App, host: str, written: set[Path]) -> None:
        self._app, self._host, self._written = app, host, written

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on."""
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
        """Status and message for a request that is refused; None for one that is passed on."""
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
    """Whether a request names the server's host, and comes from a page of that host or from no page.

    Args:
        host: the address that the server listens at.
        asked: the request's Host headers; exactly one is accepted.
        origins: the request's Origin headers.
    """
    try:
        name = urlsplit(f"//{asked[0]}").hostname if len(asked) == 1 else None
        own = name is not None and (loopback(name) or not loopback(host))
        return own and all(urlsplit(origin).netloc == asked[0] for origin in origins)
    except ValueError:
        return False
