"""A story in parts (subject, places, light, actions), the scenes made from it, and its faults by the paper's appendix A.1.

An author or a language model writes the parts; sentences, cameras, tags and lengths are added here, so that a subject
or a place has the same words whenever it returns.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data.build_prompts import SETS
from data.prompt_sets import entered
from echo.routing import words as content_words
from echo.scene import Prompt

ATS = tuple("inside on in at beneath along beside under above among near behind across atop".split())
"""Prepositions of a place."""
PLACES = {"recall": 3, "hard": 6, "smooth": 1}
"""Places of a story of each interactive task; every story has six actions."""
ACTIONS = 6
KEYS = {
    "recall": ("subject", "places", "actions"),
    "hard": ("subject", "places", "actions"),
    "smooth": ("subject", "place", "light", "actions"),
    "long": ("text",),
}
"""Keys of a story's record by task."""
LIMITS = {"subject": (10, 26), "place": (11, 32), "light": (2, 16), "action": (6, 22), "text": (35, 95), "scene": (35, 110)}
"""Smallest and largest number of words of a part and of an assembled scene; authors are asked for a narrower range."""
TOKENS = 512
"""Rows of Wan's text encoder."""
FORBIDDEN = frozenset(";|[]{}<>#@*`\\")
"""Characters of the released prompt format and of mark-up, which a part must not contain."""
ALIKE = 0.34
"""Share of common content words, of the shorter text, above which two places of one story count as the same."""
REPEATED = 0.6
"""The same share for a recalled scene's action and the first one there."""

_CAMERAS: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).resolve().parent / "stories" / "cameras.yaml"))
STATIC, MOVING, FLOWING = (tuple(_CAMERAS[kind]) for kind in ("static", "moving", "flowing"))
LONG_STATIC = tuple(phrase for phrase in STATIC if "medium" not in phrase and "three-quarter" not in phrase and "profile" not in phrase)
LONG_MOVING = tuple(phrase for phrase in MOVING if "tracking" not in phrase)
"""Camera moves that suit a scene of a minute with any subject, a valley as well as a person."""


@dataclass(frozen=True)
class StoryPlace:
    """Place of a scene: a preposition, and the words from "the" on."""

    at: str
    what: str


@dataclass(frozen=True)
class Story:
    """The parts of one story; a long one has `text` only, and only a smooth one has `light`."""

    subject: str = ""
    places: tuple[StoryPlace, ...] = ()
    actions: tuple[str, ...] = ()
    light: str = ""
    text: str = ""


def parse_story(task: str, raw: Any) -> Story:
    """A story from a plain record.

    Raises:
        ValueError: for a record of another form; the message names the key and its expected value.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"a story is an object with the keys {', '.join(KEYS[task])}, not {type(raw).__name__}")
    for key in KEYS[task]:
        if key not in raw:
            raise ValueError(f"key {key!r} is missing; a {task} story has {', '.join(KEYS[task])}")
    for key in raw:
        if key not in KEYS[task]:
            raise ValueError(f"unknown key {key!r}; a {task} story has {', '.join(KEYS[task])}")
    if task == "long":
        return Story(text=_text("text", raw["text"]))
    places = [raw["place"]] if task == "smooth" else _list("places", raw["places"], PLACES[task])
    return Story(
        subject=_text("subject", raw["subject"]),
        places=tuple(_place(place) for place in places),
        actions=tuple(_text("an action", action) for action in _list("actions", raw["actions"], ACTIONS)),
        light=_text("light", raw["light"]) if task == "smooth" else "",
    )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is a text, not {value!r}")
    return " ".join(value.split())


def _list(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        got = f"{len(value)}" if isinstance(value, list) else type(value).__name__
        raise ValueError(f"{name} is a list of exactly {count}, not {got}")
    return value


def _place(raw: Any) -> StoryPlace:
    if not isinstance(raw, Mapping) or set(raw) != {"at", "what"}:
        raise ValueError(f"a place has exactly the keys at and what, not {raw!r}")
    at = "on" if raw["at"] is True else raw["at"]  # YAML reads a bare on as true
    return StoryPlace(_text("at", at), _text("what", raw["what"]))


def scenes_of(task: str, story: Story, index: int) -> tuple[str, ...]:
    """The texts of the scenes of story `index` of a set. The camera stands still in even stories and moves in odd ones."""
    cameras = cameras_of(task, index)
    if task == "long":
        return (f"{story.text.rstrip('.')}. {cameras[0]}.",)
    told = (_body(task, story, scene) for scene in range(ACTIONS))
    return tuple(f"{camera}. {body[0].upper()}{body[1:]}." for camera, body in zip(cameras, told, strict=True))


def _body(task: str, story: Story, scene: int) -> str:
    place, action = story.places[scene % len(story.places)], story.actions[scene]
    same = f"{place.at} the same {place.what.removeprefix('the ')}"
    again = f"the same {bare(story.subject)}"
    if task == "smooth":
        if scene == 0:
            return f"{place.at} {place.what}, lit by {story.light}, {story.subject} {action}"
        return f"still {same}, lit by the same {re.sub('^(the|an?) ', '', story.light)}, {again} {action}"
    if task == "recall" and scene >= len(story.places):
        return f"back {same}, {again} {action}"
    if task == "hard" and scene:
        return f"cut to a new scene {place.at} {place.what}: {story.subject} {action}"
    return f"{place.at} {place.what}, {story.subject} {action}"


def bare(subject: str) -> str:
    """A subject without its article."""
    return re.sub("^an? ", "", subject)


def cameras_of(task: str, index: int) -> tuple[str, ...]:
    """The camera of each scene of story `index`.

    Interactive sets with cuts show six views of six kinds; a smooth story stays with one view or one flowing movement.
    """
    half, moves = divmod(index, 2)
    if task == "long":
        choices = LONG_MOVING if moves else LONG_STATIC
        return (choices[half * 7 % len(choices)],)
    choices = MOVING if moves else STATIC
    if task == "smooth":
        flow = FLOWING[half % len(FLOWING)]
        return tuple(flow[scene // 2] for scene in range(ACTIONS)) if moves else (STATIC[half % len(STATIC)],) * ACTIONS
    step = 3 if moves else 5  # coprime to the number of choices: six different ones
    return tuple(choices[(half * 7 + scene * step) % len(choices)] for scene in range(ACTIONS))


def moves(scene: str) -> bool:
    """Whether a scene's camera phrase is one of the moving ones."""
    return any(phrase in scene for phrase in (*MOVING, *itertools.chain.from_iterable(FLOWING)))


