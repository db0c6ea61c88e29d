"""The word encoder: concepts in order, synonyms alike, silence, refusal, saving."""

from __future__ import annotations

import pytest
import torch

from data.world.words import VOCABULARY
from echo.backbone.parts.text import WordEncoder
from echo.backbone.parts.words import Vocabulary


@pytest.fixture(scope="module")
def encoder() -> WordEncoder:
    torch.manual_seed(0)
    return WordEncoder(VOCABULARY, 6)


def test_concepts_stand_in_order_and_zeros_follow(encoder: WordEncoder) -> None:
    out = encoder.encode(["A red ball moves left over a striped meadow."])
    rows = [VOCABULARY.rows[word] for word in ("red", "ball", "left", "striped", "meadow")]
    assert out.shape == (1, 8, 6)
    assert torch.equal(out[0, :5], encoder.embedding.weight[rows])
    assert not out[0, 5:].any()


def test_synonyms_say_the_same(encoder: WordEncoder) -> None:
    one, other = encoder.encode(["A scarlet orb rises over the lined grassland", "There is a red ball up a striped meadow"])
    assert torch.equal(one, other)


def test_unknown_word_is_named(encoder: WordEncoder) -> None:
    with pytest.raises(ValueError, match=r"'triangel'.*triangle"):
        encoder.encode(["a red triangel moves left"])


def test_too_many_words_are_refused(encoder: WordEncoder) -> None:
    with pytest.raises(ValueError, match="9 meaningful words; the text encoder takes at most 8"):
        encoder.encode(["red " * 9])


def test_saved_and_loaded_alike(encoder: WordEncoder) -> None:
    again = WordEncoder.load(encoder.save())
    text = ["the blue ring sinks over a dotted ocean"]
    assert torch.equal(again.encode(text), encoder.encode(text))
    assert again.vocabulary.as_json() == VOCABULARY.as_json()


def test_contradicting_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="no concept"):
        Vocabulary(("red",), {"crimson": "rad"}, frozenset())
    with pytest.raises(ValueError, match="silent and meant"):
        Vocabulary(("red",), {}, frozenset({"red"}))
