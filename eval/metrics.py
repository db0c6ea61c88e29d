"""The registry of metrics: an entry here holds everything that tables, figures and pages know of a metric.

A scorer writes a number under the name of its metric and definition: `subject_consistency.vbench_long`,
`subject_consistency.vbench` and `proxy.subject_consistency` are three different numbers. A column of a table shows one definition,
the same in every row, and names it. No torch, no frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from echo.refusals import nearest_of, suggestion
from echo.scene import FPS
from eval.definitions import COSINE, DEFINITIONS, MADE, PAIRS, PERCENT, RULES, Definition, Part, weighted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TASKS: Final = ("long60", "long120", "smooth", "hard", "recall")
"""Tasks that have a protocol of their own, in the paper's order."""
LIKE: Final[Mapping[str, str]] = {
    "memflow": "smooth", "layerrecall": "recall", "vmem": "recall", "helios": "long60", "rollf200": "long60",
}  # fmt: skip
"""Tasks of imported prompt sets, and the task whose protocol scores them; for recall, each prompt names its own pairs."""


class Scope(StrEnum):
    """The stretch of video over which a score is computed."""

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
"""Stretches in words, in the order of a table's caption."""


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
SEMANTIC: Final = {
    **dict.fromkeys(("object_class", "multiple_objects", "human_action", "color", "spatial_relationship"), Part()),
    "scene": Part(most=82.22),
    "appearance_style": Part(0.09, 28.55),
    "temporal_style": Part(most=36.4),
    "overall_consistency": Part(most=36.4),
}
"""VBench's Semantic: dimensions of its own prompt suite and their ranges; all have the same weight."""
TOTAL: Final = {"quality": Part(weight=4.0), "vbench_semantic": Part()}
"""VBench's Total."""
CONSISTENCY: Final = {"subject_consistency": Part(), "background_consistency": Part()}
"""MemFlow's Consistency."""
SCENES_TOLD: Final = 6
"""Text alignment is also scored scene by scene for videos of two to this many scenes."""


