"""Replay of recorded cases: noise, prompt embeddings, latents and selections (.npz), described by a meta file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
import torch
from torch import Tensor

from baselines import registry
from baselines.presets import preset
from echo.backbone.wan import WanConfig, WanModel
from echo.cache.plan import Plan
from echo.cache.policy import Policy
from echo.files import Json, read_json, read_text
from echo.geometry import Geometry
from echo.noise import Noise
from echo.refusals import Unfinished, first_line, nearest, reading
from echo.rollout import Rollout
from echo.scene import Transition

RECORD = "record it again"
MODES = {"smooth": Transition.smooth, "hardcut": Transition.hard, "hard": Transition.hard, "recall": Transition.recall}
OVERRIDES = {"drift_gate_lambda": "drift_gate_lambda", "use_amplitude_compensation": "amplitude", "use_drift_gate": "drift_gate"}
"""Released names of settings that a case may override, and ours; other names are the policy's own.

`rolling_cycle` is the number of insertions in one pass over the pool.
"""


@dataclass(frozen=True)
class Case:
    """A recorded rollout: arrays, its entry of the meta file, and the toy model's."""

    name: str
    arrays: Mapping[str, np.ndarray]
    entry: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def geometry(self) -> Geometry:
        height, width = self.model["FSL_HW"]
        window = self.model.get("local_attn", 21)
        return Geometry(
            layers=self.model["LAYERS"], heads=self.model["NH"], head_dim=self.model["HD"], grid_height=height, grid_width=width,
            latent_channels=self.arrays["noise"].shape[2], frames_per_block=self.model.get("num_frame_per_block", 3),
            window_frames=window if window > 0 else 21,
        )  # fmt: skip


@dataclass
class Selections:
    """Collects selections as (layer, first history frame, indices), in the order in which they are made."""

    rows: list[tuple[int, int, list[int]]] = field(default_factory=list)

    def __call__(self, layer: int, plan: Plan, index_BK: Tensor) -> None:
        assert plan.selection is not None
        first = next(source for source in plan.selection.candidates if isinstance(source, int))
        self.rows.append((layer, first, index_BK[0].tolist()))


def load_case(path: Path, meta_path: Path) -> Case:
    """Load a case. Raises ValueError if the meta file has no entry of its name."""
    with reading(meta_path, RECORD):
        meta: dict[str, Json] = msgspec.convert(read_json(read_text(meta_path), str(meta_path)), dict[str, Json])
    if path.stem not in meta:
        raise ValueError(f"{meta_path}: no case {path.stem!r}; it has {', '.join(k for k in meta if not k.startswith('_'))}")
    with reading(path, RECORD), np.load(path) as arrays:
        case = Case(path.stem, {key: arrays[key] for key in arrays.files}, meta[path.stem], meta.get("_model", {}))
    check(case)
    return case


def check(case: Case) -> None:
    """Raises ValueError for missing or impossible values of a case."""
    lacking = [key for key in ("noise", "renoise", "prompt_embeds", "latents") if key not in case.arrays]
    lacking += [f"_model.{key}" for key in ("FSL_HW", "NH", "HD", "LAYERS", "TEXT_LEN") if key not in case.model]
    lacking += ["blocks"] * ("blocks" not in case.entry)
    if lacking:
        raise ValueError(f"case {case.name}: lacks {', '.join(lacking)}")
    modes = case.entry.get("modes", [])
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"case {case.name}: unknown mode {mode!r}; nearest is {nearest(mode, MODES)!r}")
    recalls = [scene for scene, mode in enumerate(modes[: len(case.entry["blocks"]) - 1], 1) if mode == "recall"]
    unsaid = [scene for scene in recalls if str(scene) not in case.entry.get("recall_targets", {})]
    if unsaid or len(recalls) > len(case.entry.get("recall_jumps", [])):
        raise ValueError(f"case {case.name}: scenes {recalls} recall; each needs a recall_targets entry and a recall_jumps one")


def load_model(path: Path, case: Case) -> WanModel:
    """The toy network in fp32, with sizes from the weights. Raises ValueError for weights that do not fit."""
    with reading(path, RECORD), np.load(path) as arrays:
        state = {key: torch.from_numpy(arrays[key]).float() for key in arrays.files}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if "patch_embedding.weight" not in shapes:
        raise ValueError(f"{path}: no patch_embedding.weight; weights stand under Wan checkpoint names")
    text_len = max(case.model["TEXT_LEN"], case.arrays["prompt_embeds"].shape[1])
    model = WanModel(WanConfig.from_weights(shapes, heads=case.model["NH"], text_len=text_len))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"{path}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model.eval()


def make_policy(case: Case) -> Policy:
    """The case's policy: a preset of conf/method with the case's overrides."""
    name = case.entry.get("policy", "echo_official")
    settings = {key: value for key, value in preset("method", name).items() if key != "name"}
    kind = settings.pop("policy")
    for key, value in case.entry.get("pc", {}).items():
        if key == "rolling_cycle":
            settings["pool_frames"] = case.geometry.frames_per_block * value
        else:
            settings[OVERRIDES.get(key, key)] = value
    return registry.make(kind, settings)


