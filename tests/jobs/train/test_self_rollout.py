"""Training on own rollouts: the rollout against the engine's, scores against single blocks, the gradient against its limits."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from baselines.presets import make_policy
from echo.backbone.load import Backbone, load
from echo.rollout import Rollout
from jobs.train import self_rollout, streams
from jobs.train.self_rollout import RolloutTraining, SelfRollout, flows, matching_gradient
from jobs.train.streams import TrainingStream, trainable
from tests.helpers.toy import TEXTS, write_backbone

SMALL = RolloutTraining(steps=4, blocks_per_step=7, warm_up=2, ema=0.5)


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The toy in full precision, drawing words that it knows."""
    monkeypatch.setattr(streams, "precision", lambda device: nullcontext())
    monkeypatch.setattr(self_rollout, "precision", lambda device: nullcontext())
    monkeypatch.setattr(self_rollout, "sentence", lambda words, choice: TEXTS[choice % 2])
    return load(str(write_backbone(tmp_path / "model.safetensors")))


class Draws:
    """Noise of both paths: the same tensors in the same order."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *_: int) -> torch.Tensor:
        return torch.randn(2, 3, 16, 4, 4, generator=self.generator)


@pytest.mark.parametrize("name", ["self_forcing", "longlive"])
def test_rollout_equals_the_engines(backbone: Backbone, name: str) -> None:
    policy = make_policy({"method": name})
    rollout = Rollout(backbone.model, policy, backbone.geometry, Draws(3), batch=2)
    rollout.switch(backbone.text.encode(TEXTS))
    network = trainable(backbone)
    stream = TrainingStream(backbone.geometry, policy, list(TEXTS), torch.Generator().manual_seed(3))
    text = network.states(network.text.rows(TEXTS))
    for block in range(9):
        kept = stream.block(network, text, learned=block % 4)
        theirs = rollout.next().latents
        difference = (stream.latents[-1] - theirs).abs()
        assert difference.max() < 1e-4, f"block {block}: max {difference.max():.1e}, mean {difference.mean():.1e}"
        if block % 4 == 3:
            assert torch.equal(kept.detach(), stream.latents[-1])
    kept.sum().backward()
    assert all(p.grad is not None for p in (network.model.patch_embedding.weight, network.text.embedding.weight))


def test_scores_of_the_last_blocks_do_not_depend_on_how_many_are_asked(backbone: Backbone) -> None:
    network = trainable(backbone)
    rows = network.text.rows(TEXTS)
    generator = torch.Generator().manual_seed(0)
    clip, noisy = (torch.randn(2, 12, 16, 4, 4, generator=generator) for _ in range(2))
    sigma = torch.rand(2, 4, generator=generator)
    with torch.no_grad():
        whole = flows(network, rows, clip[:, :9], noisy, sigma)
        part = flows(network, rows, clip[:, :9], noisy[:, 6:], sigma[:, 2:])
        first = flows(network, rows, clip[:, :0], noisy[:, :3], sigma[:, :1])
        other = flows(network, rows, clip[:, :9] * 2, noisy, sigma)
    for name, ours, theirs in (("last", part, whole[:, 6:]), ("first", first, whole[:, :3])):
        difference = (ours - theirs).abs()
        assert difference.max() < 1e-5, f"{name}: max {difference.max():.1e}, mean {difference.mean():.1e}"
    assert (other - whole)[:, 3:].abs().max() > 1e-3 and torch.allclose(other[:, :3], whole[:, :3], atol=1e-5)


def test_gradient_vanishes_where_critic_and_teacher_agree_and_points_from_critic_to_teacher() -> None:
    x0, real, fake = torch.randn(3, 2, 6, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert matching_gradient(x0, real, real).abs().max() == 0
    gradient = matching_gradient(x0, real, fake)
    for block in (slice(0, 3), slice(3, 6)):
        expected = (fake - real)[:, block] / (x0 - real)[:, block].abs().flatten(1).mean(1)[:, None, None, None, None]
        difference = (gradient[:, block] - expected).abs()
        assert difference.max() < 1e-5, f"max {difference.max():.1e}, mean {difference.mean():.1e}"


def test_killed_and_resumed_learns_what_uninterrupted_does(backbone: Backbone, tmp_path: Path) -> None:
    whole = SelfRollout(SMALL, backbone, tmp_path / "whole")
    for _ in range(3):
        whole.iterate()
    first = SelfRollout(SMALL, backbone, tmp_path / "killed")
    first.iterate()
    first.save()
    second = SelfRollout(SMALL, backbone, tmp_path / "killed")
    second.resume()
    for _ in range(2):
        second.iterate()
    assert second.step == whole.step and second.clips == whole.clips
    for ours, theirs in zip(second.average, whole.average, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.average[0], whole.average[0])
    with pytest.raises(ValueError, match=r"seed 0 \(now 1\)"):
        SelfRollout(dataclasses.replace(SMALL, seed=1), backbone, tmp_path / "killed").resume()
    with pytest.raises(ValueError, match="processes=2: noise is keyed by process"):
        SelfRollout(SMALL, backbone, tmp_path / "killed", share=(0, 2)).resume()


def test_low_rank_training_touches_nothing_else_and_ships_what_it_learned(backbone: Backbone, tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, policy="longlive", low_rank=2, horizon=6, new=2, streams=2, blocks_per_step=4)
    run = SelfRollout(settings, backbone, tmp_path / "run")
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    for _ in range(7):
        run.iterate()
    lengths = [len(stream.latents) for stream, _ in run.streams.values()]
    assert run.clips == 4 + 2 and lengths == [2, 6], (run.clips, lengths)
    run.export(tmp_path, {"teacher": {"weights": "none"}})
    tuned = load(str(tmp_path / "model.safetensors"), lora=str(tmp_path / "lora.safetensors")).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], tuned[name])}
    assert changed and all(name.startswith("blocks.") and name.endswith("weight") for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())
