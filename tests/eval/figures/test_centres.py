"""Query centres of a file in TriAttention's form, and what is computed of them, against plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.presets import make_policy
from echo.backbone import rope
from echo.policy import settings_of
from eval.figures import command
from eval.figures.recorded import centres

LAYERS, HEADS, CHANNELS = 2, 3, 16
RULES = settings_of(make_policy({"method": "echo"}))


def write(path: Path, seed: int = 0, **change: object) -> Path:
    """A made-up file of the published form."""
    draw = torch.Generator().manual_seed(seed)
    stats = {}
    for layer in range(LAYERS):
        for head in range(HEADS):
            q = torch.randn(50, CHANNELS, dtype=torch.complex64, generator=draw) + 1.5
            stats[f"layer{layer:02d}_head{head:02d}"] = {
                "q_mean_real": q.mean(0).real, "q_mean_imag": q.mean(0).imag, "q_abs_mean": q.abs().mean(0),
            }  # fmt: skip
    heads = [[layer, head] for layer in range(LAYERS) for head in range(HEADS)]
    torch.save({"metadata": {"head_dim": 2 * CHANNELS, "sampled_heads": heads}, "stats": stats} | change, path)
    return path


def test_numbers_of_a_file_against_loops(tmp_path: Path) -> None:
    one, other = (centres.read_centres(write(tmp_path / f"{seed}.pt", seed)) for seed in (0, 1))
    numbers = centres.measure(one, other, RULES, 9)
    assert one.layers == [0, 0, 0, 1, 1, 1] and numbers.heads == 6
    omega = rope.temporal_frequencies(2 * CHANNELS).tolist()
    time = rope.split(2 * CHANNELS)[0]
    c, size = one.centre.numpy().astype(complex), one.magnitude.numpy()
    shares = [[abs(c[n, f]) / sum(abs(c[n, g]) for g in range(time)) for f in range(time)] for n in range(6)]
    phase = np.zeros((6, 9))
    for n in range(6):
        for age in range(9):
            for f in range(CHANNELS):
                turned = sum(math.cos(omega[f] * (age + o)) for o in RULES.offsets) / len(RULES.offsets)
                phase[n, age] += abs(c[n, f]) ** 2 * turned
        phase[n] /= sum(abs(c[n, f]) ** 2 for f in range(CHANNELS))
    gates = []
    for layer in range(LAYERS):
        a, b = (np.concatenate([each.centre.numpy()[3 * layer + h] for h in range(HEADS)]) for each in (one, other))
        cosine = (a.conj() * b).real.sum() / (np.linalg.norm(a) * np.linalg.norm(b))
        gates.append(math.exp(-RULES.drift_gate_lambda * (1 - cosine)))
    assert numbers.agreement is not None and numbers.gate is not None
    for ours, plain in (
        (numbers.share, np.mean(shares, 0)), (numbers.phase.median, np.median(phase, 0)), (numbers.gate, gates),
        (numbers.concentration.low, np.quantile(np.abs(c) / size, 0.25, axis=0)), ([numbers.surplus], [1 - np.abs(c).sum() / size.sum()]),
    ):  # fmt: skip
        gap = np.abs(np.asarray(ours) - plain)
        assert gap.max() < 1e-5, f"differs by {gap.max():.2e} at most, {gap.mean():.2e} mean"
    assert 0.5 < numbers.agreement.median[0] < 1 and numbers.period_frames[0] == pytest.approx(2 * math.pi)


def test_the_figure_has_both_worlds(tmp_path: Path) -> None:
    words = ["centres", f"real={write(tmp_path / 'a.pt')}", f"recent={write(tmp_path / 'b.pt', 1)}", "prompts=1"]
    lines = list(command.draw(words, output=tmp_path))
    assert [Path(line.split(" (")[0]).name for line in lines] == ["centres.pdf", "centres.png", "centres.json"]
    text = (tmp_path / "centres.json").read_text(encoding="utf-8")
    assert '"Wan2.1-1.3B"' in text and '"tiny"' in text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"stats": {}}, "cannot be read"),
        ({"stats": {"layer00_head00": {"q_mean_real": torch.ones(4)}}}, "q_mean_imag"),
        ({"stats": {"layer00_head00": dict.fromkeys(("q_mean_real", "q_mean_imag", "q_abs_mean"), torch.ones(4))}}, "longer than"),
        ({"stats": {"layer00_head00": dict.fromkeys(("q_mean_real", "q_mean_imag", "q_abs_mean"), torch.full((4,), math.nan))}}, "finite"),
    ],
)
def test_other_files_are_one_line(change: dict, line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=line) as refusal:
        centres.read_centres(write(tmp_path / "a.pt", **change))
    assert str(refusal.value).startswith(str(tmp_path / "a.pt")) and "\n" not in str(refusal.value)


def test_without_a_file_it_is_said_where_one_is() -> None:
    with pytest.raises(ValueError, match="real=: query statistics as github.com/WeianMao/triattention publishes"):
        list(command.draw(["centres"]))
    assert "centres" not in command.orders(["all"])
