"""The backbone's training: a kill changes nothing, other settings are refused, what is exported loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from echo.backbone.load import load
from echo.backbone.parts.codec import PatchCodec
from echo.refusals import Unfinished
from jobs import cli
from jobs.train import backbone, processes
from jobs.train.backbone import BackboneTraining, Trainer, compare, export_weights, train
from jobs.train.data import fit_codec, make_batch
from jobs.train.teacher_forcing import loss_of

SMALL = BackboneTraining(plan="0:4", frames_per_step=45, dim=24, heads=2, layers=1, ffn_dim=32, freq_dim=16, text_dim=8, warm_up=2)
CPU = torch.device("cpu")


def coarse() -> PatchCodec:
    """A codec of 24 clips: the shipped one takes 768, and seconds, in every process."""
    return fit_codec(24)


@pytest.fixture(autouse=True)
def quick_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "fit_codec", coarse)


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_as_uninterrupted(tmp_path: Path) -> None:
    whole = Trainer(SMALL, tmp_path / "whole", CPU)
    train_all(whole)
    first = Trainer(SMALL, tmp_path / "killed", CPU)
    for _ in range(2):
        first.train_step()
    first.save()
    second = Trainer(SMALL, tmp_path / "killed", CPU)
    second.resume()
    assert second.step == 2
    train_all(second)
    assert second.clips == whole.clips
    for ours, theirs in zip(second.average, whole.average, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.average[0], whole.average[0])


def train_all(trainer: Trainer) -> None:
    trainer.folder.mkdir(parents=True, exist_ok=True)
    train(trainer, save_every=2)


def test_under_lights_a_training_goes_on_from_what_the_backbone_knows(tmp_path: Path) -> None:
    """All weights, all words and the codec are the shipped ones; a word that is new has a vector of its own, and small."""
    trainer = Trainer(dataclasses.replace(BackboneTraining(), start="data/weights/tiny/model.safetensors"), tmp_path, CPU)
    known = load("data/weights/tiny/model.safetensors")
    for name, value in known.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value), name
    assert torch.equal(trainer.codec.basis, known.codec.basis)
    said = ["A red ball moves left over a plain meadow."]
    assert torch.equal(trainer.text.encode(said), known.text.encode(said))
    lit = trainer.text.encode([f"{said[0][:-1]}, under a passing beam."])[0]
    assert torch.equal(lit[:5], known.text.encode(said)[0, :5]) and 0 < lit[5].norm() < known.text.embedding.weight.norm(dim=1).min()


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tmp_path, CPU)
    trainer.save()
    with pytest.raises(ValueError, match=r"seed 0 \(now 1\)"):
        Trainer(dataclasses.replace(SMALL, seed=1), tmp_path, CPU).resume()


@pytest.mark.slow
def test_steps_can_be_planned_anew_and_it_shows(tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tmp_path, CPU)
    trainer.train_step()
    trainer.save()
    with pytest.raises(ValueError, match=r"plan 0:4 \(now 0:3\)"):
        Trainer(dataclasses.replace(SMALL, plan="0:3"), tmp_path, CPU).resume()
    shorter = Trainer(SMALL, tmp_path, CPU)
    shorter.resume(replan=3)
    assert shorter.settings.plan == "0:4,1:3" and shorter.step == 1 and shorter.settings.steps == 3
    assert [shorter.settings.steps_at(step) for step in (0, 1, 2)] == [4, 3, 3]
    for plan, rule in (("1:4", "starts at step 0"), ("0:4,0:3", "later and later"), ("0-4", "START:STEPS")):
        with pytest.raises(ValueError, match=rule):
            BackboneTraining(plan=plan)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(4))
def test_shares_of_a_step_add_up_to_it(tmp_path: Path, step: int) -> None:
    settings = dataclasses.replace(SMALL, frames_per_step=180)

    def learned(share: tuple[int, int]) -> tuple[float, torch.Tensor]:
        trainer = Trainer(settings, tmp_path, CPU, share)
        with torch.no_grad():
            trainer.model.head.head.weight.add_(0.01)  # as created it answers zero, and nothing below it learns
        batch = make_batch(trainer.codec, 0, step, 4, 180, share)
        loss = loss_of(trainer.model, trainer.text, batch, CPU)
        loss.backward()
        return float(loss.detach()), torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None])

    whole, parts = learned((0, 1)), [learned((which, 2)) for which in range(2)]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], rel=1e-3)
    gradient = parts[0][1] + parts[1][1]
    difference = (gradient - whole[1]).norm() / whole[1].norm()
    assert difference < 0.02, f"relative difference of gradients {difference:.1e} (bf16 products)"
    assert (parts[0][1] - whole[1]).norm() / whole[1].norm() > 0.2


def with_coarse_codec(rank: int, count: int, work: Callable[..., None], arguments: tuple) -> None:
    """A process's own modules are fresh."""
    backbone.fit_codec = coarse
    work(rank, count, *arguments)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = processes.start
    monkeypatch.setattr(processes, "start", lambda work, arguments, count: start(with_coarse_codec, (work, arguments), count))
    sizes = "plan=0:3 frames_per_step=180 dim=24 heads=2 layers=1 ffn_dim=32 freq_dim=16 text_dim=8 warm_up=2"
    losses = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        assert cli.main(["train", "backbone", *sizes.split(), f"processes={count}", f"--folder={folder}", f"--output={folder}"]) == 0
        losses.append(torch.load(folder / "checkpoint.pt", weights_only=True))
    one, two = (torch.cat([part.flatten() for part in loss["average"]]) for loss in losses)
    difference = (one - two).abs()  # a number that hardly counts may go either way, a whole step of Adam
    assert difference.mean() < 1e-4 and difference.max() < 5e-3, f"max {difference.max():.1e}, mean {difference.mean():.1e}"
    assert losses[0]["clips"] == losses[1]["clips"]


