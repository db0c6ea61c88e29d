"""Recall fidelity and leakage on readings made by hand, where the answer can be worked out on paper."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.world.words import KINDS
from eval.world.places import (
    BY_CHANCE,
    anchors,
    fidelity,
    half_life,
    hue_agreement,
    landmark_agreement,
    leak_curve,
    look,
    mean_leak,
    place_scores,
    scene_scores,
    settled,
    switches,
)  # fmt: skip
from eval.world.readings import Readings

MEADOW = {"place": "meadow", "pattern": "striped"}
OCEAN = {"place": "ocean", "pattern": "dotted"}


def readings(
    frames: int = 24,
    place: str = "meadow",
    pattern: str = "striped",
    marks: dict[int, int] | None = None,
    hue: float = 0.0,
    turn: complex = 1,
) -> Readings:
    """Certain readings: `marks` maps a cell to a colour 0..3; the subject stands in the upper left corner."""
    words = {kind: np.zeros((frames, len(KINDS[kind]))) for kind in ("colour", "shape", "place", "pattern")}
    words["place"][:, KINDS["place"].index(place)] = 1
    words["pattern"][:, KINDS["pattern"].index(pattern)] = 1
    cells = np.zeros((frames, 16, 5))
    cells[..., 0] = 1
    for cell, colour in (marks or {5: 0, 6: 1, 9: 2}).items():
        cells[:, cell] = np.eye(5)[1 + colour]
    return Readings(words, cells, np.full(frames, hue), np.full((frames, 4), turn, dtype=np.complex128), np.zeros((frames, 2)))


ELSEWHERE = {0: 3, 1: 3, 2: 3}
LEFT = look(readings(place="dusk", pattern="checked", marks=ELSEWHERE, hue=1.0))
"""A scene just left that has nothing in common with the others."""


def joined(*parts: Readings) -> Readings:
    words = {kind: np.concatenate([part.words[kind] for part in parts]) for kind in parts[0].words}
    rest = [np.concatenate([getattr(part, name) for part in parts]) for name in ("cells", "hue", "turns", "centres")]
    return Readings(words, *rest)


def test_agreement_of_landmarks_is_the_loop() -> None:
    rng = np.random.default_rng(0)
    first, again = rng.uniform(size=(2, 16, 4))
    smaller = sum(min(first[c, k], again[c, k]) for c in range(16) for k in range(4))
    larger = sum(max(first[c, k], again[c, k]) for c in range(16) for k in range(4))
    assert landmark_agreement(first, again, np.zeros((16, 4))) == pytest.approx(smaller / larger, abs=1e-12)


def test_landmarks_that_never_left_are_not_brought_back() -> None:
    def cells(*marks: int) -> np.ndarray:
        found = np.zeros((16, 4))
        found[list(marks), 0] = 1
        return found

    first = cells(1, 2, 3)
    assert landmark_agreement(first, first, cells(7, 8, 9)) == 1
    assert landmark_agreement(first, first, first) == 0
    # One stood in the scene just left: the other two tell.
    assert landmark_agreement(first, first, cells(1, 8, 9)) == 1
    assert landmark_agreement(first, cells(1, 8, 9), cells(1, 8, 9)) == 0
    assert landmark_agreement(first, cells(1, 2, 3, 8, 9), cells(1, 8, 9)) == pytest.approx(2 / 4)


def test_fidelity_moves_part_by_part() -> None:
    def parts(**other: object) -> dict[str, float]:
        return fidelity(look(readings()), look(readings(**other)), LEFT)  # type: ignore[arg-type]

    assert parts() == pytest.approx({"fidelity": 1, "hue": 1, "shift": 1, "landmarks": 1})
    # Two of three landmarks in common are two of four together.
    assert parts(marks={5: 0, 6: 1, 10: 2}) == pytest.approx({"fidelity": 0.75, "hue": 1, "shift": 1, "landmarks": 0.5})
    assert parts(marks={5: 3, 6: 3, 9: 3})["landmarks"] == 0
    assert parts(hue=0.2) == pytest.approx({"fidelity": 0.9, "hue": 0.6, "shift": 1, "landmarks": 1})
    assert parts(turn=1j) == pytest.approx({"fidelity": 0.75, "hue": 1, "shift": 0, "landmarks": 1}, abs=1e-9)
    assert parts(turn=-1)["shift"] == 0
    assert hue_agreement(-1, 1) == 0


def test_what_the_first_showing_lacks_is_left_out() -> None:
    plain = look(readings(pattern="plain"))
    found = fidelity(plain, look(readings(pattern="plain", hue=0.25, turn=-1)), LEFT)
    assert found == pytest.approx({"fidelity": (0.5 + 0.25 * 0.5) / 0.75, "hue": 0.5, "landmarks": 1})
    bare = dataclasses.replace(plain, cells=np.zeros((16, 4)))
    assert fidelity(bare, plain, LEFT) == pytest.approx({"fidelity": 1, "hue": 1})


def test_what_the_scene_just_left_showed_proves_no_memory() -> None:
    first = look(readings())
    assert fidelity(first, first, first)["fidelity"] == 0
    alike = look(readings(place="dusk", marks=ELSEWHERE))
    # Hue and shift were there already, so landmarks alone count.
    assert fidelity(first, look(readings(hue=1.0, turn=-1)), alike)["fidelity"] == pytest.approx(1)
    # A chequerboard does not show the shift of stripes, and half of hue's reach leaves it half its weight.
    other = look(readings(pattern="checked", marks=ELSEWHERE, hue=0.25))
    assert fidelity(first, look(readings(hue=1.0)), other)["fidelity"] == pytest.approx((0.5 + 0.25) / (0.5 + 0.25 + 0.125))
    plain = look(readings(pattern="plain", marks={}))
    assert fidelity(dataclasses.replace(plain, cells=np.zeros((16, 4))), plain, plain)["fidelity"] == 0


def test_shift_counts_only_the_angles_that_the_pattern_shows() -> None:
    turns = {"down": (0, -1), "right": (1, -1), "sum": (2, -1), "difference": (3, -1)}
    seen = {"striped": {"right"}, "checked": {"sum", "difference"}, "dotted": {"down", "right"}}
    for pattern, shown in seen.items():
        for angle, (column, value) in turns.items():
            again = readings(pattern=pattern)
            again.turns[:, column] = value
            expected = 1 - (angle in shown) / len(shown)
            assert fidelity(look(readings(pattern=pattern)), look(again), LEFT)["shift"] == pytest.approx(expected), (pattern, angle)


def test_a_subject_in_front_of_a_landmark_does_not_take_it_away() -> None:
    shown = readings()
    shown.centres[12:] = (20.5, 20.5)  # in front of cell 5, whose landmark's middle is there
    shown.cells[12:, 5] = np.eye(5)[0]
    assert look(shown).cells[5, 0] == 1 and look(shown).seen[5] == 0.5
    never = dataclasses.replace(shown, centres=np.full((24, 2), 20.5))
    assert look(never).cells[5, 0] == 0.5 and look(never).seen[5] == 0


def test_settled_leaves_out_the_way_there() -> None:
    assert settled(100, 100 + 13 * 12) == (136, 256) and settled(100, 172) == (100, 172)


def test_leakage_of_colour_pattern_and_landmarks() -> None:
    def share(block: Readings, known: Readings | None = None) -> float | None:
        films = joined(readings(48), block, *([known] if known else []))
        span = (48 + len(block.hue), len(films.hue)) if known else None
        return leak_curve(films, (0, 48), (48, 48 + len(block.hue)), OCEAN, span)[0]

    assert share(readings(12)) == 1
    elsewhere = {0: 0, 1: 0, 2: 0}
    assert share(readings(12, "ocean", "dotted", elsewhere)) == 0
    assert share(readings(12, "meadow", "dotted", elsewhere)) == pytest.approx(1 / 3)
    assert share(readings(12, "ocean", "striped", elsewhere)) == pytest.approx(1 / 3)
    one_left = (1 / 3 - BY_CHANCE) / (1 - BY_CHANCE)
    assert share(readings(12, "ocean", "dotted", {5: 0, 1: 0, 2: 0})) == pytest.approx(one_left / 3)
    # A landmark that the recalled place has of its own is no leak.
    again = readings(24, "ocean", "dotted", {5: 0, 1: 0, 2: 0})
    assert share(readings(12, "ocean", "dotted", {5: 0, 1: 0, 2: 0}), again) == 0
    assert share(readings(12, "desert", "dotted", elsewhere)) == 0


def test_what_both_places_have_is_no_leak() -> None:
    films = joined(readings(48), readings(12, "ocean", "striped", ELSEWHERE))
    assert leak_curve(films, (0, 48), (48, 60), {"place": "ocean", "pattern": "striped"}) == [0]


def test_an_older_place_that_never_left_still_leaks() -> None:
    films = joined(readings(48), readings(24))
    # The sentences said meadow, then ocean, now dusk; meadow is what stands there.
    assert leak_curve(films, (0, 48), (48, 72), {"place": "dusk", "pattern": "striped"}) == [1, 1]


def test_mean_and_half_life_of_curves() -> None:
    curve = [0.75, 0.25, 0, 0, 0, 0, 1, 1]
    assert mean_leak([curve, [0] * 8]) == pytest.approx((1 / 6 + 0) / 2)
    assert half_life([curve]) == pytest.approx(1.0)
    assert half_life([[0.0, 0.0]]) == pytest.approx(0.25)
    assert half_life([[1.0, 0.9, 0.8]]) == 3
    assert half_life([[0.8, 0.6], [1.0, 0.2]]) == pytest.approx(0.5 + (0.9 - 0.5) / (0.9 - 0.4))
    assert half_life([[None, 0.0]]) == pytest.approx(0.75)
    assert mean_leak([]) is None and half_life([]) is None and mean_leak([[None]]) is None


def test_switches_are_where_the_place_is_said_to_change() -> None:
    assert switches([MEADOW, MEADOW, OCEAN, {}, MEADOW]) == [2, 4]


def test_told_of_a_whole_video() -> None:
    films = joined(readings(48), readings(48, "ocean", "checked", ELSEWHERE, 1.0), readings(48, hue=0.2))
    told = place_scores(films, [MEADOW, OCEAN, MEADOW], [(0, 48), (48, 96), (96, 144)], [(2, 0)])
    assert told.metrics["world.recall_fidelity"] == pytest.approx(90)
    assert len(told.per_segment[1]["leakage"]) == 4 and "leakage" not in told.per_segment[0]
    assert told.per_segment[2]["recall"]["hue"] == 60
    scenes = [scene_scores(row) for row in told.per_segment]
    for name in ("world.recall_fidelity", "world.leakage"):
        assert np.mean([scene[name] for scene in scenes if name in scene]) == pytest.approx(told.metrics[name], abs=0.01)
    still = place_scores(films, [MEADOW] * 3, [(0, 48), (48, 96), (96, 144)], [])
    assert still.metrics == {} and still.per_segment == [{}, {}, {}]


def test_shipped_anchors() -> None:
    found = anchors()
    chance, ceiling = found["recall_fidelity"]
    assert 0 < chance < 35 and 85 < ceiling <= 100
    assert found["leakage"][0] > 90 and found["leakage"][1] < 5
    assert found["half_life_blocks"][0] >= 13 and found["half_life_blocks"][1] < 0.5


def test_missing_anchors_name_the_command(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(ValueError, match="`echo-harness train scorer"):
        anchors(tmp_path / "provenance.json")


def test_no_torch_is_imported() -> None:
    code = "import sys, eval.world.places, eval.measures.quality, eval.world.readings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
