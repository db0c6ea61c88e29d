"""The scorer's training: batches are functions of their seed, labels are the truth, and what is written loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.world.render import LANDMARK_RGB, NIGHT_RGB, PERIOD, draw, render
from data.world.words import DAY, LIGHTS, UNLIT
from echo.backbone.parts.codec import PatchCodec
from eval.world.encoder import ANGLES, LANDMARKS, SHOWN, VISIBLE, FrameEncoder
from jobs.train import scorer
from jobs.train.scorer import examples, losses, train


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    torch.set_num_threads(1)
    return PatchCodec.fit(torch.from_numpy(render([draw((1, index), 12) for index in range(24)])))


def test_batches_depend_on_seed_and_step_alone(codec: PatchCodec) -> None:
    one, again, other = (examples(codec, 3, step, clips=4) for step in (5, 5, 6))
    assert torch.equal(one.frames, again.frames) and one.sentences == again.sentences
    assert not torch.equal(one.frames, other.frames)


def test_labels_are_the_truth(codec: PatchCodec) -> None:
    batch = examples(codec, 3, 5, clips=6, coded=0.0, rough=False)
    rng = np.random.default_rng([3, 5])
    for clip in range(6):
        truth = draw((3, 5, clip), 96, easy=rng.uniform() < 0.15, before=12)
        rng.integers(0, 92)
        for row in (2 * clip, 2 * clip + 1):
            marks = {mark.row // PERIOD * 4 + mark.column // PERIOD: 1 + LANDMARKS.index(mark.colour) for mark in truth.place.landmarks}
            assert all(int(batch.landmarks[row, cell]) in (marks.get(cell, 0), -100) for cell in range(16))
            assert [bool(shown) for shown in batch.shown[row]] == [angle in SHOWN[truth.words.pattern] for angle in ANGLES]
            assert float(batch.hue[row]) == pytest.approx(truth.place.hue, abs=1e-6)
            # Where there is a label, half of the landmark or more is there to be seen.
            for cell, colour in marks.items():
                top, left = cell // 4 * PERIOD + 6, cell % 4 * PERIOD + 6
                rgb = torch.tensor(LANDMARK_RGB[LANDMARKS[colour - 1]], dtype=torch.float32)[:, None, None]
                visible = (batch.frames[row, :, top : top + 6, left : left + 6] == rgb).all(0).float().mean()
                assert batch.landmarks[row, cell] == (colour if visible >= 0.5 else -100), (row, cell, visible)


def test_labels_under_lights_are_dark_where_no_light_falls(codec: PatchCodec) -> None:
    """Column by column of the renders: a cell is dark where its square is, and of a place without light nothing is asked."""
    batch, dark = examples(codec, 3, 8, clips=24, coded=0.0, rough=False, lights=True), 1 + len(LANDMARKS)
    lights = {LIGHTS[int(light)] for light in batch.words["light"]}
    assert lights == set(LIGHTS)
    for row, frame in enumerate(batch.frames):
        light = LIGHTS[int(batch.words["light"][row])]
        assert (batch.landmarks[row] == dark).all() == (light == UNLIT) and (light != DAY or (batch.landmarks[row] != dark).all())
        assert (light == UNLIT) == bool(batch.hue[row].isnan()) == (int(batch.words["place"][row]) == -100)
        for cell in torch.nonzero(batch.landmarks[row] == dark).flatten().tolist():
            top, left = cell // 4 * PERIOD + 6, cell % 4 * PERIOD + 6
            across, down = ((batch.centres[row] - torch.tensor([left + 2.5, top + 2.5]) + 24) % 48 - 24).tolist()
            off = (frame[:, top : top + 6, left : left + 6] - torch.tensor(NIGHT_RGB)[:, None, None]).abs().max()
            assert off < 80 or np.hypot(across, down) < 16, (row, cell, off, "what is dark shows the night, but where the subject shines")


def test_training_lowers_its_terms_and_makes_what_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: PatchCodec) -> None:
    monkeypatch.setattr(scorer, "CLIPS", 8)
    monkeypatch.setattr(scorer, "fit_codec", lambda: codec)
    encoder, loss = train(0, 21, tmp_path / "log.jsonl")
    first, last = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()[:2])
    assert np.isfinite(loss) and {*VISIBLE, "landmarks", "surface", "where", "text"} <= first.keys()
    assert sum(last[kind] for kind in VISIBLE) < sum(first[kind] for kind in VISIBLE)
    for term in ("landmarks", "where", "text"):  # hue and shifts of patterns take longer
        assert last[term] < first[term], term
    again = FrameEncoder.load(encoder.save())
    batch = examples(codec, 9, 0, clips=4)
    seen, kept = encoder(batch.frames), again(batch.frames)
    for kind in VISIBLE:
        gap = (seen.words[kind] - kept.words[kind]).abs()
        assert gap.max() < 0.1, f"half precision moves {kind} by {gap.max():.4f}, {gap.mean():.4f} in the mean"
    assert losses(again, torch.tensor(2.5), batch).keys() == first.keys() - {"step", "seconds"}
