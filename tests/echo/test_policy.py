"""Echo-Forcing's plans in plain integers, and what its settings refuse."""

from __future__ import annotations

import pytest
import torch

from echo.backbone.wan import WanModel
from echo.cache.kinds import COMPRESSED, Kind, MemoryName, recall_of
from echo.cache.plan import Step
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.policy import Echo
from echo.rollout import Rollout
from echo.scene import SceneStart
from tests.helpers.policies import GEOMETRIES, HARD, RECALL, S, at, make, vector


def test_echo_fills_then_rolls() -> None:
    assert vector(at("echo", 3)) == " ".join(f"{f}@{f}" for f in range(12))
    assert vector(at("echo", 7)) == (
        "3@0 4@1 5@2 6@3 7@4 8@5 9@6 10@7 11@8 11@9 10@10 9@11 cmp@12 cmp@13 cmp@14 18@15 19@16 20@17 21@18 22@19 23@20"
    )
    plan = at("echo", 7)
    assert plan.selection is not None and plan.selection.candidates == tuple(range(18))
    assert at("echo", 10).key_positions()[:12] == [[f"f{11 - i}", i] for i in range(12)]


def test_echo_counts_from_the_scene() -> None:
    first, later = at("echo", 9), at("echo", 22, SceneStart(13, HARD, None, 45))
    assert [[f"f{int(s[1:]) - 39}" if s != str(COMPRESSED) else s, p] for s, p in later.key_positions()] == first.key_positions()


def test_echo_enters_scenes_with_old_memory() -> None:
    hard = SceneStart(13, HARD, None, 45)
    assert vector(at("echo", 13, hard)) == "srf0@0 39@46 40@47 41@48"
    assert vector(at("echo", 14, hard)) == " ".join(f"{39 + i}@{i}" for i in range(6))
    smooth = SceneStart(13, S)
    assert vector(at("echo", 13, smooth)) == "srf0@0 37@1 38@2 39@3 40@4 41@5"
    assert [k.value for k in at("echo", 17, smooth).kinds()[:4]] == ["recalled", "old", "old", "anchor"]
    assert at("echo", 18, smooth).kinds()[0] is Kind.ANCHOR and at("echo", 18, smooth).faded == 0
    recall = SceneStart(27, RECALL, 0, 3)
    assert vector(at("echo", 27, hard, recall)) == "srf0@0 81@4 82@5 83@6"
    assert vector(at("echo", 28, hard, recall)) == "srf0@0 81@1 82@2 83@3 84@4 85@5 86@6"


def test_a_smooth_chain_carries_its_first_scene() -> None:
    chain = (SceneStart(13, S), SceneStart(26, S))
    assert at("echo", 26, *chain).key_positions()[0] == ["srf0", 0]
    assert at("echo", 26, *chain, smooth_source="previous").key_positions()[0] == ["srf1", 0]
    assert at("echo", 26, SceneStart(13, HARD), SceneStart(26, S)).key_positions()[0] == ["srf1", 0]


def test_compressed_tokens_at_the_current_time() -> None:
    plan = at("echo_paper", 9)
    assert [p for s, p in plan.key_positions() if s == str(COMPRESSED)] == [18, 18, 18] and plan.queries == (18, 19, 20)
    assert plan.selection is not None and plan.selection.own_spatial


def test_longlive_echo_keeps_native_indices() -> None:
    plan = at("longlive_echo", 22, SceneStart(13, HARD, None, 45))
    assert plan.queries == (66, 67, 68) and plan.key_positions()[0] == ["f48", 48] and ["cmp", None] in plan.key_positions()
    assert vector(at("longlive_echo", 13, SceneStart(13, HARD, None, 45))) == "srf0@0 39@84 40@85 41@86"


def test_a_long_smooth_chain_keeps_its_head() -> None:
    policy = make("echo")
    assert isinstance(policy, Echo)
    starts = (SceneStart(0), *(SceneStart(2 * i, S) for i in range(1, 80)))
    plan = policy.plan(Step(158, starts, GEOMETRIES[0]))
    assert plan.key_positions()[0] == ["srf0", 0] and recall_of(0) in plan.keep and recall_of(1) not in plan.keep
    assert len([name for name in plan.keep if isinstance(name, MemoryName)]) == 65


def test_a_recall_out_of_the_pool_is_refused(model: WanModel, geometry: Geometry, texts: torch.Tensor) -> None:
    rollout = Rollout(model, make("echo", routing__pool_scenes=2), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)))
    rollout.switch(texts[:1])
    for scene in range(1, 4):
        rollout.next()
        rollout.switch(texts[scene : scene + 1], HARD, None, 45)
    rollout.next()
    rollout.switch(texts[4:5], RECALL, 1)
    with pytest.raises(ValueError, match=r"recall of scene 2: the pool holds 3\.\.4; nearest is 3"):
        rollout.next()
    assert rollout.next().scene == 3, "a refused switch leaves the rollout in its scene"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anchors": 9}, "must fill the 18 frames before the block; nearest is anchors 12"),
        ({"pool_frames": 13}, "multiple of 3; nearest is 15"),
        ({"calibration_frames": 60}, "within 3..21; nearest is 21"),
        ({"smooth__blocks": 7}, r"smooth.blocks \(gone before the window is full\) 7: within 1..6; nearest is 6"),
    ],
)
def test_budgets_that_do_not_add_up(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("echo", **changes).check(GEOMETRIES[0], 80)
