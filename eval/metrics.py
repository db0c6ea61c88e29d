"""The registry of metrics: all that tables, figures and pages know of a metric stands in its entry here, and nowhere else.

A scorer writes a number under a name of its metric and of its definition. `subject_consistency.vbench_long` is not
`subject_consistency.vbench`, and `proxy.subject_consistency` is neither. A column of a table shows one definition, the same in
every row, and says which. No torch, no frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from echo.refusals import nearest_of
from echo.scene import FPS

PERCENT = "percent, 0 to 100"
COSINE = "100 x cosine"
TASKS: Final = ("long60", "long120", "smooth", "hard", "recall")
"""Tasks that have a protocol of their own, in the paper's order."""
LIKE: Final[Mapping[str, str]] = {
    "memflow": "smooth", "layerrecall": "recall", "vmem": "recall", "helios": "long60", "rollf200": "long60",
}  # fmt: skip
"""Tasks of other people's prompt sets, and the task whose protocol scores them; of recall's, each prompt names its own pairs."""


class Scope(StrEnum):
    """The stretch of video that one score is made of."""

    whole = "whole"
    """All frames at once."""
    segments = "segments"
    """Each scene by itself, then the mean over scenes."""
    pairs = "pairs"
    """Each recalled scene against the scene that it recalls, then the mean over pairs."""


WHOLE: Final = dict.fromkeys(TASKS, Scope.whole)
SCOPES: Final = {
    Scope.segments: "scene by scene",
    Scope.pairs: "on each recalled scene with the one that it recalls",
    Scope.whole: "over the whole video",
}
"""Stretches in words, in the order in which a table's caption names them."""


@dataclass(frozen=True)
class Definition:
    """A way to measure a metric; its name is part of the metric's name in the store.

    words: what it is, for a caption; "" for one that nobody can ask for. unit: its own, if it is not the metric's.
    note: said below a table that shows it. cuts: it says itself over which stretches it goes. embedded: it is of the embedded
    scorer and stands before the metric, as in `proxy.dynamic_degree`; the others stand behind, as in `dynamic_degree.vbench`.
    """

    words: str = ""
    unit: str = ""
    note: str = ""
    cuts: bool = False
    embedded: bool = False


DEFINITIONS: Final[Mapping[str, Definition]] = {
    "vbench_long": Definition(
        "VBench-Long: mean over clips of 2 s; subject and background consistency are half the clips' own, half that between clips, "
        "mapped by VBench-Long's table",
        cuts=True,
    ),
    "vbench_long_scenes": Definition("VBench-Long of each scene as if it were a video, then the mean over scenes", cuts=True),
    "vbench_static": Definition("temporal flickering: over those clips of 2 s that VBench's static filter calls still", cuts=True),
    "vbench": Definition("VBench's plain formulas"),
    "pair_mean": Definition("consistency of a pair: mean cosine across it"),
    "pair_joined": Definition("consistency of a pair: VBench's plain formula on the two scenes joined end to end"),
    "clip_b32": Definition("text alignment: 100 x cosine of CLIP ViT-B/32", COSINE),
    "clip_l14": Definition("text alignment: 100 x cosine of CLIP ViT-L/14", COSINE),
    "viclip": Definition("text alignment: 100 x cosine of ViCLIP", COSINE),
    "vbench_text_alignment": Definition("text alignment: mean of CLIP's and ViCLIP's cosine x 100, as in VBench's competitions", COSINE),
    "proxy": Definition(note="proxy: the dimension's idea measured by another scorer; not a VBench number.", embedded=True),
    "proxy_joined": Definition(embedded=True),
    "world": Definition(note="world: read against the truth of the embedded world; no other benchmark has it.", embedded=True),
    "opinion": Definition(unit="points, 1 (worst) to 5 (best)"),
}
"""By name, in the order in which a caption names them."""
PAIRS: Final = {"pair_joined": "proxy_joined", "pair_mean": "proxy"}
"""Readings of the appendix's "paired segments", the usual one first, and what the embedded scorer calls each."""
MADE: Final = {"vbench_long": ("vbench_long",), "vbench_long_scenes": ("vbench_long_scenes",), "vbench": ("vbench", "pair_joined")}
"""Definitions of metrics that are made of others, and by which definitions these are taken, the first that is there."""
RULES: Final = {name: definition for name, definition in DEFINITIONS.items() if definition.words}
"""Definitions that `rule=` can ask for."""


@dataclass(frozen=True)
class Part:
    """What a metric that is made of others takes of one: scaled from least..most (percent) to 0..1, times a weight."""

    least: float = 0.0
    most: float = 100.0
    weight: float = 1.0


