"""Where a prompt's scenes go: the paper's thresholds, the released rules, their jumps."""

from __future__ import annotations

import pytest

from echo import routing
from echo.cache.policy import script_of
from echo.routing import Feature, RecallJump, Router, Routing
from echo.scene import Prompt, TagMeaning, Transition
from tests.helpers.policies import make

A = "a red ball rolls left across a striped meadow with tall poppies"
B = "a red ball rests inside a dotted cavern full of crystals"
C = "a red ball bounces upon a plain desert under burning sunlight"
STORY = (
    A,
    B,
    C,
    "again the striped meadow with tall poppies, a red ball circles",
    "the dotted cavern full of crystals, a red ball falls",
    "the plain desert, a red ball waits",
)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        ([0.9], Transition.smooth),
        ([0.5], Transition.hard),
        ([0.9, 0.2], Transition.recall),
        ([0.84, 0.2], Transition.hard),
        ([0.2, 0.86], Transition.smooth),
    ],
)
def test_thresholds_eq_17(similarity: list[float], expected: Transition) -> None:
    assert routing.threshold_mode(similarity, Routing()) is expected


def test_distance_jump_eq_18() -> None:
    settings = Routing(jump_recall=RecallJump.distance)
    assert [routing.recall_jump([0.0] * t, 0, settings) for t in (1, 3, 4, 5)] == [10, 30, 40, 45]


def test_similarity_jump_is_the_share_of_dissimilarity() -> None:
    assert routing.recall_jump([0.6, 0.2, 0.2], 0, Routing()) == round(6 * 0.4 / 2.0)
    assert routing.recall_jump([1.0, 1.0], 0, Routing()) == 0


def test_idf_finds_the_recalled_scene_with_and_without_the_future() -> None:
    for causal in (False, True):
        settings = Routing(feature=Feature.idf, causal=causal)
        for scene in (3, 4, 5):
            similarity = routing.similarities(STORY, scene, settings, None)
            assert routing.recall_target(similarity, settings) == scene - 3, (causal, scene, similarity)


def test_the_previous_scene_can_be_excluded() -> None:
    assert routing.recall_target([0.1, 0.2, 0.9], Routing()) == 2
    assert routing.recall_target([0.1, 0.2, 0.9], Routing(exclude_previous=True)) == 1
    assert routing.recall_target([0.9], Routing(exclude_previous=True)) == 0
    assert routing.recall_target([0.9, 0.1, 0.2], Routing(pool_scenes=2)) == 2


def test_common_words_are_dropped() -> None:
    kept = routing.without_common(STORY)
    assert all("ball" not in text and "red" not in text for text in kept) and "poppies" in kept[0]
    assert routing.words("The cat's OWN shot, on it") == ["cat's", "own"]


def test_scripts_of_a_story() -> None:
    prompt = Prompt("s", STORY, (10.0,) * 6, ("", "#", "#", "@", "@", "@"), TagMeaning.enter)
    script = script_of(prompt, make("echo", routing__feature="idf"))
    assert [s.block for s in script.starts] == [0, 13, 27, 40, 53, 67] and script.blocks == 80
    assert [s.recalls for s in script.starts] == [None, None, None, 0, 1, 2]
    assert [s.jump for s in script.starts[:3]] == [0, 45, 45] and all(0 <= s.jump <= 6 for s in script.starts[3:])
    plain = script_of(prompt, make("infinity_rope"))
    assert [s.transition for s in plain.starts[1:]] == [Transition.hard] * 2 + [Transition.recall] * 3
    assert all(s.recalls is None and s.jump == 0 for s in plain.starts)


def test_the_threshold_router_ignores_tags() -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float("meadow" in text), float("cavern" in text), float("desert" in text)] for text in texts]

    prompt = Prompt("s", STORY, (10.0,) * 6, ("",) * 6)
    script = script_of(prompt, make("echo_paper", routing__router=Router.thresholds.value), embed)
    assert [s.transition for s in script.starts[1:]] == [Transition.hard] * 2 + [Transition.recall] * 3
    assert [s.jump for s in script.starts] == [0, 45, 45, 30, 30, 30]


def test_a_feature_that_needs_an_encoder_says_so() -> None:
    prompt = Prompt("s", STORY, (10.0,) * 6, ("", "#", "#", "@", "@", "@"), TagMeaning.enter)
    with pytest.raises(ValueError, match="nearest that does not is 'idf'"):
        script_of(prompt, make("echo_official"))
