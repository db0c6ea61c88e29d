"""Rolling anchors (paper 3.1.1, eq. 1, appendix C.1). Integers only: frames are counted from the scene's first."""

from __future__ import annotations

from enum import StrEnum


class Rolling(StrEnum):
    """Order in which the pool is walked.

    ping_pong: backward from the pool's end, then forward, a triangle wave (the released code).
    walk: the same wave, continued from the present anchors, so that it never jumps, even if the pool is larger (C.1).
    per_update: eq. (1) as printed; the direction flips at every update. forward, backward, static: Table 6.
    """

    ping_pong = "ping_pong"
    walk = "walk"
    per_update = "per_update"
    forward = "forward"
    backward = "backward"
    static = "static"


def insertion(update: int, active: int, pool_frames: int, frames: int, order: Rolling) -> tuple[int, ...]:
    """Pool frames that update r = 1, 2, ... appends to `active` anchors, `frames` of them.

    >>> insertion(1, 12, 18, 3, Rolling.ping_pong), insertion(1, 12, 18, 3, Rolling.walk)
    ((17, 16, 15), (12, 13, 14))
    """
    if order is Rolling.walk:
        steps = [(active + (update - 1) * frames + i) % (2 * pool_frames) for i in range(frames)]
        return tuple(min(step, 2 * pool_frames - 1 - step) for step in steps)
    if order is Rolling.per_update:
        first = update * frames % pool_frames
        run = [(first + i) % pool_frames for i in range(frames)]
        return tuple(run if update % 2 else reversed(run))
    cycle, offset = divmod((update - 1) * frames, pool_frames)
    ahead = tuple((offset + i) % pool_frames for i in range(frames))
    back = tuple(pool_frames - 1 - i for i in ahead)
    if order is Rolling.forward:
        return ahead
    if order is Rolling.backward:
        return back
    return ahead if cycle % 2 else back


def anchors(updates: int, active: int, pool_frames: int, frames: int, order: Rolling) -> tuple[int, ...]:
    """The `active` anchors after `updates` insertions, oldest first: a queue that begins as frames 0 .. active-1."""
    if order is Rolling.static:
        return tuple(range(active))
    newest = min(updates, -(-active // frames))
    queue = list(range(active)) if newest == updates else []
    for update in range(updates - newest + 1, updates + 1):
        queue.extend(insertion(update, active, pool_frames, frames, order))
    return tuple(queue[len(queue) - active :])
