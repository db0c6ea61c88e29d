"""The router: the transition into each scene, the earlier scene that it recalls, and the jump of the RoPE index.

Paper, appendix B (eqs 15-18), and the released code's rules, which differ. Scenes are counted from 0.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from echo.refusals import within
from echo.scene import SceneStart, Transition, chain_head
from echo.settings import silent

Vector = Sequence[float]
Embed = Callable[[list[str]], list[list[float]]]
"""Sentences to one feature each: the mean of the text encoder's non-zero rows."""
Pieces = Callable[[str], Sequence[str]]
"""A run of letters of a script without spaces to the pieces that stand for its words."""


@dataclass(frozen=True)
class Encoder:
    """The part of a text encoder that the router uses: features, and the tokenizer's pieces."""

    features: Embed
    pieces: Pieces

    def __call__(self, texts: list[str]) -> list[list[float]]:
        """One feature for each text."""
        return self.features(texts)


class Feature(StrEnum):
    """Text feature by which scenes are compared.

    similar: encoder feature of the prompt without stop words and words that most scenes share (released default). idf: inverse
    document frequencies, without an encoder. prompt: encoder feature of the whole prompt (eq. 15).
    """

    similar = "similar"
    idf = "idf"
    prompt = "prompt"


class Router(StrEnum):
    """What decides a transition: the scene's tag, or the texts if it has none; or always the texts, by eqs (15)-(17)."""

    tags = "tags"
    automatic = "automatic"


class Running(StrEnum):
    """Scenes whose continuation eq. (17) calls smooth: only the scene before (as printed), or the whole smooth chain that ends with it,
    since all its scenes show the same place.
    """

    previous = "previous"
    chain = "chain"


class RecallJump(StrEnum):
    """RoPE jump of a recall: by the share of dissimilarity, 0 to 6 (released code), or by distance (eq. 18)."""

    similarity = "similarity"
    distance = "distance"


@dataclass(frozen=True)
class Routing:
    """Settings of the router. causal: document frequencies count only scenes up to the current one.

    pool_scenes: number of ended scenes that can be recalled. jump_recall_cap: largest jump of eq. (18); None takes `jump_hard`.
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
    running: Running = silent(Running.chain)
    jump_recall_cap: int | None = silent(None)

    def __post_init__(self) -> None:
        for name in ("jump_smooth", "jump_hard", "jump_recall_max", "jump_per_scene"):
            within(f"routing.{name}", getattr(self, name), 0, math.inf)
        within("routing.jump_recall_cap", self.jump_recall_cap or 0, 0, math.inf)
        within("routing.pool_scenes", self.pool_scenes, 1, math.inf)
        for name in ("threshold_smooth", "threshold_recall"):
            within(f"routing.{name}", getattr(self, name), -1, 1)


STOP_WORDS = frozenset(
    """a an and are as at be been but by for from had has have he her his in into is it its of on onto or she that the their them then
    there they this to was were while who with above across after again along around back before behind below beside between
    during every here inside near now off out outside over same scene seen shot static still through toward towards under until up
    upon wearing where which young camera""".split()
)


UNSPACED = (
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3005-\u3007\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff"
    r"\ua980-\ua9df\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Letters of scripts without spaces between words: Thai to Burmese, Khmer, Tai, Japanese, Chinese, Javanese."""
RUNS = re.compile(f"[{UNSPACED}]+|[^{UNSPACED}]+")
ALPHABETS_END = "\u0700"
"""Alphabets (Latin to Arabic) are below this code point; above it are scripts of syllables, where one letter may be a word."""


def pairs(letters: str) -> list[str]:
    """Overlapping pairs of letters, which stand for words without a tokenizer; a single letter stays alone."""
    return [letters[at : at + 2] for at in range(len(letters) - 1)] or [letters]


def words(text: str, pieces: Pieces = pairs) -> list[str]:
    """Content words of any script: letters, marks and apostrophes in lower case, without English stop words.

    In alphabets they are longer than two letters; in scripts without spaces they are the pieces of each run of letters.
    """
    content: list[str] = []
    for run in _runs(text):
        if re.match(f"[{UNSPACED}]", run):
            content += (piece for piece in pieces(run) if piece.strip())
        elif (len(run) > 2 or run[0] >= ALPHABETS_END) and run not in STOP_WORDS:
            content.append(run)
    return content


@lru_cache(maxsize=4096)
def _runs(text: str) -> tuple[str, ...]:
    """Runs of letters of one kind of script; cached, since each scene is compared with all before it."""
    letters = "".join(sign if sign == "'" or unicodedata.category(sign)[0] in "LM" else " " for sign in text.lower())
    return tuple(run for word in letters.split() for run in RUNS.findall(word))


def without_common(texts: Sequence[str], pieces: Pieces = pairs) -> list[str]:
    """Each scene's content words, without those that occur in at least 70 % of the scenes (and in at least two)."""
    documents = [words(text, pieces) for text in texts]
    counts = Counter(word for document in documents for word in set(document))
    limit = max(2, math.ceil(0.7 * len(texts)))
    return [" ".join(word for word in document if counts[word] < limit) for document in documents]


def idf_features(texts: Sequence[str]) -> list[list[float]]:
    """(1 + ln tf) (ln((1 + n) / (1 + df)) + 1) over the texts' vocabulary, or over whole texts if none has a word."""
    said = [words(text) for text in texts]
    documents = [Counter(own) for own in (said if any(said) else ["".join(text.split()) for text in texts])]
    frequency = Counter(word for document in documents for word in document)
    weights = {word: math.log((1 + len(texts)) / (1 + frequency[word])) + 1 for word in sorted(frequency)}
    return [[(1 + math.log(doc[word])) * weight if doc[word] else 0.0 for word, weight in weights.items()] for doc in documents]


