"""Plans of the baselines in plain integers, each against the positions that its paper or released code has."""

from __future__ import annotations

import pytest

from baselines.memrope import MemRope
from baselines.presets import CONF
from echo.cache.kinds import Kind, chosen
from echo.cache.plan import Step
from echo.cache.policy import script_of
from echo.scene import SceneStart, load_prompts
from tests.helpers.policies import GEOMETRIES, HARD, RECALL, S, at, make, recache, vector


def test_self_forcing_is_a_queue_at_absolute_indices() -> None:
    assert vector(at("self_forcing", 0)) == "0@0 1@1 2@2"
    assert vector(at("self_forcing", 7)) == " ".join(f"{f}@{f}" for f in range(3, 24))
    assert at("self_forcing", 7, SceneStart(7, HARD)).context == at("self_forcing", 7).context


def test_self_forcing_ends_where_its_table_does() -> None:
    make("self_forcing").check(GEOMETRIES[0], 341)
    with pytest.raises(ValueError, match="342 blocks .1026 latent frames.*table ends at 1024; longest is 341 blocks"):
        make("self_forcing").check(GEOMETRIES[0], 342)


def test_longlive_keeps_its_sink_at_home() -> None:
    assert vector(at("longlive", 9)) == "0@0 1@1 2@2 21@21 22@22 23@23 24@24 25@25 26@26 27@27 28@28 29@29"
    assert vector(at("longlive_relative", 9)) == "0@0 1@1 2@2 21@3 22@4 23@5 24@6 25@7 26@8 27@9 28@10 29@11"
    assert vector(at("longlive", 3)) == " ".join(f"{f}@{f}" for f in range(12))


def test_longlive_recaches_under_the_new_prompt() -> None:
    plan = recache("longlive", 9)
    assert plan is not None and plan.queries == tuple(range(15, 27)) and plan.unseen == 3
    assert vector(plan) == "0@0 1@1 2@2 18@18 19@19 20@20 21@21 22@22 23@23 24@24 25@25 26@26"
    early = recache("longlive", 4)
    assert early is not None and early.unseen == 0 and vector(early) == " ".join(f"{f}@{f}" for f in range(12))
    free = recache("longlive_local_sink", 6)
    assert free is not None and free.unseen == 0 and vector(free) == " ".join(f"{f}@{f}" for f in range(6, 18))
    after = at("longlive_local_sink", 6, SceneStart(6, HARD))
    assert vector(after) == "6@6 7@7 8@8 12@12 13@13 14@14 15@15 16@16 17@17 18@18 19@19 20@20"
    assert recache("memflow", 9) == plan, "its bank is neither read nor written"
    assert recache("longlive_relative", 9) is None and recache("longlive_flush", 9) is None and recache("self_forcing", 9) is None


def test_self_forcing_recaches_its_whole_window() -> None:
    plan = recache("self_forcing_recache", 9)
    assert plan is not None and vector(plan) == " ".join(f"{f}@{f}" for f in range(6, 27))


def test_longlive_flushes_all_but_sink_and_newest() -> None:
    assert vector(at("longlive_flush", 9, SceneStart(9, HARD))) == "0@0 1@1 2@2 26@26 27@27 28@28 29@29"


def test_deep_sink_slides() -> None:
    tail = "35@35 36@36 37@37 38@38 39@39 40@40 41@41"
    assert vector(at("deep_forcing_sink", 13)) == " ".join(f"{f}@{f + 18}" for f in range(14)) + " " + tail
    assert vector(at("deep_forcing_sink", 7)) == " ".join(f"{f}@{f}" for f in range(14)) + " 17@17 18@18 19@19 20@20 21@21 22@22 23@23"


