"""Prompts, their scenes, and the blocks at which scenes begin. No torch: all of it is known before a rollout starts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from echo.files import Json, digest
from echo.refusals import nearest

FPS = 16
FRAMES_PER_BLOCK = 3
PIXEL_FRAMES_PER_LATENT = 4
BLOCK_S = FRAMES_PER_BLOCK * PIXEL_FRAMES_PER_LATENT / FPS
"""Seconds of video in a block: 0.75."""


class Transition(StrEnum):
    """How a scene is entered."""

    smooth = "smooth"
    hard = "hard"
    recall = "recall"


TAGS = {"": Transition.smooth, "#": Transition.hard, "@": Transition.recall}
"""The tag letters of the released prompt files."""


class TagMeaning(StrEnum):
    """What the tag of scene i says: how scene i is entered, or how scene i + 1 is (the released code's reading)."""

    enter = "enter"
    to_next = "to_next"


class DurationRule(StrEnum):
    """`cumulative` rounds scene borders, so that no drift adds up; `floor_each` rounds every scene down (released code)."""

    cumulative = "cumulative"
    floor_each = "floor_each"


@dataclass(frozen=True)
class Prompt:
    """One line of a prompt set. `tag_meaning` None leaves the reading of the tags to the method's preset.

    tags: letters as in `TAGS`; None is no tag at all, and the texts say how the scene is entered (the paper's appendix B).
    recalls: for each scene the earlier one that it recalls, None where the router finds it by the texts; empty where no scene says.
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
                f"prompt {self.id!r}: {len(self.scenes)} scenes, {len(self.durations_s)} durations, {len(self.tags)} tags; "
                "must be equally many and at least one"
            )
        for duration in self.durations_s:
            if not duration >= BLOCK_S / 2:
                raise ValueError(f"prompt {self.id!r}: duration {duration} s is under half a block; nearest is {BLOCK_S} s")
        for tag in self.tags:
            if tag is not None and tag not in TAGS:
                raise ValueError(f"prompt {self.id!r}: unknown tag {tag!r}; one of {sorted(TAGS)}, or null for none")
        if len(self.recalls) not in (0, len(self.scenes)):
            raise ValueError(f"prompt {self.id!r}: {len(self.scenes)} scenes, {len(self.recalls)} recalls; must be equally many, or none")
        for scene, recalled in enumerate(self.recalls):
            if recalled is not None and not 0 <= recalled < scene:
                rule = f"scenes before it are 0..{scene - 1}; nearest is {scene - 1}" if scene else "nothing is before it; nearest is null"
                raise ValueError(f"prompt {self.id!r}: scene {scene} recalls scene {recalled}: {rule}")

    def content(self) -> Json:
        """All that it says as plain values, of which names by content are made; what came later is absent where it says nothing."""
        fields = dataclasses.asdict(self)
        if not self.recalls:
            del fields["recalls"]
        return fields

    def transitions(self, default_meaning: TagMeaning) -> tuple[Transition | None, ...]:
        """How each scene is entered; None for the first, and for those without a tag."""
        meaning = self.tag_meaning or default_meaning
        tags = self.tags[1:] if meaning is TagMeaning.enter else self.tags[:-1]
        return (None, *(None if tag is None else TAGS[tag] for tag in tags))


def prompt_digest(prompt: Prompt, duration_scale: float = 1.0) -> str:
    """Name by content of a prompt as it stands in its set.

    Args:
        prompt: the prompt, its durations already scaled.
        duration_scale: what they were multiplied by.
    """
    durations = [round(duration / duration_scale, 6) for duration in prompt.durations_s]
    return digest(prompt.content() | {"durations_s": durations})


def parse_prompt(line: str, where: str) -> Prompt:
    """One JSON record. Raises ValueError that names `where` and the offending key."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a prompt is a JSON object, not {type(record).__name__}")
    known = {"id", "scenes", "durations", "tags", "tag_meaning", "recalls", "version", "subtitles"}  # the last two say nothing to a run
    for key in record.keys() - known:
        raise ValueError(f"{where}: unknown key {key!r}; nearest is {nearest(key, known)!r}")
    for key in ("id", "scenes", "durations"):
        if key not in record:
            raise ValueError(f"{where}: key {key!r} is missing")
    if not isinstance(record["scenes"], list) or not all(isinstance(scene, str) and scene.strip() for scene in record["scenes"]):
        raise ValueError(f"{where}: scenes is a list of texts, none of them empty")
    scenes = tuple(record["scenes"])
    meaning = record.get("tag_meaning")
    if meaning is not None and meaning not in TagMeaning.__members__:
        raise ValueError(f"{where}: tag_meaning {meaning!r}; one of {list(TagMeaning.__members__)}")
    recalls = record.get("recalls", [])
    if not isinstance(recalls, list) or not all(one is None or type(one) is int for one in recalls):
        raise ValueError(f"{where}: recalls is a list of scene numbers from 0 on, null for a scene that recalls none, not {recalls!r}")
    return Prompt(
        id=str(record["id"]),
        scenes=scenes,
        durations_s=tuple(float(d) for d in record["durations"]),
        tags=tuple(record.get("tags", [""] * len(scenes))),
        tag_meaning=None if meaning is None else TagMeaning(meaning),
        recalls=tuple(recalls),
    )


