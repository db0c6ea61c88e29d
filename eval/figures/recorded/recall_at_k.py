"""Fig. 3's recall@K: the share of the tokens with most later attention that each rule keeps, and the attention that they get.

Shapes: B prompts, N candidate tokens, H heads, A ages of the querying block.
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
    """Attention of the `keep` tokens with the highest score, as a share of that of the best `keep`, [...]."""
    return (truth * _best(score, keep)).sum(-1) / truth.topk(keep, -1).values.sum(-1)


def _best(values: Tensor, keep: int) -> Tensor:
    """The `keep` highest of the last dimension, as a mask, chosen as in the method."""
    flat = values.reshape(-1, values.shape[-1])
    mask = torch.zeros_like(flat, dtype=torch.bool)
    return mask.scatter_(1, compression.top_tokens(flat, keep), True).reshape(values.shape)


@dataclass(frozen=True)
class RuleMeasures:
    """Means of one rule on one prompt, over layers and choices.

    recall, mass: of tokens kept for all heads together, as in the method, against the attention of all heads. by_head: recall if
    every head keeps its own tokens. by_age: [A], recall against the attention of the block that many blocks later. by_layer:
    recall. curve: recall at each of the comparison's `counts` of tokens.
    """

    recall: float
    mass: float
    by_head: float
    by_age: list[float]
    by_layer: list[float]
    curve: list[float]


@dataclass
class Comparison:
    """Every rule on some prompts. prompts: id and seed. rules: by rule, a value for each prompt. facts: as a moment's, by prompt."""

    prompts: list[tuple[str, int]]
    keep: int
    tokens: int
    counts: list[int]
    rules: dict[str, list[RuleMeasures]]
    facts: dict[str, list[float]]

    @property
    def recall(self) -> dict[str, list[float]]:
        """Recall by rule, a value for each prompt."""
        return {name: [one.recall for one in measured] for name, measured in self.rules.items()}


def measures(moment: Moment, counts: Sequence[int]) -> dict[str, dict[str, Tensor]]:
    """By rule: `recall`, `mass`, `by_head` [B], `by_age` [B, A], `curve` [B, counts] of one choice."""
    keep, all_heads = moment.keep, moment.later.mean(1).flatten(1)
    per_head, ages = moment.later.flatten(2), moment.truth.mean(2).flatten(2)
    by_rule = {}
    for name, score_BTS in moment.scores.items():
        score, heads = score_BTS.flatten(1), moment.by_head[name].flatten(2).transpose(0, 1)
        by_rule[name] = {
            "recall": recall(score, all_heads, keep),
            "mass": caught(score, all_heads, keep),
            "by_head": recall(heads, per_head, keep).mean(1),
            "by_age": recall(score.expand_as(ages), ages, keep).T,
            "curve": torch.stack([recall(score, all_heads, count) for count in counts], 1),
        }
    return by_rule


def compare(runs: Iterable[RecordedRun], every: int = 4, truth: LaterAttention | None = None) -> Comparison:
    """Every rule on all selections of some runs, by prompt. Raises ValueError if no selection can be judged."""
    truth = truth or LaterAttention()
    compared = Comparison([], 0, 0, [], {}, {})
    for run in runs:
        blocks = moments(run, every, truth)
        if not blocks:
            least = first_choice(run.policy, run.geometry) + truth.ahead + 1
            raise ValueError(f"blocks={run.blocks}: no choice has all its later queries; nearest is {least}")
        layers = []
        for layer in run.recorder.layers:
            judged = [judge(run, layer, block, truth) for block in blocks]
            compared.tokens = judged[0].later.shape[-1] * judged[0].later.shape[-2]
            compared.keep, compared.counts = judged[0].keep, counts_of(judged[0].keep, compared.tokens)
            layers.append(_mean([measures(moment, compared.counts) | {"": dict(moment.facts)} for moment in judged]))
        for index, prompt in enumerate(run.prompts):
            compared.prompts.append((prompt, run.seed))
            _add_prompt(compared, layers, index)
    return compared


def _mean(each: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    """The mean over the choices of one layer."""
    return {name: {what: torch.stack([one[name][what] for one in each]).mean(0) for what in first} for name, first in each[0].items()}


def _add_prompt(compared: Comparison, layers: Sequence[Mapping[str, Mapping[str, Tensor]]], index: int) -> None:
    """Add one prompt's means over layers by rule and measure, and its recall by layer; its facts are under ""."""
    for name, first in layers[0].items():
        means: Mapping[str, Any] = {what: torch.stack([one[name][what][index] for one in layers]).mean(0).tolist() for what in first}
        if name:
            by_layer = [float(one[name]["recall"][index]) for one in layers]
            compared.rules.setdefault(name, []).append(RuleMeasures(**means, by_layer=by_layer))
        else:
            for what, mean in means.items():
                compared.facts.setdefault(what, []).append(mean)


def counts_of(keep: int, tokens: int) -> list[int]:
    """Numbers of tokens on a curve's axis: eighths of `keep` up to it, then steps of a sixth of the rest."""
    return sorted({max(1, keep * i // 8) for i in range(1, 9)} | {keep + (tokens - keep) * i // 6 for i in range(1, 7)})


def join(comparisons: Sequence[Comparison]) -> Comparison:
    """One comparison from several of different prompts."""
    first = comparisons[0]
    rules = {name: [measured for one in comparisons for measured in one.rules[name]] for name in first.rules}
    facts = {name: [fact for one in comparisons for fact in one.facts[name]] for name in first.facts}
    return Comparison([prompt for one in comparisons for prompt in one.prompts], first.keep, first.tokens, first.counts, rules, facts)