def test_deep_forcing_compresses_every_other_block() -> None:
    first = at("deep_forcing_official", 7)
    assert vector(first) == " ".join(f"{f}@{f + 5}" for f in range(10)) + " cmp@None cmp@None 20@20 21@21 22@22 23@23"
    assert first.selection is not None and first.selection.candidates == tuple(range(10, 20))
    second = at("deep_forcing_official", 8)
    sink = " ".join(f"{f}@{f + 5}" for f in range(10))
    assert vector(second) == sink + " top0@None top1@None 20@20 21@21 22@22 23@23 24@24 25@25 26@26"
    third = at("deep_forcing_official", 9)
    assert third.selection is not None and third.selection.candidates == (chosen(0), chosen(1), 20, 21, 22, 23, 24, 25)
    assert [len(at("deep_forcing_official", b).context) + 3 for b in range(5, 12)] == [18, 21, 16, 19, 16, 19, 16]
    assert [slot.position for slot in at("deep_forcing_official", 15).context[:10]] == list(range(29, 39))
    unified = at("deep_forcing_official", 9, unify_positions=True)
    assert [slot.position for slot in unified.context[10:]] == [24, 25, 26]


def test_rolling_sink_walks_a_triangle_wave() -> None:
    assert vector(at("rolling_sink", 14)) == (
        "11@24 10@25 9@26 8@27 7@28 6@29 5@30 4@31 3@32 2@33 1@34 0@35 0@36 1@37 2@38 39@39 40@40 41@41 42@42 43@43 44@44"
    )
    assert vector(at("rolling_sink", 7)) == " ".join(f"{f}@{f}" for f in range(3, 24))
    assert vector(at("rolling_sink", 8)).startswith("6@6 7@7") and " 17@18 16@19 15@20 21@21 " in vector(at("rolling_sink", 8))


def test_memrope_keeps_two_means() -> None:
    assert vector(at("memrope", 3)) == " ".join(f"{f}@{f}" for f in range(12))
    assert vector(at("memrope", 4)) == "0@0 1@1 2@2 long@3 short@4 8@5 9@6 10@7 11@8 12@9 13@10 14@11"
    policy = make("memrope")
    assert isinstance(policy, MemRope)
    evicted = [list(policy.evicted(Step(block, (SceneStart(0),), GEOMETRIES[0]))) for block in (3, 4, 5)]
    assert evicted == [[], [5, 6, 7], [8, 9, 10]]


def test_infinity_rope_at_its_released_size() -> None:
    small: dict[str, object] = {"window_frames": 6, "sink_frames": 1}
    assert vector(at("infinity_rope_official", 5)) == vector(at("infinity_rope", 5, **small))
    assert vector(at("infinity_rope", 5, **small)) == "0@0 13@1 14@2 15@3 16@4 17@5"
    assert vector(at("infinity_rope", 5, SceneStart(5, HARD), **small)) == "0@0 13@1 14@2 15@45 16@46 17@47"
    assert vector(at("infinity_rope", 5, SceneStart(5, S), **small)) == "0@0 13@1 14@2 15@3 16@4 17@5"


def test_infinity_rope_repaired_at_21() -> None:
    assert vector(at("infinity_rope", 9)) == " ".join(f"{f + 9}@{f}" for f in range(21))
    assert vector(at("infinity_rope", 9, SceneStart(9, HARD))) == "25@0 26@1 27@45 28@46 29@47"
    assert vector(at("infinity_rope", 10, SceneStart(9, HARD))) == "25@0 26@1 27@2 28@3 29@4 30@5 31@6 32@7"
    assert len(at("infinity_rope", 40, SceneStart(9, HARD)).context) == 18


