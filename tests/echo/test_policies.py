"""What every policy must do, on every kind of script: plans in plain integers first, then rollouts on a tiny real network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from baselines.infinity_rope import InfinityRope
from baselines.memrope import MemRope
from baselines.oracle import Oracle
from baselines.presets import CONF
from echo.backbone.wan import WanConfig, WanModel
from echo.cache.plan import COMPRESSED, Kind, Plan, Step
from echo.cache.policy import Policy, held_frames, plans
from echo.geometry import Geometry
from echo.memory.settings import Encoding, Fusion
from echo.noise import keyed_noise
from echo.policy import Echo
from echo.rollout import Rollout
from echo.routing import script_of
from echo.scene import SceneStart, Script, Transition, load_prompts
from tests.echo.conftest import make, report
from tests.helpers.policies import PRESETS

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
    rendered = {"render_truth", "render_other", "render_shuffled"}  # no policies: tests/jobs/work/test_film.py
    assert {name for name, _ in PRESETS} == {path.stem for path in Path(CONF / "method").glob("*.yaml")} - rendered


def made_by_hooks(policy: Policy, plan: Plan, script: Script) -> set[str]:
    """Named memories that the device side makes before the block."""
    begins = plan.block in [start.block for start in script.starts[1:]]
    if isinstance(policy, Echo):
        return {f"srf{plan.scene - 1}"} if begins and policy.recall_frame.fusion is not Fusion.none else set()
    return {"long", "short"} if isinstance(policy, MemRope) and 3 * plan.block >= policy.window_frames else set()


@pytest.mark.parametrize("story", SCRIPTS)
@pytest.mark.parametrize(("name", "changes"), rows())
def test_plans_keep_their_promises(name: str, changes: dict[str, object], story: str) -> None:
    """A store of the declared capacity, run by hand on integers: every source of a plan is there when it is asked for. A block comes
    into the store when its clean pass begins, in the place of what its plan lets go."""
    policy, script = make(name, **changes), SCRIPTS[story]
    for sizes in GEOMETRIES:
        policy.check(sizes, script.blocks)
        held: set[int | str] = set()
        most = 0
        traced = list(plans(policy, script, sizes))
        for plan in traced:
            first = 3 * plan.block
            held |= made_by_hooks(policy, plan, script)
            assert len(plan.context) + 3 <= sizes.window_frames and len(plan.queries) == 3
            wanted = {slot.source for slot in plan.context} - {COMPRESSED}
            if plan.selection:
                wanted |= set(plan.selection.candidates)
                held |= {f"top{rank}" for rank in range(plan.selection.frames)}
            recache = policy.recache(Step(plan.block, script.starts[: plan.scene + 1], sizes)) if plan.block else None
            if recache is not None and plan.block in [start.block for start in script.starts]:
                again = set(range(recache.first_frame + recache.unseen, first))
                assert again | {slot.source for slot in recache.context} <= held, (recache, held)
                assert len(recache.queries) <= policy.recache_frames(sizes)
            assert wanted <= held and not wanted & {first, first + 1, first + 2}, (plan, wanted - held)
            assert (plan.selection is None) == (COMPRESSED not in {slot.source for slot in plan.context})
            assert all(b - a == 1 for a, b in zip(plan.queries[:-1], plan.queries[1:], strict=True))
            assert len(plan.kinds()) == len(plan.key_positions()) == len(plan.context) + 3
            held = {source for source in held if source in plan.keep} | {first, first + 1, first + 2}
            most = max(most, len([f for f in held if isinstance(f, int)]))
            held &= plan.keep
        assert most == held_frames(traced) <= policy.capacity(sizes)


@pytest.mark.parametrize(("name", "changes"), rows())
def test_a_batch_equals_one_at_a_time(
    name: str, changes: dict[str, object], model: WanModel, geometry: Geometry, texts: torch.Tensor
) -> None:
    """Path 1: three prompts together, and one window for all layers. Path 2: each alone, a window for each layer, same keyed noise."""
    script = Script((SceneStart(0), SceneStart(9, HARD, None, 45), SceneStart(11, S), SceneStart(20, RECALL, 0, 6)), 22)

    def run(ids: list[str]) -> torch.Tensor:
        noise = keyed_noise(5, ids, (3, 16, 4, 6))
        rollout = Rollout(model, make(name, **changes), geometry, noise, batch=len(ids), shared_window=len(ids) > 1)
        latents = []
        for block in range(script.blocks):
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


def held(rollout: Rollout) -> int:
    """Everything that a rollout holds on to: frames, memories, index tensors, in numbers of things."""
    store = rollout.store
    return len(store._slot) + len(store._named) + len(store._index) + len(rollout._latents)


def bounds(policy: Policy, step: Step, sizes: Geometry) -> range:
    """Temporal indices that a policy promises."""
    relative = isinstance(policy, (InfinityRope, MemRope, Oracle)) or getattr(policy, "relative", False)
    relative = relative or (isinstance(policy, Echo) and policy.encoding is Encoding.relative)
    last = (sizes.window_frames if relative else step.first_frame + 3) - 1
    cut = max(getattr(policy, "cut_position", 0), step.start.jump) if step.block_in_scene == 0 else 0
    return range(0, last + cut + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("sizes", [Geometry(1, 1, 12, 1, 2), Geometry(2, 2, 6, 2, 1)], ids=["1x2", "2x1"])
@pytest.mark.parametrize(("name", "changes"), rows())
def test_rollouts_are_finite_bounded_and_forget(name: str, changes: dict[str, object], sizes: Geometry, dtype: torch.dtype) -> None:
    """Finite latents; no more held after a longer video; window and indices within the promise; the same bytes whether or not
    another video ran before, and whether each layer has a window, filled once a block, or all layers one, filled in every pass."""
    torch.manual_seed(2)
    width = sizes.heads * sizes.head_dim
    network = WanModel(WanConfig(width, 16, sizes.heads, sizes.layers, 8, 8, 4)).to(dtype).eval().requires_grad_(False)
    script = Script((SceneStart(0), SceneStart(9, HARD, None, 45), SceneStart(10, S), SceneStart(12, RECALL, 0, 6)), 14)
    policy = make(name, **changes)
    budget = getattr(policy, "window_frames", 0) or sizes.window_frames

    def run(prompt: str, shared: bool = False) -> tuple[torch.Tensor, list[int]]:
        noise = keyed_noise(1, [prompt], (3, 16, sizes.latent_height, sizes.latent_width), dtype=dtype)
        rollout = Rollout(network, policy, sizes, noise, shared_window=shared)
        latents, things = [], []
        for block in range(script.blocks):
            for scene, start in enumerate(script.starts):
                if start.block == block:
                    text = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(scene))
                    rollout.switch(text.to(dtype), start.transition, start.recalls, start.jump)
            made = rollout.next()
            latents.append(made.latents)
            things.append(held(rollout))
            indices = [position for _, position in made.plan.key_positions() if position is not None]
            step = Step(block, tuple(start for start in script.starts if start.block <= block), sizes)
            assert len(made.plan.key_positions()) <= budget and set(indices) <= set(bounds(policy, step, sizes)), made.plan
        return torch.cat(latents, 1), things

    first, things = run("one")
    other, _ = run("two")
    again, _ = run("one", shared=sizes.layers > 1)
    assert bool(torch.isfinite(first).all())
    assert max(things) <= policy.capacity(sizes) + 2 + len(script.starts) + sizes.window_frames // 3, things
    assert torch.equal(first, again), report(first.float(), again.float())
    assert not torch.allclose(first, other, atol=0.1)


PRINT_HASH = """
import hashlib, sys, torch
torch.set_num_threads(1)
from tests.echo.test_policies import hashes
print(*hashes(sys.argv[1:]))
"""


def hashes(names: list[str]) -> list[str]:
    """Hash of a short rollout's latents for each preset, one after the other in this process."""
    torch.manual_seed(2)
    network = WanModel(WanConfig(12, 16, 1, 1, 8, 8, 4)).eval().requires_grad_(False)
    found = []
    for name in names:
        rollout = Rollout(network, make(name), Geometry(1, 1, 12, 1, 2), keyed_noise(1, ["p"], (3, 16, 2, 4)))
        rollout.switch(torch.ones(1, 4, 8))
        latents = [rollout.next().latents for _ in range(10)]
        found.append(hashlib.sha256(torch.cat(latents).numpy().tobytes()).hexdigest())
    return found


