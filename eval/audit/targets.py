"""How often the backbone follows a held-out prompt, read by the embedded scorer, and the targets for that (docs/embedded.md)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from baselines.presets import CONF, make_policy, preset
from data.world.words import KINDS, Words, held_out, sentence
from echo.files import ROOT, read_json, read_text
from echo.refusals import Unfinished, reading
from echo.scene import FPS, PIXEL_FRAMES_PER_LATENT, Prompt, block_s
from eval.measures.formulas import Frames
from eval.store.origin import digest_if_there, origin
from eval.world.places import SHIPPED
from eval.world.readings import MOTION_WINDOW, Readings, motion_of, read, right, right_pairs

TARGETS = {(5.0, "place"): 0.97, (5.0, "subject"): 0.90, (5.0, "motion"): 0.85, (60.0, "place"): 0.90, (60.0, "subject"): 0.75}
"""(horizon in seconds, property) -> smallest share of prompts."""
JUDGED = ("place", "subject", "motion")
OTHERS = ("shape", "colour", "place_colour", "pattern")


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `hits` among `count`, 0..1. Raises ValueError for a count below 1."""
    if count < 1:
        raise ValueError(f"{hits} of {count}: a share needs at least one case")
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def combinations(count: int) -> list[Words]:
    """`count` held-out combinations, each time the one with the least used words so far.

    Raises ValueError for more than exist.
    """
    left = [words for parts in product(*KINDS.values()) if held_out(words := Words(*parts))]
    if not 1 <= count <= len(left):
        raise ValueError(f"prompts={count}: training holds out {len(left)} combinations, so 1 to {len(left)}")
    taken: dict[str, dict[str, int]] = {kind: dict.fromkeys(known, 0) for kind, known in KINDS.items()}
    chosen: list[Words] = []
    for _ in range(count):
        best = min(left, key=lambda words: sum(taken[kind][getattr(words, kind)] * len(KINDS[kind]) for kind in KINDS))
        left.remove(best)
        chosen.append(best)
        for kind in KINDS:
            taken[kind][getattr(best, kind)] += 1
    return chosen


def prompts_of(chosen: Sequence[Words], seconds: float) -> list[Prompt]:
    """Prompts of one scene each, with varying sentences."""
    return [Prompt(f"held-{index:03d}", (sentence(words, 7919 * index),), (seconds,), ("",)) for index, words in enumerate(chosen)]


def judge(readings: Readings, words: Words) -> dict[str, bool]:
    """Whether each of `words`, and each of the three properties with targets, is right in the readings of 36 frames."""
    named = {kind: str(getattr(words, kind)) for kind in KINDS}
    pairs = right_pairs(readings, named)
    motion = motion_of(readings.centres) == words.motion
    return right(readings, named) | {"place": bool(pairs["place_right"]), "place_colour": right(readings, named)["place"]} | {
        "subject": bool(pairs["subject_right"]), "motion": motion,
    }  # fmt: skip


@dataclass(frozen=True)
class Horizon:
    """Hits of one method at one horizon: property -> number of `prompts`."""

    weights: str
    method: str
    seconds: float
    hits: Mapping[str, int]
    prompts: int

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """Property -> share, the ends of its interval and its target, if any, all 0..1."""
        shares: dict[str, dict[str, float]] = {}
        for what, hits in self.hits.items():
            numbers = dict(zip(("share", "low", "high"), (hits / self.prompts, *wilson(hits, self.prompts))))
            target = {"target": TARGETS[self.seconds, what]} if (self.seconds, what) in TARGETS else {}
            shares[what] = {name: round(number, 4) for name, number in numbers.items()} | target
        return shares

    def record(self) -> dict[str, object]:
        """Plain values for JSON."""
        facts = {name: getattr(self, name) for name in ("weights", "method", "seconds", "prompts")}
        return facts | {"shares": self.shares}


def best_of(rows: Sequence[Horizon], seconds: float) -> Horizon:
    """The method with the best mean of place and subject (at 5 s also motion) at a horizon."""
    whats = [what for what in JUDGED if (seconds, what) in TARGETS] or list(JUDGED)
    return max((row for row in rows if row.seconds == seconds), key=lambda row: sum(row.hits[what] for what in whats))


