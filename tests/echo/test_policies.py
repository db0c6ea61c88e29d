"""What every policy must do, on every kind of script: plans in plain integers first, then rollouts on a tiny real network."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations, product

import pytest
import torch
from omegaconf import OmegaConf

from baselines import registry
from baselines.infinity_rope import InfinityRope
from baselines.memflow import MemFlow
from baselines.memrope import MEANS, MemRope
from baselines.oracle import Oracle
from baselines.presets import CONF, ablations, choices
from baselines.reward_ema import RewardEma, means
from baselines.tethercache import TetherCache
from echo.backbone.interface import latent_shape
from echo.backbone.wan import WanConfig, WanModel
from echo.cache.kinds import COMPRESSED, MemoryName, chosen, recall_of
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy, held_frames, plans
from echo.geometry import Geometry
from echo.memory.settings import Encoding, Fusion
from echo.noise import keyed_noise
from echo.policy import Echo
from echo.rollout import Rollout
from echo.sampler import schedule
from echo.scene import SceneStart, Script
from tests.helpers.compare import report
from tests.helpers.policies import FRAME_WISE, GEOMETRIES, HARD, PRESETS, RECALL, SCRIPTS, S, frame_wise, make, make_frame_wise, rows

TWO = schedule([1000, 500])
"""Two noisy passes and a clean one are each kind of pass that there is, and that which follows upon its like."""


def test_every_preset_has_a_row() -> None:
    """Every method, and every ablation of echo itself; those of other bases where their tables show them."""
    rendered = {"render_truth", "render_other", "render_shuffled"}  # no policies: tests/data/world/test_film.py
    rows, known = {name for name, _ in PRESETS}, set(choices("method"))
    changes = OmegaConf.load(CONF / "ablations.yaml").changes
    assert known >= rows >= (known - set(ablations()) | {f"echo_{change}" for change in changes}) - rendered


def made_by_hooks(policy: Policy, plan: Plan, script: Script, size: int) -> set[MemoryName]:
    """Named memories that the device side makes before the block, which has so many frames."""
    begins = plan.block in [start.block for start in script.starts[1:]]
    if isinstance(policy, Echo):
        return {recall_of(plan.scene - 1)} if begins and policy.recall_frame.fusion is not Fusion.none else set()
    if isinstance(policy, TetherCache):
        return set(policy.places(size * plan.block))
    if isinstance(policy, MemFlow):
        return set(policy.bank(plan.block))
    if isinstance(policy, RewardEma):
        return set(means(size)) if size * plan.block >= policy.window_frames else set()
    return set(MEANS) if isinstance(policy, MemRope) and size * plan.block >= policy.window_frames else set()


@pytest.mark.parametrize("story", SCRIPTS)
@pytest.mark.parametrize(("name", "changes"), rows())
def test_plans_keep_their_promises(name: str, changes: dict[str, object], story: str) -> None:
    """A store of the declared capacity, run by hand on integers: every source of a plan is there when it is asked for. A block comes
    into the store when its clean pass begins, in the place of what its plan lets go."""
    chunk_wise = make(name, **changes), SCRIPTS[story]
    single = make_frame_wise(name, **changes), frame_wise(SCRIPTS[story])
    for (policy, script), sizes in ((chunk_wise, GEOMETRIES[0]), (chunk_wise, GEOMETRIES[1]), (single, FRAME_WISE)):
        size = sizes.frames_per_block
        policy.check(sizes, script.blocks)
        held: set[int | str] = set()
        most = 0
        traced = list(plans(policy, script, sizes))
        for plan in traced:
            first = size * plan.block
            held |= made_by_hooks(policy, plan, script, size)
            own = set(range(first, first + size))
            assert len(plan.context) + size <= sizes.window_frames and len(plan.queries) == size
            assert len(plan.clean or ()) + size <= sizes.window_frames
            wanted = {slot.source for slot in (*plan.context, *(plan.clean or ()))} - {COMPRESSED}
            if plan.revision:
                wanted |= set(plan.revision.candidates)
                assert plan.revision.frames == len([name for name in plan.revision.candidates if isinstance(name, MemoryName)])
            if plan.selection:
                wanted |= set(plan.selection.candidates)
                held |= {chosen(rank) for rank in range(plan.selection.frames)}
            recache = policy.recache(Step(plan.block, script.starts[: plan.scene + 1], sizes)) if plan.block else None
            if recache is not None and plan.block in [start.block for start in script.starts]:
                again = set(range(recache.first_frame + recache.unseen, first))
                assert again | {slot.source for slot in recache.context} <= held, (recache, held)
                assert len(recache.queries) <= policy.recache_frames(sizes)
            assert wanted <= held and not wanted & own, (plan, wanted - held)
            assert (plan.selection is None) == (COMPRESSED not in {slot.source for slot in plan.context})
            assert all(b - a == 1 for a, b in zip(plan.queries[:-1], plan.queries[1:], strict=True))
            assert len(plan.kinds()) == len(plan.key_positions()) == len(plan.context) + size
            held = {source for source in held if source in plan.keep} | own
            most = max(most, len([f for f in held if isinstance(f, int)]))
            held &= plan.keep
        assert most == held_frames(traced) <= policy.store_frames(sizes)


@pytest.mark.parametrize(("name", "changes"), rows(run=True))
def test_a_batch_equals_one_at_a_time(
    name: str, changes: dict[str, object], model: WanModel, geometry: Geometry, texts: torch.Tensor
) -> None:
    """Path 1: two prompts together, and one window for all layers. Path 2: each alone, a window for each layer, same keyed noise."""
    script = Script((SceneStart(0), SceneStart(8, HARD, None, 45), SceneStart(9, S), SceneStart(12, RECALL, 0, 6)), 14)

    def run(ids: list[str]) -> torch.Tensor:
        noise = keyed_noise(5, ids, (3, 16, 4, 6))
        rollout = Rollout(model, make(name, **changes), geometry, noise, batch=len(ids), steps=TWO, shared_window=len(ids) > 1)
        latents = []
        for block in range(script.blocks):
            for scene, start in enumerate(script.starts):
                if start.block == block:
                    rows = torch.stack([texts[(scene + ord(i)) % 8] for i in ids])
                    rollout.switch(rows, start.transition, start.recalls, start.jump)
            latents.append(rollout.next().latents)
        return torch.cat(latents, 1)

    together = run(["a", "b"])
    for row, name_ in enumerate("ab"):
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
    last = (sizes.window_frames if relative else step.first_frame + step.geometry.frames_per_block) - 1
    cut = max(getattr(policy, "cut_position", 0), step.start.jump) if step.block_in_scene == 0 else 0
    return range(0, last + cut + 1)


@pytest.mark.parametrize(
    ("sizes", "dtype"), [(Geometry(1, 1, 12, 1, 2), torch.bfloat16), (Geometry(2, 2, 6, 2, 1), torch.float32)], ids=["1x2-bf16", "2x1-fp32"]
)
@pytest.mark.parametrize(("name", "changes"), rows(run=True))
def test_rollouts_are_finite_bounded_and_forget(name: str, changes: dict[str, object], sizes: Geometry, dtype: torch.dtype) -> None:
    """Finite latents; no more held after a longer video; window and indices within the promise; the same bytes whether or not
    another video ran before, and whether each layer has a window, filled once a block, or all layers one, filled in every pass."""
    torch.manual_seed(2)
    width = sizes.heads * sizes.head_dim
    network = WanModel(WanConfig(width, 16, sizes.heads, sizes.layers, 8, 8, 4)).to(dtype).eval().requires_grad_(False)
    script = Script((SceneStart(0), SceneStart(9, HARD, None, 45), SceneStart(10, S), SceneStart(12, RECALL, 0, 6)), 14)
    policy = make(name, **changes)
    budget = sum(getattr(policy, name, 0) for name in ("window_frames", "junction_frames", "bank_frames")) or sizes.window_frames

    def run(prompt: str, shared: bool = False, blocks: int = script.blocks) -> tuple[torch.Tensor, list[int]]:
        noise = keyed_noise(1, [prompt], (3, 16, sizes.latent_height, sizes.latent_width), dtype=dtype)
        rollout = Rollout(network, policy, sizes, noise, steps=TWO, shared_window=shared)
        latents, things = [], []
        for block in range(blocks):
            for scene, start in enumerate(script.starts):
                if start.block == block:
                    text = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(scene))
                    rollout.switch(text.to(dtype), start.transition, start.recalls, start.jump)
            made = rollout.next()
            latents.append(made.latents)
            things.append(held(rollout) - sum(isinstance(source, MemoryName) for source in made.plan.keep))
            indices = [position for _, position in made.plan.key_positions() if position is not None]
            step = Step(block, tuple(start for start in script.starts if start.block <= block), sizes)
            assert len(made.plan.key_positions()) <= budget and set(indices) <= set(bounds(policy, step, sizes)), made.plan
        return torch.cat(latents, 1), things

    first, things = run("one")
    other, _ = run("two", blocks=4)
    again, _ = run("one", shared=sizes.layers > 1)
    assert bool(torch.isfinite(first).all())
    # memories by name are the plan's word; all else is bounded
    assert max(things) <= policy.store_frames(sizes) + 3 + len(script.starts) + sizes.window_frames // 3, things
    assert torch.equal(first, again), report(first.float(), again.float())
    assert not torch.allclose(first[:, : other.shape[1]], other, atol=0.1)


@pytest.mark.parametrize(("name", "changes"), rows(run=True))
def test_frame_wise_rollouts_are_finite_and_bounded(name: str, changes: dict[str, object]) -> None:
    """Blocks of one frame, of one denoising step: the same bytes with a window for each layer and with one for all; nothing grows."""
    torch.manual_seed(2)
    sizes = FRAME_WISE
    network = WanModel(WanConfig(sizes.heads * sizes.head_dim, 16, sizes.heads, sizes.layers, 8, 8, 4)).eval().requires_grad_(False)
    script = Script((SceneStart(0), SceneStart(23, HARD, None, 45), SceneStart(25, S), SceneStart(28, RECALL, 0, 6)), 30)
    policy = make_frame_wise(name, **changes)

    def run(prompt: str, shared: bool) -> torch.Tensor:
        noise = keyed_noise(1, [prompt], latent_shape(sizes))
        rollout = Rollout(network, policy, sizes, noise, shared_window=shared, steps=schedule([1000]))
        latents = []
        for block in range(script.blocks):
            for scene, start in enumerate(script.starts):
                if start.block == block:
                    text = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(scene))
                    rollout.switch(text, start.transition, start.recalls, start.jump)
            latents.append(rollout.next().latents)
            assert held(rollout) <= policy.store_frames(sizes) + 3 + len(script.starts) + 2 * sizes.window_frames
        return torch.cat(latents, 1)

    first, again = run("one", shared=False), run("one", shared=True)
    assert first.shape == (1, 30, 16, 2, 4) and bool(torch.isfinite(first).all())
    assert torch.equal(first, again), report(first, again)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("echo", "anchors 12 + compressed 3 + recent 3: must fill the 20 frames before the block; nearest is anchors 14"),
        ("anchor_forcing", "junction_frames 3: within 1..1; nearest is 1"),
    ],
)
def test_what_cannot_be_at_one_frame_is_one_clear_line(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make(name).check(FRAME_WISE, 80)


def test_no_other_preset_is_refused_at_one_frame() -> None:
    refused = set[str]()
    for name, changes in PRESETS:
        try:
            make(name, **changes).check(FRAME_WISE, 80)
        except ValueError:
            refused.add(name)
    assert {name for name in refused if "echo" not in name} == {"anchor_forcing"}


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


@pytest.mark.slow
def test_one_process_or_two() -> None:
    """Videos made behind others have the bytes that they have in a process of their own."""
    names = ["deep_forcing_official", "echo", "memrope"]
    together = hashes(names)
    for name, expected in zip(names[1:], together[1:], strict=True):
        alone = subprocess.run([sys.executable, "-c", PRINT_HASH, name], capture_output=True, text=True, cwd=CONF.parent, check=True)
        assert alone.stdout.split() == [expected], name
    assert len(set(together)) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pool_frame": 18}, "unknown setting 'pool_frame' of policy echo; nearest is 'pool_frames'"),
        ({"smooth__rho": 1}, "unknown setting 'smooth.rho'.*nearest is 'rho_min'"),
        ({"rolling": "pingpong"}, "'pingpong' is none of .*; nearest is 'ping_pong'"),
        ({"drift_gate_lambda": -1}, "nearest is 0"),
        ({"rolling": "sideways"}, "nearest is"),
        ({"smooth": 3}, "smooth=3: a group of settings is expected, for example smooth.old_recent=2"),
        ({"drift_gate_lambda": "nan"}, "drift_gate_lambda=nan: a number is expected here"),
        ({"offsets": "[-1]"}, "none negative"),
        ({"routing__threshold_smooth": 7}, "within -1..1; nearest is 1"),
        ({"smooth__rho_min": 0.99}, "rho_min <= rho_max"),
        ({"recall_frame__base_weight": 2}, "nearest is 1.0"),
    ],
)
def test_bad_settings_are_one_clear_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make("echo", **changes)


@pytest.mark.parametrize("name", registry.shipped())
def test_a_range_that_is_told_can_be_met(name: str) -> None:
    """Whatever one or two settings are: no rule has its end before its beginning."""
    kind = registry.find(name)
    numbers = [field.name for field in dataclasses.fields(kind) if isinstance(field.default, int) and not isinstance(field.default, bool)]
    values = (-(10**6), 0, 1, 22, 10**6)
    changes = [dict(zip(two, both)) for two in combinations(numbers, 2) for both in product(values, repeat=2)]
    told = [range_of(partial(checked, kind, change)) for change in changes]
    assert not [(change, ends) for change, ends in zip(changes, told) if ends and ends[0] > ends[1]]
    assert any(told) or numbers == ["max_position"]


def checked(kind: type[Policy], change: dict[str, int]) -> None:
    kind(**change).check(Geometry(layers=2, heads=2, head_dim=16, grid_height=2, grid_width=2), 3)


def range_of(check: Callable[[], object]) -> tuple[float, float] | None:
    try:
        check()
    except ValueError as error:
        if ends := re.search(r"within (\S+?)\.\.([^\s;]+);", str(error)):
            return float(ends[1]), float(ends[2])
    return None