def test_one_process_or_two() -> None:
    """Videos made one after the other have the bytes that they have in a process of their own."""
    names = ["deep_forcing_official", "echo", "memrope"]
    together = hashes(names)
    for name, expected in zip(names, together, strict=True):
        alone = subprocess.run([sys.executable, "-c", PRINT_HASH, name], capture_output=True, text=True, cwd=CONF.parent, check=True)
        assert alone.stdout.split() == [expected], name
    assert len(set(together)) == 3


def test_a_long_smooth_chain_keeps_its_head() -> None:
    policy = make("echo")
    assert isinstance(policy, Echo)
    starts = (SceneStart(0), *(SceneStart(2 * i, S) for i in range(1, 80)))
    plan = policy.plan(Step(158, starts, GEOMETRIES[0]))
    assert plan.key_positions()[0] == ["srf0", 0] and "srf0" in plan.keep and "srf1" not in plan.keep
    assert len([name for name in plan.keep if isinstance(name, str)]) == 65


def test_a_recall_out_of_the_pool_is_refused(model: WanModel, geometry: Geometry, texts: torch.Tensor) -> None:
    rollout = Rollout(model, make("echo", routing__pool_scenes=2), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)))
    rollout.switch(texts[:1])
    for scene in range(1, 4):
        rollout.next()
        rollout.switch(texts[scene : scene + 1], HARD, None, 45)
    rollout.next()
    rollout.switch(texts[4:5], RECALL, 1)
    with pytest.raises(ValueError, match=r"recall of scene 1: the pool holds 2..3; nearest is 2"):
        rollout.next()
    assert rollout.next().scene == 3, "a refused switch leaves the rollout in its scene"


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


