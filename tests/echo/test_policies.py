"""What every policy must do, on every kind of script: plans in plain integers first, then rollouts on a tiny real network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from echo.backbone.wan import WanModel
from echo.cache.plan import COMPRESSED, Kind, Plan, Step
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.rollout import Rollout
from echo.scene import SceneStart, Script, Transition
from echo.trace import CONF, plans
from tests.echo.conftest import make, report
from tests.policies import PRESETS

S, HARD, RECALL = Transition.smooth, Transition.hard, Transition.recall
SCRIPTS = {
    "long": Script((SceneStart(0),), 60),
    "smooth": Script((SceneStart(0), SceneStart(13, S), SceneStart(27, S), SceneStart(30, S)), 45),
    "hard": Script((SceneStart(0), SceneStart(1, HARD, None, 45), SceneStart(14, HARD, None, 45)), 30),
    "recall": Script((SceneStart(0), SceneStart(13, HARD, None, 45), SceneStart(27, RECALL, 0, 3), SceneStart(30, RECALL, 1, 30)), 50),
    "mixed": Script((SceneStart(0), SceneStart(2, S), SceneStart(5, RECALL, 0, 6), SceneStart(14, S), SceneStart(25, HARD, None, 45)), 40),
}
GEOMETRIES = [Geometry(2, 2, 16, 2, 3), Geometry(1, 1, 8, 1, 1, frames_per_block=3, window_frames=21)]


def rows() -> list[object]:
    return [
        pytest.param(name, changes, id=name + "".join(f"-{key}={value}" for key, value in changes.items())) for name, changes in PRESETS
    ]


def test_every_preset_has_a_row() -> None:
    assert {name for name, _ in PRESETS} == {path.stem for path in Path(CONF / "method").glob("*.yaml")}


@pytest.mark.parametrize("story", SCRIPTS)
@pytest.mark.parametrize(("name", "changes"), rows())
def test_plans_keep_their_promises(name: str, changes: dict[str, object], story: str) -> None:
    """A store of the declared capacity, run by hand on integers: every source of a plan is there when it is asked for."""
    policy, script = make(name, **changes), SCRIPTS[story]
    for sizes in GEOMETRIES:
        policy.check(sizes, script.blocks)
        held: set[int | str] = set()
        for plan in plans(policy, script, sizes):
            first = 3 * plan.block
            if plan.block in [start.block for start in script.starts[1:]] and hasattr(policy, "recall_frame"):
                held.add(f"srf{plan.scene - 1}")
            held |= {first, first + 1, first + 2}
            assert len([f for f in held if isinstance(f, int)]) <= policy.capacity(sizes), plan
            assert len(plan.context) + 3 <= sizes.window_frames and len(plan.queries) == 3
            wanted = {slot.source for slot in plan.context} - {COMPRESSED}
            if plan.selection:
                wanted |= set(plan.selection.candidates)
            assert wanted <= held and not wanted & {first, first + 1, first + 2}, (plan, wanted - held)
            assert (plan.selection is None) == (COMPRESSED not in {slot.source for slot in plan.context})
            assert all(b - a == 1 for a, b in zip(plan.queries[:-1], plan.queries[1:], strict=True))
            assert len(plan.kinds()) == len(plan.key_positions()) == len(plan.context) + 3
            held &= plan.keep


@pytest.mark.parametrize("story", ["smooth", "recall", "mixed"])
@pytest.mark.parametrize(("name", "changes"), rows())
def test_a_batch_equals_one_at_a_time(
    name: str, changes: dict[str, object], story: str, model: WanModel, geometry: Geometry, texts: torch.Tensor
) -> None:
    """Path 1: three prompts together. Path 2: each alone, same keyed noise."""
    script = SCRIPTS[story]

    def run(ids: list[str]) -> torch.Tensor:
        noise = keyed_noise(5, ids, (3, 16, 4, 6))
        rollout = Rollout(model, make(name, **changes), geometry, noise, batch=len(ids))
        latents = []
        for block in range(min(script.blocks, 36)):
            for scene, start in enumerate(script.starts):
                if start.block == block:
                    rows = torch.stack([texts[(scene + ord(i)) % 8] for i in ids])
                    rollout.switch(rows, start.transition, start.recalls, start.jump)
            latents.append(rollout.next().latents)
        return torch.cat(latents, 1)

    together = run(["a", "b", "c"])
    for row, name_ in enumerate("abc"):
        alone = run([name_])[0]
        assert torch.allclose(together[row], alone, atol=1e-5), (name_, report(together[row], alone))
    assert not torch.allclose(together[0], together[1], atol=0.1)


def at(name: str, block: int, *starts: SceneStart, **changes: object) -> Plan:
    return make(name, **changes).plan(Step(block, (SceneStart(0), *starts), GEOMETRIES[0]))


def vector(plan: Plan) -> str:
    """`source@position` for every key, frames as bare numbers."""
    sources = [(source[1:] if source[1:].isdigit() else source, position) for source, position in plan.key_positions()]
    return " ".join(f"{source}@{position}" for source, position in sources)


def test_self_forcing_is_a_queue_at_absolute_indices() -> None:
    assert vector(at("self_forcing", 0)) == "0@0 1@1 2@2"
    assert vector(at("self_forcing", 7)) == " ".join(f"{f}@{f}" for f in range(3, 24))
    assert at("self_forcing", 7, SceneStart(7, HARD)).context == at("self_forcing", 7).context


def test_self_forcing_ends_where_its_table_does() -> None:
    make("self_forcing").check(GEOMETRIES[0], 341)
    with pytest.raises(ValueError, match="342 blocks .1026 latent frames.*table ends at 1024; longest is 341 blocks"):
        make("self_forcing").check(GEOMETRIES[0], 342)


def test_infinity_rope_at_its_released_size() -> None:
    small = {"window_frames": 6, "sink_frames": 1}
    assert vector(at("infinity_rope", 5, **small)) == "0@0 13@1 14@2 15@3 16@4 17@5"
    assert vector(at("infinity_rope", 5, SceneStart(5, HARD), **small)) == "0@0 13@1 14@2 15@45 16@46 17@47"
    assert vector(at("infinity_rope", 5, SceneStart(5, S), **small)) == "0@0 13@1 14@2 15@3 16@4 17@5"


def test_infinity_rope_repaired_at_21() -> None:
    assert vector(at("infinity_rope", 9)) == " ".join(f"{f + 9}@{f}" for f in range(21))
    assert vector(at("infinity_rope", 9, SceneStart(9, HARD))) == "25@0 26@1 27@45 28@46 29@47"
    assert vector(at("infinity_rope", 10, SceneStart(9, HARD))) == "25@0 26@1 27@2 28@3 29@4 30@5 31@6 32@7"
    assert len(at("infinity_rope", 40, SceneStart(9, HARD)).context) == 18


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
    assert [[f"f{int(s[1:]) - 39}" if s != COMPRESSED else s, p] for s, p in later.key_positions()] == first.key_positions()


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
    assert [p for s, p in plan.key_positions() if s == COMPRESSED] == [18, 18, 18] and plan.queries == (18, 19, 20)
    assert plan.selection is not None and plan.selection.own_spatial


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anchors": 9}, "must fill the 18 frames before the block; nearest is anchors 12"),
        ({"pool_frames": 13}, "multiple of 3; nearest is 15"),
        ({"smooth__blocks": 7}, "smooth.blocks 7: old memory must go before the window is full; nearest is 6"),
    ],
)
def test_budgets_that_do_not_add_up(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("echo", **changes).check(GEOMETRIES[0], 80)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool_frame": 18}, "unknown setting 'pool_frame' of policy echo; nearest is 'pool_frames'"),
        ({"smooth__rho": 1}, "unknown setting 'smooth.rho'.*nearest is 'rho_min'"),
        ({"rolling": "pingpong"}, "'pingpong'.*ping_pong"),
        ({"drift_gate_lambda": -1}, "nearest is 0"),
        ({"smooth__rho_min": 0.99}, "rho_min <= rho_max"),
        ({"recall_frame__base_weight": 2}, "nearest is 1.0"),
    ],
)
def test_bad_settings_are_one_clear_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("echo", **changes)