@dataclass(frozen=True)
class Metric:
    """Everything that is known of a metric.

    name: in stores, configs and published data. label: column head. meaning: what it measures.
    unit: of its numbers, unless the definition has its own. lower: whether less is better.
    scopes: the stretch of video over which each task's protocol scores it; empty if no protocol has it.
    long, interactive: its position among the columns of tasks of one scene, and of several; 0 for none.
    definitions: those that a column looks for, the usual one first; by default VBench's for the task.
    leads, trails: whether it is before, or after, the other columns, and only if it was measured.
    parts: of a derived metric, which is computed when a store is read (`derived`): its parts, of the same definition.
    sweeps: kinds of task ("long", "interactive") whose figure of a swept setting has a panel of it.
    fact: the fact of a video's record that it shows, if no scorer writes it. of_device: whether only numbers of one device compare.
    printed: its name in published data, if different. short: likewise in files of per-video scores.
    question: the question to raters, for a criterion of the user study. note: printed below a table that shows it.
    misleads: when its number misleads; printed below a table that was asked for it. sets: names of sets of columns
    (`columns=memflow`) that contain it, and its position there.
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
    short: str = ""
    question: str = ""
    note: str = ""
    misleads: str = ""
    sets: Mapping[str, int] = field(default_factory=dict)


BOTH = ("long", "interactive")
TEXT_KINDS = ("clip_b32", "clip_l14", "viclip", "vbench_text_alignment")
_world = partial(Metric, definitions=("world",), leads=True)

# fmt: off
METRICS: Final = (
    Metric("temporal_flickering", "temporal flickering", "one minus the mean difference of neighbouring frames",
           short="flickering", scopes=WHOLE, long=6, interactive=7),
    Metric("motion_smoothness", "motion smoothness", "how well a frame is predicted from those before and after it",
           short="smoothness", scopes=WHOLE, long=5, interactive=6, sweeps=("long",),
           question="Does everything move evenly and believably, without jumps, stutter or a standstill that no text asks for?"),
    Metric("imaging_quality", "imaging quality", "low-level quality of frames: noise, blur, exposure",
           short="imaging", scopes=WHOLE, long=3, interactive=5, sweeps=BOTH),
    Metric("aesthetic_quality", "aesthetic quality", "beauty of frames", short="aesthetic",
           scopes=WHOLE, long=1, interactive=4, sets={"memflow": 3}),
    Metric("dynamic_degree", "dynamic degree", "whether enough moves", short="dynamic", scopes=WHOLE, long=7, interactive=8,
           sweeps=("long",), sets={"repeats": 3}),
    Metric("text_alignment", "text alignment", "whether each scene shows what its sentence says",
           scopes=dict.fromkeys(TASKS, Scope.segments), long=8, interactive=1, sweeps=BOTH, definitions=TEXT_KINDS,
           question="Does each scene show what its text says: the subject, the place and what happens?"),
    Metric("subject_consistency", "subject consistency", "whether the subject stays itself",
           short="subject", scopes=WHOLE | {"recall": Scope.pairs}, long=4, interactive=2, sweeps=BOTH,
           question="Does the subject stay itself, in shape, colour and detail, from the first frame to the last?"),
    Metric("background_consistency", "background consistency", "whether the place stays itself",
           short="background", scopes=WHOLE | {"hard": Scope.segments, "recall": Scope.pairs}, long=2, interactive=3, sweeps=BOTH),
    _world("identity_kept", "identity kept", "how much of what a place first showed and no prompt states is there 10 s later, where lit",
           sweeps=BOTH, note="identity kept: of what is lit; where the light stops, one part is shown for ever: see light followed."),
    _world("motion_followed", "motion followed", "how well the subject follows the stated motion, speed included", sweeps=("long",)),
    _world("light_followed", "light followed", "whether the light is on, off, or going round in its time, as stated", sweeps=("long",)),
    _world("image_distance", "image distance", "how far the statistics of frames are from the world's, 1 where 95 % of renders are nearer",
           unit="times the renders' own", lower=True, sweeps=("long",)),
    _world("response_blocks", "response blocks", "blocks after a smooth transition until the stated light is shown",
           unit="blocks of 0.75 s", lower=True, sweeps=("interactive",)),
    _world("recall_fidelity", "recall fidelity", "how much of what no prompt says came back with a place", sweeps=("interactive",)),
    _world("leakage", "leakage", "how much of the place just left is still there, over the first 4.5 s after a switch",
           lower=True, sweeps=("interactive",)),
    _world("half_life_blocks", "half life blocks", "blocks after a switch until half of the old place is gone",
           unit="blocks of 0.75 s", lower=True,
           note="half life blocks: censored at the scene's length; where the old place never fades to a half, that length counts, so "
                "13 (a scene of 10 s) says at least 13, and means with such videos are too low."),
    Metric("quality", "Quality", "VBench's weighted mean of its seven dimensions of quality", trails=True, parts=QUALITY,
           note="Quality: the seven dimensions of the same definition, each scaled to VBench's range of it, weighted 1 each and dynamic "
                "degree 0.5; a recalled pair counts as joined end to end.",
           sets={"memflow": 1},
           misleads="Quality: a frozen video is best in four of its dimensions; only dynamic degree, at half a weight, notices."),
    Metric("quality_drift", "quality drift", "imaging quality of the first 5 s minus that of the last 5 s, whichever is more",
           lower=True, trails=True,
           misleads="quality drift: zero for a video that is bad from the start, or only in its middle."),
    Metric("consistency", "Consistency", "mean of subject and background consistency", parts=CONSISTENCY, sets={"memflow": 2},
           misleads="Consistency: highest for a frozen video; changes that a prompt asks for lower it."),
    Metric("vbench_semantic", "Semantic", "mean of the nine dimensions of VBench's own prompt suite that ask what is shown", parts=SEMANTIC,
           misleads="Semantic: of VBench's own prompts alone; on others its dimensions mean nothing."),
    Metric("vbench_total", "Total", "(4 Quality + Semantic) / 5, VBench's score", parts=TOTAL,
           misleads="Total: four fifths are Quality, and mislead as that does."),
    *(Metric(f"text_alignment_{scene}", f"text alignment {scene}", f"whether scene {scene} shows what its sentence says",
             definitions=TEXT_KINDS, sets={"memflow": 3 + scene},
             misleads="text alignment by scene: CLIP reads 77 tokens and knows little of motion; the previous scene may fit the text too.")
      for scene in range(1, SCENES_TOLD + 1)),
    Metric("frozen_time", "frozen time", "share of time in which a frame and the next differ by less than half a step of 255",
           lower=True, sets={"repeats": 1},
           misleads="frozen time: a still life under a still camera counts as frozen; grain or codec noise hides a frozen video."),
    Metric("looping", "looping", "how much likeness comes back 1 s to 30 s later, beyond that of the least alike frames nearer", COSINE,
           lower=True, sets={"repeats": 2},
           misleads="looping: natural repetition (steps, waves) counts; periods over half a scene are not seen."),
    *(Metric(f"coherence_{lag}", f"coherence {lag} s", f"mean cosine of frames {lag} s apart", COSINE,
             sets={"coherence": lag},
             misleads="coherence: 100 at every distance for a frozen video; cuts that a prompt asks for lower it.")
      for lag in (1, 2, 5, 10, 20, 40)),
    Metric("memory_fidelity", "memory fidelity",
           "similarity of a return to the scene that it recalls, minus that of the scene just left",
           sets={"memory": 1},
           misleads="memory fidelity: what the prompt says comes back without memory, and similar places leave little to bring back: "
                    "compare with a policy that keeps nothing."),
    Metric("memory_leakage", "memory leakage", "similarity of the first 4.5 s of a return to the scene just left", lower=True,
           sets={"memory": 2},
           misleads="memory leakage: never 0, because the subject is in both places and places are similar by nature: compare methods on "
                    "the same prompts."),
    Metric("run_fps", "FPS", "how fast these videos were made", unit="pixel frames a second", trails=True, fact="fps_dit",
           of_device=True, printed="fps"),
    Metric("frames_attended", "frames attended", "latent frames that a block attends to at most, its own among them (K)",
           unit="latent frames", lower=True, trails=True, fact="attended_frames"),
    Metric("frames_kept", "frames kept", "keys and values that are kept behind a block at most, memories among them",
           unit="latent frames", lower=True, fact="kept_frames"),
    Metric("megabytes_kept", "MB kept", "keys and values that are kept behind a block at most, of all layers", unit="10^6 bytes",
           lower=True, trails=True, fact="kept_mb"),
    Metric("steps_taken", "steps", "denoising steps of a block", unit="steps", lower=True, fact="denoising_steps"),
    Metric("fastest_px", "fastest px", "mean length of the fastest 5 % of a scene's optical flow", unit="pixels"),
    Metric("video_quality", "video quality", "quality of the picture as raters see it",
           question="All in all, how good is the picture: clear, clean, natural in colour, and as good at the end as at the start?"),
)
# fmt: on
"""Every metric: VBench's dimensions in the order in which scorers compute them, those of the embedded world, and the others."""
KNOWN: Final = {metric.name: metric for metric in METRICS}
COSTS: Final = {metric.name: metric.fact for metric in METRICS if metric.fact}
"""Metrics of cost, which no scorer writes, and the facts of a video's record that they show."""
READINGS: Final = {
    "place_right": ("place right, % of videos", 100.0),
    "subject_right": ("subject right, % of videos", 100.0),
    "quality": ("image quality", 1.0),
    "identity_kept": ("identity kept, %", 100.0),
}
"""The embedded scorer's readings of each block, the last under all lights alone: label, and the factor that scales it to 0..100."""
READING_FRAMES: Final = 12
"""Pixel frames of such a block, whatever a backbone's own blocks are."""
READING_S: Final = READING_FRAMES / FPS
"""Seconds of such a block: 0.75."""