def prompt_of(name: str, task: str, story: Story, index: int, duration_s: float) -> Prompt:
    """A story as a prompt of a set."""
    return entered(f"{name}-{index:03d}", scenes_of(task, story, index), duration_s, SETS["long60" if task == "long" else task][2])


def overlap(one: str, other: str) -> float:
    """Common content words as a share of the shorter text's; 0 if one has none."""
    a, b = set(content_words(one)), set(content_words(other))
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0


def token_bound(text: str) -> int:
    """An upper estimate of UMT5 tokens: one for two letters, one for each other character, one for the end.

    UMT5 needs about 1.3 tokens for an English word; two letters per token is three times that.
    """
    return sum((len(word) + 1) // 2 for word in re.findall(r"\w+", text)) + len(re.findall(r"[^\w\s]", text)) + 1


def faults_of(task: str, story: Story, index: int = 0) -> list[str]:
    """Faults of a story, one sentence each, that an author or a model can act on."""
    faults = [fault for name, text in _parts(task, story) for fault in _part_faults(name, text)]
    faults += _shape_faults(task, story)
    for number, scene in enumerate(scenes_of(task, story, index), 1):
        count, bound = len(scene.split()), token_bound(scene)
        if not LIMITS["scene"][0] <= count <= LIMITS["scene"][1]:
            faults.append(f"scene {number} has {count} words when told; {LIMITS['scene'][0]} to {LIMITS['scene'][1]}")
        if bound > TOKENS:
            faults.append(f"scene {number} may need {bound} tokens; {TOKENS} at most")
        faults += [f"scene {number} when told: {slip}" for slip in grammar(scene)]
    return faults


def _parts(task: str, story: Story) -> Iterator[tuple[str, str]]:
    if task == "long":
        yield "text", story.text
        return
    yield "subject", story.subject
    for place in story.places:
        yield "place", place.what
    if task == "smooth":
        yield "light", story.light
    for action in story.actions:
        yield "action", action


def _part_faults(name: str, text: str) -> Iterator[str]:
    fewest, most = LIMITS[name]
    shown = f"{name} {text!r}"
    if not fewest <= len(text.split()) <= most:
        yield f"{shown} has {len(text.split())} words; {fewest} to {most}"
    for sign in sorted(FORBIDDEN & set(text)):
        yield f"{shown} holds {sign!r}, which is not allowed"
    if any(not sign.isprintable() for sign in text):
        yield f"{shown} holds a control character"
    if name != "text" and "." in text:
        yield f"{shown} holds a full stop; it is part of a longer sentence"
    if re.search(r"\b(the|this) camera\b|\bclose-up\b|\bzoom(s|ing)?\b", text):
        yield f"{shown} names the camera, which is added later"
    yield from (f"{shown}: {wrong}" for wrong in grammar(text))


def grammar(text: str) -> Iterator[str]:
    """Grammar errors that a pattern can find: "a" before a vowel, "an" before a consonant, a doubled word."""
    for slip in re.findall(r"\b[Aa] (?!one|once|ewe|eu|uni|us[eu]|util|uku|ura)[aeiou]\w*", text):
        yield f"{slip!r} wants 'an'"
    for slip in re.findall(r"\b[Aa]n (?!hour|hon|heir|[A-Z][A-Z])[^aeiouAEIOU\W]\w*", text):
        yield f"{slip!r} wants 'a'"
    for slip in re.findall(r"\b(\w+) \1\b", text):
        yield f"{slip!r} stands twice in a row"


def _shape_faults(task: str, story: Story) -> Iterator[str]:
    if task == "long":
        return
    if not re.match("an? ", story.subject):
        yield f"subject {story.subject!r} begins with 'a' or 'an'"
    for place in story.places:
        if place.at not in ATS:
            yield f"at {place.at!r} is one of {', '.join(ATS)}"
        if not place.what.startswith("the "):
            yield f"place {place.what!r} begins with 'the'"
    for action in story.actions:
        if not re.match(r"([a-z]+ly )?(?!(this|his|its|is|was|as)\b)[a-z-]+s\b", action):
            yield f"action {action!r} begins with a verb in the third person, as in 'tightens a valve'"
    for one, other in itertools.combinations([place.what for place in story.places], 2):
        if overlap(one, other) > ALIKE:
            yield f"places {one!r} and {other!r} are too much alike; the background changes"
    for (number, first), (later, second) in itertools.combinations(enumerate(story.actions), 2):
        limit = REPEATED if task == "recall" and later - number == len(story.places) else 0.99
        if overlap(first, second) > limit:
            yield f"actions {first!r} and {second!r} are too much alike"
