"""Phase score, AMP and gate (paper eqs 2-5) for the query centres of Wan2.1, as published by TriAttention, and of our backbone.

`real=FILE` is a file of query statistics in TriAttention's format (github.com/WeianMao/triattention, Apache-2.0): a `.pt` with `metadata`
and `stats`, in which `layerLL_headHH` has `q_mean_real`, `q_mean_imag` and `q_abs_mean`, each [C]. `recent=FILE` is one of another run,
for the gate. Shapes: N heads of all layers, C = head_dim / 2 complex channels, A ages in latent frames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo.backbone import rope
from echo.policy import settings_of
from echo.refusals import reading
from eval.figures import output, style
from eval.figures.output import FigureOrder
from eval.figures.recorded import attention
from eval.figures.recorded.backbones import Loader, policy, prompts_of

if TYPE_CHECKING:
    from torch import Tensor

    from echo.memory.settings import EchoSettings

KEYS = {"real": "", "recent": "", "backbone": "tiny", "method": "echo", "task": "long60", "prompts": "4", "seed": "0", "ages": "40"}
HEAD = re.compile(r"layer(\d+)_head(\d+)")
WAN = "Wan2.1-1.3B"


@dataclass(frozen=True)
class Centres:
    """layers: of each head. centre: E q, complex [N, C]. magnitude: E |q|, [N, C]."""

    layers: list[int]
    centre: Tensor
    magnitude: Tensor


@dataclass(frozen=True)
class Quartiles:
    """Over heads, of each channel or age."""

    low: list[float]
    median: list[float]
    high: list[float]


@dataclass(frozen=True)
class CentreNumbers:
    """share: of a head's |E q| in time that each temporal channel has, the mean over heads. period_frames: of these channels.

    concentration: |E q| / E|q| by channel, temporal ones first. phase: eq. (3) of a key like the centre itself, by age, of 1 at most.
    surplus: the part of E|q| that is AMP's weight (eq. 4). agreement: cosine of a head's centres in two runs; gate: g of eq. (5) by layer.
    """

    heads: int
    share: list[float]
    period_frames: list[float]
    concentration: Quartiles
    phase: Quartiles
    surplus: float
    agreement: Quartiles | None
    gate: list[float] | None


def read_centres(path: Path) -> Centres:
    """Statistics of a file in TriAttention's format. Raises ValueError in one line for anything else."""
    import torch

    with reading(path, "a .pt file of TriAttention's query statistics, {metadata, stats}, is expected"):
        if not path.is_file():
            raise ValueError(f"{path}: no file; a .pt of query statistics belongs here")
        stats = torch.load(path, map_location="cpu", weights_only=True)["stats"]
        names = sorted(((int(match[1]), int(match[2])), name) for name in stats if (match := HEAD.fullmatch(name)))
        parts = [torch.stack([stats[name][key].float() for _, name in names]) for key in ("q_mean_real", "q_mean_imag", "q_abs_mean")]
        centre, magnitude = torch.complex(parts[0], parts[1]), parts[2]
        if centre.ndim != 2 or centre.shape != magnitude.shape or not bool(torch.isfinite(torch.view_as_real(centre)).all()):
            raise ValueError(f"{path}: finite rows of one length for each head are expected, not {tuple(centre.shape)}")
        if bool((magnitude < centre.abs() * (1 - 1e-3)).any()):
            raise ValueError(f"{path}: a mean query is longer than the mean length of its queries")
    return Centres([layer for (layer, _), _ in names], centre, magnitude)


