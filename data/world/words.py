"""Attributes of a clip of the world, and sentences that state them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from echo.backbone.parts.words import Vocabulary
from echo.refusals import nearest

COLOURS = ("red", "green", "blue", "yellow", "white")
SHAPES = ("ball", "box", "triangle", "ring")
MOTIONS = ("left", "right", "up", "down", "circling", "bouncing")
PLACES = ("meadow", "desert", "ocean", "midnight", "dusk", "snowfield")
PATTERNS = ("plain", "striped", "checked", "dotted")
DAY, BEAM, UNLIT = LIGHTS = ("day", "beam", "unlit")
"""Day is what is not said."""
KINDS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "motion": MOTIONS,
    "place": PLACES,
    "pattern": PATTERNS,
}
LIGHT = "light"
SAYABLE: dict[str, tuple[str, ...]] = {**KINDS, LIGHT: LIGHTS}
"""All kinds, of a world under every light."""
HELD_OUT = 29
"""Coprime to the number of words of every kind, so that each word loses the same share."""

_SAID: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).with_suffix(".yaml")))
SYNONYMS: dict[str, str] = {word: concept for concept, words in _SAID["synonyms"].items() for word in words.split()}
SILENT = frozenset(_SAID["silent"].split())
TEMPLATES, RETURNS = tuple(_SAID["templates"]), tuple(_SAID["returns"])
"""Sentences of a scene, and of one that comes back."""
VERBS: dict[str, list[str]] = _SAID["verbs"]

VOCABULARY = Vocabulary(tuple(word for kind in KINDS.values() for word in kind), SYNONYMS, SILENT)
"""Of the world by day."""
_LIGHTS = {word: concept for concept, words in _SAID["lights"].items() for word in words.split()}
LIT = Vocabulary((*VOCABULARY.concepts, BEAM, UNLIT), SYNONYMS | _LIGHTS, SILENT | frozenset(_SAID["lit_silent"].split()))
"""Of the world under every light: all words of the other, in the same rows, and those of lights."""


@dataclass(frozen=True)
class Words:
    """The five attributes of a clip that a prompt states, and its light, which is day if none is stated."""

    colour: str
    shape: str
    motion: str
    place: str
    pattern: str
    light: str = DAY

    def __post_init__(self) -> None:
        """Raise ValueError for a word that is not of its kind, naming the nearest one."""
        for kind, known in SAYABLE.items():
            if (word := getattr(self, kind)) not in known:
                raise ValueError(f"{kind} {word!r} is none of {', '.join(known)}; nearest: {nearest(word, known)}")


def held_out(words: Words) -> bool:
    """Whether this combination is held out of training, in any light: every 29th of the 2,880, counted in the order of KINDS."""
    index = 0
    for kind, known in KINDS.items():
        index = index * len(known) + known.index(getattr(words, kind))
    return index % HELD_OUT == 0


_OVER = ("over", "across", "above")


def sentence(words: Words, choice: int, templates: Sequence[str] = TEMPLATES) -> str:
    """A sentence that states `words`; `choice` (any integer >= 0) selects template, verb, preposition and synonyms."""
    choice, which = divmod(choice, len(templates))
    choice, which_verb = divmod(choice, 3)
    choice, which_over = divmod(choice, len(_OVER))
    said: dict[str, str] = {"verb": VERBS[words.motion][which_verb], "over": _OVER[which_over]}
    for kind in ("colour", "shape", "place", "pattern"):
        concept = getattr(words, kind)
        names = [concept, *(word for word, meant in SYNONYMS.items() if meant == concept)]
        choice, which_name = divmod(choice, len(names))
        said[kind] = names[which_name]
    text = templates[which].format(**said)
    if words.light != DAY:
        text = f"{text.removesuffix('.')}, {_SAID['lit'][words.light][choice % 3]}."
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text[0].upper() + text[1:]


def parse(text: str) -> Words:
    """The attributes that `text` states; the light is day if none is stated.

    Raises ValueError for an unknown word, and for an attribute that is missing or stated twice.
    """
    concepts = LIT.concepts_of(text)
    values: dict[str, str] = {}
    for kind, known in KINDS.items():
        said = [concept for concept in concepts if concept in known]
        if len(said) != 1:
            rule = f"a scene says exactly one {kind} of {', '.join(known)}"
            raise ValueError(f"{text!r} says {' and '.join(said) or 'no ' + kind}; {rule}")
        values[kind] = said[0]
    lights = [concept for concept in concepts if concept in LIGHTS]
    if len(lights) > 1:
        raise ValueError(f"{text!r} says {' and '.join(lights)}; a scene has one light, {BEAM} or {UNLIT}, or says none: day")
    return Words(**values, light=lights[0] if lights else DAY)
