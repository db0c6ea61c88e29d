"""Validity of the memory scores of real video: their correlation with the embedded world's truth, over policies (docs/vbench.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from echo.files import RESULTS
from eval import metrics
from eval.measures.formulas import Frames
from eval.measures.memory import Returned, returns
from eval.protocol import PAIRED, pairs_of
from eval.stats.statistics import LEVEL
from eval.store.origin import digest_if_there, origin
from eval.store.rows import Entry, newest, prompts_of
from eval.store.runs import existing, known, scores_of
from eval.world.places import FIDELITY, LEAKAGE, SHIPPED

STEP: Final = 4
"""Every `STEP`-th frame of a video is compared: four per second."""
RESAMPLES: Final = 2000
TRUTHS: Final = (f"world.{FIDELITY}", f"world.{LEAKAGE}")
ESTIMATES: Final = Returned._fields
USUAL: Final = "background_consistency"
"""The score that one would use for memory without these: similarity across a pair."""

Values = NDArray[np.float64]


class Correlation(NamedTuple):
    """Correlation of two scores, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Followed:
    """Correlation of a score with a truth: rank and linear, of policies' means and of each policy's prompts."""

    score: str
    truth: str
    policies_spearman: Correlation
    policies_pearson: Correlation
    prompts_spearman: Correlation
    prompts_pearson: Correlation


def correlations(scores: Values, truths: Values) -> Values:
    """The four correlations of `Followed`, [..., 4], of values [..., policies, prompts]; NaN if one of two is constant."""
    numbers = list[Values]()
    for both in ((scores.mean(-1), truths.mean(-1)), (one.reshape(*one.shape[:-2], -1) for one in (scores, truths))):
        values = np.stack([*both])
        for told in (rankdata(values, axis=-1), values):
            apart = told - told.mean(-1, keepdims=True)
            with np.errstate(invalid="ignore"):
                numbers.append((apart[0] * apart[1]).sum(-1) / np.sqrt((apart**2).sum(-1).prod(0)))
    return np.stack(numbers, axis=-1)


def followed(score: str, truth: str, values: Mapping[str, Values]) -> Followed:
    """Correlations of a score with a truth, both [policies, prompts]; intervals by bootstrap over policies and prompts at once."""
    both, rng = [values[score], values[truth]], np.random.default_rng(0)
    policies, prompts = (rng.integers(0, count, (RESAMPLES, count)) for count in both[0].shape)
    drawn = correlations(*(one[policies[:, :, None], prompts[:, None, :]] for one in both))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).round(4).tolist()
    return Followed(score, truth, *map(Correlation, correlations(*both).round(4).tolist(), low, high))


def frames_of(path: Path) -> Frames:
    """Every `STEP`-th frame of a stored video of the embedded world, in its own size, uint8 [T, 48, 48, 3]. Raises like `inspect`."""
    import cv2

    from data.world.render import SIZE
    from eval.vbench.video import chunks, inspect

    large = np.concatenate([frames[-start % STEP :: STEP] for start, frames in chunks(inspect(path))])
    small: Frames = np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in large]).astype(np.uint8)
    return small


