"""Where a prompt's scenes go: the paper's thresholds, the released rules, their jumps."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from echo import routing
from echo.backbone.interface import reader
from echo.backbone.parts.umt5 import Umt5Text
from echo.cache.policy import script_of
from echo.files import ROOT
from echo.routing import Feature, RecallJump, Router, Routing
from echo.scene import Prompt, TagMeaning, Transition, load_prompts
from tests.helpers.policies import make

FIXTURES = ROOT / "tests" / "fixtures"
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
    assert routing.threshold_mode(similarity, Routing())[0] is expected


def by_loops(features: list[list[float]], pool: int, tau: float) -> list[tuple[str, int | None]]:
    """Eqs (15)-(17) in plain loops over whole features, scene by scene; no scene older than the pool counts."""
    ways: list[tuple[str, int | None]] = []
    for t in range(1, len(features)):
        best, where = -2.0, -1
        for i in range(max(0, t - pool), t):
            dot = sum(a * b for a, b in zip(features[t], features[i]))
            s = dot / (sum(a * a for a in features[t]) ** 0.5 * sum(b * b for b in features[i]) ** 0.5)
            if s > best:
                best, where = s, i
        if where == t - 1 and best >= tau:
            ways.append(("smooth", None))
        elif where != t - 1 and best >= tau:
            ways.append(("recall", where))
        else:
            ways.append(("hard", None))
    return ways


@pytest.mark.parametrize("pool", [1, 2, 3, 64])
@pytest.mark.parametrize("meant", [TagMeaning.enter, TagMeaning.to_next])
def test_scenes_without_a_tag_are_routed_as_plain_loops_say_and_others_by_their_tags(pool: int, meant: TagMeaning) -> None:
    draw = random.Random(pool)
    seen = set()
    for _ in range(60):
        places = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(3)]
        rows = [[x + draw.gauss(0, 0.25) for x in draw.choice(places)] for _ in range(7)]
        texts = tuple(str(scene) for scene in range(7))
        policy = make("echo_paper", routing__pool_scenes=pool)

        def embed(asked: list[str], rows: list[list[float]] = rows) -> list[list[float]]:
            return [rows[int(text)] for text in asked]

        expected = by_loops(rows, pool, 0.85)
        untagged = script_of(Prompt("s", texts, (3.0,) * 7, (None,) * 7, meant), policy, 3, embed)
        assert [(str(start.transition), start.recalls) for start in untagged.starts[1:]] == expected
        jumps = {"smooth": lambda t, i: 0, "hard": lambda t, i: 45, "recall": lambda t, i: min(45, 10 * (t - i))}
        assert [start.jump for start in untagged.starts[1:]] == [jumps[way](t, i) for t, (way, i) in enumerate(expected, 1)]
        seen |= {way for way, _ in expected}
        at = 2 if meant is TagMeaning.enter else 1
        mixed = tuple("#" if index == at else None for index in range(7))
        some = script_of(Prompt("s", texts, (3.0,) * 7, mixed, meant), policy, 3, embed)
        assert some.starts[2].transition is Transition.hard
        assert [some.starts[t] for t in (1, 3, 4, 5, 6)] == [untagged.starts[t] for t in (1, 3, 4, 5, 6)]
    assert seen == ({"smooth", "hard"} if pool == 1 else {"smooth", "hard", "recall"})


def test_a_scene_of_the_running_chain_goes_on_smoothly() -> None:
    """After 0 - 1 (smooth), a scene most similar to 0 recalls it by eq. (17) as printed, and continues the place by chains."""
    rows = {"a": [1.0, 0.0], "b": [0.9, 0.3], "c": [1.0, -0.1]}
    prompt = Prompt("s", ("a", "b", "c"), (3.0,) * 3, ("", "", None))

    def embed(texts: list[str]) -> list[list[float]]:
        return [rows[text] for text in texts]

    printed, chained = (
        script_of(prompt, make("echo", routing__feature="prompt", routing__running=way), 3, embed).starts[2]
        for way in ("previous", "chain")
    )
    assert (printed.transition, printed.recalls) == (Transition.recall, 0)
    assert (chained.transition, chained.recalls) == (Transition.smooth, None)


def test_methods_without_a_pool_enter_by_a_cut_where_texts_mean_a_recall() -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float("meadow" in text), float("cavern" in text), float("desert" in text)] for text in texts]

    prompt = Prompt("s", STORY, (10.0,) * 6, (None,) * 6)
    for name in ("infinity_rope", "echo_recall_none"):
        assert [start.transition for start in script_of(prompt, make(name), 3, embed).starts[1:]] == [Transition.hard] * 5
    assert [start.recalls for start in script_of(prompt, make("echo"), 3, embed).starts[3:]] == [0, 1, 2]
    with pytest.raises(ValueError, match="needs a text encoder"):
        script_of(prompt, make("infinity_rope"), 3)


def test_the_cap_of_eq_18_is_a_setting_of_its_own() -> None:
    far = [0.0] * 9
    assert routing.recall_jump(far, 0, Routing(jump_recall=RecallJump.distance, jump_hard=20)) == 20
    assert routing.recall_jump(far, 0, Routing(jump_recall=RecallJump.distance, jump_hard=20, jump_recall_cap=45)) == 45
    assert routing.recall_jump(far, 0, make("echo_paper", routing__jump_hard=7).routing) == 45
    with pytest.raises(ValueError, match="jump_recall_cap -1"):
        Routing(jump_recall_cap=-1)


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


def ascii_words(text: str) -> list[str]:
    """The rule by which videos of English prompts were routed before other scripts were read."""
    return [word for word in re.findall(r"[a-z']+", text.lower()) if len(word) > 2 and word not in routing.STOP_WORDS]


def test_words_of_english_are_what_they_were() -> None:
    texts = [scene for path in sorted((ROOT / "data" / "prompts").rglob("*.jsonl")) for one in load_prompts(path) for scene in one.scenes]
    draw = random.Random(0)
    texts += ["".join(chr(draw.randrange(32, 127)) for _ in range(200)) for _ in range(200)]
    english = [text for text in texts if not any(sign.isalpha() and not sign.isascii() for sign in text)]
    assert len(english) > 1000 and [routing.words(text) for text in english] == [ascii_words(text) for text in english]


FILMS = {
    "русский": (
        "Рыжая лиса идёт через заснеженный сосновый лес", "Рыжая лиса идёт по солнечному пляжу с пальмами",
        "Рыжая лиса идёт ночью по неоновой улице города", "Рыжая лиса спит в заснеженном сосновом лесу",
        "Рыжая лиса копает на солнечном пляже с пальмами", "Рыжая лиса сидит ночью на неоновой улице города",
    ),
    "العربية": (
        "ثعلب أحمر يمشي في غابة صنوبر مغطاة بالثلوج", "ثعلب أحمر يمشي على شاطئ مشمس مع أشجار النخيل",
        "ثعلب أحمر يمشي ليلا في شارع مدينة مضاء بالنيون", "الثعلب الأحمر ينام في غابة صنوبر مغطاة بالثلوج",
        "الثعلب الأحمر يحفر على شاطئ مشمس مع أشجار النخيل", "الثعلب الأحمر يجلس ليلا في شارع مدينة مضاء بالنيون",
    ),
    "ไทย": (
        "สุนัขจิ้งจอกแดงเดินผ่านป่าสนที่ปกคลุมด้วยหิมะ", "สุนัขจิ้งจอกแดงเดินบนชายหาดที่มีแดดและต้นปาล์ม",
        "สุนัขจิ้งจอกแดงเดินบนถนนในเมืองนีออนยามค่ำคืน", "สุนัขจิ้งจอกแดงนอนในป่าสนที่ปกคลุมด้วยหิมะ",
        "สุนัขจิ้งจอกแดงขุดบนชายหาดที่มีแดดและต้นปาล์ม", "สุนัขจิ้งจอกแดงนั่งบนถนนในเมืองนีออนยามค่ำคืน",
    ),
}  # fmt: skip
"""The same film, A-B-C-A-B-C, in other scripts; `fixtures/prompts/recall_zh.jsonl` has it in Chinese and English."""
A_B_C = ("", "#", "#", "@", "@", "@")


def films() -> list[Prompt]:
    two = load_prompts(FIXTURES / "prompts" / "recall_zh.jsonl")
    return [*two, *(Prompt(name, scenes, (0.75,) * 6, A_B_C, TagMeaning.enter) for name, scenes in FILMS.items())]


@pytest.mark.parametrize("film", films(), ids=lambda film: film.id)
def test_films_of_any_script_recall_the_scenes_that_they_mean(film: Prompt, tmp_path: Path) -> None:
    encoder = Umt5Text.random("tiny", cache=tmp_path, dtype="float32")
    encoder.text_len = 64  # padding beyond a text costs time alone
    reads = reader(encoder)
    for name in ("echo", "echo_official"):
        assert [start.recalls for start in script_of(film, make(name), 3, reads).starts] == [None, None, None, 0, 1, 2], name


def test_words_of_other_scripts() -> None:
    assert routing.words("Лиса идёт, по снегу!") == ["лиса", "идёт", "снегу"]
    assert routing.words("여우가 숲 속") == ["여우가", "숲", "속"], "a syllable may be a word"
    assert routing.words("बर्फीले जंगल") == ["बर्फीले", "जंगल"], "marks belong to their letters"
    assert routing.words("红狐狸，在 park里") == ["红狐", "狐狸", "在", "park", "里"]
    assert routing.words("红狐狸在雪里", lambda run: ["红", "狐狸", "在", "雪里"]) == ["红", "狐狸", "在", "雪里"]


def test_a_feature_that_is_empty_for_every_scene_never_decides() -> None:
    """Scenes of only digits or common words are distinguished by their whole texts instead of all matching the first scene."""
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [[float(sign in text) for sign in "123"] for text in texts]

    scenes = ("1", "2", "3", "1 1", "2 2", "3 3")
    prompt = Prompt("s", scenes, (3.0,) * 6, A_B_C, TagMeaning.enter)
    assert [start.recalls for start in script_of(prompt, make("echo"), 3, embed).starts[3:]] == [0, 1, 2]
    assert asked[-1] == list(scenes)
    assert [start.recalls for start in script_of(prompt, make("echo", routing__feature="idf"), 3).starts[3:]] == [0, 1, 2]


def test_scripts_of_a_story() -> None:
    prompt = Prompt("s", STORY, (10.0,) * 6, ("", "#", "#", "@", "@", "@"), TagMeaning.enter)
    script = script_of(prompt, make("echo", routing__feature="idf"), 3)
    assert [s.block for s in script.starts] == [0, 13, 27, 40, 53, 67] and script.blocks == 80
    assert [s.recalls for s in script.starts] == [None, None, None, 0, 1, 2]
    assert [s.jump for s in script.starts[:3]] == [0, 45, 45] and all(0 <= s.jump <= 6 for s in script.starts[3:])
    plain = script_of(prompt, make("infinity_rope"), 3)
    assert [s.transition for s in plain.starts[1:]] == [Transition.hard] * 2 + [Transition.recall] * 3
    assert all(s.recalls is None and s.jump == 0 for s in plain.starts)


def test_the_automatic_router_ignores_tags() -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float("meadow" in text), float("cavern" in text), float("desert" in text)] for text in texts]

    prompt = Prompt("s", STORY, (10.0,) * 6, ("",) * 6)
    script = script_of(prompt, make("echo_paper", routing__router=Router.automatic.value), 3, embed)
    assert [s.transition for s in script.starts[1:]] == [Transition.hard] * 2 + [Transition.recall] * 3
    assert [s.jump for s in script.starts] == [0, 45, 45, 30, 30, 30]


def test_a_feature_that_needs_an_encoder_says_so() -> None:
    prompt = Prompt("s", STORY, (10.0,) * 6, ("", "#", "#", "@", "@", "@"), TagMeaning.enter)
    with pytest.raises(ValueError, match="nearest that does not is 'idf'"):
        script_of(prompt, make("echo_official"), 3)