def test_longlive_keeps_its_sink_at_home() -> None:
    assert vector(at("longlive", 9)) == "0@0 1@1 2@2 21@21 22@22 23@23 24@24 25@25 26@26 27@27 28@28 29@29"
    assert vector(at("longlive_relative", 9)) == "0@0 1@1 2@2 21@3 22@4 23@5 24@6 25@7 26@8 27@9 28@10 29@11"
    assert vector(at("longlive", 3)) == " ".join(f"{f}@{f}" for f in range(12))


def recache(name: str, block: int, **changes: object) -> Plan | None:
    return make(name, **changes).recache(Step(block, (SceneStart(0), SceneStart(block, HARD)), GEOMETRIES[0]))


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
    assert third.selection is not None and third.selection.candidates == ("top0", "top1", 20, 21, 22, 23, 24, 25)
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


def test_longlive_echo_keeps_native_indices() -> None:
    plan = at("longlive_echo", 22, SceneStart(13, HARD, None, 45))
    assert plan.queries == (66, 67, 68) and plan.key_positions()[0] == ["f48", 48] and ["cmp", None] in plan.key_positions()
    assert vector(at("longlive_echo", 13, SceneStart(13, HARD, None, 45))) == "srf0@0 39@84 40@85 41@86"


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
        ({"calibration_frames": 60}, "within 3..21; nearest is 21"),
        ({"smooth__blocks": 7}, r"smooth.blocks \(gone before the window is full\) 7: within 1..6; nearest is 6"),
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
        ({"rolling": "pingpong"}, "'pingpong' is none of .*; nearest is 'ping_pong'"),
        ({"drift_gate_lambda": -1}, "nearest is 0"),
        ({"rolling": "sideways"}, "nearest is"),
        ({"smooth": 3}, "a group of settings is expected here"),
        ({"drift_gate_lambda": "nan"}, "nearest is 0"),
        ({"offsets": "[-1]"}, "none negative"),
        ({"routing__threshold_smooth": 7}, "within -1..1; nearest is 1"),
        ({"smooth__rho_min": 0.99}, "rho_min <= rho_max"),
        ({"recall_frame__base_weight": 2}, "nearest is 1.0"),
    ],
)
def test_bad_settings_are_one_clear_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("echo", **changes)


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


def test_the_oracle_is_told_which_scene_is_recalled() -> None:
    """By the same router as Echo, on a prompt of the shipped set."""
    prompt = load_prompts(CONF.parent / "data" / "prompts" / "recall.jsonl")[0]

    def embed(texts: list[str]) -> list[list[float]]:
        kinds = (("water",), ("grassland", "meadow"), ("desert",))
        return [[float(any(word in text for word in kind)) for kind in kinds] for text in texts]

    for name in ("oracle", "echo"):
        assert [start.recalls for start in script_of(prompt, make(name), embed).starts[3:]] == [0, 1, 2], name


def test_the_oracle_remembers_no_more_than_a_short_scene_had() -> None:
    starts = (SceneStart(2, HARD, None, 45), SceneStart(9, RECALL, 0, 4))
    assert [slot.source for slot in at("oracle", 9, *starts).context] == list(range(6))
