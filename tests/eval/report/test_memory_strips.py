"""Kinds of memory of a stored trace against the plans that made it."""

from __future__ import annotations

import json

import pytest

from baselines.presets import make_policy, prompt_set
from echo.cache.kinds import Kind
from echo.cache.policy import plans, script_of
from echo.files import ROOT
from echo.geometry import Geometry
from echo.scene import load_prompts
from eval.report import memory_strips

GEOMETRY = Geometry(layers=1, heads=1, head_dim=6, grid_height=1, grid_width=1)
CASES = [
    ("echo", "recall", 3), ("echo", "smooth", 0), ("echo_paper", "hard", 1), ("longlive_echo", "recall", 0), ("longlive", "hard", 0),
    ("infinity_rope", "hard", 0), ("oracle", "recall", 2), ("memrope", "long60", 0), ("deep_forcing_official", "long60", 0),
    ("rolling_sink", "long60", 0), ("recency", "long60", 0), ("longlive_commit", "long60", 0),
    ("dummy_forcing", "hard", 0),
]  # fmt: skip


def traced(preset, task, index, blocks=40):
    policy = make_policy(
        {"method": preset, "task": task} | ({"method.routing.feature": "idf"} if preset in ("echo", "longlive_echo", "oracle") else {})
    )
    prompt = load_prompts(ROOT / prompt_set(task))[index]
    made = list(plans(policy, script_of(prompt, policy, 3), GEOMETRY, None if task == "recall" else blocks))
    return policy, made, [json.loads(json.dumps(plan.as_json())) for plan in made]


@pytest.mark.parametrize(("preset", "task", "index"), CASES)
def test_kinds_are_those_of_the_plans(preset, task, index):
    """The kinds are found without the prompt: how scenes were entered and what they recalled is read off the trace."""
    policy, made, lines = traced(preset, task, index)
    found = memory_strips.kept(lines, policy)
    assert found.certain
    assert [list(block.kinds) for block in found.blocks] == [plan.kinds() for plan in made]
    assert [block.faded for block in found.blocks] == [plan.faded for plan in made]
    said = {"recency": ("bias -4.0 to -0.4",), "longlive_commit": ("clean pass R9 +3",)}
    said["dummy_forcing"] = ("first heads meet S1", "mid heads meet R3", "dummy heads meet R1")
    assert found.blocks[-1].notes == said.get(preset, ())
    assert [[list(key) for key in block.keys] for block in found.blocks] == [line["keys"] for line in lines]


def test_a_trace_of_other_code_is_guessed_and_says_so():
    policy, made, lines = traced("echo", "long60", 0)
    lines[20]["keys"][0][0] = "f999"
    found = memory_strips.kept(lines, policy)
    assert not found.certain
    right = sum(kind == other for block, plan in zip(found.blocks[7:20], made[7:20]) for kind, other in zip(block.kinds, plan.kinds()))
    assert right == sum(len(plan.kinds()) for plan in made[7:20]), "in a full window names and places tell all kinds of this policy"


def test_without_a_policy_kinds_are_guessed_by_name():
    keys = [["f0", 0], ["srf0", 1], ["cmp", 2], ["top1", None], ["mean0", 3], ["f26", 4], ["f27", 5], ["f28", 6], ["f29", 7]]
    found = memory_strips.kept([{"block": 9, "scene": 0, "keys": keys, "queries": [5, 6, 7]}], None)
    told = [Kind.ANCHOR, Kind.RECALLED, Kind.COMPRESSED, Kind.COMPRESSED, Kind.SUMMARY, Kind.RECENT, *[Kind.CURRENT] * 3]
    assert list(found.blocks[0].kinds) == told and not found.certain


def test_a_rendered_video_has_no_memory_and_its_borders():
    lines = [{"block": b, "scene": b // 3, "keys": [], "queries": []} for b in range(8)]
    found = memory_strips.kept(lines, None)
    assert found.certain and found.borders == (0, 3, 6) and not any(block.kinds for block in found.blocks)


def test_settings_that_this_code_lacks_give_no_policy():
    assert memory_strips.policy_of({"method.policy": "echo", "method.settings": {"anchors": 12}}) is not None
    assert memory_strips.policy_of({"method.policy": "echo", "method.settings": {"anchoors": 12}}) is None
    assert memory_strips.policy_of({"method.policy": "gone"}) is None and memory_strips.policy_of({}) is None