def load_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """All prompts of a JSONL file. Raises ValueError for a bad line, a doubled id, an empty file or a text file of another format."""
    if Path(path).suffix == ".txt":
        made = Path(path).with_suffix(".jsonl")
        command = f"echo-harness data import {path} format=released|lines --output {made}"
        raise ValueError(f"{path}: a prompt set is JSONL; nearest is what {command} makes")
    lines = Path(path).read_text(encoding="utf-8").split("\n")  # a JSON text may hold the other line ends that Unicode knows
    prompts = tuple(parse_prompt(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip())
    if not prompts:
        raise ValueError(f"{path}: no prompts")
    ids = [prompt.id for prompt in prompts]
    for prompt_id in ids:
        if ids.count(prompt_id) > 1:
            raise ValueError(f"{path}: prompt id {prompt_id!r} stands twice")
    return prompts


def scene_blocks(durations_s: Sequence[float], rule: DurationRule = DurationRule.cumulative) -> tuple[int, ...]:
    """Blocks of each scene, at least one each.

    `floor_each` is the released arithmetic: scenes round down, the last takes what the total leaves over.
    """
    if rule is DurationRule.cumulative:
        borders, total = [0], 0.0
        for duration in durations_s:
            total += duration
            borders.append(max(borders[-1] + 1, math.floor(total / BLOCK_S + 0.5)))
        return tuple(end - start for start, end in zip(borders[:-1], borders[1:], strict=True))
    latents = int(sum(durations_s) * FPS) // PIXEL_FRAMES_PER_LATENT
    blocks = [max(1, int(duration / BLOCK_S)) for duration in durations_s[:-1]]
    return (*blocks, max(1, math.ceil(latents / FRAMES_PER_BLOCK) - sum(blocks)))


@dataclass(frozen=True)
class SceneStart:
    """A scene begins: at which block, how it is entered, which earlier scene it recalls, how far RoPE jumps."""

    block: int
    transition: Transition | None = None
    recalls: int | None = None
    jump: int = 0


def chain_head(starts: Sequence[SceneStart], scene: int) -> int:
    """The scene in which the smooth chain of `scene` began; itself where it was not entered smoothly."""
    while starts[scene].transition is Transition.smooth:
        scene -= 1
    return scene


@dataclass(frozen=True)
class Script:
    """All scene starts of a rollout and its length. Prompts with equal scripts can share a batch."""

    starts: tuple[SceneStart, ...]
    blocks: int

    def lengths(self) -> tuple[int, ...]:
        """Blocks of each scene."""
        borders = [start.block for start in self.starts] + [self.blocks]
        return tuple(end - begin for begin, end in zip(borders[:-1], borders[1:], strict=True))
