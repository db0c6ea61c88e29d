"""What a rollout holds: stores are as large as plans need and no larger, and at the real sizes the cache fits. What it waits for.

That one window for all layers gives the bits of one for each is asked of every policy in test_policies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from baselines.self_forcing import SelfForcing
from echo.backbone.wan import WanConfig, WanModel
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy, held_frames, plans
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.rollout import Rollout
from echo.sampler import schedule
from echo.scene import SceneStart, Script, Transition
from tests.helpers.compare import report
from tests.helpers.policies import GEOMETRIES, SCRIPTS, make, rows

S, HARD, RECALL = Transition.smooth, Transition.hard, Transition.recall
CHAIN = (SceneStart(0), SceneStart(4, HARD, None, 45), SceneStart(8, RECALL, 0, 4), *(SceneStart(4 * s, S) for s in range(3, 22)))
"""A recall of the first scene, and behind it a smooth chain that is longer than the pool of scenes."""


def cuts(policy: Policy, blocks: int = 8) -> Script:
    """More scenes than the pool has, entered by cuts, then a recall of the oldest that can be recalled, and a smooth scene behind it."""
    pool = policy.routed_by.pool_scenes if policy.routed_by is not None else 0
    last = pool + 2
    starts = [
        SceneStart(0),
        *(SceneStart(blocks * scene, HARD) for scene in range(1, last)),
        SceneStart(blocks * last, RECALL, last - pool, 4),
    ]
    return Script((*starts, SceneStart(blocks * (last + 1), S)), blocks * (last + 3))


SIX = (SceneStart(0), SceneStart(1, HARD), SceneStart(2, S), SceneStart(3, RECALL, 0), SceneStart(4, RECALL, 1), SceneStart(5, RECALL, 2))
REAL = Geometry(layers=30, heads=12, head_dim=128, grid_height=30, grid_width=52)
FRAME = 2 * 2 * REAL.layers * REAL.heads * REAL.head_dim * REAL.tokens_per_frame
"""Bytes of a frame's keys and values in bf16."""


@pytest.mark.parametrize(("name", "changes"), rows())
def test_the_store_is_as_large_as_plans_need(name: str, changes: dict[str, object]) -> None:
    """Path 1: what the policy says. Path 2: the most that any script's plans keep."""
    policy, sizes = make(name, **changes), GEOMETRIES[0]
    most = {story: held_frames(plans(policy, script, sizes)) for story, script in SCRIPTS.items()}
    if policy.capacity(sizes) > 2 * sizes.window_frames:
        most["chain"] = held_frames(plans(policy, Script(CHAIN, 102), sizes))
        most["cuts"] = held_frames(plans(policy, cuts(policy), sizes))
    if policy.commit:  # what only a clean pass reads may be among what the policy keeps
        assert policy.capacity(sizes) <= max(most.values()) <= policy.store_frames(sizes), most
    else:
        assert max(most.values()) == policy.capacity(sizes) == policy.store_frames(sizes), most


def test_what_a_scene_does_not_need_is_not_asked_for() -> None:
    policy, sizes = make("echo", recall_frame__part="stable", recall_frame__count=5), GEOMETRIES[0]
    assert policy.capacity(sizes) == 12 + 3 + 18 + 3, "three of five candidates lie behind the pool"
    assert held_frames(plans(policy, Script((SceneStart(0),), 4), sizes)) == 12


FULL = {"echo": 33, "echo_paper": 40, "longlive_echo": 33, "self_forcing": 18, "deep_forcing_official": 21, "longlive": 15, "memrope": 10}
LEFT = {"echo_paper": 2}
"""Frames of a scene before, which stay; a first scene has none."""