QUALITY: Final = {
    "subject_consistency": Part(14.62),
    "background_consistency": Part(26.15),
    "temporal_flickering": Part(62.93),
    "motion_smoothness": Part(70.60, 99.75),
    "dynamic_degree": Part(weight=0.5),
    "aesthetic_quality": Part(),
    "imaging_quality": Part(),
}
"""VBench's Quality: its dimensions, the range to which each is scaled, and its weight."""


@dataclass(frozen=True)
class Metric:
    """All that is known of a metric.

    name: in stores, configs and published data. label: in words, as a table's head has it. meaning: what it measures.
    unit: of its numbers, where the definition has none of its own. lower: whether less is better.
    scopes: over which stretch of a video each task's protocol scores it; empty for one that no protocol has.
    long, interactive: its place among the columns of tasks of one scene, and of several; 0 for none.
    definitions: those that a column looks for, the usual one first; by default VBench's, as the task has them.
    leads, trails: it stands before, or behind, the other columns, and only where it was measured.
    parts: of one that is made of others of the same definition: these, and what it takes of each. No scorer writes it; whoever reads
    a store makes it (`derived`).
    sweeps: kinds of task ("long", "interactive") whose figure of a swept setting has a panel of it.
    fact: of one that no scorer writes, which fact of a video's record it is; only tables that name it show it. of_device:
    only numbers of one device compare. printed: what published data calls it, if otherwise.
    question: what raters are asked, for a criterion of the user study. note: said below a table that shows it.
    """

    name: str
    label: str
    meaning: str = ""
    unit: str = PERCENT
    lower: bool = False
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    long: int = 0
    interactive: int = 0
    definitions: tuple[str, ...] = ()
    leads: bool = False
    trails: bool = False
    parts: Mapping[str, Part] = field(default_factory=dict)
    sweeps: tuple[str, ...] = ()
    fact: str = ""
    of_device: bool = False
    printed: str = ""
    question: str = ""
    note: str = ""


BOTH = ("long", "interactive")

# fmt: off
METRICS: Final = (
    Metric("temporal_flickering", "temporal flickering", "one minus the mean difference of neighbouring frames",
           scopes=WHOLE, long=6, interactive=7),
    Metric("motion_smoothness", "motion smoothness", "how well a frame is predicted from those before and after it",
           scopes=WHOLE, long=5, interactive=6, sweeps=("long",),
           question="Does everything move evenly and believably, without jumps, stutter or a standstill that no text asks for?"),
    Metric("imaging_quality", "imaging quality", "low-level quality of frames: noise, blur, exposure",
           scopes=WHOLE, long=3, interactive=5, sweeps=BOTH),
    Metric("aesthetic_quality", "aesthetic quality", "beauty of frames", scopes=WHOLE, long=1, interactive=4),
    Metric("dynamic_degree", "dynamic degree", "whether enough moves", scopes=WHOLE, long=7, interactive=8, sweeps=("long",)),
    Metric("text_alignment", "text alignment", "whether each scene shows what its sentence says",
           scopes=dict.fromkeys(TASKS, Scope.segments), long=8, interactive=1, sweeps=BOTH,
           definitions=("clip_b32", "clip_l14", "viclip", "vbench_text_alignment"),
           question="Does each scene show what its text says: the subject, the place and what happens?"),
    Metric("subject_consistency", "subject consistency", "whether the subject stays itself",
           scopes=WHOLE | {"recall": Scope.pairs}, long=4, interactive=2, sweeps=BOTH,
           question="Does the subject stay itself, in shape, colour and detail, from the first frame to the last?"),
    Metric("background_consistency", "background consistency", "whether the place stays itself",
           scopes=WHOLE | {"hard": Scope.segments, "recall": Scope.pairs}, long=2, interactive=3, sweeps=BOTH),
    Metric("recall_fidelity", "recall fidelity", "how much of what no prompt says came back with a place",
           definitions=("world",), leads=True, sweeps=("interactive",)),
    Metric("leakage", "leakage", "how much of the place just left is still there, over the first 4.5 s after a switch",
           lower=True, definitions=("world",), leads=True, sweeps=("interactive",)),
    Metric("half_life_blocks", "half life blocks", "blocks after a switch until half of the old place is gone",
           unit="blocks of 0.75 s", lower=True, definitions=("world",), leads=True,
           note="half life blocks: censored at the scene's length; where the old place never fades to a half, that length counts, so "
                "13 (a scene of 10 s) says at least 13, and means with such videos are too low."),
    Metric("quality", "Quality", "VBench's weighted mean of its seven dimensions of quality", trails=True, parts=QUALITY,
           note="Quality: the seven dimensions of the same definition, each scaled to VBench's range of it, weighted 1 each and dynamic "
                "degree 0.5; a recalled pair counts as joined end to end."),
    Metric("quality_drift", "quality drift", "imaging quality of the first 5 s minus that of the last 5 s, whichever is more",
           lower=True, trails=True),
    Metric("run_fps", "FPS", "how fast these videos were made", unit="pixel frames a second", fact="fps_dit", of_device=True,
           printed="fps"),
    Metric("frames_attended", "frames attended", "latent frames that a block attends to at most, its own among them (K)",
           unit="latent frames", lower=True, fact="attended_frames"),
    Metric("frames_kept", "frames kept", "keys and values that are kept behind a block at most, memories among them",
           unit="latent frames", lower=True, fact="kept_frames"),
    Metric("fastest_px", "fastest px", "mean length of the fastest 5 % of a scene's optical flow", unit="pixels"),
    Metric("video_quality", "video quality", "quality of the picture as raters see it",
           question="All in all, how good is the picture: clear, clean, natural in colour, and as good at the end as at the start?"),
)
# fmt: on
"""Every metric: VBench's dimensions in the order in which scorers compute them, those of the embedded world, and the others."""
KNOWN: Final = {metric.name: metric for metric in METRICS}
READINGS: Final = {
    "place_right": ("place right, % of videos", 100.0),
    "subject_right": ("subject right, % of videos", 100.0),
    "quality": ("image quality", 1.0),
}
"""What the embedded scorer reads of each block: its label, and the factor that makes it 0..100."""
READING_FRAMES: Final = 12
"""Pixel frames of such a block, whatever a backbone's own blocks are."""
READING_S: Final = READING_FRAMES / FPS
"""Its seconds: 0.75."""


