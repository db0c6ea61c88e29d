"""Fig. 3's recall@K: how many of the tokens that later queries attend to most does each rule keep, and how much of their attention.

Shapes: B prompts, N candidate tokens, H heads, A ages of the asking block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echo.memory import compression
from eval.figures.recorded.attention import LaterAttention, Moment, RecordedRun, first_choice, judge, moments


def recall(score: Tensor, truth: Tensor, keep: int) -> Tensor:
    """Share of the `keep` tokens with most attention that are among the `keep` with the highest score, [...] of [..., N] each."""
    return (_best(score, keep) & _best(truth, keep)).sum(-1) / keep


def caught(score: Tensor, truth: Tensor, keep: int) -> Tensor:
    """Attention that goes to the `keep` tokens with the highest score, as a share of what the best `keep` would get, [...]."""
    return (truth * _best(score, keep)).sum(-1) / truth.topk(keep, -1).values.sum(-1)


def _best(values: Tensor, keep: int) -> Tensor:
    """The `keep` highest of the last dimension, as a mask; chosen as the method chooses them."""
    flat = values.reshape(-1, values.shape[-1])
    mask = torch.zeros_like(flat, dtype=torch.bool)
    return mask.scatter_(1, compression.top_tokens(flat, keep), True).reshape(values.shape)


@dataclass
class Comparison:
    """Means over layers and choices of every prompt; a value of each by rule is a list over prompts.

    prompts: id and seed. recall, mass: of tokens kept for all heads together, as the method does, against the attention of all heads.
    by_head: recall where every head keeps its own. by_age: [A], recall against the attention of the block
    that is so many behind. by_layer: recall.
    curve: recall at each of `counts` tokens. facts: as a moment's, by prompt.
    """

    prompts: list[tuple[str, int]]
    keep: int
    tokens: int
    counts: list[int]
    recall: dict[str, list[float]]
    mass: dict[str, list[float]]
    by_head: dict[str, list[float]]
    by_age: dict[str, list[list[float]]]
    by_layer: dict[str, list[list[float]]]
    curve: dict[str, list[list[float]]]
    facts: dict[str, list[float]]


def measures(moment: Moment, counts: Sequence[int]) -> dict[str, dict[str, Tensor]]:
    """By rule: `recall`, `mass`, `by_head` [B], `by_age` [B, A], `curve` [B, counts] of one choice."""
    keep, all_heads = moment.keep, moment.later.mean(1).flatten(1)
    per_head, ages = moment.later.flatten(2), moment.truth.mean(2).flatten(2)
    found = {}
    for name, score_BTS in moment.scores.items():
        score, heads = score_BTS.flatten(1), moment.by_head[name].flatten(2).transpose(0, 1)
        found[name] = {
            "recall": recall(score, all_heads, keep),
            "mass": caught(score, all_heads, keep),
            "by_head": recall(heads, per_head, keep).mean(1),
            "by_age": recall(score.expand_as(ages), ages, keep).T,
            "curve": torch.stack([recall(score, all_heads, count) for count in counts], 1),
        }
    return found


def compare(runs: Iterable[RecordedRun], every: int = 4, truth: LaterAttention | None = None) -> Comparison:
    """Every rule on all choices of some runs, prompt by prompt. Raises ValueError where no choice can be judged."""
    truth, rows = truth or LaterAttention(), list[dict[str, Any]]()
    keep, tokens, counts = 0, 0, list[int]()
    prompts, facts = list[tuple[str, int]](), list[dict[str, float]]()
    for run in runs:
        blocks = moments(run, every, truth)
        if not blocks:
            least = first_choice(run.policy, run.geometry) + truth.ahead + 1
            raise ValueError(f"blocks={run.blocks}: no choice has all its later queries; nearest is {least}")
        layers = []
        for layer in run.recorder.layers:
            found = [judge(run, layer, block, truth) for block in blocks]
            tokens = found[0].later.shape[-1] * found[0].later.shape[-2]
            keep, counts = found[0].keep, counts_of(found[0].keep, tokens)
            layers.append([measures(moment, counts) | {"": dict(moment.facts)} for moment in found])
        means = [_mean(each) for each in layers]
        for index in range(len(run.prompts)):
            rows.append(_of_prompt(means, index))
            facts.append(rows[-1].pop(""))
        prompts += [(prompt, run.seed) for prompt in run.prompts]
    gathered: dict[str, Any] = {what: {name: [row[name][what] for row in rows] for name in rows[0]} for what in rows[0]["gate"]}
    by_fact = {what: [one[what] for one in facts] for what in facts[0]}
    return Comparison(prompts=prompts, keep=keep, tokens=tokens, counts=counts, facts=by_fact, **gathered)


def _mean(each: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    """The mean over the choices of one layer."""
    return {name: {what: torch.stack([one[name][what] for one in each]).mean(0) for what in first} for name, first in each[0].items()}


def _of_prompt(per_layer: Sequence[Mapping[str, Mapping[str, Tensor]]], index: int) -> dict[str, Any]:
    """One prompt's means over layers by rule and measure, and its recall layer by layer; under "" its facts."""
    row: dict[str, Any] = {}
    for name, first in per_layer[0].items():
        row[name] = {what: torch.stack([one[name][what][index] for one in per_layer]).mean(0).tolist() for what in first}
        if name:
            row[name]["by_layer"] = [float(one[name]["recall"][index]) for one in per_layer]
    return row


def counts_of(keep: int, tokens: int) -> list[int]:
    """Numbers of tokens that a curve is drawn over: eighths of what is kept up to it, then steps of a sixth of the rest."""
    return sorted({max(1, keep * i // 8) for i in range(1, 9)} | {keep + (tokens - keep) * i // 6 for i in range(1, 7)})


def join(found: Sequence[Comparison]) -> Comparison:
    """Comparisons of other prompts, made alike, as one."""
    first = found[0]
    joined: dict[str, Any] = {"prompts": [prompt for one in found for prompt in one.prompts]}
    for what in ("recall", "mass", "by_head", "by_age", "by_layer", "curve", "facts"):
        joined[what] = {name: [value for one in found for value in getattr(one, what)[name]] for name in getattr(first, what)}
    return Comparison(keep=first.keep, tokens=first.tokens, counts=first.counts, **joined)
