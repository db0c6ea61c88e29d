"""The method as the paper writes it: each setting inside a real rollout against plain loops, and what altering it changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from echo.backbone.wan import WanModel
from echo.cache.kinds import recall_of
from echo.cache.plan import Plan
from echo.cache.window import Pass
from echo.geometry import Geometry
from echo.memory.anchors import Rolling, anchors, insertion
from echo.memory.decay import neighbourhood
from echo.memory.state import EchoMemory
from echo.noise import keyed_noise
from echo.policy import Echo
from echo.rollout import Rollout
from echo.scene import SceneStart, Transition
from tests.helpers.compare import report
from tests.helpers.policies import HARD, RECALL, S, at, make, vector

SCENES = ((10, None, None), (9, HARD, None), (9, RECALL, 0), (8, S, None))
"""Blocks of each scene, how it is entered, what it recalls."""
CLOSE = 2e-5


class Watched:
    """A rollout of `SCENES` that notes clean queries and keys of every layer and block, and weights of old memory of every block."""

    def __init__(self, model: WanModel, geometry: Geometry, texts: Tensor, name: str = "echo_paper", **changes: object) -> None:
        self.rollout = Rollout(model, make(name, **changes), geometry, keyed_noise(4, ["p"], (3, 16, 4, 6)))
        assert isinstance(self.rollout.memory, EchoMemory) and isinstance(self.rollout.policy, Echo)
        self.memory, self.policy, self.geometry = self.rollout.memory, self.rollout.policy, geometry
        self.q: dict[tuple[int, int], Tensor] = {}
        self.k: dict[tuple[int, int], Tensor] = {}
        self.named: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.fades: list[list[Tensor | None]] = []
        self.plans: list[Plan] = []
        self.gates: dict[tuple[int, int], float] = {}
        self.first: dict[tuple[int, int], Tensor] = {}
        self.rollout.window.on_attend = self._attend
        select = self.memory.select

        def spy(layer: int, plan: Plan, q: Tensor) -> Tensor:
            self.gates[layer, plan.block] = float(self.memory.gate(layer, q)[0])
            return select(layer, plan, q)

        self.memory.select = spy  # type: ignore[method-assign]
        latents = []
        for scene, (blocks, transition, recalls) in enumerate(SCENES):
            self.rollout.switch(texts[scene : scene + 1], transition, recalls, 45 if transition is HARD else 0)
            for _ in range(blocks):
                made = self.rollout.next()
                self.plans.append(made.plan)
                latents.append(made.latents)
                for layer in range(geometry.layers):
                    for past in range(made.scene):
                        if self.rollout.store.knows(recall_of(past)):
                            self.named[layer, past] = self.rollout.store.named(layer, recall_of(past))[:2]
        self.latents = torch.cat(latents, 1)

    def _attend(self, layer: int, plan: Plan, phase: Pass, q: Tensor, k: Tensor) -> None:
        if phase is Pass.CLEAN:
            self.q[layer, plan.block], self.k[layer, plan.block] = q[0].double(), k[0].double()
        if phase is Pass.FIRST:
            if layer == 0:
                self.fades.append([None if fade is None else fade[0].clone() for fade in self.memory.fade])
            self.first[layer, plan.block] = q[0].double()

    def key(self, layer: int, frame: int) -> Tensor:
        """Clean keys of a latent frame, [S, H, D]."""
        tokens = self.geometry.tokens_per_frame
        return self.k[layer, frame // 3][frame % 3 * tokens :][:tokens]


@pytest.fixture(scope="module")
def paper(model: WanModel, geometry: Geometry, texts: Tensor) -> Watched:
    return Watched(model, geometry, texts)


def recalled_keys(run: Watched, layer: int, frames: range, by_place: bool, blocks: range) -> Tensor:
    """Eqs. (8) and (9) for the scene of these frames, place by place, [S, H, D]: centres of these blocks' clean queries."""
    geometry, first = run.geometry, frames.start
    candidates = [f for f in (6, 10, 13, 16, 20) if f < len(frames)]
    fused = torch.zeros(geometry.tokens_per_frame, geometry.heads, geometry.head_dim, dtype=torch.float64)
    for u in range(geometry.tokens_per_frame):
        rows = [
            q[n] for b in blocks for q in [run.q[layer, b]] for n in range(len(q)) if not by_place or n % geometry.tokens_per_frame == u
        ]
        centre = torch.stack(rows).mean(0)
        keys = [run.key(layer, first + f)[u] for f in candidates]
        likes = [math.exp(sum(float(centre[h] @ key[h]) for h in range(geometry.heads)) / geometry.heads) for key in keys]
        for like, key in zip(likes, keys, strict=True):
            fused[u] += like / sum(likes) * key
    return fused