@dataclass(frozen=True)
class Column:
    """A metric and its definition, "" if there is only one; an unregistered name stands for itself."""

    dimension: str
    kind: str

    @classmethod
    def named(cls, metric: str) -> Column:
        """The column of a name in the store."""
        first, _, rest = metric.partition(".")
        return cls(rest, first) if rest and first in DEFINITIONS else cls(first, rest)

    @property
    def about(self) -> Metric:
        """The metric's entry in the registry."""
        return KNOWN.get(self.dimension) or Metric(self.dimension, self.dimension.replace("_", " "))

    @property
    def definition(self) -> Definition:
        """The definition's entry."""
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
    """Names of the columns that a table can show: all metrics except those that only people rate."""
    return tuple(metric.name for metric in METRICS if metric.scopes or not metric.question)


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Columns by their names and by names of sets. Raises ValueError in one line for an unknown name."""
    sets = {name: {metric.sets[name]: metric.name for metric in METRICS if name in metric.sets} for one in METRICS for name in one.sets}
    every = [one for name in names for one in ([own for _, own in sorted(sets[name].items())] if name in sets else [name])]
    for name in every:
        if name not in showable():
            raise ValueError(f"columns={name}: no such column; {suggestion(name, [*showable(), *sets])}")
    return tuple(dict.fromkeys(every))


def by_scene(name: str, values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Each scene's score under its own metric name; empty for one scene, or for more than `SCENES_TOLD`."""
    told = values if 2 <= len(values) <= SCENES_TOLD else ()
    return {f"{name}_{scene}": float(value) for scene, value in enumerate(told, 1)}