def estimated(entry: Entry, task: str, encoder: Any, units: pd.MultiIndex) -> pd.DataFrame:
    """Scores of some videos of a row, from their files, beside the truth in their records; percent, index prompt and seed."""
    import torch

    from echo.scene import FPS

    recalls = {prompt.id: prompt.recalls for prompt in prompts_of(entry.run.prompt_set)}
    videos, rows = entry.videos.loc[units], []
    for (prompt, _), video in videos.iterrows():
        spans = [(-(-start // STEP), -(-end // STEP)) for start, end in scores_of(Path(video["scores_file"])).segments]
        features = encoder.frames(torch.from_numpy(frames_of(Path(video["video"])))).features
        shown = np.concatenate([features.subject.numpy(), features.place.numpy()], axis=1) / 2**0.5
        rows.append(returns(shown, spans, pairs_of(task, len(spans), recalls.get(prompt, ())), FPS / STEP))
    usual = metrics.column(task, USUAL, entry.measured, ("pair_mean",)).metric
    own = 100 * pd.DataFrame([row or (np.nan, np.nan) for row in rows], units, columns=list(ESTIMATES), dtype="float64")
    return own.join(videos.reindex(columns=[*TRUTHS, usual]).rename(columns={usual: USUAL})).round(4)


def common(entries: Sequence[Entry]) -> pd.MultiIndex:
    """Prompts and seeds for which every row has a scored video. Raises ValueError for too few rows or prompts."""
    every = [entry.videos.dropna(subset=[*TRUTHS, "video", "scores_file"]).index for entry in entries]
    units = reduce(lambda some, other: some.intersection(other), every) if every else pd.MultiIndex.from_arrays([[], []])
    prompts = units.unique(0).size
    if len(every) < 3 or prompts < 2:
        raise ValueError(f"{len(every)} policies with {prompts} prompts that all of them have: correlations need 3 and 2 at least")
    return units


def told(one: Followed) -> str:
    """The correlations in one line."""
    numbers = (one.policies_spearman, one.policies_pearson, one.prompts_spearman, one.prompts_pearson)
    return f"{one.score:24s} {one.truth:22s}" + "".join(f"  {n.value:+.2f} [{n.low:+.2f}, {n.high:+.2f}]" for n in numbers)


def draw(policies: Sequence[str], values: Mapping[str, Values], against: Sequence[Followed], path: Path) -> None:
    """Draw means of policies: each score over the truth that it estimates."""
    from eval.figures import style

    figure, axes = style.pyplot().subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
    for axis, score, truth in zip(axes, ESTIMATES, TRUTHS):
        x, y = values[truth].mean(1), values[score].mean(1)
        one = next(one for one in against if (one.score, one.truth) == (score, truth)).policies_spearman
        axis.plot(x, y, "o", ms=4, color=style.SERIES[0])
        for number, place in enumerate((*np.argsort(x)[:2], *np.argsort(x)[-3:])):  # put names of neighbours above and below
            beside = (4, -7 if number % 2 else 3)
            axis.annotate(policies[place], (x[place], y[place]), textcoords="offset points", xytext=beside, fontsize=6)
        axis.set(xlabel=f"{metrics.described(truth)['label']}, truth", ylabel=f"{metrics.described(score)['label']}, from features")
        axis.set_title(f"rank correlation {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]")
    style.save(figure, path)


def memory(
    task: str = "recall",
    scorer: Path = SHIPPED.parent / "model.safetensors",
    *,
    store: Path = RESULTS,
    output: Path = Path("docs/data/memory.json"),
    figure: Path = Path("docs/memory.png"),
) -> Iterator[str]:
    """Measure the correlation of the memory scores of real video with the embedded world's truth, over the policies of a store.

    Scores are computed again from the videos' files, so a store that is older than these scores also works.

        python run.py experiment=zoo scale=laptop task=recall seed=0 -m
        echo-harness audit memory --store results

    Args:
        task: a task whose scenes return.
        scorer: weights of the embedded scorer, whose features are compared.
        store: a store of the embedded world.
        output: the numbers, JSON.
        figure: means of policies, PNG.
    """
    import torch

    from eval.world.scorer import EmbeddedScorer

    known("task=", [task], PAIRED, "no scene returns in it")
    entries = [entry for entry in newest(existing(store), task) if not entry.calibration and set(TRUTHS) <= set(entry.measured)]
    entries = [entry for entry in entries if entry.backbone == entries[0].backbone]
    try:
        units = common(entries)
    except ValueError as error:
        raise ValueError(f"--store {store}: {error}; python run.py experiment=zoo task={task} -m makes them") from None
    torch.set_num_threads(1)
    encoder, begun, parts = EmbeddedScorer.load(scorer).encoder, time.process_time(), dict[str, pd.DataFrame]()
    for entry in entries:
        parts[entry.preset] = estimated(entry, task, encoder, units)
        yield f"{entry.name}: {len(units)} videos"
    by_prompt = pd.concat(parts, names=["policy"]).groupby(level=["policy", "prompt"]).mean()
    values = {name: column.unstack().to_numpy(np.float64) for name, column in by_prompt.items()}
    whole = [name for name in (*ESTIMATES, USUAL) if np.isfinite(values[name]).all()]
    against = [followed(score, truth, values) for score, truth in (*product(whole, TRUTHS), TRUTHS)]
    policies, prompts = (by_prompt.index.unique(level).tolist() for level in ("policy", "prompt"))
    content = origin("audit memory", (f"task={task}",)) | {
        "backbone": entries[0].backbone, "policies": policies, "prompts": prompts, "seeds": units.unique(1).tolist(),
        "scorer": digest_if_there(scorer), "processor_s": round(time.process_time() - begun), "resamples": RESAMPLES,
        "followed": [asdict(one) for one in against], "by_prompt": {name: own.tolist() for name, own in values.items()},
    }  # fmt: skip
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draw(policies, values, against, figure)
    yield f"{len(policies)} policies x {len(prompts)} prompts; Spearman, Pearson of policies' means, then of their prompts [95 % interval]"
    yield from (told(one) for one in against)
    yield f"{output}, {figure}"