@pytest.mark.parametrize("name", FULL)
def test_a_running_block_takes_the_place_of_what_it_lets_go(name: str, model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Every slot is taken in the end and one fewer is too few; and what a window for all layers still gathers in the clean pass, some
    of it chosen out of frames that the block takes the place of, is what was gathered before."""

    def run(**options: bool | int) -> tuple[int, Tensor]:
        rollout = Rollout(model, make(name), geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), **options)
        rollout.switch(texts[:1])
        most, latents = 0, []
        for _ in range(14):
            latents.append(rollout.next().latents)
            most = max(most, len(rollout.store._slot))
        return most, torch.cat(latents, 1)

    (most, resident), (_, shared) = run(), run(shared_window=True)
    assert most == FULL[name] == make(name).capacity(geometry) - LEFT.get(name, 0)
    assert torch.equal(resident, shared), report(resident, shared)
    with pytest.raises(AssertionError, match="the store is full"):
        run(capacity=FULL[name] - 1)


class Hoarder(SelfForcing):
    """Says 18 frames and keeps all."""

    def plan(self, step: Step) -> Plan:
        plan = super().plan(step)
        return dataclasses.replace(plan, keep=frozenset(range(step.first_frame + 3)))


def test_what_is_kept_beyond_the_capacity_is_refused(model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Also where the store has room for all that the script's plans keep."""
    policy = Hoarder(label="Hoarder")
    rollout = Rollout(model, policy, geometry, keyed_noise(0, ["p"], (3, 16, 4, 6)), capacity=30)
    rollout.switch(texts[:1])
    for _ in range(6):
        rollout.next()
    with pytest.raises(ValueError, match="block 6: Hoarder keeps 21 frames, its own 3 included; its capacity says at most 18; .*say 21"):
        rollout.next()


@pytest.mark.parametrize("name", ["deep_forcing_official", "echo_paper"])
def test_a_selection_is_made_once(name: str, model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Also where every pass lays it down again; Deep-Forcing's candidates are then written over by what was chosen of them."""
    seen: dict[bool, list[tuple[int, int, list[list[int]]]]] = {False: [], True: []}
    for shared, found in seen.items():

        def keep(layer: int, plan: Plan, index: Tensor, found: list = found) -> None:
            found.append((layer, plan.block, index.tolist()))

        noise = keyed_noise(0, ["p"], (3, 16, 4, 6))
        rollout = Rollout(model, make(name), geometry, noise, shared_window=shared, on_select=keep)
        rollout.switch(texts[:1])
        for _ in range(12):
            rollout.next()
    assert seen[False] == seen[True] and len(seen[True]) == len({row[:2] for row in seen[True]}) >= 6


def tensors(thing: object) -> Iterator[Tensor]:
    """Every tensor in the state of a store or a memory."""
    if isinstance(thing, Tensor):
        yield thing
    elif type(thing).__name__ == "LayerStatistics":
        yield from tensors(vars(thing))
    elif isinstance(thing, (dict, list, tuple)):
        for value in thing.values() if isinstance(thing, dict) else thing:
            yield from tensors(value)


def held_bytes(name: str, **changes: object) -> tuple[float, float]:
    """Bytes after six scenes at the real sizes in bf16 with a window for each layer, and with one for all; of meta tensors in one
    layer, and as many times that as there are layers."""
    sizes = Geometry(1, REAL.heads, REAL.head_dim, REAL.grid_height, REAL.grid_width)
    with torch.device("meta"):
        model = WanModel(WanConfig(layers=1, ffn_dim=64, text_len=4, text_dim=8)).to(torch.bfloat16).eval().requires_grad_(False)
        still = torch.empty(1, 3, 16, sizes.latent_height, sizes.latent_width, dtype=torch.bfloat16)
        text = torch.empty(1, 4, 8, dtype=torch.bfloat16)
    rollout = Rollout(model, make(name, **changes), sizes, lambda block, draw: still, shared_window=True, steps=schedule([1000]))
    for start in SIX:
        rollout.switch(text, start.transition, start.recalls, start.jump)
        rollout.next()
    each = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for p in (rollout.store, rollout.memory) for t in tensors(vars(p))}
    held, window = sum(each.values()), rollout.window.k.nbytes + rollout.window.v.nbytes
    return (held + window) * REAL.layers, held * REAL.layers + window


def test_the_cache_of_echo_fits() -> None:
    """Six scenes, five recall frames held. Path 2: 33 + 5 frames, and one layer's share of 21; all is kept in bf16."""
    resident, shared = held_bytes("echo")
    assert shared <= 11.5e9, f"{shared / 1e9:.3f} GB"
    assert shared == pytest.approx(FRAME * (33 + 5 + 21 / REAL.layers), rel=2e-3)
    assert resident == pytest.approx(FRAME * (33 + 5 + 21), rel=2e-3)


class Transfers(TorchFunctionMode):
    """Counts tensors that come to the meta device from the host. Nothing can be read back from it: that raises."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.device.type == "meta":
            moved = any(isinstance(given, Tensor) and given.device.type == "cpu" and given.dim() for given in args)
            self.count += moved or func in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        return made


@pytest.mark.parametrize("name", ["echo", "deep_forcing_official"])
def test_no_layer_waits_for_the_host(name: str) -> None:
    """As many transfers to the device in a block with a switch and in a steady one, however many layers there are."""

    def transfers(layers: int) -> int:
        sizes = Geometry(layers, 1, 6, 1, 2)
        with torch.device("meta"):
            model = WanModel(WanConfig(6, 8, 1, layers, 8, 8, 4)).eval().requires_grad_(False)
            still, text = torch.empty(1, 3, 16, 2, 4), torch.empty(1, 4, 8)
        rollout = Rollout(model, make(name), sizes, lambda block, draw: still, shared_window=True, steps=schedule([1000]))
        rollout.switch(text)
        for _ in range(7):
            rollout.next()
        with Transfers() as seen:
            rollout.next()
            rollout.next()
            rollout.switch(text, HARD)
            rollout.next()
        return seen.count

    assert 0 < transfers(1) == transfers(2)