def criteria() -> dict[str, str]:
    """Metrics that people rate, in the order of the paper's user study, with the question of each."""
    asked = sorted((metric for metric in METRICS if metric.question), key=lambda metric: metric.interactive or len(METRICS))
    return {metric.name: metric.question for metric in asked}


def panels(task: str) -> tuple[str, ...]:
    """Metrics with a panel in a task's figure of a swept setting, in the order of the columns."""
    leading = [metric.name for metric in METRICS if metric.leads]
    return tuple(name for name in (*leading, *dimensions("interactive")) if kind_of(task) in KNOWN[name].sweeps)


def check(rules: Sequence[str]) -> None:
    """Raises ValueError in one line for an unknown definition."""
    for rule in rules:
        if rule not in RULES:
            raise ValueError(f"rule={rule}: no such definition; {nearest_of(rule, RULES)}")


def columns(task: str, names: Iterable[str], rules: Sequence[str] = (), wanted: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of a table.

    Args:
        task: its task.
        names: metrics that any row has, by their names in the store.
        rules: definitions that are preferred to the usual ones.
        wanted: dimensions and their order; the task's own by default. Leading metrics come before them, trailing ones after.
    """
    measured = set(names)
    every = [Column(metric.name, kind) for metric in METRICS if metric.leads for kind in metric.definitions]
    leading = [one for one in every if one.metric in measured]
    others = (column(task, metric.name, measured, rules) for metric in METRICS if metric.trails and metric.name not in wanted)
    trailing = [one for one in others if one.metric in measured]
    return (*leading, *(column(task, dimension, measured, rules) for dimension in wanted or dimensions(kind_of(task))), *trailing)


def column(task: str, dimension: str, measured: Collection[str], rules: Sequence[str] = ()) -> Column:
    """A dimension with the first of its definitions that was measured, those of `rules` first; without a definition if none was."""
    usual = KNOWN[dimension].definitions
    if not usual:
        plain = ("vbench_long", "vbench") if kind_of(task) == "long" else ("vbench", "vbench_long")
        usual = (*PAIRS, *plain) if KNOWN[dimension].scopes.get(protocol_of(task)) is Scope.pairs else ("vbench_static", *plain)
    asked = [kind for rule in rules for kind in (rule, PAIRS.get(rule, rule))]
    candidates = (Column(dimension, kind) for kind in (*asked, *usual, "", *PAIRS.values()))
    return next((column for column in candidates if column.metric in measured), Column(dimension, ""))


def derived(numbers: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Derived metrics from the numbers of videos, by name in the store: [videos] for each metric whose parts are all there."""
    made: dict[str, NDArray[np.float64]] = {}
    for metric in METRICS:
        for kind, kinds in MADE.items() if metric.parts else ():
            there = {**numbers, **made}
            names = {part: [name for one in kinds if (name := Column(part, one).metric) in there] for part in metric.parts}
            if all(names.values()):
                made[Column(metric.name, kind).metric] = weighted(metric.parts, {part: there[first] for part, (first, *_) in names.items()})
    return made


def rule_of(task: str, shown: Sequence[Column]) -> str:
    """Description of how the columns of a task are scored: stretches first, then definitions."""
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
    misleads = (column.about.misleads for column in shown if not column.about.trails)  # those that trail are in every table
    return [note for note in dict.fromkeys((*of_definitions, *(column.about.note for column in shown), *misleads)) if note]


def described(metric: str) -> dict[str, str]:
    """A metric of the store for a page: label, unit, meaning, and whether "higher" or "lower" is better."""
    column = Column.named(metric)
    label = " ".join(word for word in column.words if word != "↓")
    return {"label": label, "unit": column.unit, "meaning": column.about.meaning, "better": "lower" if column.lower else "higher"}