def cosine(a: Vector, b: Vector) -> float:
    """Eq. (15); 0 if a vector is zero."""
    norm = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


def similarities(texts: Sequence[str], scene: int, settings: Routing, embed: Embed | None) -> list[float]:
    """Similarity of scene `scene` to every earlier one; whole texts are compared if no scene has a word of its own.

    Raises ValueError if the feature needs an encoder and `embed` is None.
    """
    known = texts[: scene + 1] if settings.causal else texts
    if settings.feature is Feature.idf:
        features = idf_features(known)
    else:
        if embed is None:
            raise ValueError(f"routing.feature {settings.feature}: needs a text encoder; nearest that does not is 'idf'")
        own = [] if settings.feature is Feature.prompt else without_common(known, embed.pieces if isinstance(embed, Encoder) else pairs)
        features = embed(own if any(own) else list(known))
    return [cosine(features[scene], features[earlier]) for earlier in range(scene)]


def threshold_mode(similarity: Sequence[float], settings: Routing, running: int | None = None) -> tuple[Transition, int | None]:
    """Eqs (16) and (17): the transition into a scene, and the scene that it recalls.

    Args:
        similarity: to the scenes before it; those that have left the pool do not count.
        settings: thresholds and size of the pool.
        running: first scene of the running place; by default only the last scene, as printed.
    """
    running = len(similarity) - 1 if running is None else running
    here, pool = max(similarity[running:]), range(oldest(len(similarity), settings), running)
    best = max(pool, key=similarity.__getitem__, default=None)
    if best is not None and similarity[best] > here:
        return (Transition.recall, best) if similarity[best] >= settings.threshold_recall else (Transition.hard, None)
    return (Transition.smooth if here >= settings.threshold_smooth else Transition.hard), None


def oldest(scene: int, settings: Routing) -> int:
    """The oldest scene of the pool when scene `scene` begins."""
    return max(0, scene - settings.pool_scenes)


def check_recall(named: int | None, scene: int, settings: Routing) -> None:
    """Raises ValueError for a recall of a scene that the pool does not hold when scene `scene` begins; the message counts from 1."""
    first = oldest(scene, settings)
    if named is None or not first <= named < scene:
        number, near = (None, first) if named is None else (named + 1, min(max(named, first), scene - 1))
        raise ValueError(f"recall of scene {number}: the pool holds {first + 1}..{scene}; nearest is {near + 1}")


def recall_target(similarity: Sequence[float], settings: Routing) -> int:
    """Eq. (16) over the pool, without the scene just left if `exclude_previous` is set and there is another."""
    first = oldest(len(similarity), settings)
    last = len(similarity) - 1 if settings.exclude_previous and len(similarity) - first > 1 else len(similarity)
    return max(range(first, last), key=similarity.__getitem__)


def recall_jump(similarity: Sequence[float], target: int, settings: Routing) -> int:
    """Eq. (18) for `distance`; for `similarity`, proportional to the target's share of all dissimilarity."""
    if settings.jump_recall is RecallJump.distance:
        most = settings.jump_hard if settings.jump_recall_cap is None else settings.jump_recall_cap
        return min(most, settings.jump_per_scene * (len(similarity) - target))
    gaps = [1 - value for value in similarity]
    total = sum(gaps)
    return round(settings.jump_recall_max * gaps[target] / total) if total > 1e-6 else 0


def automatic(texts: Sequence[str], starts: Sequence[SceneStart], settings: Routing, embed: Embed | None) -> tuple[Transition, int | None]:
    """The transition into the scene after `starts` by eqs (15)-(17) on whole prompts, and the scene that it recalls.

    The thresholds apply to whole prompts, whatever `feature` is, and later texts never count.
    """
    scene = len(starts)
    similarity = similarities(texts, scene, replace(settings, feature=Feature.prompt, causal=True), embed)
    return threshold_mode(similarity, settings, chain_head(starts, scene - 1) if settings.running is Running.chain else None)


def enter(
    texts: Sequence[str],
    starts: Sequence[SceneStart],
    tagged: Transition | None,
    settings: Routing,
    embed: Embed | None,
    named: int | None = None,
    recalls: bool = True,
) -> tuple[Transition, int | None, int]:
    """The entry into the scene after `starts`, which is not the first: (transition, recalled scene, jump).

    Args:
        texts: of all scenes, or of those up to this one.
        starts: of the scenes before it.
        tagged: the transition of its tag; None lets the texts decide.
        settings: of the router.
        embed: features of texts.
        named: the scene to be recalled, whatever the texts are.
        recalls: whether ended scenes can be recalled; if not, a recall by the texts becomes a hard cut.

    Raises:
        ValueError: for a named scene that the pool does not hold, or a feature that needs an encoder without one.
    """
    transition, target, scene = tagged, named, len(starts)
    if named is not None:
        check_recall(named, scene, settings)
        transition = Transition.recall
    elif transition is None or settings.router is Router.automatic:
        transition, target = automatic(texts, starts, settings, embed)
        if transition is Transition.recall and not recalls:
            transition = Transition.hard
    if transition is not Transition.recall:
        return transition, None, settings.jump_smooth if transition is Transition.smooth else settings.jump_hard
    similarity = similarities(texts, scene, settings, embed)
    target = recall_target(similarity, settings) if target is None else target
    return transition, target, recall_jump(similarity, target, settings)
