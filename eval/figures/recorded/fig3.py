"""Fig. 3: which history tokens each scoring rule keeps, compared with the attention that later queries pay to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from echo.geometry import Geometry
from echo.memory.settings import EchoSettings, RecentCentre
from echo.policy import settings_of
from eval.figures import output, style
from eval.figures.mosaic import native
from eval.figures.output import FigureOrder, Mean, PairedGap, gap, means
from eval.figures.recorded import attention, recall_at_k
from eval.figures.recorded.attention import AHEAD, CONTROLS, KINDS, RULES, LaterAttention
from eval.figures.recorded.backbones import Loader, policy, prompts_of

if TYPE_CHECKING:
    from echo.backbone.interface import VideoModel

KEYS = {
    "backbone": "tiny", "method": "echo", "task": "long60", "prompts": "16", "seed": "0", "blocks": "40", "every": "4", "batch": "4",
    "truth": "time", "recent": "clean", "layers": "", "layer": "2", "block": "20",
}  # fmt: skip
COLOURS = {"calibrated": "#2a6fbb", "amplitude": "#1b8a6b", "gate": "#c8501e", "recent": "#8a4fa3", "post_rope": "#b08900"}
WIDTHS = {"calibrated": 5.0, "amplitude": 3.4, "gate": 2.0, "recent": 0.8, "post_rope": 1.5}
"""Line widths, so that coinciding curves stay visible."""
HIT, FALSE, MISSED, NONE = (42, 111, 187), (232, 140, 84), (190, 211, 234), (246, 245, 242)
"""Kept and among the best, kept and not, among the best and not kept, neither."""
Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """The selection that is drawn. frames: uint8 [T, H, W, 3], the history. values: [T, h, w] of the truth and each rule."""

    title: str
    frames: NDArray[np.uint8]
    values: Mapping[str, Pixels]
    keep: int
    first_frame: int


@dataclass(frozen=True)
class RuleSummary:
    """Means over prompts for a rule; fields as in `recall_at_k.RuleMeasures`, and the difference in recall to the gate."""

    recall: Mean
    mass: Mean
    by_head: Mean
    recall_less_gate: PairedGap
    by_age: list[Mean]
    by_layer: list[Mean]
    curve: list[Mean]


@dataclass(frozen=True)
class Summary:
    """All rules under one reading of the truth. keep: of so many tokens. chance: recall of tokens kept at random. counts: of the curve."""

    keep: int
    tokens: int
    chance: float
    counts: list[int]
    rules: dict[str, RuleSummary]
    facts: dict[str, Mean]


@dataclass(frozen=True)
class Fig3Numbers:
    """All numbers of the figure. shown: the choice that is drawn. truth: by reading of the truth.

    gates: g of eq. (5) by what it reads, the mean over layers and prompts, before each of `gate_blocks`.
    """

    shown: str
    truth: dict[str, Summary]
    gate_blocks: list[int]
    gates: dict[str, list[Mean]]


def make(name: str, order: FigureOrder, load: Loader) -> list[Path]:
    """Record, compare, draw; returns the files. Raises ValueError in one line for invalid settings."""
    shown, numbers = measure(order, load(order.settings["backbone"]))
    return output.write(draw(shown, numbers), name, order, numbers)


def measure(order: FigureOrder, backbone: VideoModel) -> tuple[Shown, Fig3Numbers]:
    """The choice that is shown, and the numbers over all prompts."""
    import torch

    settings, chosen, rules = order.settings, policy(order.settings["method"]), settings_of(policy("echo"))
    assert rules is not None
    layers = _checked(order, backbone.geometry, settings_of(chosen) or rules)
    prompts, batch = prompts_of(settings["task"], settings["backbone"], order.number("prompts", 1)), order.number("batch", 1)
    shown, compared = None, {kind: list[recall_at_k.Comparison]() for kind in KINDS}
    first, every = attention.first_choice(settings_of(chosen) or rules, backbone.geometry), order.number("every", 1)
    gate_blocks, gates = list(range(first, order.number("blocks", 1), every)), list[dict[RecentCentre, torch.Tensor]]()
    with torch.inference_mode():
        for start in tqdm(range(0, len(prompts), batch), unit="batch", desc="fig3", disable=None):
            run = attention.record(
                backbone, chosen, prompts[start : start + batch], seed=order.number("seed"), blocks=order.number("blocks", 1),
                layers=layers, rules=settings_of(chosen) or rules,
            )  # fmt: skip
            shown = shown or _shown(run, order, backbone)
            gates.append(attention.gates(run, gate_blocks))
            for kind, each in compared.items():
                each.append(recall_at_k.compare([run], every, LaterAttention(kind, AHEAD[kind], settings["recent"])))
    assert shown is not None
    joined = {kind: recall_at_k.join(each) for kind, each in compared.items()}
    units = joined["time"].prompts
    by_block = {str(which): means(units, torch.cat([one[which] for one in gates], 1).tolist()) for which in RecentCentre}
    return shown, Fig3Numbers(shown.title, {kind: summary(each) for kind, each in joined.items()}, gate_blocks, by_block)


def _checked(order: FigureOrder, geometry: Geometry, rules: EchoSettings) -> list[int]:
    """The layers to record. Raises ValueError in one line for invalid settings, before anything is rolled out."""
    settings, blocks, block = order.settings, order.number("blocks", 1), order.number("block")
    for kind in (settings["truth"], *KINDS):
        LaterAttention(kind, recent=settings["recent"], ahead=AHEAD.get(kind, 1))
    words = settings["layers"].split(",") if settings["layers"] else [str(layer) for layer in range(geometry.layers)]
    layers = [int(word) for word in words if word.isdecimal() and int(word) < geometry.layers]
    if len(layers) < len(words):
        raise ValueError(f"layers={settings['layers']}: numbers of 0..{geometry.layers - 1} with commas between; nearest is layers=0")
    layer, ahead = order.number("layer"), max(AHEAD.values())
    if layer not in layers:
        raise ValueError(f"layer={layer}: of those recorded, {layers}; nearest is {min(layers, key=lambda one: abs(one - layer))}")
    first = attention.first_choice(rules, geometry)
    if blocks <= first + ahead:
        raise ValueError(f"blocks={blocks}: {first} for a full history and {ahead} that ask; nearest is {first + ahead + 1}")
    last = blocks - ahead - 1
    if not first <= block <= last:
        raise ValueError(f"block={block}: choices of {first}..{last} can be shown; nearest is {min(max(block, first), last)}")
    return layers


def _shown(run: attention.RecordedRun, order: FigureOrder, backbone: VideoModel) -> Shown:
    kind, layer, block = order.settings["truth"], order.number("layer"), order.number("block")
    moment = attention.judge(run, layer, block, LaterAttention(kind, AHEAD[kind], order.settings["recent"]))
    grid = (run.geometry.grid_height, run.geometry.grid_width)
    values = {"truth": moment.later.mean(1)[0]} | {name: moment.scores[name][0] for name in RULES}
    stream, pictures = backbone.codec.stream(), []
    for index in range(block + 1):
        size = run.geometry.frames_per_block
        latents = run.latents[:1, index * size : (index + 1) * size].to(backbone.device)
        frames = stream.decode(latents)[0].cpu().numpy()
        pictures += list(frames[-(len(frames) // size) * size :: len(frames) // size][-size:])
    return Shown(
        f"{order.world}; {run.prompts[0]}, seed {run.seed}: the choice before block {block} in layer {layer + 1} of {run.geometry.layers}",
        np.stack([native(pictures[frame]) for frame in moment.frames]),
        {name: one.reshape(len(one), *grid).double().numpy() for name, one in values.items()},
        moment.keep, block * run.geometry.frames_per_block,
    )  # fmt: skip


def summary(compared: recall_at_k.Comparison) -> Summary:
    """Means with intervals over prompts by rule, and the facts."""
    units, reference = compared.prompts, dict(zip(compared.prompts, compared.recall["gate"]))
    rules = {}
    for name in (*RULES, *CONTROLS):
        measured = compared.rules[name]
        recall, mass, by_head = means(units, list(zip(*((one.recall, one.mass, one.by_head) for one in measured))))
        less_gate = gap(dict(zip(units, compared.recall[name])), reference)
        lists = (means(units, list(zip(*(getattr(one, what) for one in measured)))) for what in ("by_age", "by_layer", "curve"))
        rules[name] = RuleSummary(recall, mass, by_head, less_gate, *lists)
    facts = dict(zip(compared.facts, means(units, list(compared.facts.values()))))
    return Summary(compared.keep, compared.tokens, compared.keep / compared.tokens, compared.counts, rules, facts)


def strip(values_THW: Pixels, gap: float = np.nan) -> Pixels:
    """Frames side by side, a cell between them."""
    tiles = [np.concatenate([tile, np.full((len(tile), 1), gap)], 1) for tile in values_THW]
    return np.concatenate(tiles, 1)[:, :-1]


def verdict(values: Pixels, truth: Pixels, keep: int) -> NDArray[np.uint8]:
    """Colours [h, w', 3] of a strip of kept and missed tokens."""
    best, ours = (_best(one, keep) for one in (truth, values))
    code = np.where(ours & best, 0, np.where(ours, 1, np.where(best, 2, 3)))
    coded = strip(code.astype(np.float64), 4).astype(int)
    return np.array([HIT, FALSE, MISSED, NONE, (255, 255, 255)], dtype=np.uint8)[coded]


def _best(values: Pixels, keep: int) -> NDArray[np.bool_]:
    mask = np.zeros(values.size, dtype=bool)
    mask[np.argsort(-values.reshape(-1), kind="stable")[:keep]] = True
    return mask.reshape(values.shape)


def draw(shown: Shown, numbers: Fig3Numbers) -> Any:
    """The figure: strips of one choice above, recall over all choices below."""
    plots = style.pyplot()
    rows = len(RULES) + 2
    figure = plots.figure(figsize=(10.2, 0.34 * rows + 4.3), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[0.34 * rows + 0.7, 3.4])
    _strips(upper, shown)
    axes = lower.subplots(1, 3, width_ratios=[1, 1, 1.15])
    _curves(axes[0], numbers.truth["time"])
    _ages(axes[1], numbers.truth["time"])
    _kinds(axes[2], numbers.truth)
    return figure


def _strips(panel: Any, shown: Shown) -> None:
    """Two columns of strips: frames, truth and scores on the left; kept and missed tokens on the right."""
    names = ["pictures", "truth", *RULES]
    labels = {"pictures": "history", "truth": "later attention"} | RULES
    axes = panel.subplots(len(names), 2, squeeze=False)
    for (left, right), name in zip(axes, names):
        style.bare(left, right)
        if name == "pictures":
            gap = np.full((*shown.frames.shape[1:2], max(1, shown.frames.shape[2] // 5), 3), 255, dtype=np.uint8)
            tiles = np.concatenate([np.concatenate([frame, gap], 1) for frame in shown.frames], 1)[:, : -gap.shape[1]]
            left.imshow(tiles, aspect="equal")
            right.imshow(np.full_like(tiles, 255), aspect="equal")
            _legend(right)
        else:
            values = shown.values[name]
            scaled = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
            left.imshow(strip(np.sqrt(scaled) if name in ("truth", "post_rope") else scaled), cmap="viridis", aspect="equal")
            right.imshow(verdict(values, shown.values["truth"], shown.keep), aspect="equal")
        if name not in ("pictures", "truth"):
            hits = float((_best(values, shown.keep) & _best(shown.values["truth"], shown.keep)).sum()) / shown.keep
            style.row_label(right, f"{100 * hits:.0f} %", fontsize=9)
        style.row_label(left, labels[name], fontsize=9)
    axes[0][0].set_title(f"{len(shown.frames)} latent frames, the oldest left; score of each token", loc="left")
    axes[0][1].set_title(f"the {shown.keep} tokens kept", loc="left")
    style.heading(panel, shown.title)


def _legend(axis: Any) -> None:
    from matplotlib.patches import Patch

    kinds = (("kept, and asked for most", HIT), ("kept, not among them", FALSE), ("asked for most, not kept", MISSED))
    handles = [Patch(color="#{:02x}{:02x}{:02x}".format(*colour), label=label) for label, colour in kinds]
    axis.legend(handles=handles, loc="center left", ncols=3, fontsize=8, handlelength=1, columnspacing=1, borderpad=0)


def _points(told: Sequence[Mean]) -> tuple[Pixels, Pixels]:
    """Means and half widths in percent; zero width if unknown."""
    mean = np.array([100 * one.mean for one in told], dtype=np.float64)
    return mean, np.array([100 * (one.half_width or 0.0) for one in told], dtype=np.float64)


def _curves(axis: Any, truth: Summary) -> None:
    for name, label in RULES.items():
        mean, half = _points(truth.rules[name].curve)
        axis.plot(truth.counts, mean, color=COLOURS[name], linewidth=WIDTHS[name], label=label)
        axis.fill_between(truth.counts, mean - half, mean + half, color=COLOURS[name], alpha=0.15, linewidth=0)
    axis.plot([0, truth.tokens], [0, 100], color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)), label="chance")
    axis.axvline(truth.keep, color=style.OTHERS, linewidth=0.8, zorder=0)
    axis.set(title="recall@K, %", xlabel="K tokens", xlim=(0, truth.tokens))
    style.bounded(axis)
    axis.legend(fontsize=7.5, loc="lower right", handlelength=2.6, borderpad=0.2, labelspacing=0.25)


def _ages(axis: Any, truth: Summary) -> None:
    for name in RULES:
        mean, half = _points(truth.rules[name].by_age)
        axis.errorbar(range(len(mean)), mean, half, color=COLOURS[name], linewidth=WIDTHS[name], capsize=1.5, elinewidth=0.8)
    axis.axhline(100 * truth.chance, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axis.set(title=f"recall@{truth.keep} by who asks, %", xlabel="blocks behind the choice")
    style.bounded(axis)


def _kinds(axis: Any, truths: Mapping[str, Summary]) -> None:
    for column, kind in enumerate(KINDS):
        for place, name in enumerate(RULES):
            mean, half = _points([truths[kind].rules[name].recall])
            x = column + 0.13 * (place - (len(RULES) - 1) / 2)
            axis.errorbar([x], mean, half, color=COLOURS[name], fmt="o", ms=4, capsize=2, elinewidth=1)
    axis.axhline(100 * truths["time"].chance, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axis.set(title=f"recall@{truths['time'].keep} by where history stands, %")
    style.bounded(axis)
    axis.set_xticks(
        range(len(KINDS)),
        [label.replace(" in ", "\nin ").replace(" of ", "\nof ").replace("compressed ", "compressed\n") for label in KINDS.values()],
    )
    axis.grid(axis="x", visible=False)
