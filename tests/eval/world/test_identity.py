"""Identity over time, from readings without an error: what is kept, what is forgotten in the dark, what is asked at all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data.world.render import FPS, PERIOD, SIZE, Landmark, Truth, draw, under
from data.world.words import BEAM, DAY, LIGHT, SAYABLE, UNLIT, Words
from eval.world.encoder import LANDMARKS
from eval.world.identity import AFTER, chains_of, identity, light, motion, response
from eval.world.readings import BLOCK, Readings

WORDS = Words("red", "ball", "right", "meadow", "dotted")
MINUTE = 60 * FPS


def true_readings(truth: Truth) -> Readings:
    """Readings of a clip without an error; what is dark is read too, and counts for nothing."""
    frames = len(truth.centres)
    shown = {kind: known.index(getattr(truth.words, kind)) for kind, known in SAYABLE.items() if kind != "motion"}
    words = {kind: np.tile(np.eye(len(SAYABLE[kind]))[index], (frames, 1)) for kind, index in shown.items()}
    cells = np.tile(np.eye(5)[0], (frames, 16, 1))
    for mark in truth.place.landmarks:
        cells[:, mark.row // PERIOD * 4 + mark.column // PERIOD] = np.eye(5)[1 + LANDMARKS.index(mark.colour)]
    down, right = np.array(truth.place.phase) * (2 * np.pi / PERIOD)
    turns = np.tile(np.exp(1j * np.array([down, right, down + right, down - right])), (frames, 1))
    shade = np.ones((frames, SIZE)) if truth.shade is None else truth.shade
    lit = np.tile(shade.reshape(frames, 4, PERIOD)[:, :, PERIOD // 2 :].mean(2), (1, 4))
    return Readings(words, cells, np.full(frames, truth.place.hue), turns, truth.centres, lit)


def joined(*parts: Readings) -> Readings:
    words = {kind: np.concatenate([part.words[kind] for part in parts]) for kind in parts[0].words}
    return Readings(
        words, *(np.concatenate([getattr(part, name) for part in parts]) for name in ("cells", "hue", "turns", "centres", "lit"))
    )


def film(shine: str, seed: int = 3, frames: int = MINUTE) -> Truth:
    return under(draw((51, seed), frames, words=WORDS), shine, (51, seed))


@pytest.mark.parametrize("shine", [DAY, BEAM])
def test_the_truth_keeps_all_and_nothing_is_asked_of_the_first_seconds(shine: str) -> None:
    told = identity(true_readings(film(shine)), [[(0, MINUTE)]])
    assert told.whole == pytest.approx(1) and set(told.parts) == {"hue", "shift", "landmarks"}
    assert len(told.blocks) == MINUTE // BLOCK and told.blocks[: AFTER // BLOCK] == [None] * (AFTER // BLOCK)
    assert identity(true_readings(film(UNLIT)), [[(0, MINUTE)]]).whole is None


def test_one_landmark_that_changes_in_the_dark_is_a_landmark_less() -> None:
    """By hand: of three landmarks in as many columns one comes back with another colour, so two of four are common."""
    truth = film(DAY)
    marks = tuple(Landmark(6, 6 + PERIOD * column, "cyan") for column in range(3))
    other = (*marks[:2], dataclasses.replace(marks[2], colour="orange"))
    first, later = (dataclasses.replace(truth, place=dataclasses.replace(truth.place, landmarks=kind)) for kind in (marks, other))
    still = np.full((MINUTE, 2), 36.0)
    away = [dataclasses.replace(true_readings(one), centres=still) for one in (first, later)]
    told = identity(joined(away[0].span(0, 200), away[1].span(200, MINUTE)), [[(0, MINUTE)]])
    asked = (MINUTE - 24 - AFTER, 200 - 24 - AFTER)
    assert told.parts["landmarks"] == pytest.approx(
        ((asked[1] * 3) + (asked[0] - asked[1]) * 2) / (asked[1] * 3 + (asked[0] - asked[1]) * 4), abs=0.02
    )
    assert told.parts["hue"] == told.parts["shift"] == pytest.approx(1) and told.blocks[-1] == pytest.approx(0.75)


def test_another_place_of_the_same_words_is_chance_and_in_the_dark_it_is_not_asked() -> None:
    whole = []
    for seed in range(12):
        one, other = film(BEAM, seed), film(BEAM, seed + 100)
        moved = true_readings(dataclasses.replace(other, beam=one.beam))
        whole.append(identity(joined(true_readings(one).span(0, 180), moved.span(180, MINUTE)), [[(0, MINUTE)]]).whole)
        seen = true_readings(one)
        hidden = dataclasses.replace(seen, cells=np.where((seen.lit < 0.2)[..., None], np.eye(5)[1], seen.cells))
        assert identity(hidden, [[(0, MINUTE)]]) == identity(seen, [[(0, MINUTE)]])
    assert np.mean(whole) < 0.3


def test_scenes_of_one_place_are_one_chain() -> None:
    words = [{"place": "meadow", "pattern": "plain"}, {"place": "meadow", "pattern": "plain"}, {"place": "ocean", "pattern": "plain"}]
    assert chains_of(words, [(0, 12), (12, 48), (48, 60)]) == [[(0, 12), (12, 48)], [(48, 60)]]


def test_motion_at_half_the_speed_or_another_is_not_what_was_said() -> None:
    readings = true_readings(film(DAY, frames=240))
    slow = dataclasses.replace(readings, centres=np.mod(readings.centres[0] + np.arange(240)[:, None] * [0.5, 0.0], SIZE))
    said = [{"motion": "right"}], [(0, 240)]
    assert motion(readings, *said) == pytest.approx(1) and motion(slow, *said) == pytest.approx(0.75, abs=0.02)
    assert motion(readings, [{"motion": "up"}], [(0, 240)]) == 0 and motion(readings, [{}], [(0, 240)]) is None


def test_a_light_does_what_is_said_or_does_not() -> None:
    """All twelve beams go round within their seconds, read by columns; one that stands still, or goes twice as fast, does not."""
    spans, said = [(0, MINUTE)], [{LIGHT: BEAM}]
    told = [light(true_readings(film(BEAM, seed)), said, spans) for seed in range(12)]
    assert min(told) > 0.9, told
    beam = true_readings(film(BEAM))
    still = dataclasses.replace(beam, lit=np.repeat(beam.lit[:1], MINUTE, axis=0))
    fast = dataclasses.replace(beam, lit=beam.lit[np.arange(MINUTE) * 4 % MINUTE])
    assert light(still, said, spans) == 0 and light(fast, said, spans) < 0.7
    assert light(beam, [{LIGHT: DAY}], spans) == pytest.approx(beam.lit.mean())
    assert light(beam, [{LIGHT: UNLIT}], spans) == pytest.approx(1 - beam.lit.mean())


def test_response_is_the_blocks_until_the_light_is_obeyed() -> None:
    """Day for 60 frames and 30 too many: half of the third block is right, so half is reached in its middle."""
    day, dark = true_readings(film(DAY, frames=90)), true_readings(film(UNLIT, frames=30))
    words, spans = [{LIGHT: DAY}, {LIGHT: UNLIT}], [(0, 60), (60, 120)]
    assert response(joined(day, dark), words, spans) == pytest.approx(2.5)
    assert response(joined(day.span(0, 60), dark, dark), words, spans) < 0.5
    assert response(day, [{LIGHT: DAY}] * 2, [(0, 60), (60, 90)]) is None