def test_weights_are_kept_along_the_way(tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tmp_path, CPU)
    train(trainer, save_every=4, keep_every=2)
    kept = [json.loads((tmp_path / f"step-{step}" / "provenance.json").read_text())["steps_done"] for step in (2, 4)]
    assert kept == [2, 4] and sorted(path.name for path in tmp_path.glob("step-*")) == ["step-2", "step-4"]
    early, late = (load(str(tmp_path / f"step-{step}" / "model.safetensors")).model for step in (2, 4))
    assert not torch.equal(early.patch_embedding.weight, late.patch_embedding.weight)


def test_export_loads_and_says_where_it_comes_from(tmp_path: Path) -> None:
    trainer = Trainer(SMALL, tmp_path / "run", CPU)
    trainer.train_step()
    export_weights(trainer, tmp_path / "out")
    backbone = load(str(tmp_path / "out" / "model.safetensors"))
    sentence = ["a red ball moves left over a plain meadow"]
    assert backbone.text.encode(sentence).shape == (1, 8, 8)
    assert backbone.geometry.head_dim == 12 and backbone.geometry.grid_height == 4
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["steps_done"] == 1 and record["settings"]["dim"] == 24
    assert {"data_version", "loss", "hardware", "wall_time_s", "commit"} <= record.keys()


def test_loss_curves_are_compared_point_by_point(tmp_path: Path) -> None:
    def log(name: str, losses: dict[int, float]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in losses.items()))
        return path

    shipped = log("shipped", {10: 2.0, 20: 1.0, 30: 0.5})
    for name, losses, status in (
        ("same", {10: 2.0, 20: 1.0, 30: 9.0}, 0), ("near", {10: 2.0, 20: 1.009}, 0), ("far", {10: 2.0, 20: 1.011}, 1),
        ("broken", {10: float("nan"), 20: 1.0}, 1), ("short", {10: 2.0}, 1), ("empty", {}, 1),
    ):  # fmt: skip
        with pytest.raises(Unfinished) if status else nullcontext():
            assert "2 points to step 20" in compare(log(name, losses), shipped, 20), name
