"""How often the intervals that tables print hold the truth, by simulation: `python -m tests.load.coverage [RUNS]` prints CSV.

Draws scores of prompts and seeds whose true mean is known and counts how often the interval that tables print holds it. Prompts
differ from each other and seeds of a prompt are alike, as in a store. The error of a share is that of `runs` draws.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.stats.agreement import two_way
from eval.stats.statistics import RESAMPLES, half_width

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
CHUNK = 500
"""Simulations at a time, so that their resamples fit in memory."""


def normal(generator: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Mean 0, spread 1."""
    return generator.normal(size=size)


def skewed(generator: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Exponential, mean 0, spread 1: a few prompts far better than the others."""
    return np.asarray(generator.exponential(size=size) - 1.0)


def yes_or_no(generator: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Dynamic degree of a method of which 60 % of the prompts move, mean 0."""
    return np.asarray((generator.random(size) < 0.6) - 0.6)


DRAWS: dict[str, Draw] = {"normal": normal, "skewed": skewed, "yes or no": yes_or_no}
PROMPTS = (3, 4, 8, 16, 32, 128)


def coverage(draw: Draw, prompts: int, seeds: int, runs: int, resamples: int = RESAMPLES, ragged: bool = False) -> float:
    """Share of simulated tables whose interval holds the true mean.

    Args:
        draw: spread of prompts; seeds add a normal one of half its size.
        prompts: clusters.
        seeds: of each prompt.
        runs: tables.
        resamples: of the bootstrap.
        ragged: whether every second prompt lacks all seeds but one, as where runs failed.
    """
    generator = np.random.default_rng(prompts * 1000 + seeds)
    counts = np.full(prompts, float(seeds))
    if ragged:
        counts[::2] = 1.0
    hits = 0
    for start in range(0, runs, CHUNK):
        many = min(CHUNK, runs - start)
        sums = counts[:, None] * draw(generator, (prompts, many))
        sums += generator.normal(size=(prompts, many)) * 0.5 * np.sqrt(counts)[:, None]
        half = half_width(sums, np.repeat(counts[:, None], many, axis=1), resamples)
        hits += int(np.count_nonzero(np.abs(sums.sum(axis=0) / counts.sum()) <= half))
    return hits / runs


def opinion_coverage(raters: int, videos: int, runs: int) -> float:
    """Likewise of mean opinions, whose raters and videos both differ: each of spread 0.5, a single rating 0.8 beside."""
    generator = np.random.default_rng(raters * 1000 + videos)
    hits = 0
    for _ in range(runs):
        strict, good = generator.normal(0, 0.5, (raters, 1)), generator.normal(0, 0.5, (1, videos))
        ratings = strict + good + generator.normal(0, 0.8, (raters, videos))
        mean = two_way(pd.DataFrame(ratings).stack())
        hits += mean is not None and mean.half_width is not None and abs(mean.mean) <= mean.half_width
    return hits / runs


def table(runs: int) -> Iterator[list[str]]:
    """Lines: what was drawn, clusters, share in percent and its standard error."""
    yield ["scores", "prompts", "seeds", "lacking", "covered_percent", "error_percent"]
    for name, draw in DRAWS.items():
        for prompts in PROMPTS:
            for ragged in (False, True):
                share = coverage(draw, prompts, 4, runs, ragged=ragged)
                yield [name, str(prompts), "4", "half the prompts but one seed" if ragged else "nothing", *_shown(share, runs)]
    for raters, videos in ((18, 6), (18, 18), (6, 6)):
        share = opinion_coverage(raters, videos, runs)
        yield [f"opinions of {raters} raters", str(videos), "1", "nothing", *_shown(share, runs)]


def _shown(share: float, runs: int) -> tuple[str, str]:
    return f"{100 * share:.2f}", f"{100 * math.sqrt(share * (1 - share) / runs):.2f}"


if __name__ == "__main__":
    csv.writer(sys.stdout, lineterminator="\n").writerows(table(int(sys.argv[1]) if len(sys.argv) > 1 else 4000))