@pytest.mark.parametrize(
    ("changes", "by_place", "calibration"),
    [
        ({}, True, True),
        ({"recall_frame__queries": "scene"}, True, False),
        ({"recall_frame__centre": "head"}, False, True),
        ({"recall_frame__centre": "head", "recall_frame__queries": "scene"}, False, False),
    ],
)
def test_recall_frames_equal_equation_8_in_loops(
    changes: dict[str, object], by_place: bool, calibration: bool, model: WanModel, geometry: Geometry, texts: Tensor
) -> None:
    run = Watched(model, geometry, texts, **changes)
    for scene, (start, end) in enumerate([(0, 10), (10, 19)]):
        blocks = range(start, min(end, start + 7) if calibration else end)
        for layer in range(geometry.layers):
            expected = recalled_keys(run, layer, range(3 * start, 3 * end), by_place, blocks)
            ours = run.named[layer, scene][0][0].double()
            assert torch.allclose(ours, expected, atol=CLOSE), (scene, layer, report(ours, expected))


def test_the_gate_equals_equation_5_in_loops(paper: Watched, model: WanModel, geometry: Geometry, texts: Tensor) -> None:
    """Of clean queries of the block before; as released, of the block's own noisy ones. Two recent blocks count together."""
    wide: dict[str, object] = {"recent": 6, "anchors": 9}
    for run, newest in (
        (paper, 1), (Watched(model, geometry, texts, recent_centre="first_pass"), 0), (Watched(model, geometry, texts, **wide), 2),
    ):  # fmt: skip
        starts = [0, 10, 19, 28]
        for (layer, block), gate in run.gates.items():
            start = max(s for s in starts if s <= block)
            calibration = torch.cat([run.q[layer, b] for b in range(start, min(start + 7, block))])
            recent = torch.cat([run.q[layer, block - 1 - i] for i in range(newest)]) if newest else run.first[layer, block]
            a, c = recent.mean(0).flatten(), calibration.mean(0).flatten()
            norms = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in c))
            expected = math.exp(-2 * (1 - sum(float(x) * float(y) for x, y in zip(a, c, strict=True)) / norms))
            assert gate == pytest.approx(expected, abs=CLOSE), (layer, block, newest)
        assert len(run.gates) >= 2 * 8


def in_grid(row: int, column: int) -> bool:
    return 0 <= row < 2 and 0 <= column < 3


@pytest.mark.parametrize(
    ("changes", "frames", "reach"),
    [({}, 3, 1), ({"recall__place": "same"}, 3, 0), ({"recall__reference": "frame"}, 1, 1)],
    ids=["paper", "same place", "first frame"],
)
def test_weights_equal_equations_19_to_22_in_loops(
    changes: dict[str, object], frames: int, reach: int, model: WanModel, geometry: Geometry, texts: Tensor
) -> None:
    """At the recall two recall frames stand, the recalled scene's and that of the scene just left, each faded by its own keys."""
    run = Watched(model, geometry, texts, **changes)
    start, low, high = 19, -math.log(0.9), -math.log(0.55)
    for layer in range(geometry.layers):
        gaps = []
        for scene in (0, 1):
            for u, old in enumerate(run.named[layer, scene][0][0].double()):
                cosines = []
                for frame in range(frames):
                    for down in range(-reach, reach + 1):
                        for right in range(-reach, reach + 1):
                            row, column = u // 3 + down, u % 3 + right
                            if in_grid(row, column):
                                new = run.key(layer, 3 * start + frame)[3 * row + column].flatten()
                                cosines.append(float(old.flatten() @ new / (old.norm() * new.norm())))
                gaps.append(1 - max(cosines))
        mu = [low + (high - low) * (gap - min(gaps)) / (max(gaps) - min(gaps)) for gap in gaps]
        for r in range(9):
            ours = run.fades[start + r][layer]
            expected = torch.tensor([math.exp(-r * strength) for strength in mu])
            assert ours is not None and torch.allclose(ours, expected, atol=CLOSE), (layer, r, report(ours, expected))