@dataclass(frozen=True)
class Column:
    """A metric and which definition of it, "" where there is but one; any other name than a registered one stands for itself."""

    dimension: str
    kind: str

    @classmethod
    def named(cls, metric: str) -> Column:
        """The column of a name in the store."""
        first, _, rest = metric.partition(".")
        return cls(rest, first) if rest and first in DEFINITIONS else cls(first, rest)

    @property
    def about(self) -> Metric:
        """What the registry says of it."""
        return KNOWN.get(self.dimension) or Metric(self.dimension, self.dimension.replace("_", " "))

    @property
    def definition(self) -> Definition:
        """What is known of the definition."""
        return DEFINITIONS.get(self.kind, Definition())

    @property
    def metric(self) -> str:
        """Name in the store."""
        if not self.kind:
            return self.dimension
        return f"{self.kind}.{self.dimension}" if self.definition.embedded else f"{self.dimension}.{self.kind}"

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return self.about.lower

    @property
    def unit(self) -> str:
        """Of its numbers."""
        return self.definition.unit or self.about.unit

    @property
    def words(self) -> tuple[str, ...]:
        """The header, a line for each word."""
        return (*self.about.label.split(), *((f"({self.kind.replace('_', ' ')})",) if self.kind else ()), *(("↓",) if self.lower else ()))


def protocol_of(task: str) -> str:
    """The task whose protocol scores a task, itself by default."""
    return LIKE.get(task, task)


def kind_of(task: str) -> str:
    """ "long" for a task of one scene, else "interactive"."""
    return "long" if protocol_of(task).startswith("long") else "interactive"


def dimensions(kind: str) -> tuple[str, ...]:
    """Names of the columns of a kind of task, in the paper's order."""
    places = {metric.name: metric.long if kind == "long" else metric.interactive for metric in METRICS}
    return tuple(sorted(filter(places.get, places), key=places.__getitem__))


def showable() -> tuple[str, ...]:
    """Names of the columns that an experiment's table may ask for."""
    return (*dimensions("long"), *(metric.name for metric in METRICS if metric.fact))


def criteria() -> dict[str, str]:
    """Metrics that raters are asked for, in the order of the paper's user study, and the question of each."""
    asked = sorted((metric for metric in METRICS if metric.question), key=lambda metric: metric.interactive or len(METRICS))
    return {metric.name: metric.question for metric in asked}


def panels(task: str) -> tuple[str, ...]:
    """Metrics that a figure of a swept setting shows of a task, in the order of the columns."""
    leading = [metric.name for metric in METRICS if metric.leads]
    return tuple(name for name in (*leading, *dimensions("interactive")) if kind_of(task) in KNOWN[name].sweeps)