def missed(rows: Sequence[Horizon]) -> list[str]:
    """The targets that the best method at their horizon misses, a line each."""
    lines = []
    for (seconds, what), target in TARGETS.items():
        if any(row.seconds == seconds for row in rows):
            row = best_of(rows, seconds)
            share = row.hits[what] / row.prompts
            if share < target:
                share_text = f"{100 * share:.1f} % of {row.prompts} prompts with {row.method}"
                lines.append(f"missed: {what} at {seconds:g} s: {share_text}, target {100 * target:g} %")
    return lines


def table(rows: Sequence[Horizon]) -> str:
    """Shares in percent with their intervals, the targets beside the horizons that have some."""
    lines = []
    for row in rows:
        line = {"method": row.method, "horizon": f"{row.seconds:g} s"}
        for what, share in row.shares.items():
            line[what] = f"{100 * share['share']:.1f}"
            if what in JUDGED:
                aim = f" >={100 * share['target']:g}" if "target" in share else ""
                line[what] += f" [{100 * share['low']:.0f}, {100 * share['high']:.0f}]{aim}"
        lines.append(line)
    return pd.DataFrame(lines, columns=["method", "horizon", *JUDGED, *OTHERS]).to_string(index=False)


@dataclass(frozen=True)
class TargetTrial:
    """Settings of the rollouts and readings.

    Attributes:
        methods: presets of conf/method.
        prompts: number of prompts.
        seconds: horizons at which they are read.
        seed: of the noise.
        batch: prompts rolled out together.
        scorer: weights of the embedded scorer.
    """

    methods: Sequence[str] = ("echo",)
    prompts: int = 64
    seconds: Sequence[str] = ("5", "60")
    seed: int = 0
    batch: int = 16
    scorer: Path = SHIPPED.parent / "model.safetensors"

    def horizons(self) -> list[float]:
        """Seconds, ascending. Raises ValueError in one line for invalid settings."""
        try:
            seconds = sorted(float(word) for word in self.seconds)
        except ValueError:
            raise ValueError(f"seconds={','.join(self.seconds)}: numbers with commas, for example 5,60") from None
        if min(seconds) < MOTION_WINDOW / FPS:
            raise ValueError(f"seconds={min(seconds):g}: reading takes {MOTION_WINDOW / FPS:g} s, so no less")
        combinations(self.prompts)
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: at least 1")
        for method in self.methods:
            make_policy({"method": method})
        return seconds


def measure(weights: str, lora: str | None, trial: TargetTrial) -> Iterator[Horizon]:
    """Roll all prompts out with each method and read them at each horizon."""
    from echo.backbone.load import load
    from eval.world.scorer import EmbeddedScorer

    backbone = load(weights, lora=lora)
    encoder = EmbeddedScorer.load(trial.scorer).encoder
    chosen = combinations(trial.prompts)
    horizons = trial.horizons()
    for method in trial.methods:
        hits: dict[float, dict[str, int]] = {seconds: {} for seconds in horizons}
        prompts = prompts_of(chosen, horizons[-1])
        for start in range(0, len(prompts), trial.batch):
            rows = slice(start, start + trial.batch)
            for seconds, films in _films(backbone, method, prompts[rows], horizons, trial.seed):
                for frames, words in zip(films, chosen[rows], strict=True):
                    for what, hit in judge(read(encoder, frames), words).items():
                        hits[seconds][what] = hits[seconds].get(what, 0) + int(hit)
        for seconds in horizons:
            yield Horizon(weights if lora is None else f"{weights} + {lora}", method, seconds, hits[seconds], len(prompts))


