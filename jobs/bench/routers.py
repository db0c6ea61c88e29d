"""Accuracy of routers on prompt sets (paper's appendix B): scenes entered as their tags say, and recalls that find the intended scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tqdm import tqdm

from baselines.presets import make_policy
from echo.backbone.interface import features
from echo.cache.policy import script_of
from echo.files import write_atomic
from echo.routing import Embed, Encoder, Feature, Routing, Running, recall_target, similarities
from echo.scene import FRAMES_PER_BLOCK, Prompt, TagMeaning, Transition
from eval.protocol import recalled
from jobs.spec.compose import sweep
from jobs.spec.mistakes import explained
from jobs.spec.plan import Job, prepare
from jobs.work import models

TASKS = ("smooth", "hard", "recall")
TARGETS = Routing(causal=True, exclude_previous=True)
"""Settings by which a tagged recall finds its scene: those of Echo's presets, except for the feature."""


@dataclass(frozen=True)
class Hits:
    """Number of scenes that a router gets right, out of all."""

    right: int
    count: int

    def __str__(self) -> str:
        return f"{self.right} of {self.count}" if self.count else "-"


def meant(prompt: Prompt) -> list[tuple[Transition | None, int | None]]:
    """The tagged transition of each scene but the first, and the scene of a recall: the one it names, otherwise that of A-B-C-A-B-C."""
    ways = prompt.transitions(TagMeaning.enter)
    pairs = dict(recalled(len(ways))) if Transition.recall in ways and not prompt.recalls else dict(enumerate(prompt.recalls))
    return [(way, pairs[scene] if way is Transition.recall else None) for scene, way in enumerate(ways) if scene]


def entered(prompts: Sequence[Prompt], running: Running, threshold: float, embed: Embed) -> Hits:
    """Scenes that eqs (15)-(17), without seeing the tags, enter as tagged and, for recalls, with the intended scene."""
    settings = {"feature": "prompt", "running": running.value, "threshold_smooth": threshold, "threshold_recall": threshold}
    policy = make_policy({"method": "echo", **{f"method.routing.{name}": value for name, value in settings.items()}})
    right = count = 0
    for prompt in tqdm(prompts, desc=f"eq. (17), {running}, {threshold:g}", unit="prompt", disable=None, leave=False):
        script = script_of(replace(prompt, tags=(None,) * len(prompt.tags), recalls=()), policy, FRAMES_PER_BLOCK, embed)
        pairs = list(zip(script.starts[1:], meant(prompt), strict=True))
        right += sum((start.transition, start.recalls) == way for start, way in pairs)
        count += len(pairs)
    return Hits(right, count)


def aimed(prompts: Sequence[Prompt], feature: Feature, embed: Embed | None) -> Hits:
    """Tagged recalls whose scene a feature finds among the earlier scenes except the previous one."""
    settings = replace(TARGETS, feature=feature)
    cases = [(prompt, scene, way[1]) for prompt in prompts for scene, way in enumerate(meant(prompt), 1) if way[1] is not None]
    hits = (recall_target(similarities(prompt.scenes, scene, settings, embed), settings) == target for prompt, scene, target in cases)
    return Hits(sum(hits), len(cases))


def encoder(job: Job) -> Embed:
    """Text features by the encoder of a job's backbone; each text is encoded once."""
    backbone, _ = models.load(job)
    assert backbone is not None

    @cache
    def one(text: str) -> list[float]:
        return features(backbone.text, [text])[0]

    return Encoder(lambda texts: [one(text) for text in texts], backbone.text.pieces)


def routers(
    words: Sequence[str],
    /,
    thresholds: Sequence[str] = ("0.85", "0.7"),
    features: Sequence[str] = tuple(Feature),
    *,
    output: Path | None = None,
) -> Iterator[str]:
    """Count the scenes that each router gets right on the smooth, hard and recall sets of a backbone, as a Markdown table.

    Columns: scenes entered as tagged from the texts only, by eq. (17) as printed and by chains, at each threshold; then scenes that a
    tagged recall finds, by each text feature.

        echo-harness audit routers
        echo-harness audit routers backbone=self_forcing task.prompts=released --output routers.md
        echo-harness audit routers backbone=self_forcing weights=random geometry=tiny features=idf

    Args:
        words: settings of run.py for the backbone and prompts: backbone= checkpoints= task.prompts= weights= geometry=.
        thresholds: thresholds of eq. (17).
        features: prompt, similar and idf; with only idf no text encoder is loaded, and the columns of eq. (17) have dashes.
        output: also write the table into this file.
    """
    with explained(words):
        jobs = [prepare(sweep([*words, f"task={task}", "method=echo", "eval=none"])[0]) for task in TASKS]
    chosen = [Feature(name) for name in Feature if name in features]
    if not chosen or len(chosen) != len(features):
        raise ValueError(f"features={','.join(features)}: some of {', '.join(Feature)}; nearest is features={Feature.prompt}")
    levels = [(running, float(level)) for level in thresholds for running in Running]
    embed = encoder(jobs[0]) if set(chosen) != {Feature.idf} else None
    heads = ["prompt set", *(f"eq. (17), {running}, {level:g}" for running, level in levels), *(f"target by {name}" for name in chosen)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    yield from lines
    for job in jobs:
        whole = job.prompt_set
        cells = [Hits(0, 0) if embed is None else entered(whole, running, level, embed) for running, level in levels]
        cells += [aimed(whole, name, embed) for name in chosen]
        lines.append(f"| {job.config.task.prompt_set} ({len(whole)}) | {' | '.join(map(str, cells))} |")
        yield lines[-1]
    if output:
        write_atomic(output, ("\n".join(lines) + "\n").encode())