def check(rules: Sequence[str]) -> None:
    """Refuse, by a ValueError in one line, a definition that there is not."""
    for rule in rules:
        if rule not in RULES:
            raise ValueError(f"rule={rule}: no such definition; {nearest_of(rule, RULES)}")


def columns(task: str, names: Iterable[str], rules: Sequence[str] = (), wanted: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of a table.

    Args:
        task: its task.
        names: metrics that any row has, by their names in the store.
        rules: definitions that come before the usual ones.
        wanted: dimensions and their order; the task's own by default. Those that lead stand before them, those that trail behind.
    """
    measured = set(names)
    every = [Column(metric.name, kind) for metric in METRICS if metric.leads for kind in metric.definitions]
    leading = [one for one in every if one.metric in measured]
    trailing = [
        one for one in (column(task, metric.name, measured, rules) for metric in METRICS if metric.trails) if one.metric in measured
    ]
    return (*leading, *(column(task, dimension, measured, rules) for dimension in wanted or dimensions(kind_of(task))), *trailing)


def column(task: str, dimension: str, measured: Collection[str], rules: Sequence[str] = ()) -> Column:
    """A dimension by the first definition of it that was measured, those of `rules` first; the dimension alone where none was."""
    usual = KNOWN[dimension].definitions
    if not usual:
        plain = ("vbench_long", "vbench") if kind_of(task) == "long" else ("vbench", "vbench_long")
        usual = (*PAIRS, *plain) if KNOWN[dimension].scopes.get(protocol_of(task)) is Scope.pairs else ("vbench_static", *plain)
    asked = [kind for rule in rules for kind in (rule, PAIRS.get(rule, rule))]
    candidates = (Column(dimension, kind) for kind in (*asked, *usual, "", *PAIRS.values()))
    return next((column for column in candidates if column.metric in measured), Column(dimension, ""))


def derived(numbers: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """What is made of the numbers of videos, by name in the store: [videos] of each metric with parts, where all of these are there."""
    made = {}
    for metric in METRICS:
        for kind, kinds in MADE.items() if metric.parts else ():
            names = {part: [name for one in kinds if (name := Column(part, one).metric) in numbers] for part in metric.parts}
            if all(names.values()):
                made[Column(metric.name, kind).metric] = weighted(
                    metric.parts, {part: numbers[first] for part, (first, *_) in names.items()}
                )
    return made


def weighted(parts: Mapping[str, Part], values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The weighted mean of values in percent, each scaled to the range of its part; in percent."""
    scaled = [part.weight * (values[name] - part.least) / (part.most - part.least) for name, part in parts.items()]
    return np.asarray(100 * sum(scaled) / sum(part.weight for part in parts.values()), np.float64)


def rule_of(task: str, shown: Sequence[Column]) -> str:
    """How the columns of a task are scored, in words: stretches first, definitions then."""
    kinds = {column.kind for column in shown}
    words = [rule.words for kind, rule in RULES.items() if kind in kinds]
    task, own = protocol_of(task), " (4-1, 5-2, 6-3)" if task == "recall" else ""
    if task not in TASKS:
        return "; ".join(words)
    stretches: list[str] = []
    for scope, where in SCOPES.items():
        labels = [c.about.label for c in shown if c.about.scopes.get(task) is scope and not c.definition.cuts]
        if labels and scope is Scope.whole:
            stretches.append(f"{'all else' if stretches else 'all'} {where}")
        elif labels:
            stretches.append(f"{' and '.join(labels)} {where}{own if scope is Scope.pairs else ''}")
    paired = {column.kind for column in shown if column.about.scopes.get(task) is Scope.pairs}
    words += [RULES[rule].words for rule, kind in PAIRS.items() if kind in paired]
    return "; ".join([", ".join(stretches), *words] if stretches else words)


def notes(shown: Sequence[Column]) -> list[str]:
    """What a reader must know of columns, each line once: of their definitions, then of the metrics."""
    of_definitions = [definition.note for kind, definition in DEFINITIONS.items() if any(column.kind == kind for column in shown)]
    return [note for note in (*of_definitions, *dict.fromkeys(column.about.note for column in shown)) if note]


def described(metric: str) -> dict[str, str]:
    """A metric of the store for a page: its label, its unit, what it measures, and which of "higher" and "lower" is better."""
    column = Column.named(metric)
    label = " ".join(word for word in column.words if word != "↓")
    return {"label": label, "unit": column.unit, "meaning": column.about.meaning, "better": "lower" if column.lower else "higher"}