def _films(backbone: Any, method: str, prompts: Sequence[Prompt], horizons: Sequence[float], seed: int) -> Iterator[tuple[float, Frames]]:
    """At each horizon the last 36 frames [B, 36, 48, 48, 3] of a batch of prompts."""
    import torch

    from echo.generate import generate

    kept: list[Frames] = []
    size = backbone.geometry.frames_per_block
    ends = {math.floor(seconds / block_s(size) + 0.5): seconds for seconds in horizons}
    with torch.inference_mode():
        for block in generate(backbone, make_policy({"method": method}), prompts, seed):
            kept = [*kept, backbone.codec.decode(block.latents.float().cpu()).numpy()][-MOTION_WINDOW // (size * PIXEL_FRAMES_PER_LATENT) :]
            if block.index + 1 in ends:
                yield ends[block.index + 1], np.concatenate(kept, axis=1)


def curve(results: Sequence[Horizon], clips: Mapping[str, float], path: Path) -> None:
    """Shares over checkpoints, a panel for each horizon, a colour for each of place, subject and motion."""
    from eval.figures import style

    horizons = sorted({row.seconds for row in results})
    methods = list(dict.fromkeys(row.method for row in results))
    size = (3.6 * len(horizons) + 1.6, 3.2)
    figure, axes = style.pyplot().subplots(1, len(horizons), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, seconds in zip(axes[0], horizons, strict=True):
        for what, colour in zip(JUDGED, style.SERIES, strict=False):
            for method, line in zip(methods, ("-", "--", ":", "-.") * 9, strict=False):
                rows = [row for row in results if (row.seconds, row.method) == (seconds, method)]
                x = [clips[row.weights] / 1000 for row in rows]
                shares = [row.shares[what] for row in rows]
                axis.plot(x, [100 * share["share"] for share in shares], line, marker="o", ms=3, color=colour, label=f"{what}, {method}")
                low, high = ([100 * share[end] for share in shares] for end in ("low", "high"))
                axis.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
            if (seconds, what) in TARGETS:
                axis.axhline(100 * TARGETS[seconds, what], color=colour, lw=0.8, ls=(0, (1, 2)))
        axis.set(title=f"at {seconds:g} s", xlabel="thousand clips seen in training")
        style.bounded(axis)
    axes[0][0].set_ylabel("held-out prompts shown right, %")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    style.save(figure, path)


def seen_clips(weights: str, index: int) -> float:
    """Clips that the weights were trained on, from the provenance beside them; `index` if it does not say."""
    beside = (ROOT / weights.partition(" + ")[0]).parent / "provenance.json"
    if beside.is_file():
        with reading(beside, "remove it, or train again"):
            return float(read_json(read_text(beside), str(beside)).get("seen_clips", index))
    return float(index)


def _backbone(name: str) -> tuple[str, str | None]:
    """Weights and LoRA weights of a preset of conf/backbone, or a file. Raises ValueError if it is neither."""
    if (CONF / "backbone" / f"{name}.yaml").is_file():
        chosen = preset("backbone", name)
        return str(chosen["weights"]), chosen.get("lora")
    if not (ROOT / name).is_file():
        known = ", ".join(sorted(path.stem for path in (CONF / "backbone").glob("*.yaml")))
        raise ValueError(f"weights={name}: no such file, and no preset of conf/backbone ({known})")
    return name, None


def targets(
    weights: Sequence[str] = ("tiny",), trial: TargetTrial = TargetTrial(), *, output: Path | None = None, figure: Path | None = None
) -> Iterator[str]:
    """Measure how often the backbone follows a held-out prompt, and compare with targets.

    The exit status is 1 if the best method misses a target.

        echo-harness audit targets methods=echo,longlive,rolling_sink --output docs/data/targets.json
        echo-harness audit targets weights=results/training/teacher/0800/model.safetensors,tiny seconds=5 --figure docs/targets.png

    Args:
        weights: files, or presets of conf/backbone; the last one is compared with the targets, and the figure shows all.
        trial: settings of the rollouts and readings.
        output: also write the numbers into this JSON.
        figure: also draw them over the weights into this PNG.
    """
    import torch

    trial.horizons()
    backbones = [_backbone(name) for name in weights]
    torch.set_num_threads(1)
    results, last = list[Horizon](), list[Horizon]()
    start = time.monotonic()
    for file, lora in backbones:
        last = list(measure(file, lora, trial))
        results += last
        yield f"{last[0].weights}, {trial.prompts} held-out prompts, seed {trial.seed}; % right [95 % interval] >= target"
        yield table(last)
    clips = {name: seen_clips(name, index) for index, name in enumerate(dict.fromkeys(row.weights for row in results))}
    lines = missed(last)
    if output:
        words = (f"weights={','.join(weights)}", *(f"{key}={_word(value)}" for key, value in asdict(trial).items()))
        content = origin("audit targets", words) | {
            "seed": trial.seed, "wall_time_s": round(time.monotonic() - start), "scorer": digest_if_there(trial.scorer),
            "weights": {name: {"seen_clips": clips[name], "digest": digest_if_there(ROOT / name.partition(" + ")[0])} for name in clips},
            "missed": lines, "results": [row.record() for row in results],
        }  # fmt: skip
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if figure:
        curve(results, clips, figure)
    yield "\n".join(lines) or "all targets met"
    if lines:
        raise Unfinished


def _word(value: Any) -> str:
    return ",".join(value) if isinstance(value, (tuple, list)) else str(value)
