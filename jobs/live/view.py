"""Plain values for the page of a live session: pictures as data URLs, the cache strip, the scenes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from echo.cache.kinds import Kind
from echo.cache.plan import Plan
from jobs.live.session import LiveBlock, Scene

Json = dict[str, Any]
"""Plain values that a page sends and receives."""
SMALL_PX = 128
"""Frames up to this height are sent without loss, and the page enlarges their pixels."""
THUMB_PX = 96
QUALITY = 88


def picture(image_HWC: NDArray[np.uint8]) -> str:
    """An RGB image uint8 [H, W, 3] as a data URL: PNG if its frames are small, otherwise JPEG."""
    small = image_HWC.shape[1] <= SMALL_PX
    ending, options = (".png", []) if small else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    done, encoded = cv2.imencode(ending, image_HWC[..., ::-1], options)
    assert done
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def thumbnail(frame_HWC: NDArray[np.uint8]) -> str:
    """A frame, at most 96 px high."""
    height, width = frame_HWC.shape[:2]
    if height > THUMB_PX:
        frame_HWC = cv2.resize(frame_HWC, (round(width * THUMB_PX / height), THUMB_PX), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return picture(frame_HWC)


def strip(plan: Plan) -> list[list[Any]]:
    """Each key frame of a block in buffer order: [label, position, kind, whether it decays]."""
    return [
        [label, position, kind.value, slot < plan.faded]
        for slot, ((label, position), kind) in enumerate(zip(plan.key_positions(), plan.kinds(), strict=True))
    ]


def legend() -> list[list[str]]:
    """[kind, its name, its colour], the same as in pictures of traces."""
    return [[kind.value, kind.words, kind.colour] for kind in Kind]


def entered(scene: Scene) -> str:
    """A scene's transition in words."""
    start = scene.start
    if start.transition is None:
        return "start"
    if start.recalls is not None:
        return f"recall of scene {start.recalls + 1}"
    return {"hard": "hard cut"}.get(start.transition, start.transition)


@dataclass(frozen=True)
class View:
    """A block for the page. made_at: by `time.monotonic`. window: most key frames that a block can have."""

    made: LiveBlock
    made_at: float
    window: int

    @cached_property
    def plain(self) -> Json:
        """As JSON takes it; frames stand one below the other in a single picture."""
        frames = self.made.frames_THWC
        count, height, width = frames.shape[:3]
        return {
            "index": self.made.index, "scene": self.made.scene, "count": count, "height": height, "width": width,
            "picture": picture(frames.reshape(count * height, width, 3)), "strip": strip(self.made.plan), "window": self.window,
            "made_ms": round(self.made.made_ms, 1),
        }  # fmt: skip


@dataclass
class Card:
    """A scene in the pool for the page. version: the player's count of changes when it last changed."""

    scene: Scene
    thumb: str
    version: int

    def plain(self) -> Json:
        """As JSON takes it."""
        scene = self.scene
        how, jump = entered(scene), scene.start.jump
        return {
            "number": scene.number, "text": scene.text, "how": how, "routed": scene.routed, "jump": jump, "block": scene.start.block,
            "thumb": self.thumb,
        }  # fmt: skip
