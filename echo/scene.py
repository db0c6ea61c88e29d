"""Prompts, their scenes, and the blocks at which scenes begin. No torch: everything here is known before a rollout starts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from echo.files import Json, digest, read_json, read_text
from echo.refusals import nearest, shown

FPS = 16
FRAMES_PER_BLOCK = 3
"""Latent frames per block of a chunk-wise backbone, the default; a frame-wise one has 1 (`Geometry.frames_per_block`)."""
PIXEL_FRAMES_PER_LATENT = 4
BLOCK_S = FRAMES_PER_BLOCK * PIXEL_FRAMES_PER_LATENT / FPS
"""Seconds of a chunk-wise block, 0.75; prompt sets use it, since they are written before a backbone is chosen."""
LONGEST_S = 36_000
"""Longest video: ten hours, 48,000 blocks of three; planning takes time for each block."""
MOST_SCENES = 1000
"""Most scenes of a video; a router compares each with all before it."""
LONGEST_TEXT = 20_000
"""Most letters of a scene's prompt; text encoders read some hundred words."""


class Transition(StrEnum):
    """How a scene is entered."""

    smooth = "smooth"
    hard = "hard"
    recall = "recall"


TAGS = {"": Transition.smooth, "#": Transition.hard, "@": Transition.recall}
"""The tag letters of the released prompt files."""


class TagMeaning(StrEnum):
    """Whether the tag of scene i names the transition into scene i, or into scene i + 1 (as in the released code)."""

    enter = "enter"
    to_next = "to_next"


class DurationRule(StrEnum):
    """`cumulative` rounds scene borders, so that rounding errors do not add up; `floor_each` rounds every scene down (released code)."""

    cumulative = "cumulative"
    floor_each = "floor_each"


@dataclass(frozen=True)
class Prompt:
    """One line of a prompt set. `tag_meaning` None leaves the meaning of the tags to the method's preset.

    tags: letters as in `TAGS`; None is no tag, and the texts decide the transition (the paper's appendix B).
    recalls: for each scene the earlier one that it recalls, None if the router finds it by the texts; empty if no scene names one.
    """

    id: str
    scenes: tuple[str, ...]
    durations_s: tuple[float, ...]
    tags: tuple[str | None, ...]
    tag_meaning: TagMeaning | None = None
    recalls: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.scenes or not len(self.scenes) == len(self.durations_s) == len(self.tags):
            raise ValueError(
                f"prompt {shown(self.id)}: {len(self.scenes)} scenes, {len(self.durations_s)} durations, {len(self.tags)} tags; "
                "must be equally many and at least one"
            )
        if len(self.scenes) > MOST_SCENES:
            raise ValueError(f"prompt {shown(self.id)}: {len(self.scenes)} scenes; {MOST_SCENES} at most")
        longest = max(map(len, self.scenes))
        if longest > LONGEST_TEXT:
            raise ValueError(f"prompt {shown(self.id)}: a scene of {longest} letters; {LONGEST_TEXT} at most")
        for duration in self.durations_s:
            if not duration >= block_s(1):  # the shortest block; `scene_blocks` checks against the backbone's own
                raise ValueError(f"prompt {shown(self.id)}: duration {duration} s is under half a block; nearest is {BLOCK_S} s")
        if not sum(self.durations_s) <= LONGEST_S:
            rule = f"a video is {LONGEST_S} s at most; nearest is {LONGEST_S / len(self.durations_s):g} s a scene"
            raise ValueError(f"prompt {shown(self.id)}: durations {shown(list(self.durations_s))}: {rule}")
        for tag in self.tags:
            if tag is not None and tag not in TAGS:
                raise ValueError(f"prompt {shown(self.id)}: unknown tag {shown(tag)}; one of {sorted(TAGS)}, or null for none")
        if len(self.recalls) not in (0, len(self.scenes)):
            raise ValueError(
                f"prompt {shown(self.id)}: {len(self.scenes)} scenes, {len(self.recalls)} recalls; must be equally many, or none"
            )
        for scene, recalled in enumerate(self.recalls):
            if recalled is not None and not 0 <= recalled < scene:
                rule = f"before it are 0..{scene - 1}; nearest is {scene - 1}" if scene else "nothing is before it; nearest is null"
                raise ValueError(f"prompt {shown(self.id)}: scene {scene + 1} has recalls {recalled}, which counts from 0: {rule}")

    def content(self) -> Json:
        """The prompt as plain values, for its digest; fields that were added later are absent if empty."""
        fields: Json = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if not self.recalls:
            del fields["recalls"]
        return fields

    def transitions(self, default_meaning: TagMeaning) -> tuple[Transition | None, ...]:
        """The transition into each scene; None for the first, and for those without a tag."""
        meaning = self.tag_meaning or default_meaning
        tags = self.tags[1:] if meaning is TagMeaning.enter else self.tags[:-1]
        return (None, *(None if tag is None else TAGS[tag] for tag in tags))