def recorded(order: FigureOrder, load: Loader, seed: int) -> Centres:
    """The centres that the method's own memory computes, mean over prompts."""
    import torch

    settings, chosen = order.settings, policy(order.settings["method"])
    rules = settings_of(chosen) or settings_of(policy("echo"))
    assert rules is not None
    backbone = load(settings["backbone"])
    prompts = prompts_of(settings["task"], settings["backbone"], order.number("prompts", 1))
    blocks = -(-rules.calibration_frames // backbone.geometry.frames_per_block)
    with torch.inference_mode():
        run = attention.record(backbone, chosen, prompts, seed=seed, blocks=blocks, rules=rules)
        sums = [run.calibration(layer) for layer in range(run.geometry.layers)]
    centre, magnitude = (torch.cat([each[part].mean(0) for each in sums]) for part in (0, 1))
    return Centres([layer for layer in range(run.geometry.layers) for _ in range(run.geometry.heads)], centre, magnitude)


def measure(one: Centres, other: Centres | None, rules: EchoSettings, ages: int) -> CentreNumbers:
    """The numbers of one backbone; `other`: centres of another run of it, for the gate."""
    import torch

    from echo.memory import compression

    head_dim = 2 * one.centre.shape[1]
    omega, time = rope.temporal_frequencies(head_dim), rope.split(head_dim)[0]
    length = one.centre.abs()
    share = (length[:, :time] / length[:, :time].sum(1, keepdim=True)).mean(0)
    keys = torch.view_as_real(one.centre).flatten(1)[:, None, None, None].expand(-1, ages, 1, 1, -1)
    phase = compression.offset_phase(omega, rules.offsets)
    score = compression.phase_score(keys, one.centre[:, None], phase, omega, torch.arange(ages))[..., 0] / length.square().sum(1)[:, None]
    agreement, gate = None, None
    if other is not None:
        if other.layers != one.layers or other.centre.shape != one.centre.shape:
            raise ValueError(f"recent: {tuple(other.centre.shape)} heads and channels, the other run has {tuple(one.centre.shape)}")
        rows = torch.view_as_real(one.centre).flatten(1), torch.view_as_real(other.centre).flatten(1)
        agreement = quartiles(torch.nn.functional.cosine_similarity(*rows)[:, None])
        of_layer = [[i for i, layer in enumerate(one.layers) if layer == wanted] for wanted in sorted(set(one.layers))]
        gate = [float(compression.drift_gate(rows[1][i][None], one.centre[i][None], rules.drift_gate_lambda)) for i in of_layer]
    return CentreNumbers(
        len(one.layers), share.tolist(), (2 * torch.pi / omega[:time]).tolist(), quartiles(length / one.magnitude.clamp_min(1e-12)),
        quartiles(score), float(1 - (length.sum() / one.magnitude.sum())), agreement, gate,
    )  # fmt: skip


def quartiles(values_NX: Tensor) -> Quartiles:
    """Of each column."""
    low, median, high = np.quantile(values_NX.double().numpy(), (0.25, 0.5, 0.75), axis=0).tolist()
    return Quartiles(low, median, high)


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Read, record, draw; returns the files. Raises ValueError in one line for a missing or unreadable file."""
    if not order.settings["real"]:
        source = "query statistics as github.com/WeianMao/triattention publishes them for Wan2.1-1.3B"
        raise ValueError(f"real=: {source}; nearest is real=FILE.pt, and recent=FILE.pt of another run for the gate")
    real = read_centres(Path(order.settings["real"]))
    again = read_centres(Path(order.settings["recent"])) if order.settings["recent"] else None
    rules, seed = settings_of(policy(order.settings["method"])) or settings_of(policy("echo")), order.number("seed")
    assert rules is not None
    ours = measure(recorded(order, load, seed), recorded(order, load, seed + 1), rules, order.number("ages", 2))
    numbers = {WAN: measure(real, again, rules, order.number("ages", 2)), order.settings["backbone"]: ours}
    return output.write(draw(numbers), name, order, numbers)


def draw(numbers: dict[str, CentreNumbers]) -> Any:
    """Four panels: which temporal channel carries the centre, how concentrated queries are, the phase score by age, the gate by layer."""
    plots = style.pyplot()
    figure, axes = plots.subplots(1, 4, figsize=(12.5, 2.9), layout="constrained")
    for (name, one), colour in zip(numbers.items(), style.SERIES):
        axes[0].plot([100 * part for part in one.share], "o-", color=colour, ms=3, label=f"{name}, {one.heads} heads")
        _band(axes[1], one.concentration, colour)
        _band(axes[2], one.phase, colour)
        if one.gate is not None:
            axes[3].plot(range(1, len(one.gate) + 1), one.gate, "o-", color=colour, ms=3)
    axes[0].set(title="share by temporal channel, %", xlabel="channel, fastest first")
    axes[0].legend(fontsize=8)
    axes[1].set(title="concentration |E q| / E|q|", xlabel="channel: time, then height and width")
    axes[2].set(title="phase score of a key like the centre", xlabel="age, latent frames")
    axes[3].set(title="gate g between two runs, eq. (5)", xlabel="layer")
    for axis in axes:
        axis.locator_params(axis="x", integer=True)
    style.bounded(axes[1], axes[3], most=1.0)
    return figure


def _band(axis: Any, values: Quartiles, colour: str) -> None:
    axis.plot(values.median, color=colour)
    axis.fill_between(range(len(values.median)), values.low, values.high, color=colour, alpha=0.18, linewidth=0)
