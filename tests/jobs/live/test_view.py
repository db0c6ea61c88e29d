"""Pictures of a live session are the frames themselves, and its strip is the plan."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from echo.cache.kinds import Kind
from jobs.live.view import legend, picture, strip, thumbnail
from tests.helpers.live import A, B, film


def test_pictures_are_the_frames_and_the_strip_is_the_plan(opened):
    session = opened()
    session.say(A)
    film(session, 9)
    session.say(B, "recall", 0)
    made = film(session, 1)[0]
    kinds = [kind for _, _, kind, _ in strip(made.plan)]
    assert kinds == [kind.value for kind in made.plan.kinds()] and [key[:2] for key in strip(made.plan)] == made.plan.key_positions()
    assert [key[2:] for key in strip(made.plan)][:2] == [["recalled", True], ["current", False]]
    assert {kind: colour for kind, _, colour in legend()} == {kind.value: kind.colour for kind in Kind}
    frames = made.frames_THWC.reshape(-1, *made.frames_THWC.shape[2:])
    assert (decoded(picture(frames)) == frames).all()
    large = np.random.default_rng(0).integers(0, 256, (480, 832, 3), np.uint8)
    assert picture(large).startswith("data:image/jpeg") and decoded(thumbnail(large)).shape == (96, 166, 3)


def decoded(url):
    return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
