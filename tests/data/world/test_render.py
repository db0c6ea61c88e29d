"""The world: same seed same clip, and truths that agree with the pixels by a second path."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from data.world.render import (
    BEAM_S,
    FPS,
    LAMP_RGB,
    LAMP_ROWS,
    LANDMARK,
    LANDMARK_RGB,
    NIGHT_RGB,
    PERIOD,
    SIZE,
    SUBJECT_RGB,
    background,
    clip,
    displacement,
    draw,
    draw_place,
    draw_words,
    lit,
    render,
    shade_of,
    under,
)
from data.world.words import (
    BEAM,
    COLOURS,
    DAY,
    KINDS,
    LIGHTS,
    LIT,
    MOTIONS,
    PLACES,
    RETURNS,
    SAYABLE,
    SHAPES,
    TEMPLATES,
    UNLIT,
    VOCABULARY,
    Words,
    held_out,
    parse,
    sentence,
)  # fmt: skip
from jobs.train.data import shown_words


def words_of(**said: str) -> Words:
    """Ordinary words, some replaced."""
    usual = {"colour": "red", "shape": "ball", "motion": "right", "place": "meadow", "pattern": "plain"}
    return Words(**(usual | said))


def circular_mean(weights: np.ndarray) -> float:
    """Centre of mass of `weights` on a circle as wide as the frame."""
    angle = 2 * np.pi * np.arange(SIZE) / SIZE
    return float(np.angle((weights * np.exp(1j * angle)).sum()) * SIZE / (2 * np.pi)) % SIZE


def distance(a: float, b: float) -> float:
    """Distance on a circle as wide as the frame."""
    return abs((a - b + SIZE / 2) % SIZE - SIZE / 2)


def test_same_seed_same_clip_and_other_seed_another() -> None:
    frames, truth = clip(5, 24)
    again, same = clip(5, 24)
    other, _ = clip(6, 24)
    assert np.array_equal(frames, again) and truth.words == same.words and truth.place == same.place
    assert not np.array_equal(frames, other)
    assert frames.shape == (24, SIZE, SIZE, 3) and frames.dtype == np.uint8


def test_clip_in_a_batch_is_the_clip_alone() -> None:
    truths = [draw((1, index), 16) for index in range(5)]
    assert np.array_equal(render(truths)[3], render([truths[3]])[0])


def test_longer_clip_starts_as_the_shorter_one() -> None:
    assert np.array_equal(clip(9, 40)[0][:12], clip(9, 12)[0])


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "triangle"])
@pytest.mark.parametrize("motion", MOTIONS)
def test_centre_agrees_with_pixels(shape: str, motion: str) -> None:
    frames, truth = clip(3, 48, easy=True, words=words_of(shape=shape, motion=motion))
    empty = background("meadow", "plain", truth.place)
    for index in range(0, 48, 5):
        change = np.abs(frames[index] - empty).sum(-1)
        x, y = circular_mean(change.sum(0)), circular_mean(change.sum(1))
        assert distance(x, truth.centres[index, 0]) < 0.35 and distance(y, truth.centres[index, 1]) < 0.35


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_agrees_with_pixels(colour: str) -> None:
    frames, truth = clip(4, 4, words=words_of(colour=colour, shape="box"))
    x, y = (int(round(value)) % SIZE for value in truth.centres[0])
    nearest = min(SUBJECT_RGB, key=lambda name: np.abs(np.array(SUBJECT_RGB[name]) - frames[0, y, x]).sum())
    assert nearest == colour


def test_subject_is_a_third_of_the_frame() -> None:
    for seed in range(12):
        frames, truth = clip(seed, 1, easy=True, words=words_of(pattern="plain", shape=SHAPES[seed % 4]))
        changed = np.abs(frames[0] - background("meadow", "plain", truth.place)).sum(-1) > 60
        assert SIZE / 3 <= changed.any(0).sum() <= SIZE / 2


def test_landmarks_hue_and_phase_agree_with_pixels() -> None:
    for seed in range(20):
        place = draw_place(np.random.default_rng(seed))
        scene = background("dusk", "striped", place)
        assert len(place.landmarks) == 3
        for mark in place.landmarks:
            square = scene[mark.row : mark.row + LANDMARK, mark.column : mark.column + LANDMARK]
            assert (square == LANDMARK_RGB[mark.colour]).all()
        bare = background("dusk", "striped", draw_place(np.random.default_rng(seed), easy=True))
        wave = np.fft.fft(bare[0, :, 1])[SIZE // PERIOD]
        shift = -np.angle(wave) * PERIOD / (2 * np.pi) % PERIOD
        assert distance(4 * shift, 4 * place.phase[1]) < 0.2
        plain = background("dusk", "plain", draw_place(np.random.default_rng(seed), easy=True))
        assert plain[0, 0, 0] - plain[0, 0, 2] == pytest.approx(128 - 106 + 24 * place.hue, abs=1e-3)


def test_easy_places_differ_only_by_landmarks() -> None:
    hard, easy = (draw_place(np.random.default_rng(8), easy) for easy in (False, True))
    assert easy.landmarks == () and (hard.hue, hard.phase) == (easy.hue, easy.phase)


def test_history_ends_where_the_motion_begins() -> None:
    words = words_of(motion="up")
    truth = draw(2, 36, words=words, before=12)
    steps = np.diff(truth.centres[12:], axis=0)
    moved = (steps + SIZE / 2) % SIZE - SIZE / 2
    assert np.allclose(moved, np.diff(displacement("up", np.arange(24.0)), axis=0))


def test_every_29th_combination_is_held_out_and_training_never_draws_one() -> None:
    every = [Words(*words) for words in itertools.product(*KINDS.values())]
    held = [words for words in every if held_out(words)]
    assert len(every) == 2880 and [every.index(words) for words in held] == list(range(0, 2880, 29))
    for kind, known in KINDS.items():
        share = [sum(getattr(words, kind) == word for words in held) / len(held) * len(known) for word in known]
        assert max(share) < 1.25 and min(share) > 0.85, f"{kind}: {share}"
    shown = [shown_words(np.random.default_rng(seed)) for seed in range(3000)]
    assert not any(held_out(words) for words in shown)
    assert any(held_out(draw_words(np.random.default_rng(seed))) for seed in range(3000))


def test_every_sentence_says_its_words() -> None:
    rng = np.random.default_rng(0)
    for _ in range(600):
        words = Words(*(str(rng.choice(known)) for known in KINDS.values()))
        choice = int(rng.integers(0, 1 << 30))
        assert parse(sentence(words, choice)) == words
        assert parse(sentence(words, choice, RETURNS)) == words


def test_templates_are_all_used() -> None:
    assert len({sentence(words_of(), choice) for choice in range(len(TEMPLATES))}) == len(TEMPLATES)


def test_unknown_word_is_named_with_its_nearest() -> None:
    with pytest.raises(ValueError, match=r"'dessert'.*desert"):
        parse("A red ball moves left over a plain dessert.")


def test_missing_and_doubled_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="no pattern"):
        parse("A red ball moves left over a meadow.")
    with pytest.raises(ValueError, match="red and blue"):
        parse("A red blue ball moves left over a plain meadow.")
    with pytest.raises(ValueError, match="nearest: meadow"):
        words_of(place="meadows")


def test_vocabulary_is_disjoint_and_complete() -> None:
    assert len(set(VOCABULARY.concepts)) == sum(len(known) for known in KINDS.values())
    assert not set(PLACES) & set(COLOURS)
    assert [field.name for field in fields(Words)] == list(SAYABLE)
    assert LIT.concepts[: len(VOCABULARY.concepts)] == VOCABULARY.concepts and set(VOCABULARY.rows) < set(LIT.rows)


def test_a_light_is_said_or_it_is_day() -> None:
    """Whatever the choice of sentence, what is parsed is what was meant; by day no word of light, so the first vocabulary does."""
    for choice in range(0, 400, 7):
        for light in LIGHTS:
            words = replace(words_of(), light=light)
            text = sentence(words, choice)
            assert parse(text) == words
            assert light != DAY or VOCABULARY.concepts_of(text)
    with pytest.raises(ValueError, match="beam and unlit"):
        parse("A red ball moves left over a plain meadow, under a passing beam, lightless now.")
    with pytest.raises(ValueError, match="unknown word 'searchlight'"):
        VOCABULARY.concepts_of("across a searchlight")


def test_what_light_does_not_reach_shows_nothing_of_the_place() -> None:
    """Column by column: lit ones as by day, dark ones as of any other place, between them the mixture; the subject shines by itself."""
    day, other = (draw((41, 1), 240, words=words_of(pattern="dotted")), draw((41, 2), 240, words=words_of(pattern="striped")))
    beam = under(day, BEAM, 5)
    assert beam.shade is not None
    night, by_day = render([replace(beam)])[0], render([day])[0]
    away = np.abs((np.arange(SIZE) - day.centres[:, :1] + SIZE / 2) % SIZE - SIZE / 2) > 12
    for frame in range(0, 240, 20):
        for column in np.flatnonzero(away[frame]):
            mixed = np.array(NIGHT_RGB) + (by_day[frame, :, column].astype(float) - NIGHT_RGB) * beam.shade[frame, column]
            off = np.abs(night[frame, :, column] - mixed)[LAMP_ROWS:]
            assert off.max() <= 1, (frame, column, off.max(), off.mean())
    same = replace(under(other, UNLIT, 5), centres=day.centres, words=replace(day.words, light=UNLIT), radius=day.radius)
    assert np.array_equal(render([same]), render([under(day, UNLIT, 6)]))


def test_a_lamp_moves_with_its_beam_above_every_landmark() -> None:
    """Its columns have the lamp's colour, those twelve pixels away none of it; there is none by day or without light."""
    beam = under(draw((41, 1), 240, words=words_of(place="midnight", pattern="plain")), BEAM, 5)
    assert beam.beam is not None
    shown, by_day, dark = (render([under(beam, light, 5)])[0].astype(float) for light in (BEAM, DAY, UNLIT))
    clear = np.abs(np.mod(beam.centres[:, 1] + SIZE / 2, SIZE) - SIZE / 2) > 16  # the subject is not in these rows
    assert clear.sum() > 20
    for frame in np.flatnonzero(clear):
        columns = (int(beam.beam[frame]) + np.arange(SIZE)) % SIZE
        lamp, off = columns[:4], columns[12:-12]
        assert np.abs(shown[frame, :LAMP_ROWS, lamp] - LAMP_RGB).max() < 2 and np.abs(shown[frame, :LAMP_ROWS, off] - LAMP_RGB).min() > 60
    assert min(np.abs(frames[clear, :LAMP_ROWS] - LAMP_RGB).max(-1).min() for frames in (by_day, dark)) > 60
    assert all(mark.row % PERIOD >= LAMP_ROWS for seed in range(40) for mark in draw_place(np.random.default_rng(seed)).landmarks)


def test_a_beam_goes_round_within_its_seconds_and_leaves_a_landmark_dark_longer_than_a_window() -> None:
    for seed in range(20):
        beam = lit(BEAM, seed, np.arange(40 * FPS, dtype=np.float64))
        assert beam is not None and np.array_equal(beam[100:200], lit(BEAM, seed, np.arange(100, 200, dtype=np.float64)))
        shade = shade_of(beam)
        middle = np.unwrap(np.angle(shade @ np.exp(2j * np.pi * np.arange(SIZE) / SIZE)))
        round_s = 2 * np.pi * 40 / abs(middle[-1] - middle[0])
        assert BEAM_S[0] - 0.2 <= round_s <= BEAM_S[1] + 0.2, round_s
        dark = (shade[:, 6:12] == 0).all(1)
        turns = np.diff(dark.astype(int))
        falls, rises = np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)
        spans = [rises[rises > fall][0] - fall for fall in falls if (rises > fall).any()]
        assert spans and min(spans) > 4.3 * FPS, spans
