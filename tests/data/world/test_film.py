"""Rendered videos: the content of each way of rendering, and prompts that cannot be rendered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data.world.film import Render, Way, truths
from data.world.render import SIZE
from data.world.words import parse
from echo.cache.plan import Step
from echo.files import ROOT
from echo.geometry import Geometry
from echo.scene import Prompt, SceneStart, load_prompts

RECALL = load_prompts(ROOT / "data" / "prompts" / "recall.jsonl")[0]
SMOOTH = load_prompts(ROOT / "data" / "prompts" / "smooth.jsonl")[0]
SHORT = dataclasses.replace(RECALL, durations_s=(1.5,) * 6)


def test_every_prompt_of_the_sets_can_be_rendered():
    for path in (ROOT / "data" / "prompts").glob("*.jsonl"):
        for prompt in load_prompts(path):
            Render().check_prompt(prompt)


def test_truth_shows_the_place_again_and_the_words_alone_another():
    """Scenes 4, 5, 6 recall 1, 2, 3. Compared by the renderer's truth, and by the medians of frames."""
    shown = truths(SHORT, 0, Render(), 3)
    alone = truths(SHORT, 0, Render(way=Way.other), 3)
    for late, early in ((3, 0), (4, 1), (5, 2)):
        assert shown[late].place == shown[early].place and alone[late].place != alone[early].place
    assert len({truth.place for truth in shown}) == 3 and len({truth.place for truth in alone}) == 6
    assert [truth.words for truth in shown] == [parse(text) for text in SHORT.scenes] == [truth.words for truth in alone]
    assert len({truth.radius for truth in shown}) == 1
    film, other = Render().film(SHORT, 0, 3), Render(way=Way.other).film(SHORT, 0, 3)
    assert film.shape == other.shape == (6 * 24, SIZE, SIZE, 3)
    apart = [abs(np.median(video[72:96], 0) - np.median(video[:24], 0)).mean() for video in (film, other)]
    assert 3 * apart[0] < apart[1], apart


def test_a_smooth_transition_goes_on_where_the_subject_is():
    prompt = dataclasses.replace(SMOOTH, durations_s=(1.5,) * 6)
    shown = truths(prompt, 0, Render(), 3)
    assert len({truth.place for truth in shown}) == 1
    path = np.concatenate([truth.centres for truth in shown])
    steps = np.abs((np.diff(path, axis=0) + SIZE / 2) % SIZE - SIZE / 2).max(1)
    assert steps.max() < 2.5, steps.max()
    cut = np.concatenate([truth.centres for truth in truths(SHORT, 0, Render(), 3)])
    assert np.abs((np.diff(cut, axis=0) + SIZE / 2) % SIZE - SIZE / 2).max() > 2.5


def test_shuffled_has_the_same_frames_in_another_order():
    film, shuffled = Render().film(SHORT, 0, 3), Render(way=Way.shuffled).film(SHORT, 0, 3)
    assert not np.array_equal(film, shuffled)
    assert sorted(frame.tobytes() for frame in film) == sorted(frame.tobytes() for frame in shuffled)


def test_a_film_is_named_by_seed_and_prompt_alone():
    film = Render().film(SHORT, 0, 3)
    assert np.array_equal(film, Render().film(SHORT, 0, 3))
    assert not np.array_equal(film, Render().film(SHORT, 1, 3))
    assert not np.array_equal(film, Render().film(dataclasses.replace(SHORT, id="another"), 0, 3))


@pytest.mark.parametrize(
    ("scenes", "tags", "part"),
    [
        (("a red ball moving left over a plain meadow", "a red ball moving up over a plain desert"), ("", "@"), "recalls a plain desert"),
        (("a red ball moving left over a meadow",), ("",), "says no pattern"),
        (("a red bal moving left over a plain meadow",), ("",), "bal"),
    ],
)
def test_what_cannot_be_rendered_is_refused(scenes, tags, part):
    with pytest.raises(ValueError, match=part) as refusal:
        Render().check_prompt(Prompt("p", scenes, (3.0,) * len(scenes), tags))
    assert "'p'" in str(refusal.value) and "\n" not in str(refusal.value)


def test_it_is_no_policy():
    with pytest.raises(ValueError, match="rendered"):
        Render().plan(Step(0, (SceneStart(0),), Geometry(1, 1, 6, 1, 1)))
    with pytest.raises(ValueError, match="world 1: .* nearest is"):
        Render(world=1)
