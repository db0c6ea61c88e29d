"""From a prompt to a script: where scenes begin, how each is entered, which earlier scene it recalls, how far RoPE jumps.

Paper, appendix B (eqs 15-18), and the released code's rules, which differ. Scenes are counted from 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from echo.refusals import within
from echo.scene import SceneStart, Transition, chain_head

Vector = Sequence[float]
Embed = Callable[[list[str]], list[list[float]]]
"""Sentences to one feature each: the mean of the text encoder's non-zero rows."""


class Feature(StrEnum):
    """Text feature that scenes are compared by.

    similar: encoder feature of the prompt less common and scene-wide words (released default). idf: inverse document
    frequencies, no encoder needed. prompt: encoder feature of the whole prompt (eq. 15).
    """

    similar = "similar"
    idf = "idf"
    prompt = "prompt"


class Router(StrEnum):
    """Who says how a scene is entered: the prompt's tags, or the thresholds of eq. (17)."""

    tags = "tags"
    thresholds = "thresholds"


class RecallJump(StrEnum):
    """RoPE jump of a recall: by the share of dissimilarity, 0 to 6 (released), or by distance (eq. 18)."""

    similarity = "similarity"
    distance = "distance"


@dataclass(frozen=True)
class Routing:
    """Settings of the router. causal: only scenes up to the current one count in document frequencies.

    pool_scenes: how many ended scenes can be recalled.
    """

    router: Router = Router.tags
    feature: Feature = Feature.similar
    causal: bool = False
    exclude_previous: bool = False
    pool_scenes: int = 64
    threshold_smooth: float = 0.85
    threshold_recall: float = 0.85
    jump_smooth: int = 0
    jump_hard: int = 45
    jump_recall: RecallJump = RecallJump.similarity
    jump_recall_max: int = 6
    jump_per_scene: int = 10

    def __post_init__(self) -> None:
        for name in ("jump_smooth", "jump_hard", "jump_recall_max", "jump_per_scene"):
            within(f"routing.{name}", getattr(self, name), 0, math.inf)
        within("routing.pool_scenes", self.pool_scenes, 1, math.inf)
        for name in ("threshold_smooth", "threshold_recall"):
            within(f"routing.{name}", getattr(self, name), -1, 1)


STOP_WORDS = frozenset(
    """a an and are as at be been but by for from had has have he her his in into is it its of on onto or she that the their them then
    there they this to was were while who with above across after again along around back before behind below beside between
    during every here inside near now off out outside over same scene seen shot static still through toward towards under until up
    upon wearing where which young camera""".split()
)


def words(text: str) -> list[str]:
    """Content words: lower case, letters and apostrophes, longer than two letters, no stop words."""
    return [word for word in re.findall(r"[a-z']+", text.lower()) if len(word) > 2 and word not in STOP_WORDS]


def without_common(texts: Sequence[str]) -> list[str]:
    """Each scene's content words, less those in at least 70 % of the scenes (but never fewer than two)."""
    documents = [words(text) for text in texts]
    counts = Counter(word for document in documents for word in set(document))
    limit = max(2, math.ceil(0.7 * len(texts)))
    return [" ".join(word for word in document if counts[word] < limit) for document in documents]


def idf_features(texts: Sequence[str]) -> list[list[float]]:
    """(1 + ln tf) (ln((1 + n) / (1 + df)) + 1) over the texts' vocabulary."""
    documents = [Counter(words(text)) for text in texts]
    frequency = Counter(word for document in documents for word in document)
    weights = {word: math.log((1 + len(texts)) / (1 + frequency[word])) + 1 for word in sorted(frequency)}
    return [[(1 + math.log(doc[word])) * weight if doc[word] else 0.0 for word, weight in weights.items()] for doc in documents]


def cosine(a: Vector, b: Vector) -> float:
    """Eq. (15); 0 where a vector is zero."""
    norm = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


