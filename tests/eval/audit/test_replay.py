"""Recorded rollouts of the released code, replayed; and every feature altered, to see that the replay would notice."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from echo.memory.anchors import Rolling
from echo.memory.settings import DecayMap
from echo.policy import Echo
from echo.rollout import Rollout
from echo.scene import Transition
from eval.audit import replay
from jobs import cli
from tests.helpers.command import ended_here

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
WEIGHTS = GOLDEN / "toy_weights.npz"
CASES = ["long", "recall", "hardcut", *sorted(f"baselines/{path.stem}" for path in (GOLDEN / "baselines").glob("*.npz"))]


def load(name: str) -> replay.Case:
    path = GOLDEN / f"{name}.npz"
    return replay.load_case(path, path.parent / "meta.json")


def run(name: str, monkeypatch: pytest.MonkeyPatch | None = None, **changes: object) -> dict[str, object]:
    case = load(name)
    if changes and monkeypatch is not None:
        policy = dataclasses.replace(replay.make_policy(case), **changes)
        monkeypatch.setattr(replay, "make_policy", lambda _: policy)
    return replay.compare(case, *replay.replay(case, replay.load_model(WEIGHTS, case)))


@pytest.mark.parametrize("name", CASES)
def test_recorded_cases_replay(name: str) -> None:
    result = run(name)
    assert result["max_abs_diff"] < 1e-5 and result["selection_mismatches"] == 0, result
    assert result["first_frame_over_1e-4"] is None
    assert result["selections"] == {"long": 16, "hardcut": 16, "baselines/deep_forcing_official": 12}.get(name, 0)


RELEASED = Echo()
MUTATIONS = {
    "direction of rolling": ("long", {"rolling": Rolling.forward}),
    "order as eq. (1) is printed": ("long", {"rolling": Rolling.per_update}),
    "pool": ("long", {"pool_frames": 18}),
    "lambda": ("hardcut", {"drift_gate_lambda": 2.0}),
    "amplitude": ("long", {"amplitude": False}),
    "gate": ("hardcut", {"drift_gate": False}),
    "offsets": ("long", {"offsets": (1,)}),
    "calibration": ("long", {"calibration_frames": 9}),
    "base-frame blend": ("recall", {"recall_frame": dataclasses.replace(RELEASED.recall_frame, base_weight=0.0)}),
    "recall candidates": ("recall", {"recall_frame": dataclasses.replace(RELEASED.recall_frame, stride=1)}),
    "decay": ("recall", {"recall": dataclasses.replace(RELEASED.recall, rho_min=0.9)}),
    "decay law": ("recall", {"recall": dataclasses.replace(RELEASED.recall, map=DecayMap.mu)}),
    "life of the old memory": ("recall", {"recall": dataclasses.replace(RELEASED.recall, blocks=3)}),
    "first weight": ("hardcut", {"hard": dataclasses.replace(RELEASED.hard, weight=1.0)}),
    "jump": ("hardcut", {"routing": dataclasses.replace(RELEASED.routing, jump_hard=44)}),
}


@pytest.mark.parametrize("feature", MUTATIONS)
def test_an_altered_feature_is_seen(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes = MUTATIONS[feature]
    result = run(name, monkeypatch, **changes)
    assert result["max_abs_diff"] > 1e-4 or result["selection_mismatches"] > 0, (feature, result)
    assert result["max_abs_diff"] > 2e-5, (feature, result)


def test_the_recalled_scene_matters() -> None:
    case = load("recall")
    other = dataclasses.replace(case, entry={**case.entry, "recall_targets": {"3": 1, "4": 2}})
    result = replay.compare(other, *replay.replay(other, replay.load_model(WEIGHTS, other)))
    assert result["max_abs_diff"] > 1e-3, result


def test_a_smooth_chain_of_the_official_preset_runs_to_the_end() -> None:
    """No recorded smooth case ships; the same network must at least carry three old frames through a scene of nine blocks."""
    case = load("hardcut")
    smooth = dataclasses.replace(case, entry={**case.entry, "modes": ["smooth", "smooth"]})
    latents, selections = replay.replay(smooth, replay.load_model(WEIGHTS, smooth))
    assert bool(torch.isfinite(latents).all()) and len(selections.rows) == 16
    starts = replay.scene_starts(smooth)
    assert starts[10] == (1, Transition.smooth, None, 0)


def test_command_line(tmp_path: Path) -> None:
    def command(*extra: str, case: Path = GOLDEN / "hardcut.npz") -> subprocess.CompletedProcess[str]:
        return ended_here(lambda: cli.main(["replay", str(case), "--weights", str(WEIGHTS), "--meta", str(GOLDEN / "meta.json"), *extra]))

    good = command()
    assert good.returncode == 0, good.stderr
    line = json.loads(good.stdout)
    assert list(line) == ["case", "max_abs_diff", "mean_abs_diff", "first_frame_over_1e-4", "selection_mismatches", "selections"]
    assert command("--tolerance", "1e-9").returncode == 1
    unknown = command(case=WEIGHTS)
    assert unknown.returncode == 2 and "no case 'toy_weights'" in unknown.stderr


def test_an_unknown_override_is_refused() -> None:
    case = load("long")
    with pytest.raises(ValueError, match="unknown setting 'rolling_cicle' of policy echo"):
        replay.make_policy(dataclasses.replace(case, entry={**case.entry, "pc": {"rolling_cicle": 6}}))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"modes": ["hardcuts"]}, "unknown mode 'hardcuts'; nearest is 'hardcut'"),
        ({"modes": ["recall"] * 5, "recall_targets": {}}, "each needs a recall_targets entry"),
        ({"modes": ["recall"] * 5, "recall_jumps": []}, "and a recall_jumps one"),
    ],
)
def test_cases_that_lack_something(entry: dict[str, object], message: str) -> None:
    case = load("recall")
    with pytest.raises(ValueError, match=message):
        replay.check(dataclasses.replace(case, entry={**case.entry, **entry}))
    with pytest.raises(ValueError, match=r"lacks renoise, _model.NH"):
        arrays = {key: value for key, value in case.arrays.items() if key != "renoise"}
        replay.check(dataclasses.replace(case, arrays=arrays, model={k: v for k, v in case.model.items() if k != "NH"}))


def test_rope_cut_decides_whatever_the_modes_say() -> None:
    for name in ("infinity_rope_official", "infinity_rope_official_cut"):
        case = load(f"baselines/{name}")
        odd = dataclasses.replace(case, entry={**case.entry, "modes": ["smooth" if case.entry["rope_cut"] else "hardcut"] * 2})
        result = replay.compare(odd, *replay.replay(odd, replay.load_model(WEIGHTS, odd)))
        assert result["max_abs_diff"] < 1e-5, result


def test_rolling_cycle_counts_insertions() -> None:
    case = load("long")
    policy = replay.make_policy(dataclasses.replace(case, entry={**case.entry, "pc": {"rolling_cycle": 6}}))
    assert isinstance(policy, Echo) and policy.pool_frames == 18


def test_rollouts_are_repeatable() -> None:
    case = load("recall")
    model = replay.load_model(WEIGHTS, case)
    first, second = (replay.replay(case, model)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert Rollout(model, replay.make_policy(case), case.geometry, replay.recorded_noise(case)).store.bytes > 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("recall.npz", b"PK\x03\x04", b"PK\x03\x05"),
        ("toy_weights.npz", b"PK\x03\x04", b"PK\x03\x05"),
        ("meta.json", b"{", b"[{"),
        ("meta.json", b'"LAYERS": 2', b'"LAYERS": null'),
        ("meta.json", b'"LAYERS": 2', b'"LAYERS": 1e400'),
    ],
)
def test_files_that_cannot_be_read_are_one_line(
    file: str, old: bytes, new: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("recall.npz", "toy_weights.npz", "meta.json"):
        content = (GOLDEN / name).read_bytes()
        assert name != file or old in content
        (tmp_path / name).write_bytes(content.replace(old, new) if name == file else content)
    words = ["replay", f"{tmp_path}/recall.npz", "--weights", f"{tmp_path}/toy_weights.npz", "--meta", f"{tmp_path}/meta.json"]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/{file}: " in told and told.count("\n") == 1
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)  # reading it would never end
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/{file}: is a pipe; a " in told and told.count("\n") == 1