def test_the_oracle_puts_the_first_showing_back() -> None:
    """Scenes A-B-C-A with A shown at frames 0..38: at the recall the context is frames 0..11 of A and nothing else, then those and
    the newest frames; also where what is recalled was itself a recall."""
    starts = (SceneStart(13, HARD, None, 45), SceneStart(27, HARD, None, 45), SceneStart(40, RECALL, 0, 4))
    assert vector(at("oracle", 40, *starts)) == " ".join(f"{f}@{f}" for f in range(12)) + " 120@12 121@13 122@14"
    second = at("oracle", 42, *starts)
    assert vector(second) == " ".join(f"{f}@{f}" for f in range(12)) + " " + " ".join(f"{f}@{f - 108}" for f in range(120, 129))
    late = at("oracle", 52, *starts)
    assert {slot.source for slot in late.context if slot.kind is Kind.RECALLED} <= set(range(12)) and len(late.context) == 18
    assert [slot.source for slot in late.context[12:]] == list(range(150, 156))
    again = at("oracle", 60, *starts, SceneStart(53, HARD, None, 45), SceneStart(60, RECALL, 3, 4))
    assert [slot.source for slot in again.context] == list(range(12)), "the first showing, not the recalled one"
    assert at("oracle", 13, *starts[:1]).context == (), "a cut keeps nothing"
    assert at("forget", 40, *starts).context == (), "the floor keeps nothing, at a recall either"


def test_a_full_cache_goes_on_as_though_the_scene_had_never_been_left() -> None:
    """What the recall attends to is what the scene's own next blocks would have, the newest frame by frame; anchors are walked."""
    there_and_back = (SceneStart(13, HARD, None, 45), SceneStart(27, RECALL, 0, 3))

    def sources(block: int, *starts: SceneStart) -> list[object]:
        return [slot.source for slot in at("oracle_cache", block, *starts).context]

    unbroken = {block: sources(block) for block in (13, 14, 15, 16, 20)}  # as though nothing had come between
    renamed = {frame: frame - 3 * 27 + 3 * 13 for frame in range(3 * 27, 3 * 40)}  # a frame of the recall -> its place in the unbroken film
    for late, block in ((27, 13), (28, 14), (29, 15), (30, 16), (34, 20)):
        recalled = [renamed.get(frame, frame) for frame in sources(late, *there_and_back)]
        assert recalled[12:] == unbroken[block][12:] and {*recalled[:12], *unbroken[block][:12]} <= {*range(12)}, (late, recalled)
    first = {slot.source for slot in at("oracle", 27, *there_and_back).context}
    assert first == set(range(12)) and set(sources(27, *there_and_back)) == first | set(range(33, 39))
    short = (SceneStart(5, HARD, None, 45), SceneStart(10, RECALL, 0, 3))
    assert sources(10, *short) == list(range(15)) and sources(11, *short) == [*range(15), 30, 31, 32]
    assert sources(12, *short) == [*range(12), *range(30, 36)]


def test_the_oracle_is_told_which_scene_is_recalled() -> None:
    """By the same router as Echo, on a prompt of the shipped set."""
    prompt = load_prompts(CONF.parent / "data" / "prompts" / "recall.jsonl")[0]

    def embed(texts: list[str]) -> list[list[float]]:
        kinds = (("water",), ("grassland", "meadow"), ("desert",))
        return [[float(any(word in text for word in kind)) for kind in kinds] for text in texts]

    for name in ("oracle", "echo"):
        assert [start.recalls for start in script_of(prompt, make(name), 3, embed).starts[3:]] == [0, 1, 2], name


def test_the_oracle_remembers_no_more_than_a_short_scene_had() -> None:
    starts = (SceneStart(2, HARD, None, 45), SceneStart(9, RECALL, 0, 4))
    assert [slot.source for slot in at("oracle", 9, *starts).context] == list(range(6))


def test_table_1_has_the_deep_forcing_of_appendix_c6() -> None:
    """S12 + C9 of 21, in every block of a full window; the released row keeps other numbers."""
    for block in range(7, 30):
        kinds = [kind.letter for kind in at("deep_forcing_table", block).kinds()]
        assert (kinds.count("S"), len(kinds) - kinds.count("S")) == (12, 9), (block, kinds)
        assert kinds.count("C") == 5, "and of these nine, chosen ones"
    assert at("deep_forcing_official", 29).kinds().count(Kind.SINK) == 10