def similarities(texts: Sequence[str], scene: int, settings: Routing, embed: Embed | None) -> list[float]:
    """Similarity of scene `scene` to every earlier one. Raises ValueError where the feature needs an encoder and has none."""
    known = texts[: scene + 1] if settings.causal else texts
    if settings.feature is Feature.idf:
        features = idf_features(known)
    else:
        if embed is None:
            raise ValueError(f"routing.feature {settings.feature}: needs a text encoder; nearest that does not is 'idf'")
        features = embed(list(known) if settings.feature is Feature.prompt else without_common(known))
    return [cosine(features[scene], features[earlier]) for earlier in range(scene)]


def threshold_mode(similarity: Sequence[float], settings: Routing) -> Transition:
    """Eq. (17) on the similarities to scenes 0 .. t-1."""
    best = max(range(len(similarity)), key=similarity.__getitem__)
    if best == len(similarity) - 1:
        return Transition.smooth if similarity[best] >= settings.threshold_smooth else Transition.hard
    return Transition.recall if similarity[best] >= settings.threshold_recall else Transition.hard


def oldest(scene: int, settings: Routing) -> int:
    """The oldest scene of the pool when scene `scene` begins."""
    return max(0, scene - settings.pool_scenes)


def check_recall(named: int | None, scene: int, settings: Routing) -> None:
    """Raises ValueError for a recall of a scene that the pool does not hold when scene `scene` begins."""
    first = oldest(scene, settings)
    if named is None or not first <= named < scene:
        near = first if named is None else min(max(named, first), scene - 1)
        raise ValueError(f"recall of scene {named}: the pool holds {first}..{scene - 1}; nearest is {near}")


def recall_target(similarity: Sequence[float], settings: Routing) -> int:
    """Eq. (16) over the pool, without the scene just left if `exclude_previous` and there is another."""
    first = oldest(len(similarity), settings)
    last = len(similarity) - 1 if settings.exclude_previous and len(similarity) - first > 1 else len(similarity)
    return max(range(first, last), key=similarity.__getitem__)


def recall_jump(similarity: Sequence[float], target: int, settings: Routing) -> int:
    """Eq. (18) for `distance`; for `similarity` the chosen scene's share of all dissimilarity."""
    if settings.jump_recall is RecallJump.distance:
        return min(settings.jump_hard, settings.jump_per_scene * (len(similarity) - target))
    gaps = [1 - value for value in similarity]
    total = sum(gaps)
    return round(settings.jump_recall_max * gaps[target] / total) if total > 1e-6 else 0


def enter(
    texts: Sequence[str], scene: int, tagged: Transition | None, settings: Routing, embed: Embed | None, named: int | None = None
) -> tuple[Transition, int | None, int]:
    """How scene `scene` > 0 is entered: (transition, recalled scene, jump). `tagged` None asks the thresholds.

    named: the scene to be recalled, whatever texts and thresholds say. Raises ValueError where the pool does not hold it.
    """
    if named is not None:
        check_recall(named, scene, settings)
        return Transition.recall, named, recall_jump(similarities(texts, scene, settings, embed), named, settings)
    transition = tagged
    if transition is None or settings.router is Router.thresholds:
        transition = threshold_mode(similarities(texts, scene, settings, embed), settings)
    if transition is Transition.smooth:
        return transition, None, settings.jump_smooth
    if transition is Transition.hard:
        return transition, None, settings.jump_hard
    similarity = similarities(texts, scene, settings, embed)
    target = recall_target(similarity, settings)
    return transition, target, recall_jump(similarity, target, settings)


def automatic(texts: Sequence[str], starts: Sequence[SceneStart], settings: Routing, embed: Embed) -> tuple[Transition, int | None]:
    """How a live session enters the last of `texts` where nobody says: eq. (17) on whole prompts, and the scene a recall means.

    A scene from which the running one went on smoothly is the running place, so what is most like it goes on smoothly too.
    starts: of the scenes shown, one fewer than texts.
    """
    similarity = similarities(texts, len(starts), replace(settings, feature=Feature.prompt, causal=True), embed)
    head = chain_head(starts, len(starts) - 1)
    running, pool = max(similarity[head:]), range(oldest(len(starts), settings), head)
    best = max(pool, key=similarity.__getitem__, default=None)
    if best is not None and similarity[best] > running:
        return (Transition.recall, best) if similarity[best] >= settings.threshold_recall else (Transition.hard, None)
    return (Transition.smooth if running >= settings.threshold_smooth else Transition.hard), None
