"""Validation: what it counts, against loops over the truth; how it spoils; and the command, small."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.world.render import background, draw, render
from data.world.words import KINDS
from eval.audit import validate
from eval.audit.validate import SPOILT, agreement
from eval.world.calibrate import hidden_share, recall_script, staying
from eval.world.readings import Readings
from jobs import cli
from tests.eval.audit.test_targets import toy


def true_readings(truth, frames: int) -> Readings:
    """Readings without an error."""
    from eval.world.encoder import LANDMARKS

    words = {
        kind: np.tile(np.eye(len(KINDS[kind]))[KINDS[kind].index(getattr(truth.words, kind))], (frames, 1)) for kind in validate.READ[:4]
    }
    cells = np.zeros((frames, 16, 5))
    cells[..., 0] = 0.5
    for mark in truth.place.landmarks:
        cells[:, mark.row // 12 * 4 + mark.column // 12, 1 + LANDMARKS.index(mark.colour)] = 1
    down, right = np.array(truth.place.phase) * np.pi / 6
    turns = np.tile(np.exp(1j * np.array([down, right, down + right, down - right])), (frames, 1))
    return Readings(words, cells, np.full(frames, truth.place.hue), turns, truth.centres)


def test_agreement_is_whole_for_the_truth_and_falls_by_what_is_wrong() -> None:
    truths = [draw((31, index), 36) for index in range(8)]
    hidden = hidden_share(render(truths), truths)
    perfect = [true_readings(truth, 36) for truth in truths]
    found = agreement(perfect, truths, hidden)
    assert all(found[name] == 1 for name in (*validate.READ, "empty_cell")) and found["hue_error"] == found["centre_error_px"] == 0
    perfect[0] = dataclasses.replace(perfect[0], hue=perfect[0].hue + 0.4, centres=perfect[0].centres + [3.0, 4.0])
    perfect[1].words["shape"][:9] = np.roll(perfect[1].words["shape"][:9], 1, axis=1)
    found = agreement(perfect, truths, hidden)
    assert found["hue_error"] == pytest.approx(0.05, abs=1e-4) and found["centre_error_px"] == pytest.approx(5 / 8, abs=1e-4)
    assert found["shape"] == pytest.approx(1 - 9 / 36 / 8, abs=1e-4) and found["motion"] == 1


def test_hidden_share_is_the_loop() -> None:
    truth = draw((32, 3), 8)
    frames = render([truth])
    bare = background(truth.words.place, truth.words.pattern, truth.place)
    for cell in range(16):
        row, column = cell // 4 * 12 + 6, cell % 4 * 12 + 6
        square = np.abs(frames[0, 5] - bare).sum(-1)[row : row + 6, column : column + 6] > 60
        assert hidden_share(frames, [truth])[0, 5, cell] == pytest.approx(square.mean())


@pytest.mark.parametrize("name", SPOILT)
def test_strength_zero_changes_nothing_and_more_changes_more(name: str) -> None:
    spoil, _, strengths = SPOILT[name]
    frames = render([draw((33, 0), 4)])[0]
    apart = [np.abs(spoil(frames, strength, np.random.default_rng(0)).astype(float) - frames).mean() for strength in strengths]
    assert apart[0] == 0 and all(more > less for less, more in zip(apart, apart[1:], strict=False)), apart


def test_scripts_return_to_their_places_or_do_not() -> None:
    again, other = recall_script(4), recall_script(4, again=False)
    assert [scene.place for scene in again[:3]] == [scene.place for scene in again[3:]] == [scene.place for scene in other[:3]]
    assert not {scene.place for scene in other[3:]} & {scene.place for scene in other[:3]}
    assert [scene.words for scene in again] == [scene.words for scene in other]
    assert len({(scene.words.place, scene.words.pattern) for scene in again}) == 3
    assert {scene.place for scene in staying(again)} == {again[0].place}


@pytest.mark.slow
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    blur, unit, _ = SPOILT["blur"]
    monkeypatch.setattr(validate, "SPOILT", {"blur": (blur, unit, (0.0, 3.0))})
    output, figure = tmp_path / "validation.json", tmp_path / "validation.png"
    backbone = str(toy(tmp_path / "toy.safetensors"))
    words = ["audit", "validate", "clips=4", "films=1", f"backbone={backbone}"]
    assert cli.main([*words, "--output", str(output), "--figure", str(figure)]) == 0
    record = json.loads(output.read_text())
    clear, blurry = record["curves"]["blur"]["rows"]
    assert clear["agreement"]["place"] >= 0.9 and clear["scores"]["recall_fidelity, returned"] > 70
    assert blurry["scores"]["imaging_quality"] < clear["scores"]["imaging_quality"]
    assert {"command", "commit", "machine", "scorer", "anchors"} <= record.keys() and figure.stat().st_size > 1000
    assert "blur, deviation in px" in capsys.readouterr().out
    assert cli.main(["audit", "validate", "scorer=nowhere.safetensors"]) == 2 and "train scorer" in capsys.readouterr().err
