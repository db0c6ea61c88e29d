"""The shared list: every policy's preset of conf/method, some with settings that stress them. A new policy adds one row.

And how tests make policies and ask them for single plans.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from baselines import registry
from baselines.anchor_forcing import AnchorForcing
from baselines.presets import preset
from echo.cache.plan import Plan, Step
from echo.cache.policy import Policy
from echo.geometry import Geometry
from echo.policy import Echo
from echo.scene import SceneStart, Script, Transition

PRESETS: list[tuple[str, dict[str, object]]] = [
    ("echo", {}),
    ("echo", {"pool_frames": 18, "compressed": 6, "anchors": 9, "compressed_position": "own_spatial"}),
    ("echo_official", {}),
    ("echo_paper", {}),
    ("echo_paper", {"smooth__old_recent": 3, "recall__old_recent": 3, "recent": 6, "anchors": 9}),
    ("echo_no_amp", {}),
    ("echo_no_gate", {}),
    ("echo_rolling_static", {}),
    ("echo_rolling_forward", {}),
    ("echo_rolling_backward", {}),
    ("echo_rolling_eq1", {}),
    ("echo_rolling_walk", {}),
    ("echo_gate_clean", {}),
    ("echo_anchors_6", {}),
    ("echo_anchors_9", {}),
    ("echo_anchors_15", {}),
    ("echo_lambda_05", {}),
    ("echo_lambda_1", {}),
    ("echo_lambda_2", {}),
    ("echo_lambda_3", {}),
    ("echo_lambda_5", {}),
    ("echo_recall_none", {}),
    ("echo_recall_first", {}),
    ("echo_recall_crucial", {}),
    ("echo_recall_fused", {}),
    ("echo_recall_5", {}),
    ("echo_recall_stable", {}),
    ("echo_recall_position", {}),
    ("echo_decay_none", {}),
    ("echo_decay_95", {}),
    ("echo_decay_90", {}),
    ("echo_decay_80", {}),
    ("echo_decay_tiled", {}),
    ("echo_decay_paper", {}),
    ("echo_decay_endless", {}),
    ("echo_decay_block", {}),
    ("echo_pool_18", {}),
    ("echo_no_jump", {}),
    ("echo_compressed_own", {}),
    ("echo_compressed_original", {}),
    ("self_forcing", {}),
    ("self_forcing_recache", {}),
    ("longlive", {}),
    ("longlive_local_sink", {}),
    ("longlive_relative", {}),
    ("longlive_relative", {"at_switch": "recache"}),
    ("longlive_flush", {}),
    ("longlive_keep", {}),
    ("longlive_echo", {}),
    ("longlive_echo_official", {}),
    ("longlive_echo_paper", {}),
    ("deep_forcing_official", {}),
    ("deep_forcing_official", {"unify_positions": True}),
    ("deep_forcing_official", {"recent_frames": 6, "budget_frames": 19}),
    ("deep_forcing_sink", {}),
    ("deep_forcing_table", {}),
    ("rolling_sink", {}),
    ("infinity_rope", {}),
    ("infinity_rope_official", {}),
    ("memrope", {}),
    ("memrope_per_position", {}),
    ("forget", {}),
    ("oracle", {}),
    ("oracle", {"memory_frames": 6, "routing__pool_scenes": 2}),
    ("oracle_cache", {}),
    ("oracle_cache", {"memory_frames": 6, "routing__pool_scenes": 2}),
    ("anchor_forcing", {}),
    ("relax_forcing", {}),
    ("relax_forcing", {"reservoir_frames": 12, "candidates": 2, "sink_frames": 3}),
    ("reward_ema", {}),
    ("reward_ema", {"window_frames": 15, "rate": 0.5}),
    ("dummy_forcing", {}),
    ("dummy_forcing", {"local_frames": 6, "classify_after": 14, "dummy_share": 0.25, "sink_frames": 3}),
    ("dummy_forcing_longlive", {}),
    ("dummy_forcing_longlive", {"global_sink": False, "dummy_share": 1.0}),
    ("forcing_kv", {}),
    ("forcing_kv", {"at_switch": "recache", "sink_frames": 2, "chunks": 3, "commit": 6}),
    ("streaming_llm", {}),
    ("tethercache", {}),
    ("tethercache_commit", {}),
    ("tethercache", {"memory_frames": 4, "recent_frames": 8, "sink_frames": 2}),
    ("memflow", {}),
    ("memflow", {"bank_frames": 2, "record_frames": 6, "commit": 9}),
    ("recency", {}),
    ("recency", {"chunk_frames": 2, "bias_passes": 1, "commit": 9}),
    ("streaming_llm_commit", {}),
    ("longlive_commit", {}),
    ("rolling_sink_commit", {}),
    ("echo_commit", {}),
    ("echo", {"commit": 3}),
    ("deep_forcing_official", {"commit": 9}),
    ("memrope", {"commit": 12}),
    ("oracle", {"commit": 21}),
    ("infinity_rope", {"commit": 6}),
    ("dummy_forcing", {"commit": 9}),
    ("echo_anchors_3", {}),
    ("longlive_echo_recall_none", {}),
    ("longlive_echo_recall_first", {}),
    ("longlive_echo_recall_crucial", {}),
    ("longlive_echo_recall_fused", {}),
    ("longlive_echo_decay_none", {}),
    ("longlive_echo_decay_95", {}),
    ("longlive_echo_decay_90", {}),
    ("longlive_echo_decay_80", {}),
]

S, HARD, RECALL = Transition.smooth, Transition.hard, Transition.recall
SCRIPTS = {
    "long": Script((SceneStart(0),), 60),
    "smooth": Script((SceneStart(0), SceneStart(13, S), SceneStart(27, S), SceneStart(30, S)), 45),
    "hard": Script((SceneStart(0), SceneStart(1, HARD, None, 45), SceneStart(14, HARD, None, 45)), 30),
    "recall": Script((SceneStart(0), SceneStart(13, HARD, None, 45), SceneStart(27, RECALL, 0, 3), SceneStart(30, RECALL, 1, 30)), 50),
    "mixed": Script((SceneStart(0), SceneStart(2, S), SceneStart(5, RECALL, 0, 6), SceneStart(14, S), SceneStart(25, HARD, None, 45)), 40),
}
GEOMETRIES = [Geometry(2, 2, 16, 2, 3), Geometry(1, 1, 8, 1, 1, frames_per_block=3, window_frames=21)]
FRAME_WISE = Geometry(2, 1, 12, 1, 2, frames_per_block=1)


def frame_wise(script: Script) -> Script:
    """The same script in blocks of one frame."""
    return Script(tuple(replace(start, block=3 * start.block) for start in script.starts), 3 * script.blocks)


def make_frame_wise(name: str, **changes: object) -> Policy:
    """A preset with what its policy wants of blocks of one frame: Echo's anchors fill the two frames that such a block leaves, a junction
    is one frame, read when the recent frames lie behind it."""
    policy = make(name, **changes)
    if isinstance(policy, Echo):
        return replace(policy, anchors=policy.anchors + 2, pool_frames=max(policy.pool_frames, policy.anchors + 2))
    return replace(policy, junction_frames=1, junction_after=11) if isinstance(policy, AnchorForcing) else policy


ANOTHER_NUMBER = re.compile(r".*_(lambda|decay)_(05|1|2|3|5|95|90|80)|.*_(anchors_(6|9)|recall_first|rolling_(forward|backward))")
"""Presets in which a setting of another row has another value: their plans are looked at, and the same code runs for both."""


def rows(*, run: bool = False) -> list[object]:
    """The list, and the presets of other packages that are installed here. run: those alone that run code of their own."""
    others: list[tuple[str, dict[str, object]]] = [
        (path.stem, {}) for folder in registry.conf_folders() for path in sorted((folder / "method").glob("*.yaml"))
    ]
    return [
        pytest.param(name, changes, id=name + "".join(f"-{key}={value}" for key, value in changes.items()))
        for name, changes in PRESETS + others
        if not (run and ANOTHER_NUMBER.fullmatch(name))
    ]


def make(name: str, **changes: object) -> Policy:
    """A preset with changed settings; nested ones with a double underscore. Made once: a policy is frozen."""
    return _made(name, *(f"{key.replace('__', '.')}={value}" for key, value in changes.items()))


@cache
def _made(name: str, *dotted: str) -> Policy:
    settings: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(preset("method", name)), OmegaConf.from_dotlist([*dotted])))
    return registry.make(settings["policy"], {key: value for key, value in settings.items() if key not in ("name", "policy")})


def at(name: str, block: int, *starts: SceneStart, **changes: object) -> Plan:
    return make(name, **changes).plan(Step(block, (SceneStart(0), *starts), GEOMETRIES[0]))


def vector(plan: Plan) -> str:
    """`source@position` for every key, frames as bare numbers."""
    sources = [(source[1:] if source[1:].isdigit() else source, position) for source, position in plan.key_positions()]
    return " ".join(f"{source}@{position}" for source, position in sources)


def recache(name: str, block: int, **changes: object) -> Plan | None:
    return make(name, **changes).recache(Step(block, (SceneStart(0), SceneStart(block, HARD)), GEOMETRIES[0]))
