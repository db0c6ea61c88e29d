"""A live session in a thread of its own, which makes blocks just in time for a video at 16 frames a second.

Only this thread uses the model: calls of a page run in it, between two blocks. While no page is open, no block is made.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from data.outgoing import said
from echo.scene import FPS, Prompt
from jobs.live.session import LiveBlock, Refused, Session
from jobs.live.view import Card, Json, View, thumbnail

T = TypeVar("T")
KEPT = 8
"""Blocks that are kept for pages that are late."""
AWAY_S = 4.0
"""A page that has asked for nothing for so long counts as closed."""
SAVING_S = 600.0
"""Longest wait, at the end of a session, until its video is saved."""
ROOM_S = (0.05, 0.1, 0.5)
"""Least, first and greatest lead of a finished block over its due time, for encoding its pictures and sending them to the page."""
SETTLED = 4
"""Blocks of a scene after which its thumbnail no longer changes."""


class Player:
    """Makes a session's blocks at the pace of the video, and reports them to pages.

    status: `loading` the model, `waiting` for a first prompt, `playing`, `paused`, `ended` (the policy cannot go on), `failed`.
    """

    def __init__(self, make: Callable[[], Session], first: Prompt | None = None) -> None:
        """make: opens a session, in the player's thread. first: a script that is followed before live prompts."""
        self._make, self._first = make, first
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._news = threading.Condition()
        self._session: Session | None = None
        self._stopped = False
        self._seen_at = -AWAY_S
        self.epoch = 0
        self._empty()
        self._thread = threading.Thread(target=self._run, name="live session", daemon=True)
        self._thread.start()

    def _empty(self) -> None:
        self.status, self.note, self.notes, self.version = "loading", "", 0, 0
        self.paused = False
        self._views: deque[View] = deque(maxlen=KEPT)
        self._cards: list[Card] = []
        self._shown_until, self._room_s = 0.0, ROOM_S[1]
        self._paces: deque[float] = deque(maxlen=6)
        self._pool = range(0)

    # ---- what pages call, from any thread

    def ask(self, call: Callable[[Session], T]) -> T:
        """Make a call on the session between two blocks and return its result; its errors are raised here."""

        def on_session() -> T:
            assert self._session is not None
            return call(self._session)

        return self._in_thread(on_session)

    def pause(self, paused: bool) -> None:
        """Stop after the running block, or go on."""

        def change() -> None:
            self.paused = paused
            shown = self.status in ("playing", "paused")
            self._tell(status=("paused" if paused else "playing") if shown else None)

        self._in_thread(change)

    def restart(self) -> None:
        """Begin again without prompts; what was not saved is lost."""
        self._in_thread(self._open)

    def _in_thread(self, call: Callable[[], T]) -> T:
        future: Future[T] = Future()
        self._calls.put((call, future))
        return future.result()

    def close(self) -> None:
        """End the thread: a session with a folder saves what is unsaved, then the frames are removed."""
        self._stopped = True
        self._thread.join(timeout=SAVING_S)

    def watched(self, left_ms: float, stood_ms: float) -> None:
        """Take how many milliseconds of video the latest page has still to show, and how long it stalled since its last request.

        The pace follows it: a page that is behind gets blocks later, and one that stalls gets them earlier.
        """
        self._shown_until = time.monotonic() + left_ms / 1e3
        least, _, most = ROOM_S
        self._room_s = min(most, self._room_s + stood_ms / 2e3) if stood_ms > 20 else least + 0.95 * (self._room_s - least)
        self._calls.put((lambda: None, Future()))  # so that the thread looks at the clock again

    def news(self, epoch: int, after: int, version: int, notes: int, wait_s: float = 1.0) -> Json:
        """Everything that a page does not have yet; waits up to `wait_s` for it.

        Args:
            epoch: the session that the page shows.
            after: the last block that it has, -1 for none.
            version: version of the scenes that it has.
            notes: how many notes it has received.
            wait_s: seconds to wait for anything new.
        """
        with self._news:
            self._seen_at = time.monotonic()
            self._news.wait_for(lambda: self._has_news(epoch, after, version, notes), wait_s)
            self._seen_at = time.monotonic()
            if epoch != self.epoch:
                after, version, notes = -1, 0, self.notes
            views = [view for view in self._views if view.made.index > after]
            cards = [card.plain() for card in self._cards if card.version > version]
            state = {
                "epoch": self.epoch, "status": self.status, "version": self.version, "notes": self.notes,
                "note": self.note if notes < self.notes else "", "pool": [self._pool.start, self._pool.stop],
            }  # fmt: skip
        shown = views[-1:] if after < 0 and len(views) > 1 else views  # a page opened later begins at the newest block
        return state | {"blocks": [view.plain for view in shown], "scenes": cards}

    def _has_news(self, epoch: int, after: int, version: int, notes: int) -> bool:
        newest = self._views[-1].made.index if self._views else -1
        return self._stopped or epoch != self.epoch or newest > after or self.version > version or self.notes > notes

    # ---- the thread

    def _run(self) -> None:
        try:
            self._open()
            while not self._stopped:
                self._serve()
                if self._due() <= time.monotonic():
                    self._advance()
        except BaseException as error:
            sys.stderr.write(said(traceback.format_exc()))
            kept = self._keep()
            self._tell(said(f"{type(error).__name__}: {error}{kept}"), "failed")
            while not self._stopped:
                self._decline(f"the session has failed: {error}", 0.25)
        finally:
            self._decline("the session is closed", 0.0)
            if kept := self._keep():
                sys.stderr.write(f"the live session ends{said(kept)}\n")
            if self._session is not None:
                self._session.close()

    def _keep(self) -> str:
        """Save what is unsaved if the session has a folder; returns the outcome in words."""
        session = self._session
        if session is None or session.folder is None or not session.unsaved:
            return ""
        try:
            return f"; video and script are saved: {session.save().video}"
        except (OSError, ValueError) as error:
            return f"; the video is not saved ({error}), the command in {session.folder / 'session.json'} makes it again"

    def _decline(self, why: str, wait_s: float) -> None:
        """Refuse calls that wait, or come within `wait_s`."""
        with contextlib.suppress(queue.Empty):
            _, future = self._calls.get(timeout=wait_s) if wait_s else self._calls.get_nowait()
            future.set_exception(ValueError(why))

    def _open(self) -> None:
        if self._session is not None:
            self._session.close()
            with self._news:
                self.epoch += 1
                self._empty()
        self._session = self._make()
        if self._first is not None:
            self._seen_at = time.monotonic()  # a script's blocks are made although no page is open
            for made in self._session.follow(self._first):
                self._publish(self._view(made))
        self._tell(status="waiting" if self._first is None else "playing")

    def _serve(self) -> None:
        """Run the calls that wait, or the next one that comes before the next block is due."""
        wait_s = min(max(self._due() - time.monotonic(), 0.0), 0.25)
        try:
            call, future = self._calls.get(timeout=wait_s)
        except queue.Empty:
            return
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    def _due(self) -> float:
        """When the next block has to be begun, on the monotonic clock; far in the future if none is to be made."""
        session = self._session
        assert session is not None
        nothing = session.pending is None and not session.scenes
        away = time.monotonic() - self._seen_at > AWAY_S
        if nothing or self.paused or away or self.status in ("ended", "failed"):
            return float("inf")
        return self._shown_until - max(self._paces, default=0.0) - self._room_s

    def _advance(self) -> None:
        session = self._session
        assert session is not None
        begun = time.monotonic()
        try:
            made = session.next_block()
        except Refused as error:
            self._tell(str(error))
            return
        except ValueError as error:
            self._tell(str(error), "ended")
            return
        view = self._view(made)
        self._paces.append(view.made_at - begun)
        self.status = "playing"
        self._shown_until = max(self._shown_until, view.made_at) + len(made.frames_THWC) / FPS
        self._publish(view)

    def _view(self, made: LiveBlock) -> View:
        assert self._session is not None
        return View(made, time.monotonic(), self._session.backbone.geometry.window_frames)

    def _publish(self, view: View) -> None:
        session, made = self._session, view.made
        assert session is not None
        scene = session.scenes[made.scene]
        with self._news:
            self._views.append(view)
            if made.index - scene.start.block < SETTLED:
                self.version += 1
                card = Card(scene, thumbnail(made.frames_THWC[-1]), self.version)
                self._cards[made.scene :] = [card]
            self._pool = session.pool
            self._news.notify_all()

    def _tell(self, note: str = "", status: str | None = None) -> None:
        """Give pages a note and, if it changes, the session's status, so that no page gets one without the other."""
        with self._news:
            self.status = status or self.status
            if note:
                self.note, self.notes = note, self.notes + 1
            self.version += 1
            self._news.notify_all()