def prompt_digest(prompt: Prompt, duration_scale: float = 1.0) -> str:
    """Digest of a prompt as in its prompt set.

    Args:
        prompt: the prompt, with scaled durations.
        duration_scale: the factor that they were multiplied by.
    """
    durations = [round(duration / duration_scale, 6) for duration in prompt.durations_s]
    return digest(prompt.content() | {"durations_s": durations})


KEYS = ("id", "scenes", "durations", "tags", "tag_meaning", "recalls", "version", "subtitles")
"""Keys of a line of a prompt set; runs ignore the last two."""
LISTS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("scenes", lambda one: isinstance(one, str) and says(one), "texts, none of them empty"),
    ("durations", lambda one: type(one) in (int, float), "seconds, one number a scene"),
    ("tags", lambda one: one is None or isinstance(one, str), "texts, one a scene, null for a scene without a tag"),
    ("recalls", lambda one: one is None or type(one) is int, "scene numbers from 0 on, null for a scene that recalls none"),
    ("subtitles", lambda one: isinstance(one, str), "texts"),
)
"""Keys that hold lists, the test of their entries, and its description."""


def says(text: str) -> bool:
    """Whether a text has a visible character."""
    return any(unicodedata.category(sign)[0] in "LNPS" for sign in text)


def parse_prompt(line: str, where: str) -> Prompt:
    """One JSON record. Raises ValueError that names `where` and the offending key."""
    record = read_json(line, where)
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a prompt is a JSON object, not {type(record).__name__}")
    for key in record:
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {shown(key)}; nearest is {nearest(key, KEYS)!r}")
    for key in KEYS[:3]:
        if key not in record:
            raise ValueError(f"{where}: key {key!r} is missing")
    if type(record["id"]) not in (str, int) or not str(record["id"]).strip():
        raise ValueError(f"{where}: id is a text or a whole number, not {shown(record['id'])}; nearest is 'prompt-000'")
    for key, fits, rule in LISTS:
        own = record.get(key, [])
        if not isinstance(own, list) or not all(map(fits, own)):
            wrong = next((one for one in own if not fits(one)), own) if isinstance(own, list) else own
            value = "null" if wrong is None else shown(wrong)
            raise ValueError(f"{where}: {key} is a list of {rule}, not {value}; nearest is {_nearest_list(key, own, record)}")
    scenes, meaning = tuple(record["scenes"]), record.get("tag_meaning")
    if meaning is not None and str(meaning) not in TagMeaning.__members__:
        raise ValueError(f"{where}: tag_meaning {shown(meaning)}; one of {list(TagMeaning.__members__)}")
    try:
        return Prompt(
            id=str(record["id"]),
            scenes=scenes,
            durations_s=tuple(math.inf if seconds > 1e300 else float(seconds) for seconds in record["durations"]),
            tags=tuple(record.get("tags", [""] * len(scenes))),
            tag_meaning=None if meaning is None else TagMeaning(meaning),
            recalls=tuple(record.get("recalls", [])),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _nearest_list(key: str, value: Any, record: Json) -> str:
    """A valid list for a key, as a suggestion."""
    count = len(record["scenes"]) if isinstance(record["scenes"], list) else 1
    if key == "durations":
        seconds = value[0] if isinstance(value, list) and value else value
        number = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*s?\s*", str(seconds))
        return shown([float(number[1]) if number else 10.0] * count)
    if key == "scenes":
        return '["A red fox sits on a hill"]'
    return f"to leave {key} out" if value is None else shown([""] * count if key != "recalls" else [None] * count)


def load_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """All prompts of a JSONL file. Raises ValueError for a bad line, a doubled id, an empty file or a text file of another format."""
    path = Path(path)
    version: tuple[int, ...] = ()
    with contextlib.suppress(OSError, ValueError):  # the reader reports what is wrong
        state = path.stat()
        version = state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
    return _loaded(path, version)


@lru_cache(maxsize=4)
def _loaded(path: Path, version: tuple[int, ...]) -> tuple[Prompt, ...]:
    """The prompts of one version of a file, read once for all jobs of a sweep."""
    made = path.with_suffix(".jsonl").name if path.suffix != ".jsonl" else "set.jsonl"
    if path.suffix in (".txt", ".csv", ".tsv"):
        form = "csv" if path.suffix != ".txt" else "released|lines"
        command = f"echo-harness data import {path} format={form} --output {path.with_suffix('.jsonl')}"
        raise ValueError(f"{path}: a prompt set is JSONL; nearest is what {command} makes")
    text = read_text(path)
    if text.lstrip().startswith("["):
        command = f"echo-harness data import {path} format=json --output {made}"
        raise ValueError(f"{path}: a JSON list; a prompt set has a JSON object a line; nearest is what {command} makes")
    # not splitlines: JSON strings may contain Unicode's other line ends
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    prompts = tuple(parse_prompt(line, f"{path}:{number}") for number, line in lines)
    if not prompts:
        raise ValueError(f"{path}: no prompts")
    first: dict[str, int] = {}
    for (number, _), prompt in zip(lines, prompts, strict=True):
        if first.setdefault(prompt.id, number) != number:
            raise ValueError(f"{path}: prompt id {shown(prompt.id)} stands twice, in lines {first[prompt.id]} and {number}")
    return prompts


def block_s(frames_per_block: int) -> float:
    """Seconds of video in a block of `frames_per_block` latent frames.

    >>> block_s(3), block_s(1)
    (0.75, 0.25)
    """
    return frames_per_block * PIXEL_FRAMES_PER_LATENT / FPS


def scene_blocks(durations_s: Sequence[float], rule: DurationRule, frames_per_block: int) -> tuple[int, ...]:
    """Blocks of each scene, at least one each.

    `floor_each` is the released rule: scenes are rounded down, the last takes the rest of the total.

    Raises ValueError for a scene of less than half a block.

    >>> scene_blocks([10, 10], DurationRule.cumulative, 3), scene_blocks([10, 10], DurationRule.cumulative, 1)
    ((13, 14), (40, 40))
    """
    seconds = block_s(frames_per_block)
    if (shortest := min(durations_s)) < seconds / 2:
        raise ValueError(f"a scene of {shortest:g} s is under half a block; nearest is {seconds:g} s")
    if rule is DurationRule.cumulative:
        borders, total = [0], 0.0
        for duration in durations_s:
            total += duration
            borders.append(max(borders[-1] + 1, math.floor(total / seconds + 0.5)))
        return tuple(end - start for start, end in zip(borders[:-1], borders[1:], strict=True))
    latents = int(sum(durations_s) * FPS) // PIXEL_FRAMES_PER_LATENT
    blocks = [max(1, int(duration / seconds)) for duration in durations_s[:-1]]
    return (*blocks, max(1, math.ceil(latents / frames_per_block) - sum(blocks)))


@dataclass(frozen=True)
class SceneStart:
    """Start of a scene: its block, the transition into it, the earlier scene that it recalls, the jump of the RoPE index."""

    block: int
    transition: Transition | None = None
    recalls: int | None = None
    jump: int = 0


def chain_head(starts: Sequence[SceneStart], scene: int) -> int:
    """The scene in which the smooth chain of `scene` began; `scene` itself if it was not entered smoothly."""
    while starts[scene].transition is Transition.smooth:
        scene -= 1
    return scene


@dataclass(frozen=True)
class Script:
    """All scene starts of a rollout and its length in blocks. Prompts with equal scripts can share a batch."""

    starts: tuple[SceneStart, ...]
    blocks: int

    def lengths(self) -> tuple[int, ...]:
        """Blocks of each scene."""
        borders = [start.block for start in self.starts] + [self.blocks]
        return tuple(end - begin for begin, end in zip(borders[:-1], borders[1:], strict=True))