def recorded_noise(case: Case) -> Noise:
    """The case's noise, and its re-noise draws in order."""
    size = case.geometry.frames_per_block
    first = torch.from_numpy(case.arrays["noise"]).float()
    rest = torch.from_numpy(case.arrays["renoise"]).float()
    draws = len(rest) // (first.shape[1] // size)

    def noise(block: int, draw: int) -> Tensor:
        if draw == 0:
            return first[:, block * size : (block + 1) * size]
        return rest[block * draws + draw - 1].unsqueeze(0)

    return noise


def scene_starts(case: Case) -> dict[int, tuple[int, Transition | None, int | None, int]]:
    """Block at which each scene begins -> (scene, transition, recalled scene, jump)."""
    routing = make_policy(case).routed_by
    modes = [MODES[mode] for mode in case.entry.get("modes", ["smooth"] * len(case.entry["blocks"]))]
    if "rope_cut" in case.entry:  # says whether switches cut, whatever the modes are called
        modes = [Transition.hard if case.entry["rope_cut"] else Transition.smooth] * len(modes)
    targets, jumps = case.entry.get("recall_targets", {}), iter(case.entry.get("recall_jumps", []))
    starts: dict[int, tuple[int, Transition | None, int | None, int]] = {0: (0, None, None, 0)}
    block = 0
    for scene, length in enumerate(case.entry["blocks"][:-1], 1):
        block += length
        transition, target, jump = modes[scene - 1], None, 0
        if transition is Transition.recall:
            target, jump = int(targets[str(scene)]), next(jumps)
        elif routing is not None:
            jump = routing.jump_hard if transition is Transition.hard else routing.jump_smooth
        starts[block] = (scene, transition, target, jump)
    return starts


def replay(case: Case, model: WanModel) -> tuple[Tensor, Selections]:
    """Latents [1, F, C, H, W] of our engine under the case's noise and prompts, and its selections."""
    selections = Selections()
    texts = torch.from_numpy(case.arrays["prompt_embeds"]).float()
    rollout = Rollout(model, make_policy(case), case.geometry, recorded_noise(case), on_select=selections)
    blocks = case.arrays["noise"].shape[1] // case.geometry.frames_per_block
    rollout.policy.check(case.geometry, blocks)
    starts = scene_starts(case)
    latents = []
    for block in range(blocks):
        if block in starts:
            scene, transition, target, jump = starts[block]
            rollout.switch(texts[scene : scene + 1], transition, target, jump)
        latents.append(rollout.next().latents)
    return torch.cat(latents, dim=1), selections


Compared = TypedDict(
    "Compared",
    {
        "case": str, "max_abs_diff": float, "mean_abs_diff": float, "first_frame_over_1e-4": int | None, "selection_mismatches": int,
        "selections": int,
    },
)  # fmt: skip
"""Printed comparison of a case."""


def compare(case: Case, latents: Tensor, selections: Selections) -> Compared:
    """The comparison: largest and mean difference, first deviating frame, number of differing selections."""
    difference = (latents - torch.from_numpy(case.arrays["latents"])).abs()
    per_frame = difference.amax(dim=(0, 2, 3, 4))
    off = (~(per_frame <= 1e-4)).nonzero()
    index = case.arrays.get("sel_index", np.zeros((0, 0), dtype=np.int32))
    recorded = list(zip(case.arrays.get("sel_layer", []), case.arrays.get("sel_first_frame", []), index, strict=True))
    wrong = abs(len(recorded) - len(selections.rows)) if recorded or "sel_index" in case.arrays else 0
    for (layer, frame, expected), ours in zip(recorded, selections.rows, strict=False):
        wrong += int((layer, frame, expected.tolist()) != ours)
    return {
        "case": case.name,
        "max_abs_diff": float(difference.max()),
        "mean_abs_diff": float(difference.mean()),
        "first_frame_over_1e-4": int(off[0]) if len(off) else None,
        "selection_mismatches": wrong,
        "selections": len(selections.rows),
    }


def replay_case(case: Path, /, *, weights: Path, meta: Path, tolerance: float = 1e-5) -> Iterator[str]:
    """Replay a recorded case and compare.

    One JSON line is printed; the exit status is 1 if latents differ by more than the tolerance or a selection differs.

        echo-harness replay tests/golden/recall.npz --weights tests/golden/toy_weights.npz --meta tests/golden/meta.json

    Args:
        case: recorded case, .npz.
        weights: weights under Wan checkpoint names, .npz.
        meta: meta.json that describes the cases.
        tolerance: largest allowed difference of a latent.
    """
    torch.set_num_threads(1)
    recorded = load_case(case, meta)
    try:
        result = compare(recorded, *replay(recorded, load_model(weights, recorded)))
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError) as error:
        fault = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise ValueError(f"{meta}: case {case.stem} does not fit {case} and {weights} ({fault}); {RECORD}") from None
    yield json.dumps(result)
    if not result["max_abs_diff"] <= tolerance or result["selection_mismatches"] > 0:
        raise Unfinished