def test_a_neighbourhood_is_what_lies_around() -> None:
    for height, width in ((2, 3), (3, 3), (1, 4), (4, 1)):
        places = neighbourhood(height, width)
        for u in range(height * width):
            around = {
                row * width + column
                for row in range(u // width - 1, u // width + 2)
                for column in range(u % width - 1, u % width + 2)
                if 0 <= row < height and 0 <= column < width
            }
            assert set(places[:, u].tolist()) == around, (height, width, u)


def test_the_walk_never_leaps() -> None:
    """C.1: 'avoiding discontinuities at cycle boundaries'. Neighbours in the queue are neighbours in time, or the same frame at a turn."""
    for active, pool in ((12, 18), (12, 12), (9, 18), (11, 18), (15, 18)):
        for update in range(60):
            queue = anchors(update, active, pool, 3, Rolling.walk)
            assert len(queue) == active and max(abs(a - b) for a, b in zip(queue[:-1], queue[1:], strict=True)) <= 1, (active, pool, update)
            assert set(queue) <= set(range(pool))
        seen = {frame for update in range(1, 13) for frame in insertion(update, active, pool, 3, Rolling.walk)}
        assert seen == set(range(pool)), "every frame of the pool has its turn"
    leaps = anchors(1, 12, 18, 3, Rolling.ping_pong)
    assert leaps[8:10] == (11, 17), "as released: in a pool of 18 the queue leaps once"
    for update in range(40):
        assert anchors(update, 12, 12, 3, Rolling.walk) == anchors(update, 12, 12, 3, Rolling.ping_pong), "a pool of 12 has no leap"


def test_old_memory_that_stays_takes_its_places_from_the_anchors() -> None:
    """One recall frame behind a hard cut, two behind a recall; with four old frames, too, the window is full and keeps its order."""
    hard = SceneStart(13, HARD, None, 45)
    assert vector(at("echo_paper", 18, hard)) == "srf0@0 " + " ".join(f"{39 + i}@{1 + i}" for i in range(18))
    assert vector(at("echo_paper", 19, hard)) == (
        "srf0@0 " + " ".join(f"{39 + f}@{1 + i}" for i, f in enumerate([*range(3, 14)]))
        + " cmp@18 cmp@18 cmp@18 54@15 55@16 56@17 57@18 58@19 59@20"
    )  # fmt: skip
    recall = SceneStart(27, RECALL, 0, 20)
    assert vector(at("echo_paper", 27, hard, recall)) == "srf0@0 srf1@1 81@22 82@23 83@24"
    late = at("echo_paper", 90, hard, recall)
    assert [slot.label() for slot in late.context[:2]] == ["srf0", "srf1"] and late.faded == 2
    for block in range(13, 60):
        plan = at("echo_paper", block, SceneStart(13, S), smooth__old_recent=3)
        kinds = [kind.value for kind in plan.kinds()]
        assert plan.faded == 4 and kinds[:4] == ["recalled", "old", "old", "old"]
        assert len(kinds) == min(4 + 3 * (block - 13) + 3, 21) or block - 13 == 5, kinds
        if block > 18:
            counts = [kinds.count(kind) for kind in ("recalled", "old", "anchor", "compressed", "recent", "current")]
            assert counts == [1, 3, 8, 3, 3, 3]
        assert all(slot.source < 3 * block for slot in plan.context if isinstance(slot.source, int)), "nothing of the future"
    with pytest.raises(ValueError, match=r"the 3 frames that smooth keeps for good stand in their places\) 2: .*nearest is 3"):
        make("echo_paper", anchors=2, compressed=13).check(Geometry(2, 2, 16, 2, 3), 40)


def test_original_times_of_compressed_tokens() -> None:
    plan = at("echo_paper", 9, compressed_position="original")
    assert ["cmp", None] in plan.key_positions() and plan.queries == (18, 19, 20)
    assert plan.selection is not None and plan.selection.own_spatial
    assert plan.selection.candidates[-1] + plan.selection.shift == 14 and 27 + plan.selection.shift == 18


ALTERED: list[tuple[str, object, int]] = [
    ("rolling", "ping_pong", 7),
    ("rolling", "per_update", 7),
    ("recent_centre", "first_pass", 7),
    ("compressed_position", "original", 7),
    ("compressed_position", "own_spatial", 7),
    ("recall_frame__centre", "head", 10),
    ("recall_frame__queries", "scene", 10),
    ("hard__blocks", 5, 15),
    ("hard__reference", "frame", 11),
    ("hard__place", "same", 11),
    ("left_at_recall", "nothing", 19),
    ("recall__old_recent", 2, 19),
    ("recall__blocks", 5, 24),
    ("recall__place", "same", 20),
    ("smooth__reference", "frame", 29),
    ("smooth__blocks", 6, 34),
]


@pytest.mark.parametrize(("setting", "value", "block"), ALTERED)
def test_a_setting_changes_the_video_from_its_block_on(
    setting: str, value: object, block: int, paper: Watched, model: WanModel, geometry: Geometry, texts: Tensor
) -> None:
    """Bit for bit the same before the first block that the setting can reach, and plainly another from there on."""
    other = Watched(model, geometry, texts, **{setting: value}).latents
    assert torch.equal(other[:, : 3 * block], paper.latents[:, : 3 * block]), setting
    later = (other - paper.latents)[:, 3 * block :].abs()
    assert float(later.max()) > 1e-4, (setting, report(other, paper.latents))
    assert float(later[:, :3].max()) > 0, (setting, report(other, paper.latents))


def test_what_the_memory_takes_is_told_exactly(paper: Watched, geometry: Geometry) -> None:
    statistics = paper.memory.layers
    tensors = [t for one in statistics for t in (*vars(one).values(), *one.newest) if isinstance(t, Tensor)]
    held = sum(t.numel() * t.element_size() for t in tensors)
    most = max(paper.policy.old_frames(transition) for transition in Transition)
    fading = 2 * most * geometry.tokens_per_frame * geometry.layers * 4
    around = paper.memory.neighbours_NS
    assert around is not None and paper.policy.memory_bytes(geometry, 1, 4) == held + fading + around.numel() * around.element_size()
