"""Coverage of the tables' intervals by simulation: `python -m tests.load.coverage [RUNS]` prints CSV.

It draws scores of prompts and seeds with a known true mean, and counts how often the tables' interval contains it. Like in a store, prompts
differ and seeds of a prompt are correlated. A share has the standard error of `runs` draws.
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
    """Normal with mean 0, standard deviation 1."""
    return generator.normal(size=size)


def skewed(generator: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Exponential with mean 0, standard deviation 1: a few prompts are far better than the others."""
    return np.asarray(generator.exponential(size=size) - 1.0)


def yes_or_no(generator: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Dynamic degree of a method with motion in 60 % of the prompts, shifted to mean 0."""
    return np.asarray((generator.random(size) < 0.6) - 0.6)


DRAWS: dict[str, Draw] = {"normal": normal, "skewed": skewed, "yes or no": yes_or_no}
PROMPTS = (3, 4, 8, 16, 32, 128)


def coverage(draw: Draw, prompts: int, seeds: int, runs: int, resamples: int = RESAMPLES, ragged: bool = False) -> float:
    """Share of simulated tables whose interval contains the true mean.

    Args:
        draw: distribution of prompts; seeds add a normal one with half the standard deviation.
        prompts: clusters.
        seeds: seeds of each prompt.
        runs: number of tables.
        resamples: resamples of the bootstrap.
        ragged: whether every second prompt has only one seed, like after failed runs.
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
    """The same share for mean opinions: raters and videos have standard deviation 0.5 each, single ratings 0.8 in addition."""
    generator = np.random.default_rng(raters * 1000 + videos)
    hits = 0
    for _ in range(runs):
        strict, good = generator.normal(0, 0.5, (raters, 1)), generator.normal(0, 0.5, (1, videos))
        ratings = strict + good + generator.normal(0, 0.8, (raters, videos))
        mean = two_way(pd.DataFrame(ratings).stack())
        hits += mean is not None and mean.half_width is not None and abs(mean.mean) <= mean.half_width
    return hits / runs


def table(runs: int) -> Iterator[list[str]]:
    """Lines with distribution, clusters, share in percent and its standard error."""
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
