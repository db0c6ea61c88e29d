"""Stored runs are reused by hash, so code that changes a pixel must raise the epoch that is in the hash."""

from __future__ import annotations

import json

import pytest

from jobs.spec.identity import PIXEL_EPOCH
from tests.helpers.pixels import METHODS, RECORDED, measure


def test_pixels_are_those_of_the_epoch() -> None:
    recorded, now = json.loads(RECORDED.read_text(encoding="utf-8")), measure()
    assert recorded["epoch"] == PIXEL_EPOCH, "a new epoch: record its pixels with `python -m tests.helpers.pixels`"
    for name in METHODS:
        for kind, tolerance in (("latents", 2e-3), ("frames", 1)):
            assert now[name][kind] == pytest.approx(recorded[name][kind], abs=tolerance), (
                f"{name}: {kind} changed; raise PIXEL_EPOCH in jobs/spec/identity.py, then record with `python -m tests.helpers.pixels`"
            )


def test_the_pinned_pixels_tell_policies_apart() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert len({json.dumps(recorded[name]["latents"]) for name in METHODS}) == len(METHODS)
